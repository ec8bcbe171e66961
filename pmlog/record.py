"""Records of the log: one committed transaction each. Pure."""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from pmlog._engine import lib
from pmlog.position import Position

# The layouts of `struct pml_record` and `struct pml_range`: a test compares them.
_record: Final = Struct("<IIQQQQQIIII")
_range: Final = Struct("<QQ")
_LENGTH_MASK: Final = (1 << 56) - 1

_RANGE_KINDS: Final = {
    lib.PML_RANGE_DATA: "data",
    lib.PML_RANGE_ZERO: "zero",
    lib.PML_RANGE_GROW: "grow",
}
_RECORD_KINDS: Final = {
    lib.PML_RECORD_TRANSACTION: "transaction",
    lib.PML_RECORD_EPOCH: "epoch",
}


@dataclass(frozen=True, slots=True)
class Range:
    """One change of the image."""

    kind: str
    """data: new bytes; zero: zeros; grow: `offset` is the image's new size."""
    offset: int
    """In the image."""
    length: int
    """Bytes."""
    at: int
    """Where in the record's raw bytes the new bytes begin; data only."""


@dataclass(frozen=True, slots=True)
class Record:
    """One committed transaction as it stands in the log."""

    lsn: int
    """Of its first byte."""
    length: int
    """With header and padding; the next record begins at `lsn + length`."""
    txn: int
    epoch: int
    session: int
    """Of the writer's open."""
    kind: str
    """transaction or epoch."""
    lsn_durable: int
    """Everything below was durable when the record was appended."""
    checksum: int
    checksum_prev: int
    """Checksum of the record before, with which this one's is seeded."""
    ranges: tuple[Range, ...]
    raw: bytes
    """All of its bytes."""

    @property
    def lsn_next(self) -> int:
        """Where the next record begins."""
        return self.lsn + self.length

    @property
    def position(self) -> Position:
        """The place behind this record."""
        return Position(self.epoch, self.lsn_next, self.checksum, self.txn)

    def data(self, change: Range) -> bytes:
        """Get the new bytes of one of its ranges.

        Args:
            change: One of `ranges`.

        Returns:
            The bytes; none for zero and grow.
        """
        return self.raw[change.at : change.at + change.length] if change.kind == "data" else b""


def parse_record(raw: bytes) -> Record | None:
    """Read a record.

    Args:
        raw: Its bytes, all of them and no more.

    Returns:
        The record; None: the bytes are not those of one whole record. The checksum is the
        caller's to verify: it is salted with what only the pool knows.
    """
    if len(raw) < _record.size:
        return None
    fields = _record.unpack_from(raw)
    _, checksum, lsn, length, txn, durable, session, epoch, previous, count, kind = fields
    if length != len(raw) or _record.size + count * _range.size > length:
        return None
    ranges = []
    at = _record.size
    for _ in range(count):
        if at + _range.size > length:
            return None
        offset, word = _range.unpack_from(raw, at)
        at += _range.size
        size = word & _LENGTH_MASK
        what = _RANGE_KINDS.get(word >> 56, str(word >> 56))
        ranges.append(Range(what, offset, size, at))
        if what == "data":
            at += (size + 7) & ~7
    return Record(
        lsn=lsn,
        length=length,
        txn=txn,
        epoch=epoch,
        session=session,
        kind=_RECORD_KINDS.get(kind, str(kind)),
        lsn_durable=durable,
        checksum=checksum,
        checksum_prev=previous,
        ranges=tuple(ranges),
        raw=raw,
    )
