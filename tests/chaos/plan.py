"""What happens in a run, decided by its seed alone. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from tests.e2e.relay import Cut

RECEIVERS_MAX: Final = 2
SPAN_S: Final = 1.0
"""Events begin within this time."""


@dataclass(frozen=True)
class Event:
    """Something that begins, lasts, and is over."""

    at_s: float
    kind: str
    who: str
    """Whom it happens to; of the network: to whose connection."""
    lasts_s: float
    how: Any = None


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    receivers: tuple[str, ...]
    late: frozenset[str]
    """Those that come only with an event."""
    require: int
    required: frozenset[str]
    log: str
    events: tuple[Event, ...]
    ending: str
    """power: announced, then the host is lost; host: lost at once; promotion: beside the old one."""
    is_healed: bool
    """Everybody is well and connected before the end."""
    battery_s: float
    """How long there is power once its loss was announced."""
    is_simulated: bool
    """The shipper has a simulated battery, at whose end it dies and the pool is gone."""
    kills_promoter_s: float | None = None
    """The receiver is killed so soon after it was told to take over."""
    returns: str = ""
    """Afterwards the others follow the survivor, the old primary too if there is one; seal: the
    survivor is given up in turn, sealed; kill: whoever returns is killed on the way."""


def make_plan(seed: int) -> Plan:
    """Choose what happens.

    Args:
        seed: The run's.

    Returns:
        The same for the same seed.
    """
    rng = random.Random(seed)
    receivers = ("one", "two")[: rng.randint(1, RECEIVERS_MAX)]
    require = rng.randint(1, len(receivers))
    is_late = len(receivers) == 2 and rng.random() < 0.3
    events = [_event(rng, receivers) for _ in range(rng.randint(2, 8))]
    if is_late:
        events.append(Event(rng.uniform(0, SPAN_S), "join", "two", 0.0))
    ending = rng.choice(("power", "power", "host", "promotion"))
    # A battery that has fed earlier failures might end at any of them.
    has_full_battery = ending == "power" and all(event.kind != "power" for event in events)
    return Plan(
        seed=seed,
        receivers=receivers,
        late=frozenset({"two"} if is_late else ()),
        require=require,
        required=frozenset(name for name in receivers if rng.random() < 0.5),
        log=rng.choice(("256KiB", "1MiB", "4MiB")),
        events=tuple(sorted(events, key=lambda event: event.at_s)),
        ending=ending,
        is_healed=rng.random() < 0.6,
        battery_s=rng.choice((0.2, 1.0, 3.0)),
        is_simulated=has_full_battery and rng.random() < 0.6,
        kills_promoter_s=rng.uniform(0, 0.02) if rng.random() < 0.25 else None,
        returns=rng.choice(("", "", "seal", "kill")),
    )


def _event(rng: random.Random, receivers: tuple[str, ...]) -> Event:
    at_s = rng.uniform(0, SPAN_S)
    lasts_s = rng.choice((0.0, 0.02, 0.1, 0.4))
    receiver = rng.choice(receivers)
    who = rng.choice(("writer", "shipper", receiver))
    kind = rng.choice(
        ("kill", "kill", "kill", "stop", "cut", "cut", "slow", "delay", "power", "end", "flip")
    )
    match kind:
        case "cut":
            return Event(at_s, kind, receiver, lasts_s, rng.choice(list(Cut)))
        case "slow":
            return Event(at_s, kind, receiver, lasts_s, rng.choice((20_000, 200_000, 2_000_000)))
        case "delay":
            return Event(at_s, kind, receiver, lasts_s, rng.choice((0.005, 0.05)))
        case "flip":
            return Event(at_s, kind, receiver, lasts_s, rng.choice((1, 5)))
        case "power":
            return Event(at_s, kind, "shipper", lasts_s, rng.choice((0.1, 1.0)))
        case _:
            return Event(at_s, kind, who, lasts_s)
