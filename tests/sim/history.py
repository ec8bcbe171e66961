"""What happened: every event's digest, and every record that a primary had."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from pmlog.position import Position
from tests.sim.loop import VirtualLoop


class BrokenError(AssertionError):
    """An invariant does not hold."""


def demand(holds: bool, what: str) -> None:
    """Raise unless it holds; asserts would vanish under -O."""
    if not holds:
        raise BrokenError(what)


class Trace:
    """The digest of all that happened, in order."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._digest = hashlib.sha256()
        self.events = 0
        self.last: list[str] = []
        self.counts: dict[str, int] = {}

    def __call__(self, what: str, *details: Any) -> None:
        """Note an event."""
        line = f"{self._loop.now_s:.9f} {what} {details}"
        self._digest.update(line.encode())
        self.events += 1
        self.counts[what] = self.counts.get(what, 0) + 1
        self.last.append(line)
        if len(self.last) > 400:
            del self.last[:200]

    def hash(self) -> str:
        """Return the digest so far."""
        return self._digest.hexdigest()[:16]


@dataclass(frozen=True)
class Point:
    """What a primary was after one of its records."""

    epoch: int
    chain: int
    txn: int
    number: int
    crc: int


@dataclass
class History:
    """Every record's end that a primary had, by LSN; those before a promotion are its source's."""

    points: dict[int, Point] = field(default_factory=dict)
    lsn_end: int = 0

    def note(self, at: Position, number: int, crc: int) -> None:
        """Note a record's end."""
        demand(at.lsn > self.lsn_end, "an LSN was used twice")
        self.points[at.lsn] = Point(at.epoch, at.chain, at.txn, number, crc)
        self.lsn_end = at.lsn

    def until(self, lsn: int) -> History:
        """Return the history up to there: what a promoted replica begins with."""
        kept = {at: point for at, point in self.points.items() if at <= lsn}
        return History(kept, max(kept))

    def has(self, at: Position) -> bool:
        """Whether a record ended there, with that checksum."""
        point = self.points.get(at.lsn)
        return point is not None and (point.chain, point.txn) == (at.chain, at.txn)
