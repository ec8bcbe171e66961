"""What a pool of these writers holds after a transaction, as plain Python. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KEYS: Final = 211
ITEMS: Final = 50
SLOTS: Final = 64


@dataclass(frozen=True)
class State:
    """Everything that a pool holds."""

    last: int
    """Number of the last transaction; 0: none."""
    session: int
    """Who wrote it."""
    sessions: dict[int, tuple[int, int]]
    """Of each writer that has written: number of its first transaction, and its epoch."""
    values: dict[int, str]
    items: list[int]
    blob: bytes


def value_of(seed: int, session: int, number: int) -> str:
    """Return what a transaction stores: unique, and of differing length."""
    return f"{seed}/{session}/{number}/" + "x" * (number * 7919 % 97)


def blob_at(session: int, number: int) -> tuple[int, bytes]:
    """Return offset and bytes of what a transaction writes into the region."""
    data = number.to_bytes(8, "little") + session.to_bytes(8, "little")
    return number % SLOTS * 64, data * 4


def writer_of(sessions: dict[int, tuple[int, int]], number: int) -> int:
    """Return who wrote a transaction: the last one that began at or before it."""
    begun = [(first, session) for session, (first, _) in sessions.items() if first <= number]
    return max(begun)[1] if begun else 0


def expected(seed: int, sessions: dict[int, tuple[int, int]], last: int) -> State:
    """Compute the state after a transaction.

    Args:
        seed: The run's.
        sessions: Who wrote what.
        last: The transaction.

    Returns:
        The one state that is right.
    """
    blob = bytearray(SLOTS * 64)
    for number in range(max(1, last - SLOTS + 1), last + 1):
        offset, data = blob_at(writer_of(sessions, number), number)
        blob[offset : offset + len(data)] = data
    return State(
        last=last,
        session=writer_of(sessions, last),
        sessions={one: known for one, known in sessions.items() if known[0] <= last},
        values={
            number % KEYS: value_of(seed, writer_of(sessions, number), number)
            for number in range(max(1, last - KEYS + 1), last + 1)
        },
        items=list(range(max(1, last - ITEMS + 1), last + 1)),
        blob=bytes(blob),
    )
