"""The judge of runs: histories that are right pass, and each rule refuses one that breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.history import Claims, Promotion, faults
from tests.chaos.model import State, expected

SEED = 5
# Two writers in epoch 1, the second one killed in a commit; one in epoch 2.
CLAIMS = (
    Claims(1, 1, 1, 300, 300, 250),
    Claims(2, 1, 301, 412, 411, 400),
    Claims(3, 2, 412, 500, 499, 0),
)
SESSIONS = {1: (1, 1), 2: (301, 1), 3: (412, 2)}
SEALED = Promotion(2, 411, complete=True)


def state(last: int, sessions: dict[int, tuple[int, int]] | None = None) -> State:
    """Return what is right after a transaction."""
    return expected(SEED, sessions or SESSIONS, last)


def rules(
    found: State,
    claims: tuple[Claims, ...] = CLAIMS,
    promotions: tuple[Promotion, ...] = (SEALED,),
) -> set[str]:
    """Return the rules that are broken."""
    return {fault.partition(":")[0] for fault in faults(SEED, claims, promotions, found)}


@pytest.mark.parametrize("last", [499, 500])
def test_right(last: int) -> None:
    """What was committed is there, and what had begun may be."""
    assert not rules(state(last))


def test_right_with_loss() -> None:
    """A promotion with loss may lack what was committed, but not what was acknowledged."""
    sessions = {1: (1, 1), 2: (301, 1), 3: (403, 2)}
    claims = (*CLAIMS[:2], replace(CLAIMS[2], first=403))
    loss = Promotion(2, 402, complete=False)
    assert not rules(
        state(450, sessions), (*CLAIMS[:2], replace(claims[2], begun=450, committed=450)), (loss,)
    )
    # Promoted and not yet written again.
    assert not rules(state(402, {1: (1, 1), 2: (301, 1)}), CLAIMS[:2], (loss,))


def test_right_behind_a_lost_writer() -> None:
    """With loss accepted a whole writer may be missing, if nothing of it was acknowledged."""
    claims = (CLAIMS[0], replace(CLAIMS[1], replicated=0))
    loss = Promotion(2, 290, complete=False)
    assert not rules(state(290, {1: (1, 1)}), claims, (loss,))


@pytest.mark.parametrize("name", ["session", "sessions", "values", "items", "blob"])
def test_whole(name: str) -> None:
    """A part of another transaction, in any container, is refused."""
    other = state(500) if name in ("values", "items", "blob") else state(300)
    found = replace(state(499), **{name: getattr(other, name)})
    if name == "sessions":
        found = replace(state(411), sessions=SESSIONS)
    assert "whole" in rules(found)


def test_written() -> None:
    """What nobody had begun is refused, and so is who never wrote."""
    assert rules(state(501)) == {"written"}
    assert "written" in rules(state(499, SESSIONS | {9: (450, 2)}))
    assert "written" in rules(state(499, SESSIONS | {3: (413, 2)}))


def test_prefix() -> None:
    """A committed transaction that is missing is refused, in the middle and at the end."""
    assert rules(state(498)) == {"prefix"}
    early = {1: (1, 1), 2: (300, 1), 3: (412, 2)}
    claims = (CLAIMS[0], replace(CLAIMS[1], first=300), CLAIMS[2])
    assert rules(state(499, early), claims) == {"prefix"}
    assert rules(state(411, {1: (1, 1), 2: (301, 1)})) == {"prefix"}
    assert rules(state(411, {2: (1, 1)}), (CLAIMS[0], replace(CLAIMS[1], first=1))) == {"prefix"}


def test_sealed() -> None:
    """A promotion that calls itself complete and lacks one committed transaction is refused."""
    sessions = {1: (1, 1), 2: (301, 1), 3: (411, 2)}
    claims = (*CLAIMS[:2], replace(CLAIMS[2], first=411))
    assert "sealed" in rules(state(499, sessions), claims, (replace(SEALED, base=410),))


def test_replicated() -> None:
    """A promotion with loss that lacks an acknowledged transaction is refused."""
    loss = Promotion(2, 399, complete=False)
    found = state(399, {1: (1, 1), 2: (301, 1)})
    assert rules(found, CLAIMS[:2], (loss,)) == {"replicated"}
    assert not rules(found, CLAIMS[:2], (replace(loss, is_furthest=False),))


def test_one_writer() -> None:
    """Epochs that interleave are refused, and a fenced writer's values in the new history."""
    back = {1: (1, 1), 2: (301, 1), 3: (412, 2), 4: (450, 1)}
    claims = (*CLAIMS, Claims(4, 1, 450, 600, 590, 0))
    assert "one writer" in rules(state(499, back), claims)
    # The old writer had begun more; one value of it stands behind the place of the promotion.
    late = {1: (1, 1), 2: (301, 1), 3: (413, 2)}
    shifted = (*CLAIMS[:2], replace(CLAIMS[2], first=413))
    assert "one writer" in rules(state(499, late), shifted)
    early = {1: (1, 1), 2: (301, 1), 3: (405, 2)}
    shifted = (*CLAIMS[:2], replace(CLAIMS[2], first=405))
    assert "one writer" in rules(state(499, early), shifted)
