"""The kernel's power supplies: /sys/class/power_supply.

A folder a supply, a file an attribute (Documentation/ABI/testing/sysfs-class-power in the kernel's
sources): `type` is Mains, USB, UPS or Battery; `online` of the first two is 0 without power;
`status` of the others is Discharging then.
"""

import asyncio
from enum import Enum
from pathlib import Path
from typing import Final

from shipper.power.source import OnBattery, PolledSource, Report, Restored

FOLDER: Final = "/sys/class/power_supply"
INTERVAL_S: Final = 1.0
SUPPLIES_MAX: Final = 64
_VALUE_BYTES_MAX: Final = 4096


class Reading(Enum):
    """What the supplies say together."""

    MAINS = "mains"
    BATTERY = "battery"
    NOTHING = "nothing"
    """None of them tells."""


def judge(supplies: list[dict[str, str]]) -> Reading:
    """Tell whether this host runs on battery.

    Args:
        supplies: Attributes of each.

    Returns:
        What they say: any mains that is online counts before batteries; a battery may discharge
        a little on mains.
    """
    mains = [one for one in supplies if one.get("type") in ("Mains", "USB") and "online" in one]
    # 2 is "online, programmable", of USB.
    if any(one["online"] not in ("0", "") for one in mains):
        return Reading.MAINS
    cells = [one for one in supplies if one.get("type") in ("UPS", "Battery")]
    # A mouse's or a headset's battery does not feed this host.
    states = [one.get("status", "") for one in cells if one.get("scope") != "Device"]
    if "Discharging" in states:
        return Reading.BATTERY
    if any(one.get("type") == "Mains" for one in mains):
        return Reading.BATTERY
    return Reading.MAINS if {"Charging", "Full", "Not charging"} & set(states) else Reading.NOTHING


def read(folder: Path) -> list[dict[str, str]]:
    """Read the supplies.

    Args:
        folder: Where they are.

    Returns:
        The attributes that count, of each.

    Raises:
        OSError: The folder cannot be read.
    """
    found = []
    for supply in sorted(folder.iterdir())[:SUPPLIES_MAX]:
        values = {}
        for name in ("type", "online", "status", "scope"):
            try:
                with open(supply / name, "rb") as file:
                    values[name] = file.read(_VALUE_BYTES_MAX).decode(errors="replace").strip()
            except OSError:
                continue  # an attribute that this supply does not have, or has no value now
        found.append(values)
    return found


class SysfsSource(PolledSource):
    """The kernel's power supplies.

    Args:
        name: What it was asked for by.
        folder: Where they are.
        interval_s: How often they are read.
    """

    def __init__(self, name: str, folder: Path, interval_s: float = INTERVAL_S) -> None:
        super().__init__(name, interval_s)
        self._folder = folder

    async def step(self, report: Report) -> None:
        """Read them once.

        Args:
            report: Takes what they say.

        Raises:
            ValueError: None of them tells.
            OSError: The folder cannot be read.
        """
        reading = judge(await asyncio.to_thread(read, self._folder))
        if reading is Reading.NOTHING:
            raise ValueError(f"no supply in {self._folder} tells whether there is mains")
        if reading is Reading.BATTERY:
            report(OnBattery(self.name, is_repeated=True))
        else:
            report(Restored(self.name))
