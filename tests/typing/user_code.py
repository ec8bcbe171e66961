"""What a user writes, with the types that mypy must see in it; it is checked, never run."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, MutableSequence
from pathlib import Path
from typing import Any, assert_type

import pmlog
import pmlog.check
import pmlog.log


def opening(path: Path) -> None:
    """Open pools in every way."""
    assert_type(pmlog.open(path), pmlog.Pool)
    assert_type(
        pmlog.open(
            str(path),
            create=False,
            readonly=True,
            size=1 << 20,
            max_size="64GiB",
            log_size="64MiB",
            medium="file",
            domain="auto",
        ),
        pmlog.Pool,
    )
    with pmlog.open(path) as pool:
        assert_type(pool, pmlog.Pool)


def containers(pool: pmlog.Pool) -> None:
    """Ask for containers."""
    assert_type(pool.dict("d"), pmlog.PoolDict)
    assert_type(pool.deque("q"), pmlog.PoolDeque)
    assert_type(pool.array("a", shape=(500, 60), dtype="u1"), pmlog.PoolArray)
    assert_type(pool.region("r", 4096), pmlog.PoolRegion)
    assert_type(pool.names(), list[str])
    assert_type(pool.drop("d"), None)


def protocols(pool: pmlog.Pool) -> None:
    """Hand containers to code that asks for the abstract classes."""
    mapping: MutableMapping[Any, Any] = pool.dict("d")
    sequence: MutableSequence[Any] = pool.deque("q")
    mapping["a"] = sequence
    iterator: Iterator[Any] = reversed(pool.dict("d"))
    next(iterator)


def values(pool: pmlog.Pool) -> None:
    """Use containers."""
    d, q, r = pool.dict("d"), pool.deque("q"), pool.region("r", 64)
    d["key"] = {"qty": 3}
    assert_type(len(d), int)
    assert_type("key" in d, bool)
    assert_type(d.get_many(["a", "b"]), list[Any])
    q.append(1)
    q.rotate(-3)
    assert_type(q.index(1), int)
    assert_type(r.read(0, 8), bytes)
    assert_type(r.view, memoryview)
    r.write(0, b"data")


def transactions(pool: pmlog.Pool) -> int:
    """Change things all or nothing; the block swallows no exception."""
    with pool.transaction() as tx:
        assert_type(tx, pmlog.Transaction)
        assert_type(tx.lsn, int)
        return 1


async def waiting(pool: pmlog.Pool) -> None:
    """Wait for levels."""
    assert_type(pool.wait(pmlog.Level.LOCAL, timeout=1.0), None)
    assert_type(await pool.wait_async(pmlog.Level.LOCAL), None)
    assert_type(pmlog.Level.COMMITTED < pmlog.Level.LOCAL, bool)


def state(pool: pmlog.Pool) -> None:
    """Ask a pool about itself."""
    assert_type(pool.status(), pmlog.PoolStatus)
    assert_type(pool.status().lsn_durable, int)
    assert_type(pool.position, pmlog.Position)
    assert_type(pool.position.lsn, int)
    assert_type(pool.path, str)


def errors(error: pmlog.PmlogError) -> None:
    """Decide by an error's answers."""
    assert_type(error.changed, bool | None)
    assert_type(error.retryable, bool)
    assert_type(error.hint, str | None)
    if isinstance(error, pmlog.PoolLockedError):
        assert_type(error.pid, int | None)
    if isinstance(error, pmlog.CorruptionError):
        assert_type(error.lsn, int | None)
        assert_type(error.file, str | None)


def tools(path: Path) -> None:
    """Check a pool and read its log."""
    assert_type(pmlog.check.check(path), list[pmlog.check.Fault])
    with pmlog.log.LogReader(path) as reader:
        assert_type(reader, pmlog.log.LogReader)
        assert_type(reader.next(), pmlog.log.Record | None)
        assert_type(reader.wait(1.0), bool)
