"""The same computation in plain Python, and the comparison of its outcome with a pool, field by field."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Any, Final

import msgspec

import pmlog
from pmlog.demo.application import AIRPORTS, COUNTERS, LATE_KEPT, LATE_MIN, FlightDesk, row_of
from pmlog.demo.flights import Flight

DIFFERENCES_SHOWN: Final = 10
_ABSENT: Final = "nothing"


@dataclass(slots=True)
class Comparison:
    """What came of it."""

    fields: int = 0
    """How many were compared."""
    differences: int = 0
    shown: list[str] = field(default_factory=list)
    """The first differences, in words."""

    def same(self, what: str, found: object, expected: object) -> None:
        """Compare one field.

        Args:
            what: Which one.
            found: In the pool.
            expected: In plain Python.
        """
        self.fields += 1
        # Types too: 1 and True are equal.
        if found == expected and type(found) is type(expected):
            return
        self.differences += 1
        if len(self.shown) < DIFFERENCES_SHOWN:
            self.shown.append(f"{what}: {found!r} in the pool, {expected!r} in plain Python")


@dataclass(slots=True)
class Plain:
    """The application's state, without pmlog."""

    flights: dict[str, Flight] = field(default_factory=dict)
    airports: dict[str, dict[str, int]] = field(
        default_factory=lambda: defaultdict(lambda: dict.fromkeys(COUNTERS, 0))
    )
    delayed: deque[list[Any]] = field(default_factory=lambda: deque(maxlen=LATE_KEPT))
    taken: int = 0


def compute(flights: Iterable[Flight]) -> Plain:
    """Do what the application does, with plain dicts.

    Args:
        flights: The input.

    Returns:
        The state after it.
    """
    plain = Plain()
    for flight in flights:
        plain.flights[flight.key] = flight
        origin = plain.airports[flight.origin]
        if flight.departure_delay_min is None:
            origin["cancelled"] += 1
        else:
            origin["departures"] += 1
            origin["delay_min"] += max(0, flight.departure_delay_min)
            if flight.departure_delay_min >= LATE_MIN:
                plain.delayed.append([flight.key, flight.departure_delay_min])
        if flight.arrival_delay_min is not None:
            plain.airports[flight.destination]["arrivals"] += 1
        plain.taken += 1
    return plain


def compare(pool: pmlog.Pool, plain: Plain) -> Comparison:
    """Compare a pool with the state that it should hold; the order of entries counts too.

    Args:
        pool: The application's pool; it may be read-only.
        plain: What it should hold.

    Returns:
        How many fields were compared, and which of them differ.
    """
    outcome = Comparison()
    missing = {"flights", "airports", "delayed", "cursor"} - set(pool.names())
    if missing:
        outcome.same("containers", f"without {', '.join(sorted(missing))}", "all four")
        return outcome
    desk = FlightDesk(pool)
    outcome.same("cursor", desk.taken, plain.taken)
    _compare_flights(outcome, desk.flights, plain.flights)
    _compare_airports(outcome, desk.airports[...].tolist(), plain.airports)
    for index, (found, expected) in enumerate(
        zip_longest(desk.delayed, plain.delayed, fillvalue=_ABSENT)
    ):
        outcome.same(f"delayed[{index}]", found, expected)
    return outcome


def _compare_flights(
    outcome: Comparison, found: Mapping[str, Flight], expected: Mapping[str, Flight]
) -> None:
    outcome.same("number of flights", len(found), len(expected))
    for (found_key, flight), (key, wanted) in zip(found.items(), expected.items(), strict=False):
        outcome.same("key of a flight", found_key, key)
        for name in Flight.__struct_fields__:
            outcome.same(f"flights[{key!r}].{name}", getattr(flight, name), getattr(wanted, name))
    for key in islice(_only_in(expected, found), DIFFERENCES_SHOWN):
        outcome.same(f"flights[{key!r}]", _ABSENT, msgspec.to_builtins(expected[key]))


def _only_in(one: Mapping[str, Flight], other: Mapping[str, Flight]) -> Iterator[str]:
    if len(one) > len(other):
        yield from (key for key in one if key not in other)


def _compare_airports(
    outcome: Comparison, found: list[list[int]], expected: Mapping[str, Mapping[str, int]]
) -> None:
    """Compare every row of the table, also those that must have stayed empty."""
    codes = {row_of(code): code for code in expected}
    empty = [0] * len(COUNTERS)
    outcome.same("rows of the table", len(found), AIRPORTS)
    for row, counters in enumerate(found):
        if (code := codes.get(row)) is None:
            if counters != empty:
                outcome.same(f"airports[{row}]", counters, empty)
            continue
        for name, counted in zip(COUNTERS, counters, strict=True):
            outcome.same(f"airports[{code}].{name}", counted, expected[code][name])
