"""Shipping the log between real processes, and killing each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmlog
from pmlog.log import LogReader
from pmlog.position import Position
from pmlog.replica import Replica
from tests.e2e.services import Cluster, Service, shipped, status, until
from tests.support import SMALL, faults_of

RING_OFFSET = 65536


def end_of(path: Path) -> Position:
    """Return where a pool's log ends."""
    with LogReader(path) as reader:
        for _ in reader.records():
            pass
        return reader.position


def has_all(receiver: Service, path: Path) -> bool:
    """Whether a receiver has all of a pool's log."""
    return bool(status(receiver)["lsn_durable"] == end_of(path).lsn)


def last_of(path: Path) -> int:
    """Return the last number that a writer has committed, after a check of all it wrote."""
    with pmlog.open(path, readonly=True) as pool:
        last = int(pool.array("last")[0])
        expected = {number % 500: number for number in range(max(1, last - 499), last + 1)}
        assert dict(pool.dict("numbers")) == expected
    assert faults_of(path) == []
    return last


def test_levels(cluster: Cluster) -> None:
    """Waits for levels return when a receiver has the transaction, which can then be read there."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        with pytest.raises(pmlog.LevelUnavailableError):
            pool.wait(pmlog.Level.REPLICATED)
        words = pool.dict("words")
        shipper = cluster.shipper()
        words["first"] = 1
        with pytest.raises(pmlog.WaitTimeoutError) as caught:
            pool.wait(pmlog.Level.RECEIVED, timeout=0.05)
        assert caught.value.changed
        cluster.receiver("one", shipper.port)
        for level in (pmlog.Level.RECEIVED, pmlog.Level.REPLICATED, pmlog.Level.APPLIED):
            with pool.transaction(level=level, timeout=60):
                words["level"] = level.name
            with pmlog.open(cluster.replica("one"), readonly=True) as copy:
                assert copy.dict("words")["level"] == level.name


async def test_wait_async(cluster: Cluster) -> None:
    """Waiting in an event loop returns as well."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        shipper = cluster.shipper()
        cluster.receiver("one", shipper.port)
        pool.dict("words")["a"] = 1
        await pool.wait_async(pmlog.Level.REPLICATED, timeout=60)


def test_two_receivers_count(cluster: Cluster) -> None:
    """With --require 2 a level is reached when the second receiver has it."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        words = pool.dict("words")
        shipper = cluster.shipper("--require", "2")
        cluster.receiver("one", shipper.port)
        words["a"] = 1
        until(
            lambda: shipped(shipper)["receivers"].get("one", {}).get("durable") == pool.position.lsn
        )
        with pytest.raises(pmlog.WaitTimeoutError):
            pool.wait(pmlog.Level.REPLICATED, timeout=0.05)
        cluster.receiver("two", shipper.port)
        pool.wait(pmlog.Level.REPLICATED, timeout=60)


def test_logs_are_identical(cluster: Cluster) -> None:
    """The replica's log holds the same bytes at the same places."""
    _, receiver = cluster.pair()
    writer = cluster.writer("2000")
    assert writer.hear()["event"] == "open"
    done = writer.hear()
    assert done["last"] == 2000
    until(lambda: has_all(receiver, cluster.pool))
    end = end_of(cluster.pool)
    ours, theirs = (
        (path / "log").read_bytes()[RING_OFFSET:] for path in (cluster.pool, cluster.replica("one"))
    )
    size = len(ours)
    assert all(
        ours[lsn % size] == theirs[lsn % size] for lsn in range(max(4096, end.lsn - size), end.lsn)
    )
    assert end_of(cluster.replica("one")) == end
    assert receiver.end() == 0
    assert last_of(cluster.replica("one")) == 2000


def test_writer_killed(cluster: Cluster) -> None:
    """With no writer alive the shipper drains what was committed."""
    shipper, receiver = cluster.pair()
    writer = cluster.busy_writer(receiver)
    writer.kill()
    until(lambda: has_all(receiver, cluster.pool))
    assert last_of(cluster.replica("one")) == last_of(cluster.pool) > 0
    # And a writer that comes back goes on.
    again = cluster.writer(str(last_of(cluster.pool) + 100))
    assert again.hear()["event"] == "open"
    done = again.hear()
    until(lambda: has_all(receiver, cluster.pool))
    assert last_of(cluster.replica("one")) == done["last"]


def test_shipper_killed(cluster: Cluster) -> None:
    """A restarted shipper sends first exactly the first byte that the receiver lacks."""
    shipper, receiver = cluster.pair("--required", "one")
    writer = cluster.busy_writer(receiver)
    shipper.kill()
    until(lambda: status(receiver)["state"] == "connecting")
    durable = status(receiver)["lsn_durable"]
    again = cluster.shipper("--required", "one", port=shipper.port)
    until(lambda: status(receiver)["lsn_first"])
    assert status(receiver)["lsn_first"] == durable
    assert shipped(again)["receivers"]["one"]["lsn_first"] == durable
    writer.kill()
    until(lambda: has_all(receiver, cluster.pool))
    assert last_of(cluster.replica("one")) == last_of(cluster.pool)


def test_receiver_killed(cluster: Cluster) -> None:
    """A restarted receiver is sent first exactly the first byte that its replica lacks."""
    shipper, receiver = cluster.pair("--required", "one")
    writer = cluster.busy_writer(receiver)
    receiver.kill()
    with Replica(cluster.replica("one")) as replica:
        durable = replica.position.lsn
    again = cluster.receiver("one", shipper.port)
    until(lambda: status(again)["lsn_first"])
    assert status(again)["lsn_first"] == durable
    writer.kill()
    until(lambda: has_all(again, cluster.pool))
    assert last_of(cluster.replica("one")) == last_of(cluster.pool)


def test_ends_cleanly(cluster: Cluster) -> None:
    """SIGTERM ends shipper and receiver with exit code 0 and nothing said on standard error."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        pool.dict("words")["a"] = 1
        shipper = cluster.shipper()
        receiver = cluster.receiver("one", shipper.port)
        until(lambda: status(receiver)["txn_durable"])
        assert shipper.end() == 0
        assert receiver.end() == 0
    for name in ("shipper", "one"):
        text = (cluster.folder / f"{name}.log").read_text()
        assert "Traceback" not in text
        assert "never awaited" not in text
        assert "pending" not in text
