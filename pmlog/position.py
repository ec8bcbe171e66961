"""A place in a history of the log, and which places can be compared. Pure."""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Self

from pmlog.errors import ConfigError, ForkError, UsageError

_TEXT: Final = re.compile(r"(\d+):(\d+):([0-9a-f]{8})", re.ASCII)


class Relation(Enum):
    """How one position stands to another."""

    SAME = "same"
    BEHIND = "behind"
    AHEAD = "ahead"
    DIVERGED = "diverged"
    """Same epoch and LSN, different bytes before it: the histories have nothing to compare."""
    UNKNOWN = "unknown"
    """Different epochs: only the history of promotions can tell."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two records: all below it, and the checksum of what is below.

    Positions are equal if epoch, LSN and chain are.
    Order is defined within an epoch, where no LSN is used twice:
    `<` and its like raise for positions of different epochs, whose order the numbers cannot
    tell, and for positions of diverged histories.
    """

    epoch: int
    """Number of the primaryship."""
    lsn: int
    """Bytes of the endless log before this place."""
    chain: int
    """Checksum of the record that ends here, which is seeded with all before it."""
    txn: int = field(default=0, compare=False)
    """Number of the last transaction before this place; 0: none."""

    def __str__(self) -> str:
        return f"{self.epoch}:{self.lsn}:{self.chain:08x}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote.

        Args:
            text: epoch:lsn:chain, the chain as eight hexadecimal digits.

        Returns:
            The position; its `txn` is 0.

        Raises:
            ConfigError: The text is not a position.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ConfigError(f"{text!r} is not a position", hint="as in 1:4096:89abcdef")
        return cls(epoch=int(match[1]), lsn=int(match[2]), chain=int(match[3], 16))

    def relation(self, other: "Position") -> Relation:
        """Say how this position stands to another.

        Args:
            other: The other one.

        Returns:
            BEHIND if this one is before the other in the same epoch, and so on.
        """
        if self.epoch != other.epoch:
            return Relation.UNKNOWN
        if self.lsn != other.lsn:
            return Relation.BEHIND if self.lsn < other.lsn else Relation.AHEAD
        return Relation.SAME if self.chain == other.chain else Relation.DIVERGED

    def _ordered(self, other: object, *wanted: Relation) -> bool:
        if not isinstance(other, Position):
            return NotImplemented  # type: ignore[no-any-return]
        relation = self.relation(other)
        if relation is Relation.UNKNOWN:
            raise UsageError(
                f"positions {self} and {other} are of different epochs and have no order",
                hint="the history of promotions tells which of them is an ancestor",
            )
        if relation is Relation.DIVERGED:
            raise ForkError(f"positions {self} and {other} are of diverged histories")
        return relation in wanted

    def __lt__(self, other: object) -> bool:
        return self._ordered(other, Relation.BEHIND)

    def __le__(self, other: object) -> bool:
        return self._ordered(other, Relation.BEHIND, Relation.SAME)

    def __gt__(self, other: object) -> bool:
        return self._ordered(other, Relation.AHEAD)

    def __ge__(self, other: object) -> bool:
        return self._ordered(other, Relation.AHEAD, Relation.SAME)
