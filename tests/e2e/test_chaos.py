"""Random kills of writer, shipper and receiver, then power loss and promotion."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tests.e2e.services import Cluster, status, until
from tests.e2e.test_shipping import has_all, last_of

ROUNDS = 6


def run(folder: Path, seed: int) -> None:
    """One run: kills, then a power loss; what is promoted is exactly what was committed."""
    rng = random.Random(seed)
    cluster = Cluster(folder)
    try:
        shipper, receiver = cluster.pair()
        writer = cluster.writer()
        writer.hear()
        for _ in range(ROUNDS):
            time.sleep(rng.uniform(0, 0.2))  # when to kill is what is random here
            who = rng.choice(["writer", "shipper", "receiver"])
            if who == "writer":
                writer.kill()
                writer = cluster.writer()
                writer.hear()
            elif who == "shipper":
                shipper.kill()
                shipper = cluster.shipper(port=shipper.port)
            else:
                receiver.kill()
                receiver = cluster.receiver("one", shipper.port)
        if rng.random() < 0.5:
            writer.kill()
        until(lambda: shipper.ask("/v1/power-loss", "POST", {"timeout_s": 5})[1]["sealed"])
        assert has_all(receiver, cluster.pool)
        committed = last_of(cluster.pool)
        shipper.kill()
        shutil.rmtree(cluster.pool)
        code, answer = receiver.ask("/v1/promote", "POST")
        assert (code, answer["complete"]) == (200, True), answer
        assert status(receiver)["state"] == "promoted"
        assert last_of(cluster.replica("one")) == committed
    finally:
        cluster.close()


@pytest.mark.parametrize("number", range(2))
def test_kills(memory_dir: Path, seed: int, number: int) -> None:
    """Whoever is killed, a sealed promotion holds exactly what was committed."""
    print(f"seed {seed + number}")
    run(memory_dir, seed + number)


@pytest.mark.soak
def test_many_kills(memory_dir: Path, seed: int) -> None:
    """The same until the time is up."""
    deadline = time.monotonic() + float(os.environ.get("PMLOG_SOAK_S", "60"))
    number = 0
    while time.monotonic() < deadline:
        print(f"seed {seed + number}")
        (memory_dir / str(number)).mkdir()
        run(memory_dir / str(number), seed + number)
        shutil.rmtree(memory_dir / str(number), ignore_errors=True)
        number += 1
