"""Shipping the log between real processes, and killing each of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pmlog
from pmlog.log import LogReader
from pmlog.position import Position
from pmlog.replica import Replica
from shipper.config import BEAT_S
from tests.e2e.services import ROOT, Cluster, Service, shipped, status, until
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
    first = status(receiver)["lsn_first"]  # what was below came as blocks
    assert first < end.lsn - 100_000
    assert all(
        ours[lsn % size] == theirs[lsn % size] for lsn in range(max(first, end.lsn - size), end.lsn)
    )
    assert end_of(cluster.replica("one")) == end
    assert receiver.end() == 0
    assert last_of(cluster.replica("one")) == 2000


def test_writer_killed(cluster: Cluster) -> None:
    """With no writer alive the shipper drains what was committed."""
    _shipper, receiver = cluster.pair()
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


def lap(path: Path, numbers: int = 20_000) -> int:
    """Write so much that the log no longer holds its beginning; return the last number."""
    with pmlog.open(path, size="1MiB", log_size="1MiB") as pool:
        last = pool.array("last", shape=(1,), dtype="i8")
        words = pool.dict("numbers")
        start = int(last[0])
        for number in range(start + 1, start + numbers + 1):
            with pool.transaction():
                words[number % 500] = number
                last[0] = number
        return int(last[0])


def test_baseline(cluster: Cluster) -> None:
    """Where the log no longer holds what a receiver lacks it gets blocks, then the log."""
    last = lap(cluster.pool)
    with pmlog.open(cluster.pool) as pool:
        blob = pool.region("blob", "8MiB")
        blob.write(0, bytes(range(256)) * 1024)
    shipper = cluster.shipper()
    receiver = cluster.receiver("one", shipper.port)
    until(lambda: has_all(receiver, cluster.pool) and not status(receiver)["incomplete"])
    assert 0 < status(receiver)["blocks"] < 60  # untouched blocks are not sent
    assert last_of(cluster.replica("one")) == last
    assert end_of(cluster.replica("one")) == end_of(cluster.pool)

    # A receiver that was away for too long gets only what has changed since.
    assert receiver.end() == 0
    assert shipper.end() == 0
    with LogReader(cluster.pool) as reader:
        reader.claim("one").release()
    last = lap(cluster.pool)
    shipper = cluster.shipper()
    receiver = cluster.receiver("one", shipper.port)
    until(lambda: has_all(receiver, cluster.pool) and not status(receiver)["incomplete"])
    assert 0 < status(receiver)["blocks"] < 10
    assert last_of(cluster.replica("one")) == last


def test_baseline_under_load(cluster: Cluster) -> None:
    """A first copy that is taken while the writer goes on is consistent once it is whole."""
    lap(cluster.pool)
    writer = cluster.writer()
    writer.hear()
    shipper = cluster.shipper()
    receiver = cluster.receiver("one", shipper.port)
    until(lambda: status(receiver)["blocks"] and not status(receiver)["incomplete"])
    writer.kill()
    until(lambda: has_all(receiver, cluster.pool))
    assert last_of(cluster.replica("one")) == last_of(cluster.pool)


def test_broken_baseline(cluster: Cluster) -> None:
    """A receiver that was killed in a baseline is not promotable, and finishes it later."""
    with pmlog.open(cluster.pool, size="1MiB", log_size="1MiB") as pool:
        blob = pool.region("blob", "96MiB")
        chunk = bytes(range(256)) * 1024
        for offset in range(0, 96 << 20, len(chunk)):
            blob.write(offset, chunk)
    last = lap(cluster.pool, 100)
    shipper = cluster.shipper()
    receiver = cluster.receiver("one", shipper.port)
    until(lambda: status(receiver)["blocks"] > 16)
    code, answer = receiver.ask("/v1/promote", "POST", {"accept_loss": True})
    assert (code, answer["promoted"]) == (409, False)
    assert "incomplete" in answer["reason"]
    stored = status(receiver)["blocks"]
    receiver.kill()
    again = cluster.receiver("one", shipper.port)
    assert again.ask("/v1/promote", "POST", {"accept_loss": True})[0] == 409
    until(lambda: has_all(again, cluster.pool) and not status(again)["incomplete"])
    total = -(-cluster.image_bytes() // 65536)
    assert stored > 0
    assert 0 < status(again)["blocks"] <= total - stored
    assert last_of(cluster.replica("one")) == last


def test_replica_of_a_replica(cluster: Cluster) -> None:
    """A shipper serves a replica like any pool; what is sealed there is what arrived."""
    _, receiver = cluster.pair()
    second = cluster.shipper(path=cluster.replica("one"))
    far = cluster.receiver("two", second.port)
    until(lambda: status(far)["state"] == "receiving")
    writer = cluster.busy_writer(receiver)
    until(lambda: status(far)["txn_durable"])
    writer.kill()
    until(lambda: has_all(receiver, cluster.pool) and has_all(far, cluster.pool))
    assert last_of(cluster.replica("two")) == last_of(cluster.pool)


def test_seal_stays_at_the_first_hop(cluster: Cluster) -> None:
    """Whoever has the log from a replica is never complete: its end is not the root's.

    1. Power is said to fail at the middle of a chain, and everything that it has is at the leaf.
    2. The middle froze its log's end, and sealed the leaf.
    3. The root committed more; the leaf was promoted as complete.
    """
    root, middle = cluster.pair()
    second = cluster.shipper(path=cluster.replica("one"))
    leaf = cluster.receiver("two", second.port)
    with pmlog.open(cluster.pool, **SMALL) as pool:
        pool.dict("words")["a"] = 1
        until(lambda: has_all(leaf, cluster.pool))
        code, answer = second.ask("/v1/power-loss", "POST", {"timeout_s": 1.0})
        assert (code, answer["saved"], answer["sealed"]) == (409, False, False)
        assert "only its primary" in answer["pools"][0]["reason"]
        assert not status(leaf)["sealed"]
        pool.dict("words")["b"] = 2
        until(lambda: has_all(leaf, cluster.pool))
        # The root's own seal goes as far as its receivers.
        assert root.ask("/v1/power-loss", "POST")[1]["sealed"]
        assert status(middle)["sealed"]
        assert not second.ask("/v1/power-loss", "POST", {"timeout_s": 0.1})[1]["saved"]
        code, answer = leaf.ask("/v1/promote", "POST")
        assert (code, answer["promoted"]) == (409, False)
        assert root.ask("/v1/power-loss", "DELETE")[1]["restored"]
        pool.dict("words")["c"] = 3
        until(lambda: has_all(leaf, cluster.pool))


def test_writer_comes_after_a_restart_of_the_host(cluster: Cluster) -> None:
    """A shipper that was there before any writer of this boot serves it when it comes."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        pool.dict("words")["a"] = 1
    (cluster.pool / "control").unlink()  # as on a host that was restarted from a backup
    shipper = cluster.shipper()
    receiver = cluster.receiver("one", shipper.port)
    until(lambda: has_all(receiver, cluster.pool))
    with pmlog.open(cluster.pool, **SMALL) as pool:
        until(lambda: shipped(shipper)["writer_pid"])
        until(lambda: shipped(shipper)["receivers"]["one"]["connected"])
        with pool.transaction(level=pmlog.Level.REPLICATED, timeout=60):
            pool.dict("words")["b"] = 2


def command(*arguments: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "pmlog.cli", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_commands(cluster: Cluster) -> None:
    """The commands say what the services answer, in words, JSON and exit codes."""
    shipper, receiver = cluster.pair()
    code, text = command("status", shipper.url)
    assert (code, "epoch: 1" in text) == (0, True)
    code, text = command("status", receiver.url, "--json")
    assert (code, json.loads(text)["name"]) == (0, "one")
    code, text = command("promote", receiver.url)
    assert (code, "not sealed" in text) == (1, True)
    code, text = command("power-loss", shipper.url)
    assert (code, ": sealed" in text) == (0, True)
    code, text = command("power-loss", shipper.url, "--restored")
    assert (code, ": restored" in text) == (0, True)
    code, text = command("power-loss", shipper.url, "--json")
    assert (code, json.loads(text)["sealed"]) == (0, True)
    code, text = command("promote", receiver.url)
    assert (code, "promoted" in text) == (0, True)
    code, text = command("status", "http://127.0.0.1:9")
    assert (code, "is it running" in text) == (1, True)
    for refused in (
        ("ship", str(cluster.pool), "--listen", "0.0.0.0:0"),
        ("receive", "--from", "http://192.0.2.1:7070", "--dir", str(cluster.folder / "x")),
    ):
        code, text = command(*refused)
        assert (code, "loopback" in text) == (2, True)


@pytest.mark.parametrize("which", ["shipper", "receiver"])
def test_pages(cluster: Cluster, which: str) -> None:
    """Health, figures and page are there and hold the names they should."""
    service = cluster.pair()[which == "receiver"]
    assert service.ask("/healthz") == (200, {"ok": True})
    assert b"lsn_durable" in service.read("/metrics")
    assert b"<!doctype html>" in service.read("/")


def test_not_able(cluster: Cluster) -> None:
    """Health says 503 when the files of the pool that is shipped are gone."""
    shipper, receiver = cluster.pair()
    shutil.rmtree(cluster.pool)
    until(lambda: shipper.ask("/healthz") == (503, {"ok": False}))
    assert "removed" in shipped(shipper)["failure"]
    assert b'pmlog_up{pool="' in shipper.read("/metrics")
    assert b"cannot be read" in shipper.read("/")
    assert receiver.ask("/healthz") == (200, {"ok": True})
    said = [json.loads(line) for line in (cluster.folder / "shipper.log").read_text().splitlines()]
    assert {"receiver connected", "pool failed"} <= {line["event"] for line in said}


def test_receiver_not_able(cluster: Cluster) -> None:
    """A receiver that cannot store a mark says 503 and nobody counts it as sealed, until it can."""
    shipper, receiver = cluster.pair()
    blocked = cluster.folder / "one" / "seal"
    blocked.mkdir()  # where a file has to be
    code, answer = shipper.ask("/v1/power-loss", "POST", {"timeout_s": 1})
    assert (code, answer["sealed"]) == (409, False)
    until(lambda: receiver.ask("/healthz") == (503, {"ok": False}))
    assert b"pmlog_replica_up 0.0" in receiver.read("/metrics")
    blocked.rmdir()
    until(lambda: status(receiver)["sealed"])
    until(lambda: receiver.ask("/healthz") == (200, {"ok": True}))


def _wakings(pid: int) -> int:
    """Return how often all threads of a process together have gone to sleep."""
    return sum(
        int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def test_idle_services_sleep(cluster: Cluster) -> None:
    """Once a busy writer is gone, shipper and receiver wake for signs of life only."""
    services = cluster.pair()
    writer = cluster.busy_writer(services[1])
    writer.kill()
    end = shipped(services[0])["lsn_durable"]
    until(lambda: status(services[1])["lsn_durable"] >= end)
    before = [_wakings(service.process.pid) for service in services]
    time.sleep(3 * BEAT_S)  # the window that is looked at
    woken = [
        _wakings(service.process.pid) - known
        for service, known in zip(services, before, strict=True)
    ]
    # Some ten wakings a beat; one that polls each millisecond has thousands.
    assert max(woken) < 300, woken
    assert min(woken) > 0, "no beat in three"
