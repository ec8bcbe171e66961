"""What a pool says about itself."""

# ruff: noqa: PT012 - whole blocks that raise are what is tested

from __future__ import annotations

import dataclasses
import os
import time
import uuid
from pathlib import Path

import pytest

import pmlog
from pmlog import limits
from pmlog._engine import lib
from pmlog.log import Bound, LogReader
from tests.support import DOMAINS, MEDIA, OpenPool, abandon


def test_is_frozen(pool: pmlog.Pool) -> None:
    """The status is a value of its moment: frozen, and comparable with the next."""
    status = pool.status()
    assert dataclasses.is_dataclass(status)
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.txn = 5  # type: ignore[misc]
    pool.dict("d")["x"] = 1
    assert pool.status().txn > status.txn


def test_who_and_where(pool: pmlog.Pool, pool_path: Path) -> None:
    """It names the pool, its path, its format and when it was made."""
    status = pool.status()
    assert status.path == str(pool_path)
    assert isinstance(status.pool_id, uuid.UUID)
    assert status.pool_id.int != 0
    assert status.version == 1
    assert status.medium == "file"
    assert status.readonly is False
    assert status.poisoned is None
    assert status.frozen is False
    assert abs(status.created.timestamp() - time.time()) < 3600
    assert status.created.tzinfo is not None


def test_pool_ids_differ(open_pool: OpenPool, memory_dir: Path) -> None:
    """Each pool has a number of its own."""
    ids = {open_pool(memory_dir / str(n)).status().pool_id for n in range(4)}
    assert len(ids) == 4


@pytest.mark.parametrize("domain", DOMAINS)
def test_positions_move_together(open_pool: OpenPool, domain: str) -> None:
    """LSNs rise with each commit and keep their order: checkpoint, durable, committed."""
    pool = open_pool()
    d = pool.dict("d")
    before = pool.status()
    for n in range(50):
        d[n] = n
        status = pool.status()
        assert status.txn == before.txn + 1
        assert status.commits == before.commits + 1
        assert status.lsn_committed > before.lsn_committed
        assert status.lsn_checkpoint <= status.lsn_durable <= status.lsn_committed
        assert status.lsn_durable == status.lsn_committed
        assert pool.position.lsn == status.lsn_committed
        assert pool.position.txn == status.txn
        assert status.lsn_committed % 64 == 0
        before = status


@pytest.mark.parametrize(
    ("domain", "survives"), [("emulated", False), ("eadr", True), ("adr", True), ("page", True)]
)
def test_survives_power_loss(open_pool: OpenPool, domain: str, survives: bool) -> None:
    """It says plainly whether commits survive a power loss of this host alone."""
    assert open_pool().status().survives_power_loss is survives


def test_drains(open_pool: OpenPool) -> None:
    """A commit costs one drain of the log; an abort and a read cost none."""
    pool = open_pool(domain="adr")
    d = pool.dict("d")
    d["x"] = 1
    before = pool.status()
    d["x"] = 2
    with pytest.raises(ZeroDivisionError), pool.transaction():
        d["x"] = 3
        raise ZeroDivisionError
    assert d["x"] == 2
    after = pool.status()
    assert after.drains == before.drains + 1
    assert after.flushes > before.flushes


def test_sessions_and_recovery(open_pool: OpenPool) -> None:
    """The session's number rises with each open; recovery says how much it replayed."""
    pool = open_pool()
    d = pool.dict("d")
    pool.checkpoint()
    first = pool.status()
    for n in range(10):
        d[n] = n
    abandon(pool)
    pool = open_pool()
    second = pool.status()
    assert second.session == first.session + 1
    assert second.recovered_records == 10
    assert second.pool_id == first.pool_id
    assert second.epoch == first.epoch
    pool.close()
    with open_pool() as pool:
        assert pool.status().session == first.session + 2
        assert pool.status().recovered_records == 0


def test_heap_figures(open_pool: OpenPool) -> None:
    """Use of the heap rises with what is stored and falls when it is deleted."""
    pool = open_pool(log_size="4MiB")
    d = pool.dict("d")
    empty = pool.status()
    d["big"] = b"x" * 300_000
    full = pool.status()
    assert full.heap_used_bytes >= empty.heap_used_bytes + 300_000
    assert full.heap_used_blocks > empty.heap_used_blocks
    del d["big"]
    back = pool.status()
    assert back.heap_used_bytes <= empty.heap_used_bytes + 4_096


def test_growth_shows(open_pool: OpenPool) -> None:
    """The image's size grows by itself, never beyond max_size, which is shown."""
    pool = open_pool(size="1MiB", max_size="32MiB", log_size="4MiB")
    assert pool.status().image_bytes == 1 << 20
    assert pool.status().max_bytes == 32 << 20
    for n in range(5):
        pool.dict("d")[n] = b"x" * 1_000_000
    assert 5_000_000 < pool.status().image_bytes <= 32 << 20


def test_inside_a_transaction(pool: pmlog.Pool) -> None:
    """Status may be asked inside a transaction and shows what is committed."""
    d = pool.dict("d")
    before = pool.status()
    with pool.transaction():
        d["x"] = 1
        assert pool.status().txn == before.txn
        assert pool.status().lsn_committed == before.lsn_committed
        assert pool.position.txn == before.txn
    assert pool.status().txn == before.txn + 1


@pytest.mark.parametrize("medium", MEDIA)
def test_of_a_reader(open_pool: OpenPool, medium: str) -> None:
    """A read-only handle's status follows the writer's."""
    pool = open_pool()
    pool.dict("d")["x"] = 1
    with open_pool(readonly=True) as reader:
        mine, theirs = pool.status(), reader.status()
        assert theirs.readonly is True
        assert theirs.medium == mine.medium == medium
        assert theirs.pool_id == mine.pool_id
        assert theirs.txn == mine.txn
        assert theirs.lsn_committed == mine.lsn_committed
        assert theirs.session == mine.session
        assert reader.position == pool.position
        pool.dict("d")["x"] = 2
        assert reader.status().txn == mine.txn + 1


def test_repr(pool: pmlog.Pool) -> None:
    """`repr` of a pool says where it is and whether it is open."""
    assert pool.path in repr(pool)
    assert "open" in repr(pool)
    pool.close()
    assert "closed" in repr(pool)
    assert pool.closed


def test_path(open_pool: OpenPool, memory_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is a str, as it was given."""
    monkeypatch.chdir(memory_dir)
    with open_pool("relative") as pool:
        assert pool.path == "relative"
    assert os.fspath(pool.path) == "relative"


def test_bound(pool: pmlog.Pool) -> None:
    """It shows the bound that a shipper sets, and whether writers wait; none without a shipper."""
    status = pool.status()
    assert (status.delay_ns, status.backlog_bytes, status.backlog_limit_bytes) == (0, None, None)
    assert not status.is_blocked
    end = pool.position.lsn
    with LogReader(pool.path) as reader:
        reader.publish(0, 0, 0, Bound(delay_ns=7, lsn_limit=end + 64, limit_bytes=4096))
        status = pool.status()
        assert (status.delay_ns, status.backlog_limit_bytes) == (7, 4096)
        assert status.backlog_bytes == 4096 - 64
        assert not status.is_blocked
        reader.publish(0, 0, 0, Bound(lsn_limit=end, limit_bytes=4096))
        status = pool.status()
        assert status.is_blocked
        assert status.backlog_bytes == status.backlog_limit_bytes == 4096
        reader.publish(0, 0, 0)
        assert not pool.status().is_blocked
        assert pool.status().backlog_limit_bytes is None


def test_silence_is_the_engines() -> None:
    """Both sides take a shipper for gone after the same time."""
    assert lib.PML_SHIPPER_SILENCE_MS == limits.SHIPPER_SILENCE_S * 1000
