"""Positions: what two sides compare."""

from __future__ import annotations

import itertools
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pmlog
from pmlog.position import Position, Relation

positions = st.builds(
    Position,
    epoch=st.integers(0, 2**32 - 1),
    lsn=st.integers(0, 2**64 - 1),
    chain=st.integers(0, 2**32 - 1),
)


@given(positions)
def test_text_round_trip(position: Position) -> None:
    """A position is read back from what it is written as."""
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "bad",
    ["", "1", "1:2", "1:2:3", "a:2:00000000", "1:2:00000000:4", "1:-2:00000000", "1:2:0000000g"],
)
def test_parse_refuses(bad: str) -> None:
    """What is no position raises ConfigError."""
    with pytest.raises(pmlog.ConfigError):
        Position.parse(bad)


def test_relations() -> None:
    """Positions of one epoch are ordered by LSN; equal LSNs with other bytes have diverged."""
    a, b = Position(1, 100, 7), Position(1, 200, 8)
    assert a.relation(b) is Relation.BEHIND
    assert b.relation(a) is Relation.AHEAD
    assert a.relation(Position(1, 100, 7, txn=9)) is Relation.SAME
    assert a.relation(Position(1, 100, 8)) is Relation.DIVERGED
    assert a.relation(Position(2, 100, 7)) is Relation.UNKNOWN
    assert a < b
    assert a <= b
    assert b > a
    assert b >= a
    assert a <= Position(1, 100, 7)
    assert not a < Position(1, 100, 7)


@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_no_order(compare: object) -> None:
    """Comparing positions of other epochs or diverged histories raises, never guesses."""
    a = Position(1, 100, 7)
    with pytest.raises(pmlog.UsageError):
        compare(a, Position(2, 200, 7))  # type: ignore[operator]
    with pytest.raises(pmlog.ForkError):
        compare(a, Position(1, 100, 8))  # type: ignore[operator]
    with pytest.raises(TypeError):
        compare(a, 100)  # type: ignore[operator]


@given(st.lists(positions, min_size=2, max_size=4))
def test_relation_is_symmetric(some: list[Position]) -> None:
    """Seen from the other side a relation is turned round."""
    mirror = {Relation.BEHIND: Relation.AHEAD, Relation.AHEAD: Relation.BEHIND}
    for a, b in itertools.product(some, some):
        assert b.relation(a) is mirror.get(a.relation(b), a.relation(b))
        assert (a == b) == (a.relation(b) is Relation.SAME)


def test_hashable_and_frozen() -> None:
    """Positions are values: hashable, and not to be changed."""
    a = Position(1, 100, 7)
    assert len({a, Position(1, 100, 7, txn=3)}) == 1
    with pytest.raises(AttributeError):
        a.lsn = 5  # type: ignore[misc]
