"""Random events between real processes, a seed a run: what is promoted is what was promised.

*Model*: processes are killed and stopped, the network is cut, half open, slow or late, power fails
and returns, receivers come late; then the host is lost, with or without a warning, or a receiver is
promoted beside it.
*Method*: `plan.py` draws the events from the seed, `run.py` plays them, `history.py` judges.
`python -m tests.chaos.run --seed N -v` plays one again.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.chaos import losses
from tests.chaos.run import play

RUNS = 6
LOSSES = 2


@pytest.mark.parametrize("number", range(RUNS))
def test_run(seed: int, number: int) -> None:
    """One run ends with nothing lost that was promised, and with nothing invented."""
    print(f"seed {seed + number}")
    play(seed + number)


@pytest.mark.soak
def test_many_runs(seed: int) -> None:
    """The same until the time is up, or for PMLOG_RUNS runs."""
    runs = int(os.environ.get("PMLOG_RUNS", "0"))
    deadline = time.monotonic() + float(os.environ.get("PMLOG_SOAK_S", "60"))
    number = 0
    while number < runs if runs else time.monotonic() < deadline:
        print(f"seed {seed + number}", flush=True)
        play(seed + number)
        number += 1


@pytest.mark.parametrize("number", range(LOSSES))
def test_loss(seed: int, number: int) -> None:
    """Under full load with the bound on, what is not at risk is saved, and nothing else is claimed."""
    print(f"seed {seed + number}")
    losses.play(seed + number)


@pytest.mark.soak
def test_many_losses(seed: int) -> None:
    """The same for many moments, until the time is up, or PMLOG_RUNS of them."""
    runs = int(os.environ.get("PMLOG_RUNS", "0"))
    deadline = time.monotonic() + float(os.environ.get("PMLOG_SOAK_S", "60"))
    number = 0
    while number < runs if runs else time.monotonic() < deadline:
        print(f"seed {seed + number}", flush=True)
        losses.play(seed + number)
        number += 1
