"""Random damage by the thousand: flips, truncations, duplications and swaps, and what became of it.

Each trial harms one thing, looks, and mends it.
Outcomes: *no effect*: everything reads as the full committed state; *refused*: the open or the
append says so; *detected*: reading says so.
Two are gaps that docs/guarantees.md names: *last records*: after a reboot, damage that reaches to
the log's end is taken for what the crash tore, and the pool opens at the transaction before it;
*replayed page*: damage in a page of the image that records behind the checkpoint touch.
Anything else is wrong: other data, another error, a crash of the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pmlog
from pmlog import wire
from pmlog._engine import lib
from pmlog.errors import CorruptionError, GapError, PmlogError, ProtocolError
from pmlog.log import LogReader
from pmlog.replica import Replica
from tests.fault import damage as dm
from tests.support import SMALL, abandon

NO_EFFECT, LAST_RECORDS, REPLAYED = "no effect", "gap: last records", "gap: replayed page"
NAMES = {dm.EXACT: NO_EFFECT, dm.REFUSED: "refused", dm.DETECTED: "detected"}
KINDS = ("flip", "byte", "truncate", "duplicate", "swap")
SIZES = (1, 8, 64, 512, 4096)
Counts = Counter[tuple[str, str, str]]


@dataclass
class Patient:
    """A pool to be harmed."""

    target: str
    path: Path
    states: list[dict[str, Any]]
    """The full committed state; then what else may be served: the transactions before it."""
    replayed: set[int]
    """Pages of the image that records behind the checkpoint touch."""


def patients(folder: Path) -> list[Patient]:
    """Make a closed pool, a killed one, a killed one behind a reboot, and a replica."""
    closed = Patient("closed pool", folder / "closed", [dm.make_closed(folder / "closed")], set())
    path = folder / "killed"
    pool = pmlog.open(path, **SMALL)
    dm.fill(pool, 1)
    pool.checkpoint()
    dm.fill(pool, 2)
    states = [dm.state_of(pool)]
    for number in range(12):
        with pool.transaction():
            pool.dict("d")["step"] = number
            pool.region("r", 20_000).write(1000 * number, bytes([number]) * 900)
        states.insert(0, dm.state_of(pool))
    abandon(pool)
    with LogReader(path) as reader:
        replayed = {
            page
            for record in reader.records()
            for change in record.ranges
            if change.kind != "grow"
            for page in range(
                change.offset // dm.PAGE, (change.offset + change.length - 1) // dm.PAGE + 1
            )
        }
    rebooted = folder / "rebooted"
    shutil.copytree(path, rebooted)
    (rebooted / "control").unlink()  # words of another boot count as none
    replica = folder / "replica"
    with LogReader(path) as reader, Replica(replica, reader.identity()) as copy:
        feed(reader, copy, path)
        assert copy.position == reader.position
    return [
        closed,
        Patient("killed pool", path, states[:1], replayed),
        Patient("pool after a reboot", rebooted, states, replayed),
        Patient("replica", replica, states[:1], set()),
    ]


def feed(reader: LogReader, copy: Replica, path: Path) -> None:
    """Make a replica as a baseline does: blocks, mark, log."""
    from pmlog.image import ImageReader, blocks_of

    mark = reader.mark()
    copy.prepare_baseline()
    with ImageReader(path) as image:
        for offset, size in blocks_of(mark.image_bytes):
            copy.store_block(offset, image.read_sound(offset, size))
    copy.begin_baseline(mark)
    reader.seek(None)
    while (run := reader.run()) is not None:
        copy.append(copy.lsn_next, bytes(run))
    # Until then nothing is applied, and the ring is never used again.
    copy.finish_baseline()


# ---- files -------------------------------------------------------------------------------------


@contextlib.contextmanager
def harmed(path: Path, kind: str, rng: random.Random, busy: list[int]) -> Iterator[set[int]]:
    """Harm a file for a while; give the pages of it that have changed."""
    size_bytes = path.stat().st_size
    with path.open("r+b", buffering=0) as file:
        fd = file.fileno()
        if kind == "truncate":
            at = rng.randrange(size_bytes)
            tail = os.pread(fd, size_bytes - at, at)
            os.ftruncate(fd, at)
            try:
                yield {at // dm.PAGE}
            finally:
                os.pwrite(fd, tail, at)
            return
        at = rng.choice(busy) if rng.random() < 0.8 else rng.randrange(size_bytes)
        if kind in ("flip", "byte"):
            (old,) = os.pread(fd, 1, at)
            new = old ^ 1 << rng.randrange(8) if kind == "flip" else rng.randrange(256)
            patches = [(at, bytes([new]))]
        else:
            length = rng.choice(SIZES)
            at = at // length * length
            other = rng.choice(busy) // length * length
            patches = [(other, os.pread(fd, length, at))]
            if kind == "swap":
                patches.append((at, os.pread(fd, length, other)))
        old_bytes = [(where, os.pread(fd, len(new), where)) for where, new in patches]
        for where, data in patches:
            os.pwrite(fd, data, where)
        try:
            yield {
                where // dm.PAGE for where, old in old_bytes if os.pread(fd, len(old), where) != old
            }
        finally:
            for where, data in reversed(old_bytes):
                os.pwrite(fd, data, where)
            os.ftruncate(fd, size_bytes)


def busy_places(path: Path) -> list[int]:
    """Return places in a file that hold something, one in each 16 bytes."""
    data = path.read_bytes()
    return [at for at in range(0, len(data), 16) if data[at : at + 16].strip(b"\0")]


def try_pools(folder: Path, count: int, rng: random.Random, counts: Counts) -> None:
    """Harm pools' files, and open and read them."""
    subjects = patients(folder)
    busy = {
        (one.target, name): busy_places(one.path / name) for one in subjects for name in dm.FILES
    }
    done = 0
    while done < count:
        subject, name, kind = rng.choice(subjects), rng.choice(dm.FILES), rng.choice(KINDS)
        is_written = rng.random() < 0.1
        path = subject.path
        if is_written:  # recovery changes the pool: on a copy
            path = folder / "work"
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(subject.path, path)
        with harmed(path / name, kind, rng, busy[subject.target, name]) as pages:
            if not pages:
                continue
            outcome = dm.look(path, subject.states[0], readonly=not is_written)
            if outcome not in NAMES:
                outcome = _gap(subject, path, name, pages) or outcome
        counts[f"{subject.target}: {name}", kind, NAMES.get(outcome, outcome)] += 1
        done += 1


def _gap(subject: Patient, path: Path, name: str, pages: set[int]) -> str:
    """Name the gap that explains what was served, if one does."""
    body = lib.PML_BODY_OFFSET // dm.PAGE
    # With one of its marks harmed a closed pool is replayed from the other, older one.
    is_mark_too = min(pages) < body <= max(pages)
    if name == "image" and (pages & subject.replayed or is_mark_too):
        return REPLAYED
    earlier = subject.states[1:] if name == "log" else []
    if any(dm.look(path, state, readonly=True) == dm.EXACT for state in earlier):
        return LAST_RECORDS
    return ""


# ---- what arrives --------------------------------------------------------------------------------


def spoil(data: bytes, kind: str, rng: random.Random) -> bytes:
    """Harm bytes."""
    if kind == "truncate":
        return data[: rng.randrange(len(data))]
    at = rng.randrange(len(data))
    if kind in ("flip", "byte"):
        new = data[at] ^ 1 << rng.randrange(8) if kind == "flip" else rng.randrange(256)
        return data[:at] + bytes([new]) + data[at + 1 :]
    length = min(rng.choice(SIZES), len(data))
    first, second = (rng.randrange(len(data) - length + 1) for _ in range(2))
    piece = data[first : first + length]
    out = bytearray(data)
    if kind == "swap":
        out[first : first + length] = data[second : second + length]
    out[second : second + length] = piece
    return bytes(out)


def try_frames(count: int, rng: random.Random, counts: Counts) -> None:
    """Harm frames, and unpack them."""
    number = UUID(int=rng.getrandbits(128))
    done = 0
    while done < count:
        raw = rng.randbytes(rng.choice((64, 300, 5000))) + bytes(rng.choice((0, 4000)))
        frame = wire.encode_frame(number, 3, 4096, raw, rng.choice(list(wire.Codec)))
        kind = rng.choice(KINDS)
        harmed_frame = spoil(frame, kind, rng)
        if harmed_frame == frame:
            continue
        done += 1
        try:
            got = wire.decode_frame(harmed_frame)
        except ProtocolError:
            outcome = "refused"
        else:
            # What the digest does not cover, a receiver compares with what it expects.
            expected = (got.pool_id, got.epoch, got.lsn) == (number, 3, 4096)
            outcome = (
                "WRONG DATA served"
                if bytes(got.data) != raw
                else (NO_EFFECT if expected else "refused")
            )
        counts["frame", kind, outcome] += 1


def try_streams(folder: Path, count: int, rng: random.Random, counts: Counts) -> None:
    """Harm records on their way, though their frame's digest were right; then send them whole."""
    path, copy_path = folder / "source", folder / "copy"
    done = 0
    with (
        pmlog.open(path, **SMALL) as pool,
        LogReader(path) as reader,
        Replica(copy_path, reader.identity()) as copy,
    ):
        feed(reader, copy, path)
        while done < count:
            pool.region("r", 20_000).write(
                rng.randrange(10_000), rng.randbytes(rng.choice((8, 900)))
            )
            record = reader.next()
            assert record is not None
            for _ in range(8):
                kind = rng.choice(KINDS)
                raw = spoil(record.raw, kind, rng)
                if raw == record.raw or not raw or done == count:
                    continue
                done += 1
                before = copy.position
                try:
                    copy.append(copy.lsn_next, raw)
                    outcome = "waits for the rest"  # its length was harmed: nothing counts yet
                except (CorruptionError, GapError, pmlog.PoolFullError):
                    outcome = "refused"
                except PmlogError as error:
                    outcome = f"WRONG ERROR {error!r}"
                if copy.position != before:
                    outcome = "WRONG DATA taken"
                counts["record on its way", kind, outcome] += 1
                copy.restart()
            copy.append(copy.lsn_next, record.raw)
            assert copy.position == record.position


def run(connection: Any, folder: str, count: int, seed: int) -> None:
    """Run all trials in a child process, because a crash is one of the outcomes looked for."""
    faulthandler.enable()
    rng = random.Random(seed)
    counts: Counts = Counter()
    place = Path(folder)
    try_pools(place, count * 6 // 10, rng, counts)
    try_streams(place, count * 3 // 10, rng, counts)
    try_frames(count - count * 6 // 10 - count * 3 // 10, rng, counts)
    connection.send(counts)
