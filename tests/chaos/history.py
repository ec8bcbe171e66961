"""Decides whether what was found after a run may be: from what writers were told, and what is there.

Pure: values in, faults out.
The rules, each with a canary in `test_history.py`:

1. *Whole*: a pool holds the state after one transaction, no part of another.
2. *Written*: it holds nothing that no writer had begun.
3. *Prefix*: where a writer follows another one in the same epoch, it goes on behind everything
   that was committed before, and a surviving pool ends behind everything committed in its epoch.
4. *Sealed*: a promotion that says it is complete holds everything that was committed.
5. *Replicated*: a promotion with loss holds everything that was acknowledged at that level, if
   who was promoted was the one that is furthest on.
6. *One writer*: epochs rise along the log; nothing of an earlier epoch stands behind the place at
   which a later one began.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.chaos.model import State, expected


@dataclass(frozen=True)
class Claims:
    """What one writer was told."""

    session: int
    epoch: int
    first: int
    """Number of its first transaction; 0: it never came so far."""
    begun: int
    committed: int
    replicated: int


@dataclass(frozen=True)
class Promotion:
    """A new epoch."""

    epoch: int
    base: int
    """Number of the last transaction of the promoted copy."""
    complete: bool
    """What the receiver said."""
    is_furthest: bool = True
    """No other receiver could have had more."""


def faults(
    seed: int, claims: Iterable[Claims], promotions: Iterable[Promotion], found: State
) -> list[str]:
    """Judge a surviving pool.

    Args:
        seed: The run's.
        claims: Of every writer there was.
        promotions: Of those that led to this pool, oldest first.
        found: What it holds.

    Returns:
        Every broken rule; empty: all is well.
    """
    known = {one.session: one for one in claims if one.first}
    steps = list(promotions)
    return [
        *_whole(seed, found),
        *_written(known, found),
        *_prefix(known, steps, found),
        *_promoted(known, steps),
        *_one_writer(steps, found),
    ]


def _whole(seed: int, found: State) -> list[str]:
    right = expected(seed, found.sessions, found.last)
    return [
        f"whole: {name} is not what it is after transaction {found.last}"
        for name in ("session", "sessions", "values", "items", "blob")
        if getattr(found, name) != getattr(right, name)
    ]


def _spans(found: State) -> list[tuple[int, int, int, int]]:
    """Who wrote from where to where: session, epoch, first, last."""
    order = sorted((first, session, epoch) for session, (first, epoch) in found.sessions.items())
    ends = [first - 1 for first, _, _ in order[1:]] + [found.last]
    return [
        (session, epoch, first, end)
        for (first, session, epoch), end in zip(order, ends, strict=True)
    ]


def _written(known: dict[int, Claims], found: State) -> list[str]:
    wrong = []
    for session, epoch, first, end in _spans(found):
        one = known.get(session)
        if one is None or (one.first, one.epoch) != (first, epoch):
            wrong.append(f"written: writer {session} never began at {first} in epoch {epoch}")
        elif end > one.begun:
            wrong.append(f"written: {end} by writer {session}, who had begun {one.begun} only")
    if found.last and not found.sessions:
        wrong.append(f"written: transaction {found.last} by nobody")
    return wrong


def _prefix(known: dict[int, Claims], steps: list[Promotion], found: State) -> list[str]:
    wrong = []
    bases = {step.epoch: step.base for step in steps}
    present = max([1, *bases])
    for one in known.values():
        if not one.committed:
            continue
        # What ends the epoch's part of the log: the next promotion, or the log's end.
        later = [base for epoch, base in bases.items() if epoch > one.epoch]
        if one.session in found.sessions:
            end = next(span[3] for span in _spans(found) if span[0] == one.session)
            ends_here = end == found.last or end in later
            if end < one.committed and not (ends_here and later):
                wrong.append(f"prefix: {one.committed} by writer {one.session} is gone")
        elif one.epoch == present or one.committed <= min(later):
            wrong.append(f"prefix: writer {one.session} is gone, who had committed {one.committed}")
    return wrong


def _promoted(known: dict[int, Claims], steps: list[Promotion]) -> list[str]:
    wrong = []
    for step in steps:
        before = [one for one in known.values() if one.epoch == step.epoch - 1]
        committed = max((one.committed for one in before), default=0)
        replicated = max((one.replicated for one in before), default=0)
        if step.complete and step.base < committed:
            wrong.append(f"sealed: epoch {step.epoch} has {step.base} of {committed}")
        if not step.complete and step.is_furthest and step.base < replicated:
            wrong.append(
                f"replicated: epoch {step.epoch} has {step.base}, acknowledged was {replicated}"
            )
    return wrong


def _one_writer(steps: list[Promotion], found: State) -> list[str]:
    wrong = []
    bases = {step.epoch: step.base for step in steps}
    highest = 0
    for session, epoch, first, end in _spans(found):
        if epoch < highest:
            wrong.append(f"one writer: epoch {epoch} behind epoch {highest}")
        highest = max(highest, epoch)
        if first <= bases.get(epoch, 0):
            wrong.append(f"one writer: writer {session} before its epoch {epoch} began")
        ended = [base for later, base in bases.items() if later > epoch]
        if ended and end > min(ended):
            wrong.append(
                f"one writer: {end} by writer {session}, whose epoch ended at {min(ended)}"
            )
    return wrong
