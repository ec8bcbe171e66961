"""Drills: would a copy of this pool come up as a primary? Tried on a copy, beside the writer.

Order of the copy, as a receiver's baseline (docs/wire.md), without a shipper:

1. The mark is read, and the log followed from there.
2. Blocks of the image are copied; after each one the log's new records go to a file, so that the
   ring may be reused while blocks are copied, and nothing has to be pinned.
3. After the last block the end of the durable log is read: no block holds anything newer.
4. Blocks, mark, log up to that end: the copy is whole, and is one of the writer's committed states.

The original is opened for reading only; nothing of it is changed, its consumer slots neither.
"""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pmlog import limits, marks
from pmlog.check import Fault, check
from pmlog.errors import ConfigError, CorruptionError, GapError, NotPromotableError
from pmlog.identity import Mark
from pmlog.image import ImageReader, blocks_of
from pmlog.log import LogReader
from pmlog.position import Position
from pmlog.replica import Replica, promote

ATTEMPTS: Final = 10
"""A writer that overtakes the copy, or comes or goes meanwhile, makes it begin again."""

SPOOL_BYTES_MAX: Final = 64 * limits.GIB
"""A writer that logs so much while its blocks are copied is not followed further."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a drill found."""

    source: str
    copy: str
    """The promoted copy."""
    position: Position
    """Where the copy's log ended before it was promoted."""
    epoch: int
    """The copy's, after its promotion."""
    image_bytes: int
    log_bytes: int
    """Of records that were applied to the blocks."""
    attempts: int
    restore_s: float
    """From the first look at the original to a whole copy."""
    promote_s: float
    """From a whole copy to a pool that takes transactions."""
    faults: tuple[Fault, ...]
    """What the checker finds in the promoted copy."""
    exit_code: int | None
    """Of the command; None: there was none."""

    @property
    def is_well(self) -> bool:
        """Whether everything is as it should be."""
        return not self.faults and self.exit_code in (None, 0)


class _OvertakenError(Exception):
    """The copy has to begin again."""


def drill(
    source: str | os.PathLike[str],
    scratch: str | os.PathLike[str],
    command: Sequence[str] = (),
    *,
    output: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Copy a pool beside its writer, promote the copy, check it, and run a command on it.

    Args:
        source: The pool's folder, or a receiver's.
        scratch: Where the copy goes: a folder that is empty, or not there yet.
        command: Runs with the copy's path as PMLOG_POOL and its epoch as PMLOG_EPOCH.
        output: File descriptor for what the command prints; None: as the caller's.
        clock: Seconds that only grow.

    Returns:
        What was found.

    Raises:
        ConfigError: The scratch folder is not empty, or the command cannot be started.
        NotPromotableError: It is a replica whose baseline is under way.
        GapError: The writer overtook the copy again and again.
        CorruptionError: A page or a record of the original does not match its checksum.
        PmlogError: The original cannot be read, or the copy not be written.
    """
    path = find_pool(source)
    place = Path(scratch)
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        raise ConfigError(f"{place} is not empty", hint="give a folder of the drill's own")
    copy = place / "pool"
    begun = clock()
    attempts, position, image_bytes, log_bytes = _restore(path, copy, place / "log.part")
    restored = clock()
    with promote(copy, max_size=_room(image_bytes)) as pool:
        epoch = pool.position.epoch
        promoted = clock()
    faults = tuple(check(copy))
    return Report(
        source=str(path),
        copy=str(copy),
        position=position,
        epoch=epoch,
        image_bytes=image_bytes,
        log_bytes=log_bytes,
        attempts=attempts,
        restore_s=restored - begun,
        promote_s=promoted - restored,
        faults=faults,
        exit_code=_run(command, copy, epoch, output) if command else None,
    )


def find_pool(path: str | os.PathLike[str]) -> Path:
    """Find the pool that is meant.

    Args:
        path: Of a pool, or of the folder of a receiver, whose replica is meant.

    Returns:
        The pool's folder.
    """
    given = Path(path)
    inner = given / "pool"
    return inner if not (given / "log").exists() and (inner / "log").exists() else given


def _restore(path: Path, copy: Path, spool_path: Path) -> tuple[int, Position, int, int]:
    for attempt in range(1, ATTEMPTS + 1):
        _must_be_whole(path)
        with LogReader(path) as reader, open(spool_path, "w+b") as spool:
            session = reader.session
            identity = reader.identity()
            room = _room(identity.image_bytes)
            # What an earlier attempt has left is of different moments: it is not to be recovered.
            with Replica(copy, identity, max_size=room, rebuild=attempt > 1) as replica:
                try:
                    mark = _follow_from_mark(reader)
                    _copy_blocks(reader, replica, mark.image_bytes, spool)
                    log_bytes = spool.tell()
                    _must_be_whole(path)
                    if reader.session != session:
                        raise _OvertakenError
                    replica.begin_baseline(mark)
                    _apply(replica, spool)
                    replica.finish_baseline()
                except (_OvertakenError, GapError):
                    continue
                found = attempt, replica.position, mark.image_bytes, log_bytes
        spool_path.unlink()
        return found
    raise GapError(
        f"{path}: its writer overtook the copy {ATTEMPTS} times", hint="try when it is less busy"
    )


def _must_be_whole(path: Path) -> None:
    if marks.incomplete_of(path) is not None:
        raise NotPromotableError(f"{path}: the replica is incomplete: a baseline is under way")


def _follow_from_mark(reader: LogReader) -> Mark:
    """Go to the checkpoint and read its mark; both are the same one."""
    for _ in range(ATTEMPTS):
        reader.seek(None)
        mark = reader.mark()
        if mark.lsn == reader.position.lsn:
            return mark
    raise _OvertakenError


def _copy_blocks(reader: LogReader, replica: Replica, image_bytes: int, spool: BinaryIO) -> None:
    """Copy what differs, and the log from the reader's place to where no block is newer."""
    replica.prepare_baseline()
    with ImageReader(reader.path) as source, ImageReader(replica.path) as own:
        for offset, size in blocks_of(image_bytes):
            data = source.read_sound(offset, size)
            if data != own.read(offset, size):
                replica.store_block(offset, data)
            _spool(reader, spool)
    known = reader.status()
    _spool(reader, spool)
    # Without a writer under this boot the chain itself ends the log.
    if known is not None and known.live and reader.position.lsn < known.lsn_durable:
        raise _OvertakenError


def _spool(reader: LogReader, spool: BinaryIO) -> None:
    while (run := reader.run()) is not None:
        if spool.tell() > SPOOL_BYTES_MAX:
            raise _OvertakenError
        spool.write(run)


def _apply(replica: Replica, spool: BinaryIO) -> None:
    spool.seek(0)
    piece_bytes = min(limits.LOG_READ_BYTES, replica.append_bytes_max)
    try:
        while data := spool.read(piece_bytes):
            replica.append(replica.lsn_next, data)
    except CorruptionError as error:
        # The reader has verified these records in the ring; the writer came between that and their
        # copy.
        raise _OvertakenError from error


def _room(image_bytes: int) -> int:
    return max(64 * limits.GIB, 2 * image_bytes)


def _run(command: Sequence[str], copy: Path, epoch: int, output: int | None) -> int:
    environment = os.environ | {"PMLOG_POOL": str(copy), "PMLOG_EPOCH": str(epoch)}
    try:
        return subprocess.run(command, env=environment, stdout=output, check=False).returncode
    except OSError as error:
        raise ConfigError(f"cannot run {command[0]!r}: {error}") from error
