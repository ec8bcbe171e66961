"""What a user of the library writes: the flights of a year, one transaction a flight.

It holds no recovery code. Wherever it is killed, the next start is at the last committed flight,
and it reads on from its own cursor; that start may well be on another host.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Final

import pmlog
from pmlog.demo.acknowledgements import Acknowledgements
from pmlog.demo.flights import Flight, read_flights

LATE_MIN: Final = 60
LATE_KEPT: Final = 5_000
AIRPORTS: Final = 26**3
FULL_LOG_PAUSE_S: Final = 0.005
STOPPED: Final = 3
"""Exit code: commits are refused, since power is failing or another pool has taken over."""


# What is counted for each airport; the last one is how late its departures were, in sum.
DEPARTURES, CANCELLED, ARRIVALS, DELAY_MIN = range(4)
COUNTERS: Final = ("departures", "cancelled", "arrivals", "delay_min")


def row_of(airport: str) -> int:
    """Find an airport's row in the table.

    Args:
        airport: Its code of three letters.

    Returns:
        The row: the code read as a number of base 26.
    """
    first, second, third = airport.encode()
    return ((first - 65) * 26 + second - 65) * 26 + third - 65


class FlightDesk:
    """The application's state, all of it in one pool.

    Args:
        pool: The pool; what is missing in it is made.
    """

    def __init__(self, pool: pmlog.Pool) -> None:
        self._pool = pool
        self.flights = pool.dict("flights", type=Flight)
        self.airports = pool.array("airports", shape=(AIRPORTS, len(COUNTERS)), dtype="i8")
        self.delayed = pool.deque("delayed")
        self.cursor = pool.array("cursor", shape=(1,), dtype="i8")

    @property
    def taken(self) -> int:
        """How many flights have been taken in: where to read on."""
        return int(self.cursor[0])

    def take(self, flight: Flight) -> None:
        """Take a flight in: four containers change, or none does.

        Args:
            flight: The flight.
        """
        airports, delay_min = self.airports, flight.departure_delay_min
        with self._pool.transaction():
            self.flights[flight.key] = flight
            if delay_min is None:
                airports[row_of(flight.origin), CANCELLED] += 1
            else:
                airports[row_of(flight.origin), DEPARTURES] += 1
                airports[row_of(flight.origin), DELAY_MIN] += max(0, delay_min)
                if delay_min >= LATE_MIN:
                    self.delayed.append([flight.key, delay_min])
                    if len(self.delayed) > LATE_KEPT:
                        self.delayed.popleft()
            if flight.arrival_delay_min is not None:
                airports[row_of(flight.destination), ARRIVALS] += 1
            self.cursor[0] += 1


def run(path: str, stop: int | None, acknowledgements: Acknowledgements) -> None:
    """Take in all flights that are still missing.

    Args:
        path: The pool.
        stop: How many flights there are to be; None: all.
        acknowledgements: Where each commit is acknowledged, once it has returned.

    Raises:
        PoolFrozenError: Power is failing.
        FencedError: Another pool has taken over.
    """
    begun = time.perf_counter()
    pool = pmlog.open(path)
    open_s = time.perf_counter() - begun
    with pool:
        desk = FlightDesk(pool)
        count = desk.taken
        acknowledgements.opened(count, open_s)
        for flight in read_flights(count, stop):
            while True:  # ends when receivers have caught up, or the pool is stopped
                try:
                    desk.take(flight)
                    break
                except pmlog.LogFullError:  # nothing has changed
                    time.sleep(FULL_LOG_PAUSE_S)
            count += 1
            acknowledgements.committed(count)


def main() -> int:
    """Run as a process of its own.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description="Keep the flights of a year in a pool.")
    parser.add_argument("--pool", default=os.environ.get("PMLOG_POOL"), help="or PMLOG_POOL")
    parser.add_argument("--flights", type=int, help="how many to take in; all if not given")
    parser.add_argument("--acknowledge", type=Path, required=True, help="a file outside the pool")
    options = parser.parse_args()
    if options.pool is None:
        parser.error("give --pool or PMLOG_POOL")
    with Acknowledgements(options.acknowledge) as acknowledgements:
        try:
            run(options.pool, options.flights, acknowledgements)
        except (pmlog.PoolFrozenError, pmlog.FencedError) as error:
            print(f"stopped: {error}", file=sys.stderr)
            return STOPPED
        except pmlog.PmlogError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
