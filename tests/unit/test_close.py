"""close: what it leaves, how often it may be called, and what use after it says."""

# ruff: noqa: PT012, PT031 - whole blocks that raise are what is tested

from __future__ import annotations

import gc
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import pmlog
from tests.support import DOMAINS, USES, OpenPool, uses


def test_close_twice(pool: pmlog.Pool) -> None:
    """Closing again does nothing."""
    pool.close()
    pool.close()


def test_context_manager(open_pool: OpenPool) -> None:
    """The `with` block closes, also by way of an exception, which it does not swallow."""
    with open_pool() as pool:
        pool.dict("d")["x"] = 1
    with pytest.raises(pmlog.ClosedError):
        pool.dict("d")
    with pytest.raises(ZeroDivisionError), open_pool() as pool:
        pool.dict("d")["y"] = 2
        raise ZeroDivisionError
    with pytest.raises(pmlog.ClosedError):
        pool.dict("d")
    with open_pool() as pool:
        assert dict(pool.dict("d")) == {"x": 1, "y": 2}


@pytest.mark.parametrize("name", USES)
def test_use_after_close(pool: pmlog.Pool, name: str) -> None:
    """Every use after close raises ClosedError with the path in it."""
    use = uses(pool)[name]
    path = str(pool.path)
    pool.close()
    with pytest.raises(pmlog.ClosedError) as raised:
        use()
    assert path in str(raised.value)
    assert raised.value.changed is False


def test_iterator_after_close(pool: pmlog.Pool) -> None:
    """An iterator that is stepped after close raises ClosedError, it does not crash."""
    d = pool.dict("d")
    q = pool.deque("q")
    for start in range(0, 2_000, 100):
        d.update(dict.fromkeys(range(start, start + 100), "x" * 500))
        q.extend("x" * 500 for _ in range(100))
    iterators: list[Any] = [iter(d), iter(d.items()), iter(q), reversed(q)]
    for it in iterators:
        next(it)
    pool.close()
    for it in iterators:
        with pytest.raises((pmlog.ClosedError, RuntimeError)):
            for _ in range(2_000):
                next(it)


def test_close_inside_a_transaction(open_pool: OpenPool) -> None:
    """Closing inside a transaction either refuses or aborts it; nothing of it is committed."""
    pool = open_pool()
    d = pool.dict("d")
    d["x"] = 1
    with pytest.raises(pmlog.UsageError), pool.transaction():
        d["x"] = 2
        pool.close()
        d["x"] = 3
        raise AssertionError("neither close nor use after it raised")
    pool.close()
    with open_pool() as pool:
        assert dict(pool.dict("d")) == {"x": 1}


def test_collected_without_close(open_pool: OpenPool, pool_path: Path) -> None:
    """A pool that is dropped without close warns, and gives up its lock when it is collected."""
    pool = pmlog.open(pool_path, size="1MiB", log_size="256KiB")
    pool.dict("d")["x"] = 1
    with pytest.warns(ResourceWarning, match="not closed"):
        del pool
        gc.collect()
    with open_pool() as pool:
        assert pool.dict("d")["x"] == 1


def test_collected_while_containers_live(open_pool: OpenPool, pool_path: Path) -> None:
    """A pool that is dropped is closed, and its containers say so."""
    with pytest.warns(ResourceWarning, match="not closed"):
        d = pmlog.open(pool_path, size="1MiB", log_size="256KiB").dict("d")
        gc.collect()
    with pytest.raises(pmlog.ClosedError):
        d["x"] = 1
    with open_pool() as pool:
        assert dict(pool.dict("d")) == {}


def test_collected_where_warnings_are_errors(
    open_pool: OpenPool, pool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that is dropped is closed also where its ResourceWarning is made an error."""
    seen: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    pool = pmlog.open(pool_path, size="1MiB", log_size="256KiB")
    pool.dict("d")["x"] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del pool
        gc.collect()
    assert len(seen) == 1
    with open_pool() as pool:
        assert pool.dict("d")["x"] == 1


@pytest.mark.parametrize("domain", DOMAINS)
def test_clean_close_needs_no_recovery(open_pool: OpenPool, domain: str) -> None:
    """After close there is nothing to replay."""
    pool = open_pool()
    for n in range(100):
        pool.dict("d")[n] = n
    pool.close()
    with open_pool() as pool:
        assert pool.status().recovered_records == 0
        assert len(pool.dict("d")) == 100


@pytest.mark.parametrize("domain", DOMAINS)
def test_many_opens_and_closes(open_pool: OpenPool, domain: str) -> None:
    """State adds up over many opens; nothing leaks from one to the next."""
    for n in range(40):
        with open_pool() as pool:
            d = pool.dict("d")
            assert len(d) == n
            d[n] = n
    fds = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with open_pool() as pool:
            assert len(pool.dict("d")) == 40
    assert len(list(Path("/proc/self/fd").iterdir())) <= fds


def test_checkpoint_then_close(open_pool: OpenPool) -> None:
    """`checkpoint` brings the image up to the committed end, and changes no state."""
    pool = open_pool()
    d = pool.dict("d")
    d.update({n: n for n in range(500)})
    pool.checkpoint()
    status = pool.status()
    assert status.lsn_checkpoint == status.lsn_committed
    d["after"] = 1
    assert len(d) == 501
    pool.close()
    with open_pool() as pool:
        assert len(pool.dict("d")) == 501


def test_address_space_is_given_back(pool_path: Path) -> None:
    """Opening and closing over and over takes no more address space than a few times."""

    def reserved_gib() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmSize:")[2].split()[0]) >> 20

    def open_use_close() -> None:
        with pmlog.open(pool_path, size="1MiB", log_size="1MiB", max_size="16GiB") as pool:
            pool.dict("d")["x"] = 1
            pool.deque("q").append(1)
            a = pool.array("a", shape=(3,), dtype="i8")
            a[...] = 1
            assert a[...].sum() == 3
            pool.region("r", 64).write(0, b"x")
        with pmlog.open(pool_path, readonly=True, max_size="16GiB") as pool:
            assert pool.dict("d")["x"] == 1

    open_use_close()
    gc.collect()
    before = reserved_gib()
    for _ in range(10):
        open_use_close()
    gc.collect()
    assert reserved_gib() <= before + 64
