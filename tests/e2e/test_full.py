"""File systems that fill up under a running receiver."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import pmlog
from tests.e2e.services import Cluster, status, until
from tests.support import SMALL, faults_of


def mount(where: Path, options: str) -> None:
    """Mount a tmpfs, or mount it again with another size."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def small(cluster: Cluster) -> Iterator[Path]:
    """Give the directory of receiver "one", on a file system that soon is full."""
    if os.geteuid():
        pytest.skip("only root can mount a small file system")
    where = cluster.folder / "one"
    where.mkdir()
    mount(where, "size=4m")
    yield where
    cluster.close()
    subprocess.run(["umount", "--lazy", str(where)], check=True)


def test_replica_has_no_room(cluster: Cluster, small: Path) -> None:
    """A receiver without room says so, acknowledges nothing it has not stored, and goes on later."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        words = pool.dict("words")
        words["a"] = 1
        shipper = cluster.shipper()
        receiver = cluster.receiver("one", shipper.port)
        until(lambda: status(receiver).get("lsn_durable") == pool.position.lsn)
        before = pool.position.lsn
        for number in range(300):  # six megabytes, into four
            words[number] = bytes([number % 251]) * 20_000
        said = until(lambda: status(receiver) if status(receiver)["last_error"] else None)
        assert said is not None
        assert said["lsn_durable"] < pool.position.lsn
        with pytest.raises(pmlog.WaitTimeoutError):
            pool.wait(pmlog.Level.REPLICATED, timeout=0.2)
        assert said["lsn_durable"] >= before or said["incomplete"]
        mount(small, "remount,size=64m")
        until(lambda: status(receiver)["lsn_durable"] == pool.position.lsn)
        until(lambda: not status(receiver)["incomplete"])
        assert receiver.end() == 0
        assert shipper.end() == 0
        with pmlog.open(cluster.replica("one"), readonly=True) as copy:
            assert dict(copy.dict("words").items()) == dict(words.items())
        assert faults_of(cluster.replica("one")) == []
