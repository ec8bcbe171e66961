"""When things happen, counted in flights, so that a fast machine and a slow one see the same. Pure."""

import random
from dataclasses import dataclass
from typing import Final

KILLS: Final = 3
_BEFORE: Final = (0.08, 0.60)
"""Between these shares of all flights the application is killed."""
_POWER: Final = (0.65, 0.80)
"""Between these power fails."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does."""

    seed: int
    flights: int
    kills: tuple[int, ...]
    """The application is killed at the first look after so many flights, ascending."""
    power_loss: int
    """Power fails at the first look after so many flights."""


def make_plan(seed: int, flights: int) -> Plan:
    """Choose when the application is killed and when power fails.

    Args:
        seed: Repeats the choice.
        flights: How many flights there are.

    Returns:
        The plan.
    """
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    low, high = _BEFORE
    step = (high - low) / KILLS
    # One in each part of the way, so that no two fall together.
    kills = [rng.uniform(low + n * step, low + (n + 0.7) * step) for n in range(KILLS)]
    marks = [int(share * flights) for share in (*kills, rng.uniform(*_POWER))]
    return Plan(seed, flights, tuple(marks[:-1]), marks[-1])
