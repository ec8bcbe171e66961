"""How long there is power once it fails.

`Battery` is what the operator says; it bounds the backlog.
A UPS's own runtime is an upper bound only, never believed alone: worn batteries say too much.
`SimulatedBattery` is a budget on a clock, for tests and the demo.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pmlog.durations import DURATION_S_MAX, parse_duration
from pmlog.errors import ConfigError

RECHARGE_PER_S: Final = 0.5
"""Seconds of battery that a simulated one regains in a second of mains."""

_JOULES: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)J/(\d{1,12}(?:\.\d{1,6})?)W", re.ASCII)
_HINT: Final = "as in 45s, in 900J/20W, or in sim:20s for a simulated one"


@dataclass(frozen=True, slots=True)
class Battery:
    """What the operator says of the battery."""

    seconds: float
    """How long it feeds this host, from the moment power fails."""
    is_simulated: bool = False
    """At its end the lights go out: the shipper dies and the pools are gone."""


def parse_battery(text: str) -> Battery:
    """Read a battery.

    Args:
        text: Seconds (45s), joules and watts (900J/20W), or a simulated one (sim:20s).

    Returns:
        The battery.

    Raises:
        ConfigError: It is none of these, or out of range.
    """
    kind, colon, rest = text.strip().partition(":")
    is_simulated = bool(colon) and kind == "sim"
    amount = (rest if is_simulated else text).strip()
    if match := _JOULES.fullmatch(amount.replace(" ", "")):
        joules, watts = float(match[1]), float(match[2])
        if not watts or not 0 < joules / watts <= DURATION_S_MAX:
            raise ConfigError(f"battery: {text!r} is out of range", hint=_HINT)
        return Battery(joules / watts, is_simulated)
    try:
        return Battery(parse_duration(amount, "battery"), is_simulated)
    except ConfigError as error:
        raise ConfigError(f"battery: {text!r} is not a battery", hint=_HINT) from error


class SimulatedBattery:
    """A budget of seconds that runs down while power fails.

    Args:
        seconds: The budget when it is full, as at the start.
        clock: Seconds that only grow.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds_full = seconds
        self._clock = clock
        self._charge_s = seconds
        self._since_s = clock()
        """When `_charge_s` was right."""
        self.on_battery = False

    def seconds_left(self) -> float:
        """Tell how long it lasts.

        Returns:
            Seconds, were power to fail now or to go on failing; 0: it is empty.
        """
        passed_s = max(0.0, self._clock() - self._since_s)
        if self.on_battery:
            return max(0.0, self._charge_s - passed_s)
        return min(self.seconds_full, self._charge_s + passed_s * RECHARGE_PER_S)

    def fail(self) -> None:
        """Power fails: run down from here. Again while it fails changes nothing."""
        self._turn(on_battery=True)

    def restore(self) -> None:
        """Power is back: recharge from here. Again changes nothing."""
        self._turn(on_battery=False)

    def _turn(self, *, on_battery: bool) -> None:
        if on_battery == self.on_battery:
            return
        self._charge_s = self.seconds_left()
        self._since_s = self._clock()
        self.on_battery = on_battery
