"""The part of a log that its new primary does not have, saved beside the pool before it is given up.

A file holds whole records: eight bytes `PMLTAIL1`, the length of a JSON object as u32
little-endian, the object, then frames as docs/wire.md has them, plain or lz4, up to its end.
The records are found by their own checksums, so that a damaged pool's are found too.
"""

import filecmp
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

import msgspec

from pmlog import limits, wire
from pmlog._engine import lib
from pmlog.errors import CorruptionError, FormatError, MediumError, ProtocolError
from pmlog.history import Beginnings
from pmlog.identity import Identity
from pmlog.record import Record, parse_record

MAGIC: Final = b"PMLTAIL1"
HEADER_BYTES_MAX: Final = limits.MESSAGE_BYTES_MAX
NAMES_MAX: Final = 1000

_length: Final = Struct("<I")
_record_magic: Final = b"PMRC"
_lsn_and_length: Final = Struct("<QQ")
_RING_OFFSET: Final = int(lib.PML_RING_OFFSET)
_LINE: Final = int(lib.PML_LINE)


class Header(msgspec.Struct, frozen=True):
    """What the file says of its records."""

    identity: Identity
    history: Beginnings
    """Where the epochs of the log began that was given up."""
    common: int | None
    """Below, the new primary has the same; None: that is not known."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What was saved."""

    path: Path
    records: int
    raw_bytes: int
    lsn_first: int
    lsn_end: int
    txn_first: int
    txn_last: int


def sound_records(path: str | os.PathLike[str], identity: Identity, lsn: int) -> Iterator[Record]:
    """Find every record that a pool's log file holds, by its own checksum.

    Args:
        path: The pool's folder.
        identity: The pool's.
        lsn: Records below are left out.

    Yields:
        The records, by LSN; there may be gaps between them.

    Raises:
        MediumError: The file cannot be read.
    """
    salt = _salt(identity)
    ring_bytes = identity.ring_bytes
    try:
        file = open(Path(path, "log"), "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise MediumError(f"{path}: {error}", path=os.fsdecode(path)) from error
    with file:
        if os.fstat(file.fileno()).st_size < _RING_OFFSET + ring_bytes:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for at, start, length in sorted(_candidates(data, ring_bytes, lsn), key=lambda c: c[1]):
                first = data[_RING_OFFSET + at : _RING_OFFSET + min(at + length, ring_bytes)]
                rest = data[_RING_OFFSET : _RING_OFFSET + length - len(first)]
                record = parse_record(first + rest)
                if record is not None and record.lsn == start and _is_sound(record, salt):
                    yield record


def _candidates(data: mmap.mmap, ring_bytes: int, lsn: int) -> Iterator[tuple[int, int, int]]:
    at = data.find(_record_magic, _RING_OFFSET, _RING_OFFSET + ring_bytes)
    while at >= 0:
        place = at - _RING_OFFSET
        if place % _LINE == 0:
            start, length = _lsn_and_length.unpack_from(data, at + 8)
            fits = _LINE <= length <= ring_bytes and start % ring_bytes == place
            if fits and lsn <= start < 1 << 63:
                yield place, start, length
        at = data.find(_record_magic, at + 4, _RING_OFFSET + ring_bytes)


def _salt(identity: Identity) -> int:
    seed = Struct("<QQ").pack(*identity.hash_seed)
    return int(lib.pml_crc32c(0, seed, len(seed)))


def _is_sound(record: Record, salt: int) -> bool:
    body = record.raw[8:]
    return int(lib.pml_crc32c(record.checksum_prev ^ salt, body, len(body))) == record.checksum


def save(
    path: str | os.PathLike[str],
    identity: Identity,
    history: Beginnings,
    common: int | None,
) -> Saved | None:
    """Save the records of a log that is about to be given up; durable on return.

    Args:
        path: The pool's folder; the file is beside it, its name begins with the pool's.
        identity: The pool's.
        history: Where the epochs of its log began.
        common: Below, the new primary has the same; None: all that the ring holds is saved.

    Returns:
        What was saved; None: there is nothing.

    Raises:
        MediumError: Reading or writing failed.
    """
    pool = Path(os.path.abspath(os.fsdecode(path)))
    beside = pool.with_name(f"{pool.name}.tail.new")
    first = last = None
    records = size = 0
    try:
        with open(beside, "wb") as file:
            header = msgspec.json.encode(Header(identity, history, common))
            file.write(MAGIC + _length.pack(len(header)) + header)
            for run in _runs(sound_records(pool, identity, common or 0)):
                first = first or run[0]
                last = run[-1]
                records += len(run)
                data = b"".join(record.raw for record in run)
                size += len(data)
                for at in range(0, len(data), limits.FRAME_RAW_BYTES_MAX):
                    piece = data[at : at + limits.FRAME_RAW_BYTES_MAX]
                    file.write(
                        wire.encode_frame(
                            identity.pool_id, run[0].epoch, run[0].lsn + at, piece, wire.Codec.LZ4
                        )
                    )
            file.flush()
            os.fsync(file.fileno())
        if first is None or last is None:
            beside.unlink()
            return None
        place = _settle(beside, pool.with_name(f"{pool.name}.tail-{first.epoch}-{first.lsn}"))
        fd = os.open(pool.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise MediumError(
            f"cannot save the log of {pool}: {error}", os_errno=error.errno
        ) from error
    return Saved(place, records, size, first.lsn, last.lsn_next, first.txn, last.txn)


def _runs(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Put records that follow each other together, up to what a frame carries."""
    run: list[Record] = []
    size = 0
    for record in records:
        if run and (run[-1].lsn_next != record.lsn or size >= limits.FRAME_RAW_BYTES_MAX):
            yield run
            run, size = [], 0
        run.append(record)
        size += record.length
    if run:
        yield run


def _settle(beside: Path, wanted: Path) -> Path:
    """Give the file its name; one that was saved before is never overwritten."""
    for number in range(1, NAMES_MAX):
        place = wanted if number == 1 else wanted.with_name(f"{wanted.name}.{number}")
        if not place.exists():
            os.rename(beside, place)
            return place
        if filecmp.cmp(beside, place, shallow=False):  # saved before a crash
            beside.unlink()
            return place
    raise MediumError(f"{wanted} and {NAMES_MAX} others are there already")


def is_saved_tail(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a file that `save` wrote.

    Args:
        path: The path.

    Returns:
        Whether it is.
    """
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Read the records of a file that `save` wrote, each verified.

    Args:
        path: The file.

    Yields:
        The records, by LSN; there may be gaps between them.

    Raises:
        FormatError: It is no such file.
        CorruptionError: It is damaged.
        MediumError: It cannot be read.
    """
    place = os.fsdecode(path)
    try:
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise FormatError(f"{place}: not a saved part of a log", path=place)
            size = int.from_bytes(file.read(_length.size), "little")
            if size > HEADER_BYTES_MAX:
                raise CorruptionError(f"{place}: its header is damaged", path=place)
            header = msgspec.json.decode(file.read(size), type=Header)
            salt = _salt(header.identity)
            rest, lsn = b"", 0
            while head := file.read(wire.HEADER_BYTES):
                wire_bytes = wire.HEADER.unpack(head)[8] if len(head) == wire.HEADER_BYTES else 0
                if wire_bytes > wire.FRAME_BYTES_MAX:
                    raise CorruptionError(f"{place}: a frame is damaged", path=place)
                frame = wire.decode_frame(head + file.read(wire_bytes))
                if rest and frame.lsn != lsn + len(rest):
                    raise CorruptionError(f"{place}: a record has no end", path=place, lsn=lsn)
                lsn = lsn if rest else frame.lsn
                rest += bytes(frame.data)
                while len(rest) >= _LINE:
                    length = _lsn_and_length.unpack_from(rest, 8)[1]
                    if length > len(rest):
                        break
                    record = parse_record(rest[:length]) if length >= _LINE else None
                    if record is None or not _is_sound(record, salt):
                        raise CorruptionError(f"{place}: a record is damaged", path=place, lsn=lsn)
                    yield record
                    rest, lsn = rest[length:], lsn + length
            if rest:
                raise CorruptionError(f"{place}: a record has no end", path=place, lsn=lsn)
    except OSError as error:
        raise MediumError(f"cannot read {place}: {error}", os_errno=error.errno) from error
    except (msgspec.MsgspecError, ProtocolError) as error:
        raise CorruptionError(f"{place}: {error}", path=place) from error
