"""Reading the log beside its writer: records, waiting, and the consumer slots that pin the ring."""

# ruff: noqa: PT012 - whole blocks that raise are what is tested

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pmlog
from pmlog.log import LogReader
from tests import children
from tests.support import DOMAINS, PATIENCE_S, SMALL, Child, OpenPool, abandon

Spawn = Callable[..., Child]


def apply(image: bytearray, record: Any) -> None:
    """Apply a record to a copy of the image, as a replica would."""
    for change in record.ranges:
        if change.kind == "grow":
            image.extend(bytes(max(0, change.offset - len(image))))
        elif change.kind == "zero":
            image[change.offset : change.offset + change.length] = bytes(change.length)
        else:
            data = record.data(change)
            assert len(data) == change.length
            image[change.offset : change.offset + change.length] = data


# ---- records ---------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_commit_is_a_record(open_pool: OpenPool, domain: str) -> None:
    """The reader sees each committed transaction once, in order, chained to the one before."""
    pool = open_pool()
    d = pool.dict("d")
    with LogReader(pool.path, lsn=pool.position.lsn) as reader:
        begin = reader.position
        assert begin == pool.position
        assert list(reader.records()) == []
        positions = []
        for n in range(20):
            with pool.transaction():
                d[n] = "x" * n
                d["last"] = n
            pool.wait(pmlog.Level.COMMITTED)
            positions.append(pool.position)
        records = list(reader.records())
        assert [record.position for record in records] == positions
        assert [record.txn for record in records] == [p.txn for p in positions]
        assert [record.lsn for record in records] == [begin.lsn, *(p.lsn for p in positions[:-1])]
        checksums = [begin.chain, *(record.checksum for record in records)]
        assert [record.checksum_prev for record in records] == checksums[:-1]
        assert {record.kind for record in records} == {"transaction"}
        assert {record.session for record in records} == {pool.status().session}
        assert all(len(record.raw) == record.length for record in records)
        assert reader.position == pool.position
        assert reader.next() is None


def test_uncommitted_is_not_seen(pool: pmlog.Pool) -> None:
    """The reader sees nothing of an open transaction, nor of an aborted one."""
    d = pool.dict("d")
    with LogReader(pool.path, lsn=pool.position.lsn) as reader:
        with pytest.raises(ZeroDivisionError), pool.transaction():
            d["x"] = 1
            assert reader.next() is None
            raise ZeroDivisionError
        assert reader.next() is None
        d["y"] = 2
        assert reader.next() is not None
        assert reader.next() is None


def test_ranges_are_the_change(open_pool: OpenPool, pool_path: Path) -> None:
    """The records' ranges, applied to the image at the checkpoint, give the image at the end."""
    pool = open_pool(size="1MiB", log_size="4MiB")
    pool.dict("d")["x"] = 1
    pool.checkpoint()
    image = bytearray((pool_path / "image").read_bytes())
    with LogReader(pool.path, lsn=pool.status().lsn_checkpoint) as reader:
        d, q = pool.dict("d"), pool.deque("q")
        a = pool.array("a", shape=(200, 200), dtype="u1")
        for n in range(60):
            with pool.transaction():
                d[n] = b"x" * (n * 50)
                q.extend([n, "y" * n])
                a[n, ::3] = n
            if n % 3 == 0:
                del d[n]
        pool.region("r", 3 << 20).write(12_345, b"hello")
        records = list(reader.records())
        assert {change.kind for record in records for change in record.ranges} >= {"data", "grow"}
        for record in records:
            apply(image, record)
    pool.close()
    body = 16_384  # what is in front of it, header and marks, does not go through the log
    final = (pool_path / "image").read_bytes()
    assert bytes(image[body : len(final)]) == final[body:]


def test_raw_runs(open_pool: OpenPool) -> None:
    """`read` gives whole records of about the wanted size, which together are the log."""
    pool = open_pool(log_size="1MiB")
    r = pool.region("r", 4_096)
    begin = pool.position.lsn
    for n in range(100):
        r.write(0, bytes([n]) * (n * 40 % 4_096))
    with LogReader(pool.path, lsn=begin) as reader:
        records = list(reader.records())
    with LogReader(pool.path, lsn=begin) as reader:
        runs = []
        while (run := reader.read(10_000)) is not None:
            runs.append(run)
            assert reader.position == run.end
        assert b"".join(run.data for run in runs) == b"".join(record.raw for record in records)
        assert sum(run.records for run in runs) == len(records) == 99
        assert all(len(run.data) <= 10_000 for run in runs)
        assert [run.lsn for run in runs[1:]] == [run.end.lsn for run in runs[:-1]]
        assert runs[-1].end == pool.position
        reader.seek(begin)
        run = reader.read(1)
        assert run is not None
        assert run.records == 1
        assert run.data == records[0].raw


def test_starts_at_the_checkpoint(pool: pmlog.Pool) -> None:
    """Without an LSN the reader begins at the checkpoint."""
    pool.dict("d")["x"] = 1
    pool.checkpoint()
    lsn = pool.status().lsn_checkpoint
    with LogReader(pool.path) as reader:
        assert reader.position.lsn == lsn
        assert reader.next() is None


def test_overtaken(open_pool: OpenPool) -> None:
    """What the writer has overwritten raises GapError, by seek and by reading on."""
    pool = open_pool()
    r = pool.region("r", 60_000)
    begin = pool.position.lsn
    with LogReader(pool.path, lsn=begin) as reader:
        for n in range(40):
            r.write(0, bytes([n]) * 60_000)
        with pytest.raises(pmlog.GapError):
            reader.next()
        with pytest.raises(pmlog.GapError):
            reader.seek(begin)
        reader.seek(pool.position.lsn)
        r.write(0, b"on")
        assert reader.next() is not None
    with pytest.raises(pmlog.GapError):
        LogReader(pool.path, lsn=begin)


@pytest.mark.parametrize("offset", [-1, 1, 64, 1 << 40])
def test_bad_lsn(pool: pmlog.Pool, offset: int) -> None:
    """An LSN where no record begins, or that is not written yet, raises GapError or UsageError."""
    pool.region("r", 5_000).write(0, b"x" * 5_000)
    with pytest.raises((pmlog.GapError, pmlog.UsageError, pmlog.CorruptionError)):
        LogReader(pool.path, lsn=pool.position.lsn + offset)


def test_closed_pool(open_pool: OpenPool) -> None:
    """The log of a closed pool can be read to its end."""
    with open_pool(log_size="1MiB") as pool:
        begin = pool.position.lsn
        for n in range(10):
            pool.dict("d")[n] = n
        end = pool.position
    with LogReader(pool.path, lsn=begin) as reader:
        assert len(list(reader.records())) == 11
        assert reader.position == end


def test_killed_writers_log(open_pool: OpenPool) -> None:
    """The log of a pool whose writer died can be read to its last committed record."""
    pool = open_pool(log_size="1MiB")
    begin = pool.position.lsn
    for n in range(10):
        pool.dict("d")[n] = n
    end = pool.position
    abandon(pool)
    with LogReader(pool.path, lsn=begin) as reader:
        assert len(list(reader.records())) == 11
        assert reader.position == end


def test_goes_on_through_the_writers_restart(
    open_pool: OpenPool, pool_path: Path, spawn: Spawn
) -> None:
    """A reader goes on with the records of the next session after the writer's kill -9."""
    pool = open_pool(log_size="1MiB")
    pool.close()
    options = {**SMALL, "log_size": "1MiB"}
    reader = LogReader(pool_path, lsn=pool_end(pool_path))
    seen = []
    for _ in range(3):
        child = spawn(children.commit_on_order, str(pool_path), options)
        assert child.hear() == "open"
        for n in range(5):
            child.say(f"value {n}")
            position = child.hear()
        assert reader.wait(PATIENCE_S)
        records = list(reader.records())
        assert records[-1].position == position
        seen += records
        child.kill()
    assert [record.txn for record in seen] == list(range(seen[0].txn, seen[0].txn + len(seen)))
    assert len({record.session for record in seen}) == 3
    reader.close()
    open_pool().close()


def pool_end(path: Path) -> int:
    """Return where the log of a closed pool ends."""
    with pmlog.open(path, readonly=True) as pool:
        return pool.position.lsn


def test_missing_pool(memory_dir: Path) -> None:
    """A path without a pool is refused as by open."""
    with pytest.raises(pmlog.PoolNotFoundError):
        LogReader(memory_dir / "none")


def test_closed_reader(pool: pmlog.Pool) -> None:
    """A closed reader says so, and closing again is fine."""
    reader = LogReader(pool.path)
    reader.close()
    reader.close()
    uses: list[Callable[[], Any]] = [
        reader.next, reader.read, lambda: reader.wait(0.1), lambda: reader.position,
        lambda: reader.seek(None), reader.status, lambda: reader.claim("x"),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(pmlog.ClosedError):
            use()


# ---- waiting ---------------------------------------------------------------------------------


def wait_for_records(connection: Any, path: str, lsn: int, count: int) -> None:
    """Wait for records and tell of each; what a child runs."""
    with LogReader(path, lsn=lsn) as reader:
        connection.send("waiting")
        for _ in range(count):
            if not reader.wait(PATIENCE_S):
                connection.send("timeout")
                return
            record = reader.next()
            connection.send(None if record is None else record.txn)


@pytest.mark.parametrize("domain", DOMAINS)
def test_wait_wakes_in_another_process(
    open_pool: OpenPool, spawn: Spawn, pool_path: Path, domain: str
) -> None:
    """A reader that sleeps in another process wakes with each commit and finds its record."""
    pool = open_pool()
    d = pool.dict("d")
    count = 30
    child = spawn(children.run_named, "tests.unit.test_log_reader", "wait_for_records",
                  str(pool_path), pool.position.lsn, count)  # fmt: skip
    assert child.hear() == "waiting"
    for n in range(count):
        d["n"] = n
        assert child.hear() == pool.position.txn
    assert child.join() == 0


def test_wait_wakes_a_thread(pool: pmlog.Pool) -> None:
    """A reader that sleeps in another thread of the writer's process wakes with the commit."""
    d = pool.dict("d")
    reader = LogReader(pool.path, lsn=pool.position.lsn)
    woken: list[Any] = []

    def sleep() -> None:
        woken.append(reader.wait(PATIENCE_S))

    thread = threading.Thread(target=sleep, daemon=True)
    thread.start()
    d["x"] = 1
    thread.join(PATIENCE_S)
    assert woken == [True]
    assert reader.next() is not None
    reader.close()


def test_wait_times_out(pool: pmlog.Pool) -> None:
    """A wait without a commit ends at its timeout, and one with a record there returns at once."""
    with LogReader(pool.path, lsn=pool.position.lsn) as reader:
        assert reader.wait(0) is False
        assert reader.wait(0.02) is False
        pool.dict("d")["x"] = 1
        assert reader.wait(0) is True
        assert reader.wait() is True


# ---- slots -----------------------------------------------------------------------------------


def test_slot_pins_the_ring(open_pool: OpenPool) -> None:
    """A slot keeps the log from its acknowledgement on: LogFullError until it is moved on."""
    pool = open_pool()
    d, r = pool.dict("d"), pool.region("r", 30_000)
    d["kept"] = 1
    ring = pool.status().ring_bytes
    with LogReader(pool.path, lsn=pool.position.lsn) as reader:
        consumer = reader.claim("slow", required=True)
        assert consumer.lsn_acked == pool.position.lsn
        first = pool.position.lsn
        with pytest.raises(pmlog.LogFullError) as raised:
            for n in range(100):
                r.write(0, bytes([n]) * 30_000)
        assert raised.value.changed is False
        assert raised.value.retryable is True
        last_written = r.read(0, 30_000)
        position = pool.position
        assert ring // 2 < position.lsn - first <= ring
        # Everything is as it was, and reading goes on.
        with pytest.raises(pmlog.LogFullError), pool.transaction():
            d["kept"] = 2
            r.write(0, b"z" * 30_000)
        assert d["kept"] == 1
        assert r.read(0, 30_000) == last_written
        assert pool.position == position
        pool.checkpoint()
        with pytest.raises(pmlog.LogFullError):
            r.write(0, b"z" * 30_000)
        # What is pinned can be read in full; acknowledging it frees the ring.
        records = list(reader.records())
        assert records[0].lsn == first
        assert records[-1].position == position
        consumer.ack(records[-1].lsn_next)
        for n in range(20):
            r.write(0, bytes([n]) * 30_000)
            consumer.ack(pool.position.lsn)
        consumer.release()
        for n in range(20):
            r.write(0, bytes([n]) * 30_000)


def test_slot_not_required(open_pool: OpenPool) -> None:
    """A slot that is not required stops nobody; its reader is told that its place is lost."""
    pool = open_pool()
    r = pool.region("r", 30_000)
    with LogReader(pool.path, lsn=pool.position.lsn) as reader:
        consumer = reader.claim("slow")
        first = pool.position.lsn
        for n in range(30):
            r.write(0, bytes([n]) * 30_000)
        assert pool.position.lsn > first + 3 * pool.status().ring_bytes
        assert consumer.lsn_acked == first
        for read in (reader.next, reader.run):
            with pytest.raises(pmlog.GapError):
                read()
        reader.seek(None)
        consumer.ack(reader.position.lsn)
        r.write(0, b"again")
        last = list(reader.records())[-1]
        assert last.position == pool.position
        assert reader.next() is None


def test_slot_outlives_its_holder_and_the_writer(open_pool: OpenPool) -> None:
    """A slot is kept through close, kill and open of pool and reader, and goes on where it was."""
    pool = open_pool(log_size="1MiB")
    d = pool.dict("d")
    begin = pool.position.lsn
    with LogReader(pool.path, lsn=begin) as reader:
        reader.claim("consumer", required=True)
    d["a"] = 1
    middle = pool.position.lsn
    pool.close()
    pool = open_pool()
    pool.dict("d")["b"] = 2
    with LogReader(pool.path) as reader:
        status = reader.status()
        assert status is not None
        assert [(c.name, c.lsn_acked) for c in status.consumers] == [("consumer", begin)]
        consumer = reader.claim("consumer", required=True)
        assert consumer.lsn_acked == begin
        consumer.ack(middle)
    abandon(pool)
    pool = open_pool()
    r = pool.region("r", 200_000)
    with pytest.raises(pmlog.LogFullError):
        for n in range(100):
            r.write(0, bytes([n]) * 200_000)
    with LogReader(pool.path, lsn=middle) as reader:
        consumer = reader.claim("consumer", required=True)
        assert consumer.lsn_acked == middle
        assert len(list(reader.records())) > 2
        consumer.release()
        status = reader.status()
        assert status is not None
        assert status.consumers == ()
    r.write(0, b"free" * 50_000)


def test_slot_never_goes_back(pool: pmlog.Pool) -> None:
    """An acknowledgement below the last one, or beyond the log's end, is refused."""
    d = pool.dict("d")
    begin = pool.position.lsn
    with LogReader(pool.path, lsn=begin) as reader:
        consumer = reader.claim("c")
        d["x"] = 1
        end = pool.position.lsn
        consumer.ack(end)
        for bad in (begin, end + 64, 2**63, -1, 2**64):
            with pytest.raises(pmlog.UsageError):
                consumer.ack(bad)
        assert consumer.lsn_acked == end
        consumer.ack(end)
        consumer.release()
        with pytest.raises(pmlog.UsageError):
            consumer.ack(end)
        with pytest.raises(pmlog.UsageError):
            consumer.release()


def test_slots_run_out(pool: pmlog.Pool) -> None:
    """There are 16 slots; the 17th claim is refused, and a released one is free for others."""
    pool.dict("d")["x"] = 1
    with LogReader(pool.path) as reader:
        consumers = [reader.claim(f"consumer {n}") for n in range(16)]
        with pytest.raises(pmlog.PmlogError) as raised:
            reader.claim("one too many")
        assert raised.value.changed is False
        consumers[5].release()
        reader.claim("instead")
        status = reader.status()
        assert status is not None
        assert sorted(c.name for c in status.consumers) == sorted(
            ["instead", *(f"consumer {n}" for n in range(16) if n != 5)]
        )


@pytest.mark.parametrize("name", ["", "x" * 32, "é" * 16, "nul\0"], ids=repr)
def test_bad_slot_names(pool: pmlog.Pool, name: str) -> None:
    """A slot's name has 1 to 31 bytes and no NUL."""
    with LogReader(pool.path) as reader:
        with pytest.raises(pmlog.ConfigError):
            reader.claim(name)
        good = reader.claim("x" * 31)
        assert good.name == "x" * 31
        good.release()


def test_status(pool: pmlog.Pool) -> None:
    """The log's status tells who writes, and how far."""
    pool.dict("d")["x"] = 1
    with LogReader(pool.path) as reader:
        status = reader.status()
        assert status is not None
        mine = pool.status()
        assert status.live
        assert status.epoch == mine.epoch
        assert status.session == mine.session
        assert status.lsn_durable == mine.lsn_durable
        assert status.lsn_checkpoint == mine.lsn_checkpoint
        assert status.frozen is False
        assert reader.pool_id == mine.pool_id
        assert reader.ring_bytes == mine.ring_bytes
        assert status.writer_pid == os.getpid()
        pool.close()
        status = reader.status()
        assert status is not None
        assert status.writer_pid is None
        assert status.lsn_closed == status.lsn_durable
