"""Pools that were stopped: who may open them, and what frees them."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmlog
from pmlog import marks
from pmlog.log import LogReader
from pmlog.replica import promote
from tests.support import SMALL, OpenPool, abandon, faults_of


@pytest.mark.parametrize(
    ("why", "epoch", "pool_epoch", "holds"),
    [
        ("power", 1, 1, True),
        ("power", 1, 2, False),
        ("power", 2, 1, True),
        ("fenced", 2, 1, True),
        ("fenced", 2, 2, False),
        ("fenced", 2, 3, False),
    ],
)
def test_holds(why: str, epoch: int, pool_epoch: int, holds: bool) -> None:
    """A freeze holds until the log's next epoch, a fence until the log reaches the fencing one."""
    assert marks.Stop(why, epoch).holds(pool_epoch) is holds


@pytest.mark.parametrize(
    ("why", "error"), [("power", pmlog.PoolFrozenError), ("fenced", pmlog.FencedError)]
)
def test_stopped(open_pool: OpenPool, why: str, error: type[pmlog.PmlogError]) -> None:
    """A stopped pool is refused by its mark, and under the same boot by its word alone."""
    pool = open_pool()
    pool.dict("d")["a"] = 1
    at = pool.position
    with LogReader(pool.path) as reader:
        stop = marks.Stop(why, 1 if why == "power" else 2)
        marks.set_stop(pool.path, stop)
        if why == "power":
            reader.freeze()
        else:
            reader.fence(2)
        with pytest.raises(error):
            pool.dict("d")["a"] = 2
        abandon(pool)
        with pytest.raises(error):
            open_pool()
        marks.set_stop(pool.path, None)
        with pytest.raises(error):
            open_pool()
        reader.unfreeze()
    again = open_pool()
    assert again.position == at
    assert dict(again.dict("d")) == {"a": 1}


def test_promotion_frees(pool_path: Path) -> None:
    """A copy that was frozen together with what it followed is free once it is promoted."""
    with pmlog.open(pool_path, **SMALL) as pool:
        pool.dict("d")["a"] = 1
        with LogReader(pool_path) as reader:
            marks.set_stop(pool_path, marks.Stop("power", 1))
            reader.freeze()
    with pytest.raises(pmlog.PoolFrozenError):
        pmlog.open(pool_path, **SMALL)
    promote(pool_path).close()
    with pmlog.open(pool_path, **SMALL) as pool:
        pool.dict("d")["b"] = 2
        assert pool.position.epoch == 2
    assert faults_of(pool_path) == []


def test_no_second_history_of_an_epoch(pool_path: Path) -> None:
    """A fenced pool is not promoted to the epoch that has taken over elsewhere."""
    with pmlog.open(pool_path, **SMALL) as pool:
        pool.dict("d")["a"] = 1
        with LogReader(pool_path) as reader:
            reader.fence(2)
    with pytest.raises(pmlog.FencedError):
        promote(pool_path)
    assert faults_of(pool_path) == []
