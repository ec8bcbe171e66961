"""`pmlog.testing`: crash images of users' programs, failing disks, virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import pmlog
from pmlog.testing import (
    CrashImage,
    CrashRecorder,
    Note,
    Violation,
    VirtualClock,
    explore,
    faults,
)
from tests.support import SMALL, OpenPool

DOMAINS = ["emulated", "eadr", "adr", "page"]
MOVES = 5


def transfer(pool: pmlog.Pool, note: Note) -> None:
    """Move money, each time in one transaction; a checkpoint in between."""
    accounts = pool.dict("accounts")
    accounts.update({"a": 100, "b": 0})
    note("opened")
    for n in range(MOVES):
        with pool.transaction():
            accounts["a"] -= 10
            accounts["b"] += 10
        note(n)
        if n == MOVES // 2:
            pool.checkpoint()


def money_is_kept(pool: pmlog.Pool, notes: Sequence[Any]) -> None:
    """Every move that was noted is there, and none by half."""
    accounts = pool.dict("accounts")
    if not notes and not accounts:
        return
    moved = accounts["b"] // 10
    assert accounts["a"] + accounts["b"] == 100
    assert len(notes) - 1 <= moved <= len(notes)


@pytest.mark.parametrize("domain", DOMAINS)
def test_sound_program(domain: str) -> None:
    """A program that commits what belongs together passes, in every domain.

    Model: that of each domain, in `pmlog.testing.images`.
    Method: 200 images of one run, chosen by the seed.
    """
    checked = 0

    def check(pool: pmlog.Pool, notes: Sequence[Any]) -> None:
        nonlocal checked
        checked += 1
        money_is_kept(pool, notes)

    assert [str(v) for v in explore(transfer, check, domain=domain, images=200)] == []
    assert checked > 40


@pytest.mark.parametrize("domain", DOMAINS)
def test_half_a_transfer_is_found(domain: str) -> None:
    """A program that makes two transactions where it should make one is caught, and replayed."""

    def careless(pool: pmlog.Pool, note: Note) -> None:
        accounts = pool.dict("accounts")
        accounts.update({"a": 100, "b": 0})
        note("opened")
        for n in range(MOVES):
            accounts["a"] -= 10
            accounts["b"] += 10
            note(n)

    found = list(explore(careless, money_is_kept, domain=domain, seed=7, images=200))
    assert found
    first = found[0]
    assert isinstance(first, Violation)
    assert isinstance(first.error, AssertionError)
    assert f"only={first.image.number}" in str(first)
    again = list(
        explore(careless, money_is_kept, domain=domain, seed=7, images=200, only=first.image.number)
    )
    assert [(v.image.cut, v.image.lost, v.notes) for v in again] == [
        (first.image.cut, first.image.lost, first.notes)
    ]
    assert again[0].image.files == first.image.files


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_promise_before_the_commit_is_found(domain: str) -> None:
    """A program that counts on a change before its commit has returned is caught."""

    def hasty(pool: pmlog.Pool, note: Note) -> None:
        accounts = pool.dict("accounts")
        for n in range(MOVES):
            with pool.transaction():
                accounts[n] = n
                note(n)

    def check(pool: pmlog.Pool, notes: Sequence[Any]) -> None:
        assert set(notes) <= set(pool.dict("accounts"))

    assert any(explore(hasty, check, domain=domain, images=200))


def test_same_seed_same_images() -> None:
    """A seed decides the pool and the images; another one gives others."""

    def images(seed: int) -> list[CrashImage]:
        recorder = CrashRecorder(seed=seed)
        recorder.run(transfer)
        return list(recorder.images(60))

    assert images(3) == images(3)
    assert images(3) != images(4)


def test_growth_is_among_the_images() -> None:
    """A pool that grows is cut before and after its file has its new size."""

    def growing(pool: pmlog.Pool, note: Note) -> None:
        for n in range(14):
            pool.dict("big")[n] = bytes(100_000)
            note(n)

    def check(pool: pmlog.Pool, notes: Sequence[Any]) -> None:
        assert list(pool.dict("big"))[: len(notes)] == list(notes)

    recorder = CrashRecorder(domain="page")
    recorder.run(growing)
    assert len({len(image.files["image"]) for image in recorder.images(200)}) > 1
    assert [str(v) for v in explore(growing, check, domain="page", images=200)] == []


def test_mistakes() -> None:
    """What cannot be explored is said."""
    with pytest.raises(pmlog.ConfigError, match="domain"):
        CrashRecorder(domain="auto")
    with pytest.raises(pmlog.ConfigError, match="number"):
        list(explore(transfer, money_is_kept, images=50, only=10**6))
    with pytest.raises(pmlog.ConfigError), faults():
        pass


@pytest.mark.parametrize("kind", ["log_drain", "image_drain"])
def test_failed_drain(pool_path: Path, open_pool: OpenPool, kind: str) -> None:
    """A disk that fails poisons the pool; the next open has every commit that returned."""
    pmlog.open(pool_path, **SMALL).close()
    committed = 0

    def work() -> None:
        nonlocal committed
        for n in range(100):
            pool.dict("d")[n] = n
            committed = n + 1
            pool.checkpoint()

    with faults(**{kind: 5}):
        pool = pmlog.open(pool_path, **SMALL, domain="page")
    with pytest.raises(pmlog.MediumError):
        work()
    with pytest.raises(pmlog.MediumError):
        pool.dict("d")["more"] = 1
    pool.close()
    again = open_pool(pool_path, domain="page")
    assert list(again.dict("d"))[:committed] == list(range(committed))
    assert len(again.dict("d")) <= committed + 1


def test_full_disk(pool_path: Path, open_pool: OpenPool) -> None:
    """A growth that finds no room changes nothing, and the pool goes on."""
    pmlog.open(pool_path, **SMALL).close()
    with faults(growth=1):
        pool = open_pool(pool_path, **SMALL)
    regions = 0

    def work() -> None:
        nonlocal regions
        for n in range(100):
            pool.region(f"r{n}", 200_000)
            regions = n + 1

    with pytest.raises(pmlog.PoolFullError):
        work()
    assert len(pool.names()) == regions
    pool.drop("r0")
    pool.dict("d")["small"] = 1
    assert pool.dict("d")["small"] == 1


def test_other_pools_are_left_alone(pool_path: Path, open_pool: OpenPool) -> None:
    """Faults end with the block: a pool that is opened behind it works."""
    with faults(log_drain=1):
        pass
    pool = open_pool(pool_path)
    pool.dict("d")["k"] = "v"
    assert pool.dict("d")["k"] == "v"


def test_virtual_clock() -> None:
    """Time passes when it is told to, and never goes back."""
    clock = VirtualClock(10.0)
    clock.advance(2.5)
    clock.sleep(1.0)
    clock.sleep(-1.0)
    assert clock() == 13.5
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
