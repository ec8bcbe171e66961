"""Power losses under full load, with the backlog's bound on and a battery that really ends.

One seed, one loss: the writer writes as fast as the bound lets it, at a random moment power fails,
and at the end of the simulated battery the shipper dies and the pool is gone.
In some runs the network has become ten times slower shortly before, so that more is missing than
the battery can ship: that has to be shown, and nothing more may be claimed than is true.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.chaos.plan import Plan
from tests.chaos.run import Run, end_by_power
from tests.chaos.world import BrokenRunError, until
from tests.support import SHM

BATTERY_S = 4.0
RATE_BYTES_PER_S = 4_000_000
LOAD_BYTES = 8192


def play(seed: int, *, is_loud: bool = False) -> Run:
    """Play one loss; a fault is raised with the story and the seed."""
    rng = random.Random(f"loss {seed}")
    plan = Plan(
        seed=seed, receivers=("one",), late=frozenset(), require=1, required=frozenset({"one"}),
        log="32MiB", events=(), ending="power", is_healed=False, battery_s=BATTERY_S,
        is_simulated=True,
    )  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="pmlog-chaos-", dir=SHM if SHM.is_dir() else None))
    run = Run(plan, folder, is_loud=is_loud)
    try:
        _play(run, rng)
    except Exception as error:
        story = "\n".join((str(plan), *run.world.events))
        raise BrokenRunError(f"loss, seed {seed}: {error}\n{story}\nleft in {folder}") from error
    finally:
        run.world.close()
    shutil.rmtree(folder, ignore_errors=True)
    return run


def _play(run: Run, rng: random.Random) -> None:
    world = run.world
    relay = world.relays["one"]
    collapses = rng.random() < 0.3
    relay.throttle(RATE_BYTES_PER_S)
    world.start_writer(load=LOAD_BYTES)
    until(lambda: world.claims()[0].committed, "the writer writes")
    world.shipper.start()
    world.receivers["one"].start()
    until(lambda: _backlog(run)["limit_bytes"], "the bound is known")
    # Until it has caught up with what was written before it came it knows no rate and has no credit.
    until(lambda: not _backlog(run)["at_risk"], "the receiver has caught up")
    time.sleep(rng.uniform(0.0, 1.0))
    if collapses:
        until(lambda: _backlog(run)["bytes"] > RATE_BYTES_PER_S / 5, "the backlog is at work")
        relay.throttle(RATE_BYTES_PER_S / 10)
        run.log("the network is ten times slower")
        at_risk = until(lambda: _if_at_risk(run), "that it is at risk is shown")
        run.log(f"at risk: {at_risk}")
        assert at_risk is not None
        if at_risk["missing_bytes"] <= 0 or at_risk["bytes"] <= at_risk["limit_bytes"]:
            raise BrokenRunError(f"at risk, and nothing is missing: {at_risk}")
        run.figures["collapsed"] = 1
    before = _backlog(run)
    run.log(f"before: {before}")
    run.figures["backlog"] = before["bytes"]
    sealed = end_by_power(run, to_the_end=rng.random() < 0.3)
    if not sealed and not before["at_risk"]:
        raise BrokenRunError("it was not at risk, and was not saved")
    run.go_on()
    run.judge()


def _backlog(run: Run) -> dict[str, Any]:
    said: dict[str, Any] = run.world.shipper.ask("/v1/pools")[1]["pools"][0]["backlog"]
    return said


def _if_at_risk(run: Run) -> dict[str, Any] | None:
    said = _backlog(run)
    return said if said["at_risk"] else None


def main() -> None:
    """Play the losses that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--runs", type=int, default=1, help="so many, of this seed and the next")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell what happens")
    given = parser.parse_args()
    bad = 0
    for seed in range(given.seed, given.seed + given.runs):
        begun = time.monotonic()
        try:
            run = play(seed, is_loud=given.verbose)
            print(f"seed {seed}: {time.monotonic() - begun:.1f} s {run.figures}", flush=True)
        except BrokenRunError as error:
            bad += 1
            print(error, flush=True)
    print(f"{given.runs} losses, {bad} with faults")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
