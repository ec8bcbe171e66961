"""Shipper and receivers on virtual time: many hours of disasters, each repeatable by its seed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sim.loop import DeadlockError, VirtualLoop
from tests.sim.world import simulate

ROOT = Path(__file__).resolve().parents[2]
SOAK_S = float(os.environ.get("PMLOG_SOAK_S", "60"))


def run(loop: VirtualLoop, work: Any) -> Any:
    """Run something in a virtual loop."""
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def test_time_jumps() -> None:
    """A year of sleep takes no time; timers fire in order; threads' work is done at once."""
    loop = VirtualLoop(lambda: None)
    fired: list[tuple[float, int]] = []

    def note(number: int) -> None:
        fired.append((loop.time(), number))

    async def main() -> None:
        for number, after_s in enumerate((30.0, 10.0, 20.0)):
            loop.call_later(after_s, note, number)
        await asyncio.sleep(365 * 86400)
        assert await asyncio.to_thread(loop.time) == 365 * 86400
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()

    begun = time.monotonic()
    run(loop, main())
    assert time.monotonic() - begun < 60
    assert fired == [(10.0, 1), (20.0, 2), (30.0, 0)]
    assert loop.time() == 365 * 86400 + 5


def test_deadlock_is_seen() -> None:
    """When nothing will ever happen any more, the loop says so."""
    loop = VirtualLoop(lambda: None)
    with pytest.raises(DeadlockError):
        run(loop, asyncio.Event().wait())


def simulated(seed: int, hours: float, **environ: str) -> subprocess.Popen[str]:
    """Start a run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sim", "--seed", str(seed), "--hours", str(hours)],
        cwd=ROOT, env=os.environ | environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_same_seed_same_trace(rng: random.Random) -> None:
    """One seed gives one run, down to each byte sent, in every process; another seed another one."""
    seed = rng.randrange(1 << 30)
    runs = [
        simulated(seed, 2, PYTHONHASHSEED="1"),
        simulated(seed, 2, PYTHONHASHSEED="2"),
        simulated(seed + 1, 2),
    ]
    said = [one.communicate()[0] for one in runs]
    assert [one.returncode for one in runs] == [0, 0, 0], "\n".join(said)
    outcomes = [json.loads(text.splitlines()[-1]) for text in said]
    for outcome in outcomes:
        del outcome["cpu_s"]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["hash"] != outcomes[2]["hash"]


@pytest.mark.timeout(600)
def test_hours(rng: random.Random, memory_dir: Path) -> None:
    """Half a day: cuts, stalls, kills, checkpoints, power losses, takeovers; every invariant holds.

    The seed is printed with a failure; `python -m tests.sim --seed` repeats it.
    """
    begun = time.process_time()
    outcome = simulate(rng.randrange(1 << 30), 12, memory_dir)
    seconds = time.process_time() - begun
    print(f"{outcome.hours:.1f} hours in {seconds:.1f} s of one processor: {outcome.counts}")
    assert outcome.counts["commit"] > 100
    assert outcome.counts["disturbed"] > 5


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_many_hours(rng: random.Random, memory_dir: Path) -> None:
    """The same for as long as the soak lasts."""
    hours = 0.0
    counts: dict[str, int] = {}
    begun, begun_cpu = time.monotonic(), time.process_time()
    while time.monotonic() - begun < SOAK_S:
        outcome = simulate(rng.randrange(1 << 30), 24, memory_dir)
        hours += outcome.hours
        for name, count in outcome.counts.items():
            counts[name] = counts.get(name, 0) + count
    minutes = (time.process_time() - begun_cpu) / 60
    print(f"{hours:.0f} hours, {hours / minutes:.0f} a minute of one processor: {counts}")
    assert {"promote", "lost", "takeover", "restored", "incomplete", "whole"} <= set(counts)
