"""`python -m tests.canaries`: every canary, in one table, and who has caught it.

First the engine's, by the native program that switches them on; then those of shipper, receiver and
what both share.
It fails if a canary survives that is not allowed to, or if too many are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tests.canaries.registry import ALLOWED, CANARIES, Canary
from tests.canaries.test_canaries import ROOT, hunt

CANARIES_MIN = 60
CAUGHT_MIN = 0.95


@dataclass(frozen=True)
class Row:
    """What came of one canary."""

    name: str
    where: str
    breaks: str
    is_caught: bool
    by: str
    """Who caught it, or why it may live."""

    @property
    def tier(self) -> str:
        """The tests that caught it, without the seed or file."""
        return self.by.split(",")[0].split(" (")[0].removeprefix("tests/").partition("::")[0]


def engine(program: Path) -> list[Row]:
    """Run the native program over all canaries of the engine."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        done = subprocess.run(
            [program], env=os.environ | {"PMLOG_CANARY_REPORT": str(report)},
            text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        lines = report.read_text().splitlines() if report.exists() else []
        said = [json.loads(line) for line in lines]
    if not said:
        sys.exit(f"{program} has reported nothing:\n{done.stdout}")
    rows = [
        Row(one["canary"], one["where"], one["breaks"], one["caught"], one["by"]) for one in said
    ]
    if done.returncode and all(row.is_caught for row in rows):
        sys.exit(f"{program} has failed:\n{done.stdout}")
    return rows


def try_one(canary: Canary) -> Row:
    """Hunt one of the others."""
    catch = hunt(canary)
    by = catch or ALLOWED.get(canary.name, "SURVIVED")
    return Row(canary.name, canary.module, canary.what, catch is not None, by)


def others(names: list[str], jobs: int) -> Iterator[Row]:
    """Hunt the canaries of Python modules."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(try_one, [CANARIES[name] for name in names])


def main() -> None:
    """Try them, print the table, and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.canaries", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these of the Python modules, and no engine")
    parser.add_argument("--native", type=Path, default=ROOT / "build/native/test_canaries")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time")
    given = parser.parse_args()
    begun = time.monotonic()
    rows: list[Row] = []
    print(f"{'canary':30} {'where':22} {'caught by':42} what it breaks")
    for row in chain(
        [] if given.names else engine(given.native),
        others(given.names or list(CANARIES), given.jobs),
    ):
        rows.append(row)
        print(f"{row.name:30} {row.where:22} {row.by:42} {row.breaks}", flush=True)
    caught = [row for row in rows if row.is_caught]
    survivors = [row for row in rows if not row.is_caught]
    unexplained = [row.name for row in survivors if row.by == "SURVIVED"]
    print("\ncaught by:")
    for tier, count in Counter(row.tier for row in caught).most_common():
        print(f"{count:5} {tier}")
    print(
        f"canaries: {len(caught)} of {len(rows)} caught, "
        f"{len(survivors) - len(unexplained)} allowed to survive; {time.monotonic() - begun:.0f} s"
    )
    if unexplained:
        sys.exit(f"survived: {', '.join(unexplained)}")
    if not given.names and (len(rows) < CANARIES_MIN or len(caught) < CAUGHT_MIN * len(rows)):
        sys.exit(f"too few: at least {CANARIES_MIN}, and {CAUGHT_MIN:.0%} of them caught")


if __name__ == "__main__":
    main()
