"""A bank whose writer is killed with SIGKILL over and over."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pmlog
from tests.crash.bank_writer import Acknowledged, Bank, Model, work_until_killed
from tests.support import SMALL, Child, abandon, faults_of

Spawn = Callable[..., Child]

KILLS = int(os.environ.get("PMLOG_KILLS", "20"))
KILLS_SOAK = int(os.environ.get("PMLOG_KILLS", "2000"))
PLACES = [
    ("file", "emulated"),
    ("file", "eadr"),
    ("file", "adr"),
    ("file", "page"),
    ("pmemobj", "auto"),
]


class Killing:
    """One pool, killed and opened again and again."""

    def __init__(
        self,
        directory: Path,
        spawn: Spawn,
        rng: random.Random,
        is_split: bool = False,
        **options: str,
    ) -> None:
        self.path = directory / "bank"
        self.spawn = spawn
        self.rng = rng
        self.is_split = is_split
        self.options = {**SMALL, "log_size": "512KiB", **options}
        self.acknowledged_path = directory / "acknowledged"
        self.acknowledged = Acknowledged(str(self.acknowledged_path))
        self.model = Model()
        self.unseen = 0

    def once(self) -> list[str]:
        """Start a writer, kill it, open the pool, and return what is wrong."""
        child = self.spawn(
            work_until_killed,
            str(self.path),
            str(self.acknowledged_path),
            self.options,
            self.is_split,
        )
        assert child.hear() == "opening"
        # Half of the kills fall into the opening, which is a recovery, or shortly after it.
        if self.rng.random() < 0.5:
            time.sleep(self.rng.random() * 0.006)
        else:
            assert child.hear() == "open"
            time.sleep(self.rng.random() * 0.025)
        child.kill()
        while child.connection.poll():
            try:
                assert child.hear() in ("opening", "open")
            except EOFError:
                break
        child.discard()
        return self.look()

    def look(self) -> list[str]:
        """Open the pool in one of several ways and return what is wrong with it."""
        if not self.path.exists():
            return [] if not self.acknowledged.n else ["the pool is gone"]
        # A read-only look leaves the recovery to the next writer, so that kills fall into it;
        # an abandoned one leaves two sessions' records behind one another.
        way = self.rng.choice(["readonly", "close", "abandon"])
        try:
            pool = pmlog.open(self.path, readonly=way == "readonly", **self.options)
        except pmlog.PoolNotFoundError:
            return [] if not self.acknowledged.n else ["the pool is gone"]
        try:
            wrong = self.compare(pool)
            # A writer killed between a record's last byte and its publication has not acknowledged
            # it: a reader does not see it yet, the next recovery finds it.
            self.unseen = way == "readonly"
        finally:
            if way == "abandon":
                abandon(pool)
            else:
                pool.close()
        return wrong + faults_of(self.path)

    def compare(self, pool: pmlog.Pool) -> list[str]:
        """Return what is wrong with an open pool."""
        names = set(pool.names())
        if not {"accounts", "journal", "totals"} <= names:
            return [] if not self.acknowledged.n else [f"containers are missing: {names}"]
        return Bank(pool).differences(self.model, self.acknowledged.n, self.unseen)


def _kill_again_and_again(killing: Killing, kills: int) -> None:
    for kill in range(kills):
        assert killing.once() == [], f"after kill {kill + 1} of {kills}"
    assert killing.model.n > kills, "the writers got nowhere: nothing was tested"


@pytest.mark.parametrize(("medium", "domain"), PLACES)
def test_bank(memory_dir: Path, spawn: Spawn, rng: random.Random, medium: str, domain: str) -> None:
    """After every SIGKILL accounts, journal and totals agree and nothing acknowledged is missing.

    Model: processes die at any instruction, the memory that files are mapped to stays.
    Method: real SIGKILLs at random instants of opening, working, checkpointing and closing.
    """
    _kill_again_and_again(Killing(memory_dir, spawn, rng, medium=medium, domain=domain), KILLS)


def test_bank_on_disk(disk_dir: Path, spawn: Spawn, rng: random.Random) -> None:
    """The same on a disk's file system, where commits are synced in groups.

    Model: processes die at any instruction, the kernel and its page cache stay.
    Method: real SIGKILLs at random instants.
    """
    _kill_again_and_again(Killing(disk_dir, spawn, rng, medium="file", domain="auto"), KILLS)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("medium", "domain"), PLACES)
def test_bank_for_long(
    memory_dir: Path, spawn: Spawn, rng: random.Random, medium: str, domain: str
) -> None:
    """The same with 2,000 kills in each place.

    Model: processes die at any instruction, the memory that files are mapped to stays.
    Method: real SIGKILLs at random instants.
    """
    _kill_again_and_again(Killing(memory_dir, spawn, rng, medium=medium, domain=domain), KILLS_SOAK)


def test_canary(memory_dir: Path, spawn: Spawn, rng: random.Random) -> None:
    """A bank that splits each transaction in two is caught: the test above can fail."""
    killing = Killing(memory_dir, spawn, rng, is_split=True, medium="file", domain="emulated")
    assert any(killing.once() for _ in range(60))
