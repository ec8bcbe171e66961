"""pool.region: raw bytes by offset."""

# ruff: noqa: PT012 - whole blocks that raise are what is tested

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import pmlog
from tests.support import OpenPool

SIZE = 10_000


@pytest.fixture
def region(pool: pmlog.Pool) -> pmlog.PoolRegion:
    """Return a new region of `SIZE` bytes."""
    return pool.region("r", SIZE)


def test_new_is_zero(region: pmlog.PoolRegion) -> None:
    """A new region is zeros of the size asked for."""
    assert len(region) == SIZE
    assert region.read(0, SIZE) == bytes(SIZE)


def test_write_and_read(region: pmlog.PoolRegion) -> None:
    """What is written at an offset is read there, and nothing else changes."""
    region.write(0, b"begin")
    region.write(SIZE - 3, b"end")
    region.write(4_094, b"over a page")
    expected = bytearray(SIZE)
    expected[0:5], expected[-3:], expected[4_094:4_105] = b"begin", b"end", b"over a page"
    assert region.read(0, SIZE) == expected
    assert region.read(4_094, 4) == b"over"
    assert region.read(SIZE, 0) == b""
    assert region.read(7, 0) == b""
    region.write(SIZE, b"")
    region.write(5, b"")
    assert region.read(0, SIZE) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"abcdefgh",
        bytearray(b"abcdefgh"),
        memoryview(b"abcdefgh"),
        np.frombuffer(b"abcdefgh", "<u4"),
    ],
    ids=["bytes", "bytearray", "memoryview", "numpy"],
)
def test_write_takes_buffers(region: pmlog.PoolRegion, data: Any) -> None:
    """Anything that holds contiguous bytes can be written."""
    region.write(100, data)
    assert region.read(100, 8) == b"abcdefgh"


@pytest.mark.parametrize("data", ["text", 5, None, [1, 2], object()], ids=repr)
def test_write_refuses(region: pmlog.PoolRegion, data: Any) -> None:
    """What holds no bytes is a TypeError, and nothing changes."""
    with pytest.raises(TypeError):
        region.write(0, data)
    assert region.read(0, SIZE) == bytes(SIZE)


@pytest.mark.parametrize(
    ("offset", "size"),
    [(-1, 1), (0, SIZE + 1), (SIZE, 1), (SIZE - 1, 2), (2**63, 1), (2**64 - 4, 8), (SIZE + 1, 0)],
)
def test_bounds(region: pmlog.PoolRegion, offset: int, size: int) -> None:
    """An access beyond the region raises, is an IndexError, names the region, and changes nothing."""
    region.write(0, b"\1" * SIZE)
    with pytest.raises((pmlog.UsageError, OverflowError)):
        region.read(offset, size)
    with pytest.raises((pmlog.UsageError, OverflowError)):
        region.write(offset, b"\2" * size)
    assert region.read(0, SIZE) == b"\1" * SIZE


def test_negative_size(region: pmlog.PoolRegion) -> None:
    """A negative size is refused."""
    with pytest.raises((pmlog.UsageError, OverflowError, ValueError)):
        region.read(0, -1)


def test_memoryview(region: pmlog.PoolRegion) -> None:
    """A memory view shows the bytes without a copy, live, and refuses writes."""
    region.write(10, b"hello")
    view = region.view
    assert view.readonly
    assert view.nbytes == SIZE
    assert bytes(view[10:15]) == b"hello"
    region.write(10, b"jelly")
    assert bytes(view[10:15]) == b"jelly"
    with pytest.raises(TypeError):
        view[0] = 1


def test_memoryview_after_close(pool: pmlog.Pool, region: pmlog.PoolRegion) -> None:
    """A memory view stays readable after close."""
    region.write(0, b"kept")
    view = region.view
    pool.close()
    assert bytes(view[:4]) == b"kept"


def test_other_size_refused(pool: pmlog.Pool, region: pmlog.PoolRegion) -> None:
    """The name of a region of another size is refused."""
    region.write(0, b"kept")
    for size in (SIZE - 1, SIZE + 1):
        with pytest.raises(pmlog.UsageError) as raised:
            pool.region("r", size)
        assert raised.value.changed is False
    assert pool.region("r", SIZE).read(0, 4) == b"kept"


@pytest.mark.parametrize("size", [0, 1, 63, 64, 4096, 4097, 1 << 20])
def test_sizes(open_pool: OpenPool, size: int) -> None:
    """Regions of any size down to nothing are kept."""
    with open_pool() as pool:
        region = pool.region("r", size)
        region.write(0, b"x" * min(size, 50_000))
        expected = region.read(0, size)
    with open_pool() as pool:
        assert pool.region("r", size).read(0, size) == expected


@pytest.mark.parametrize("size", [-1, "big", 1.5, None, 2**62], ids=repr)
def test_bad_sizes(pool: pmlog.Pool, size: Any) -> None:
    """A size that is none, or more than the pool may hold, is refused; no name is made."""
    with pytest.raises((pmlog.UsageError, pmlog.CapacityError, TypeError)):
        pool.region("r", size)
    assert list(pool.names()) == []


def test_rollback(pool: pmlog.Pool, region: pmlog.PoolRegion) -> None:
    """Overlapping writes are undone in the right order by savepoint and abort."""
    region.write(0, bytes(range(200)) * 50)
    before = region.read(0, SIZE)
    with pytest.raises(ZeroDivisionError), pool.transaction():
        region.write(10, b"a" * 100)
        inner = region.read(0, SIZE)
        with pytest.raises(KeyError), pool.transaction():
            region.write(50, b"b" * 5_000)
            region.write(0, b"c" * SIZE)
            region.write(60, b"d" * 10)
            raise KeyError
        assert region.read(0, SIZE) == inner
        region.write(5, b"e" * 20)
        raise ZeroDivisionError
    assert region.read(0, SIZE) == before


def test_random_writes(open_pool: OpenPool, rng: random.Random) -> None:
    """Random writes, alone and in transactions that commit or abort, equal those to a bytearray."""
    pool = open_pool()
    region = pool.region("r", SIZE)
    model = bytearray(SIZE)
    for _ in range(400):
        saved = bytes(model)
        abort = rng.random() < 0.3
        try:
            with pool.transaction():
                for _ in range(rng.randrange(1, 8)):
                    offset = rng.randrange(SIZE)
                    data = rng.randbytes(rng.randrange(min(SIZE - offset, 600) + 1))
                    region.write(offset, data)
                    model[offset : offset + len(data)] = data
                if abort:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            model[:] = saved
        assert region.read(0, SIZE) == model
    pool.close()
    with open_pool() as pool:
        assert pool.region("r", SIZE).read(0, SIZE) == model
