"""What a receiver stores in a baseline, and in what order: each step may be the last one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

import pmlog
from pmlog import history, marks, saved, wire
from pmlog.errors import MediumError, PeerUnavailableError
from pmlog.image import ImageReader, blocks_of
from pmlog.log import LogReader
from pmlog.replica import Replica
from pmlog.testing import faults
from receiver.baseline import accept, finish
from tests.sim.network import End
from tests.sim.test_link import Copy, say, talk
from tests.support import faults_of

BLOB_BYTES = 160_000


def write(pool: pmlog.Pool, byte: bytes) -> None:
    """Fill a region that spans whole blocks."""
    blob = pool.region("blob", BLOB_BYTES)
    for at in range(0, BLOB_BYTES, 40_000):
        blob.write(at, byte * 40_000)


def append(replica: Replica, data: bytes) -> None:
    """Append log bytes, as many at a time as a replica takes."""
    for at in range(0, len(data), replica.append_bytes_max):
        replica.append(replica.lsn_next, data[at : at + replica.append_bytes_max])


@pytest.fixture
def copy(pool: pmlog.Pool, memory_dir: Path) -> Iterator[Copy]:
    """Give a copy that has all of the pool's log, and the blob full of one byte."""
    write(pool, b"x")
    made = Copy(pool, memory_dir / "one")
    append(made.replica, made.take())
    yield made
    made.close()


def blocks(path: str, image_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Read a pool's image."""
    with ImageReader(path) as image:
        for offset, size in blocks_of(image_bytes):
            yield offset, bytes(image.read_sound(offset, size))


def test_block_of_zeros_is_stored(pool: pmlog.Pool, copy: Copy) -> None:
    """A block that is all zeros at the primary, and not here, becomes zeros here."""
    write(pool, bytes(1))
    pool.checkpoint()
    mark = copy.reader.mark()
    zeros: list[int] = []

    async def play(end: End) -> None:
        await say(end, wire.Baseline(mark, 1, copy.identity))
        digests = (await end.receive()).data
        count = 0
        for number, (offset, data) in enumerate(blocks(pool.path, mark.image_bytes)):
            if xxhash.xxh3_128_digest(data) == digests[16 * number : 16 * number + 16]:
                continue
            count += 1
            zeros.extend([offset] * (not any(data)))
            await end.send_bytes(copy.frame(data, offset))
        await say(end, wire.BlocksDone(count))
        await say(end, wire.BaselineEnd(mark.lsn))
        async with asyncio.timeout(600):  # of virtual time
            while copy.replica.position.lsn < mark.lsn or copy.replica.is_rebuilding:  # noqa: ASYNC110
                await asyncio.sleep(1)
        await end.close()

    assert isinstance(talk(copy.link, play), PeerUnavailableError)
    assert zeros
    path = copy.replica.path
    assert marks.incomplete_of(path) is None
    copy.replica.close()
    assert faults_of(path) == []
    with pmlog.open(path, readonly=True) as reader:
        assert reader.region("blob").read(0, BLOB_BYTES) == bytes(BLOB_BYTES)


@pytest.mark.damaged
def test_incomplete_until_it_is_durable(pool: pmlog.Pool, memory_dir: Path) -> None:
    """Whichever drain of a baseline fails, the copy says that it is incomplete, or is whole.

    Model: the medium answers one drain with an error, as a disk that is about to die does.
    Method: every drain of the image in turn, until none is left to fail.
    """
    write(pool, b"x")
    failed_at_the_end = False
    for number in range(1, 100):
        path = memory_dir / f"copy-{number}"
        with LogReader(pool.path) as reader:
            identity, mark = reader.identity(), reader.mark()
            reader.seek(mark.lsn)
            log = bytes(reader.run() or b"")
        has_begun = at_the_end = is_whole = False
        with (
            contextlib.suppress(MediumError),
            faults(image_drain=number),
            Replica(path, identity) as replica,
        ):
            marks.set_incomplete(path, marks.Incomplete("baseline"))
            has_begun = True
            replica.prepare_baseline()
            for offset, data in blocks(pool.path, mark.image_bytes):
                replica.store_block(offset, data)
            replica.begin_baseline(mark)
            append(replica, log)
            at_the_end = True
            finish(replica)
            is_whole = True  # what fails from here on is the replica's closing
        assert (marks.incomplete_of(path) is None) == (is_whole or not has_begun)
        failed_at_the_end = failed_at_the_end or (at_the_end and not is_whole)
        if is_whole:
            break
    else:
        pytest.fail("a baseline never comes to its end")
    assert failed_at_the_end


def test_tail_is_saved(pool: pmlog.Pool, copy: Copy) -> None:
    """What the new primary lacks is in a file, record by record, before a block is asked for."""
    with LogReader(pool.path, 4096) as reader:
        records = list(reader.records())
    common = records[1].lsn
    mark = copy.reader.mark()
    place = history.Place(2, common, records[1].checksum_prev, records[1].txn - 1)
    answer = wire.Baseline(mark, 2, copy.identity, (place,), common)
    kept = accept(copy.replica, answer)
    assert kept is not None
    assert [one.raw for one in saved.read(kept.path)] == [one.raw for one in records[1:]]
    assert marks.incomplete_of(copy.replica.path) is not None
    marks.set_incomplete(copy.replica.path, None)  # nothing was changed yet


def test_epoch_of_the_primary_is_heard(copy: Copy) -> None:
    """A copy remembers its primary's epoch before it has a byte of it: it is promoted beyond that.

    1. A replica becomes the primary of epoch 5, at the end of its log.
    2. Another one that ends there too is answered by it, and gets no byte.
    3. Promoted while that primary lives, it took epoch 2 and was never told apart from others, or
       epoch 5 itself, had it known of 4: the old primary heard of nothing later, and went on.
    """
    at = copy.replica.place
    place = history.Place(5, at.lsn, at.chain, at.txn)
    accept(copy.replica, wire.Stream(at.lsn, 5, copy.identity, (place,)))
    known = marks.history_of(copy.replica.path)
    assert known == history.History((place,), 5)
    assert history.promoted(known, copy.replica.place).heard == 6
