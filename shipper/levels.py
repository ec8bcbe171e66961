"""What K receivers have. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of the log a receiver has: the LSN below which it has everything."""

    received: int = 0
    durable: int = 0
    applied: int = 0


def reached(progress: Iterable[Progress], require: int) -> Progress:
    """Find what at least so many receivers have.

    Args:
        progress: Of each receiver.
        require: How many; at least 1.

    Returns:
        The K-th best of each figure; zeros if there are fewer receivers.
    """
    known = list(progress)
    if len(known) < require:
        return Progress()

    def kth(values: Iterable[int]) -> int:
        return sorted(values, reverse=True)[require - 1]

    return Progress(
        kth(one.received for one in known),
        kth(one.durable for one in known),
        kth(one.applied for one in known),
    )
