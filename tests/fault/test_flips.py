"""Random damage by the thousand: every one is seen, or has no effect on what is read."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault import flips
from tests.support import Child

pytestmark = pytest.mark.damaged
Spawn = Callable[..., Child]

FLIPS = int(os.environ.get("PMLOG_FLIPS", "2000"))
FLIPS_SOAK = int(os.environ.get("PMLOG_FLIPS", "100000"))
SEEN = {"refused", "detected", "waits for the rest", flips.NO_EFFECT}


def is_a_gap(target: str, kind: str, outcome: str) -> bool:
    """Whether docs/guarantees.md says that this is not promised."""
    if outcome == flips.LAST_RECORDS:
        return target == "pool after a reboot: log"
    if outcome != flips.REPLAYED or not target.endswith(": image"):
        return False
    # A pool at rest is replayed only if the same harm, a swap, took one of its marks.
    return kind == "swap" or target in ("pool after a reboot: image", "killed pool: image")


def judge(counts: flips.Counts, count: int) -> None:
    """Print what became of the damage; fail if any of it was served."""
    outcomes: Counter[str] = Counter()
    for (target, kind, outcome), number in sorted(counts.items()):
        print(f"{number:7} {target}: {kind}: {outcome}")
        outcomes[outcome] += number
    print(dict(outcomes))
    wrong = {
        what: number
        for what, number in counts.items()
        if what[2] not in SEEN and not is_a_gap(*what)
    }
    assert not wrong
    assert sum(outcomes.values()) == count
    assert outcomes["refused"] > count / 10
    assert outcomes["detected"] > count / 100


@pytest.mark.timeout(600)
def test_some(spawn: Spawn, rng: random.Random, memory_dir: Path) -> None:
    """Thousands of flips, truncations, duplications and swaps in files, frames and records."""
    child = spawn(flips.run, str(memory_dir), FLIPS, rng.randrange(1 << 30))
    judge(child.hear(600), FLIPS)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_many(spawn: Spawn, rng: random.Random, memory_dir: Path) -> None:
    """The same, a hundred thousand times."""
    child = spawn(flips.run, str(memory_dir), FLIPS_SOAK, rng.randrange(1 << 30))
    judge(child.hear(36_000), FLIPS_SOAK)


def test_a_canary(rng: random.Random) -> None:
    """The judge is no rubber stamp: data that was served wrong fails."""
    bad = Counter({("frame", "flip", "refused"): 90, ("frame", "flip", "detected"): 9})
    judge(bad + Counter({("frame", "flip", flips.NO_EFFECT): 1}), 100)
    for target, outcome in (
        ("frame", "WRONG DATA served"),
        ("killed pool: log", flips.LAST_RECORDS),
        ("closed pool: sums", flips.REPLAYED),
    ):
        with pytest.raises(AssertionError):
            judge(bad + Counter({(target, rng.choice(flips.KINDS), outcome): 1}), 100)
