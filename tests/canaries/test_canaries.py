"""Shipper and receiver broken on purpose: each fault is caught by the tests that it names.

A canary that survives fails the run, and so does one that is caught without being there.
A few, chosen by the seed, are tried in each run; all of them in a soak.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.canaries.registry import ALLOWED, CANARIES, SIM, Canary

ROOT = Path(__file__).resolve().parents[2]
SIM_SEEDS = (1, 2, 3, 4, 5, 6)
"""Half a day each; most canaries die in the first one."""
SIM_HOURS = 12
SAMPLE = 2
TIMEOUT_S = 600.0
TESTS_FAILED = 1
"""pytest's exit code; any other one is trouble of its own."""


@dataclass(frozen=True)
class Verdict:
    """What came of a try."""

    is_caught: bool
    output: str


def run(arguments: list[str], canary: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a canary, or with none."""
    with tempfile.TemporaryDirectory() as folder:
        seen = Path(folder, "seen")
        environ = os.environ | {"PMLOG_CANARY": canary, "PMLOG_CANARY_SEEN": str(seen)}
        done = _run(arguments, environ)
        assert not canary or seen.exists(), f"the broken module was never used:\n{done.stdout}"
    return done


def _run(arguments: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environ, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S,
    )  # fmt: skip


def simulate(seed: int, canary: str) -> Verdict:
    """Let the simulation look for the canary."""
    done = run(["-m", "tests.sim", "--seed", str(seed), "--hours", str(SIM_HOURS)], canary)
    is_caught = done.returncode != 0
    assert not is_caught or f"seed {seed}, episode" in done.stdout, done.stdout
    return Verdict(is_caught, done.stdout)


def test(selection: str, canary: str) -> Verdict:
    """Let tests look for the canary."""
    done = run(
        ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", selection],
        canary,
    )
    assert done.returncode in (0, TESTS_FAILED), done.stdout
    return Verdict(done.returncode == TESTS_FAILED, done.stdout)


@cache
def is_sound(caught_by: str, seed: int) -> bool:
    """Whether what catches the canary passes without one."""
    verdict = simulate(seed, "") if caught_by == SIM else test(caught_by, "")
    return not verdict.is_caught


def hunt(canary: Canary) -> str | None:
    """Say what caught it; None: nothing did."""
    seeds = SIM_SEEDS if canary.caught_by == SIM else SIM_SEEDS[:1]
    for seed in seeds:
        catch = (
            simulate(seed, canary.name)
            if canary.caught_by == SIM
            else test(canary.caught_by, canary.name)
        )
        if catch.is_caught:
            assert is_sound(canary.caught_by, seed), "it fails without the canary too"
            return (
                f"{canary.caught_by}, seed {seed}" if canary.caught_by == SIM else canary.caught_by
            )
    return None


def must_be_caught(canary: Canary) -> None:
    """Hunt it; fail if it survives without leave."""
    catch = hunt(canary)
    print(f"{canary.name}: {catch or ALLOWED.get(canary.name, 'SURVIVED')}")
    assert catch or canary.name in ALLOWED, f"{canary.name} survived: {canary.what}"


test.__test__ = False  # type: ignore[attr-defined]  # its name says what it runs


def test_there_are_enough() -> None:
    """Each has a name, one line, and a tier that is there."""
    assert len(CANARIES) >= 60
    assert set(ALLOWED) <= set(CANARIES)
    for canary in CANARIES.values():
        assert canary.old != canary.new
        assert len(canary.what) < 100
        assert canary.caught_by == SIM or (ROOT / canary.caught_by.partition("::")[0]).exists()


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.canary
def test_sample(rng: random.Random) -> None:
    """Some of them, chosen by the seed of the run, are caught."""
    for canary in rng.sample(list(CANARIES.values()), SAMPLE):
        must_be_caught(canary)


@pytest.mark.soak
@pytest.mark.canary
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", CANARIES)
def test_each(name: str) -> None:
    """Every one of them is caught."""
    must_be_caught(CANARIES[name])
