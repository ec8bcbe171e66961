"""Batteries: what the operator may say, and how a simulated one runs down."""

from __future__ import annotations

import pytest

from pmlog.durations import parse_duration
from pmlog.errors import ConfigError
from shipper.battery import RECHARGE_PER_S, Battery, SimulatedBattery, parse_battery


@pytest.mark.parametrize(
    ("text", "battery"),
    [
        ("45s", Battery(45.0)),
        (" 1.5 min ", Battery(90.0)),
        ("900J/20W", Battery(45.0)),
        ("900 J / 20 W", Battery(45.0)),
        ("sim:20s", Battery(20.0, is_simulated=True)),
        ("sim:500ms", Battery(0.5, is_simulated=True)),
        ("sim:10J/4W", Battery(2.5, is_simulated=True)),
    ],
)
def test_batteries(text: str, battery: Battery) -> None:
    """A battery is seconds, or joules and watts, real or simulated."""
    assert parse_battery(text) == battery


@pytest.mark.parametrize(
    "text",
    ["", "45", "45 parsecs", "-1s", "0s", "900J", "900J/0W", "0J/20W", "900W/20J", "sim", "sim:",
     "sim:sim:1s", "SIM:1s", "big:1s", "999h", "1e3s", "1J/0.000001W", "nan", "infs"],
)  # fmt: skip
def test_no_batteries(text: str) -> None:
    """Anything else is refused, and the message names it and the forms."""
    with pytest.raises(ConfigError) as caught:
        parse_battery(text)
    assert repr(text) in str(caught.value)
    assert "sim:20s" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("2s", 2.0), ("2min", 120.0), ("1.5h", 5400.0)]
)
def test_durations(text: str, seconds: float) -> None:
    """A duration is a number with a unit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "2 years", "0s", "169h", "٢s", "1_0s"])
def test_no_durations(text: str) -> None:
    """Anything else is refused by the option's name."""
    with pytest.raises(ConfigError, match="lag"):
        parse_duration(text, "lag")


def test_simulated_battery() -> None:
    """It runs down while power fails, never below empty, and regains its charge on mains only."""
    now = 100.0
    battery = SimulatedBattery(20.0, lambda: now)
    now += 1000
    assert battery.seconds_left() == 20.0
    battery.fail()
    now += 5
    battery.fail()  # a second word of the same failure gives nothing back
    assert battery.seconds_left() == 15.0
    battery.restore()
    now += 4
    battery.restore()
    assert battery.seconds_left() == 15.0 + 4 * RECHARGE_PER_S
    battery.fail()
    now += 60
    assert battery.seconds_left() == 0.0
    battery.restore()
    now += 1e6
    assert battery.seconds_left() == 20.0
