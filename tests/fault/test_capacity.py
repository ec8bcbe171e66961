"""Full file systems: CapacityError, nothing changed, and the pool goes on once there is room."""

# ruff: noqa: PT012 - whole blocks that raise are what is tested

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pmlog
from tests.support import Child, OpenPool, abandon, faults_of

Spawn = Callable[..., Child]
MIB = 1 << 20


def _mount(where: Path, *arguments: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    where.mkdir()
    done = subprocess.run(
        ["mount", *arguments, str(where)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"cannot mount a small file system: {done.stderr}")


@pytest.fixture(params=["tmpfs emulated", "tmpfs page", "ext4 page"])
def small_place(request: pytest.FixtureRequest, memory_dir: Path) -> Iterator[tuple[Path, str]]:
    """Mount a file system of 12 MiB; give its path and the domain that is used on it."""
    where = memory_dir / "small"
    kind, domain = request.param.split()
    if kind == "tmpfs":
        _mount(where, "-t", "tmpfs", "-o", "size=12m", "tmpfs")
    else:
        disk = memory_dir / "disk"
        with disk.open("wb") as file:
            file.truncate(16 * MIB)
        subprocess.run(
            ["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(disk)], check=True
        )
        _mount(where, "-o", "loop", str(disk))
    yield where, domain
    # Lazily: pools that were closed keep their working images mapped while objects refer to them.
    subprocess.run(["umount", "--lazy", str(where)], check=True)


def open_small(place: tuple[Path, str], **options: Any) -> pmlog.Pool:
    """Open a small pool there."""
    path, domain = place
    settings: dict[str, Any] = {"size": "1MiB", "log_size": "1MiB", "max_size": "1GiB"}
    return pmlog.open(path / "pool", domain=domain, **{**settings, **options})


def _fill_until_full(pool: pmlog.Pool) -> int:
    d = pool.dict("d")
    for n in range(1_000):
        try:
            d[n] = bytes([n % 251]) * 100_000
        except pmlog.CapacityError as error:
            full = error
            break
    else:
        pytest.fail("100 MB went into 12 MiB")
    assert isinstance(full, pmlog.PoolFullError)
    assert full.changed is False
    assert full.retryable is True
    assert full.hint
    return n


def _holds(d: Any, numbers: range) -> bool:
    return list(d) == list(numbers) and all(d[n] == bytes([n % 251]) * 100_000 for n in numbers)


def test_full_then_room(small_place: tuple[Path, str]) -> None:
    """A full file system is CapacityError; everything stored stays, small changes and deletions go on."""
    pool = open_small(small_place)
    d = pool.dict("d")
    count = _fill_until_full(pool)
    assert count > 20
    assert _holds(d, range(count))
    position = pool.position
    for _ in range(3):
        with pytest.raises(pmlog.CapacityError):
            pool.region("more", 20 * MIB)
        with pytest.raises(pmlog.CapacityError), pool.transaction():
            d["inside"] = 1
            d["big"] = b"x" * 300_000
            d["bigger"] = b"x" * 300_000
    assert pool.position == position
    assert "inside" not in d
    pool.checkpoint()
    for n in range(count // 2):
        del d[n]
    again = range(count, count + count // 2 - 2)  # the dict's own growth may take a piece
    for n in again:
        d[n] = bytes([n % 251]) * 100_000
    assert _holds(d, range(count // 2, again.stop))
    pool.close()
    assert faults_of(small_place[0] / "pool") == []
    with open_small(small_place) as pool:
        assert _holds(pool.dict("d"), range(count // 2, again.stop))


def test_full_by_others(small_place: tuple[Path, str]) -> None:
    """What others leave on the file system is what a pool may grow to; when they go, it grows on."""
    pool = open_small(small_place)
    d = pool.dict("d")
    d["kept"] = 1
    hog = small_place[0] / "hog"
    with hog.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 65_536):
                pass
        except OSError:
            pass
    with pytest.raises(pmlog.CapacityError):
        for n in range(100):
            d[n] = b"x" * 100_000
    stored = len(d)
    d["kept"] = 2  # what needs no room goes on
    pool.checkpoint()
    hog.unlink()
    d["big"] = b"x" * 300_000
    assert len(d) == stored + 1
    pool.close()
    assert faults_of(small_place[0] / "pool") == []
    with open_small(small_place) as pool:
        assert pool.dict("d")["kept"] == 2
        assert pool.dict("d")["big"] == b"x" * 300_000


def test_killed_when_full(small_place: tuple[Path, str]) -> None:
    """A writer that dies on a full file system leaves a pool that opens at its last commit."""
    pool = open_small(small_place)
    count = _fill_until_full(pool)
    abandon(pool)
    hog = small_place[0] / "hog"
    with hog.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4_096):
                pass
        except OSError:
            pass
    with open_small(small_place) as pool:
        assert _holds(pool.dict("d"), range(count))
        del pool.dict("d")[0]
    assert faults_of(small_place[0] / "pool") == []


def _free_bytes(path: Path) -> int:
    system = os.statvfs(path)
    return system.f_bavail * system.f_frsize


def test_no_room_for_a_new_pool(small_place: tuple[Path, str]) -> None:
    """A pool that does not fit is CapacityError at open, never a crash, and leaves nothing behind."""
    path = small_place[0]
    before = _free_bytes(path)
    for options in ({"size": "64MiB"}, {"log_size": "64MiB"}):
        with pytest.raises(pmlog.CapacityError) as raised:
            open_small(small_place, **options)
        assert str(path) in str(raised.value)
        assert raised.value.changed is False
    # What may stay is small: no half-made image or log keeps the room that others need.
    assert _free_bytes(path) >= before - MIB // 4
    with open_small(small_place) as pool:
        pool.dict("d")["x"] = 1


def test_max_size(open_pool: OpenPool) -> None:
    """`max_size` bounds growth: CapacityError names it, and the pool goes on after deletions."""
    pool = open_pool(size="1MiB", max_size="4MiB", log_size="1MiB")
    d = pool.dict("d")
    count = _fill_until_full(pool)
    assert 20 < count < 42
    assert pool.status().image_bytes <= 4 * MIB
    with pytest.raises(pmlog.CapacityError) as raised:
        d["more"] = b"x" * 200_000
    assert "max_size" in f"{raised.value} {raised.value.hint}"
    assert _holds(d, range(count))
    d.clear()
    assert _fill_until_full(pool) >= count - 1
    pool.close()
    with open_pool(max_size="16MiB") as pool:
        pool.dict("d")["more"] = b"x" * 200_000


def test_fill_and_clear_does_not_grow(open_pool: OpenPool) -> None:
    """Ten rounds of filling and clearing leave the pool at most 1.2 times as large as the first."""
    pool = open_pool(size="1MiB", max_size="1GiB", log_size="1MiB")
    d, q = pool.dict("d"), pool.deque("q")
    sizes = []
    for round_number in range(10):
        for n in range(1_500):
            d[n] = b"x" * ((n * 37 + round_number * 11) % 3_000)
            q.append("y" * (n % 500))
        sizes.append(pool.status().image_bytes)
        for n in range(1_500):
            if round_number % 2:
                del d[n]
            q.popleft()
        d.clear()
    assert sizes[-1] <= 1.2 * sizes[0]
    assert pool.status().heap_used_bytes < 200_000
