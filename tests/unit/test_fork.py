"""After os.fork the parent's handle goes on and the child's raises ForkedError."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import pmlog
from tests.support import USES, OpenPool, uses

# Python 3.12 and later warn of any fork of a process with threads; here the fork is the subject.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(work: Callable[[], Any]) -> Any:
    """Fork, run `work` in the child and return what it returned, or the exception it raised."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            try:
                answer = work()
            except BaseException as error:
                answer = error
            with os.fdopen(write_end, "wb") as out:
                out.write(pickle.dumps(answer))
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as source:
        answered = source.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0
    return pickle.loads(answered)  # noqa: S301 - from our own child


@pytest.mark.parametrize("name", USES)
def test_child_is_refused(pool: pmlog.Pool, name: str) -> None:
    """Every use of the parent's handle in a child raises ForkedError; the parent is unharmed."""
    use = uses(pool)[name]
    before = list(pool.dict("d").items())
    error = in_child(use)
    assert isinstance(error, pmlog.ForkedError)
    assert error.changed is False
    assert error.hint
    assert list(pool.dict("d").items()) == before
    pool.dict("d")["parent"] = 1


def test_child_ends_quietly(pool: pmlog.Pool) -> None:
    """A child that ends, closing what it inherited, takes neither lock nor state from the parent."""
    d = pool.dict("d")

    def close() -> str:
        pool.close()
        return "closed"

    answer = in_child(close)
    assert answer == "closed" or isinstance(answer, pmlog.ForkedError)
    d["x"] = 1
    assert d["x"] == 1
    with pytest.raises(pmlog.PoolLockedError):
        pmlog.open(pool.path)


def test_child_may_open_read_only(pool: pmlog.Pool) -> None:
    """A child can open the same pool for reading beside its parent."""
    pool.dict("d")["x"] = 41

    def look() -> Any:
        with pmlog.open(pool.path, readonly=True) as reader:
            return reader.dict("d")["x"]

    assert in_child(look) == 41


def test_child_may_open_its_own(pool: pmlog.Pool, open_pool: OpenPool) -> None:
    """A child can open another pool, write it and close it."""
    path = str(pool.path) + "-of-child"

    def write() -> int:
        with pmlog.open(path, size="1MiB", log_size="256KiB") as mine:
            mine.dict("d")["x"] = 42
            found: int = mine.dict("d")["x"]
            return found

    assert in_child(write) == 42
    with open_pool(path) as other:
        assert other.dict("d")["x"] == 42


def test_fork_inside_a_transaction(pool: pmlog.Pool) -> None:
    """A child of a process with an open transaction neither commits nor ends it."""
    d = pool.dict("d")
    d["x"] = 1
    with pool.transaction() as tx:
        d["x"] = 2

        def leave() -> str:
            try:
                tx.__exit__(None, None, None)
            except pmlog.PmlogError:
                return "refused"
            return "left"

        answer = in_child(leave)
        assert answer in ("refused", "left")
        assert d["x"] == 2
        d["y"] = 3
    assert dict(d) == {"x": 2, "y": 3}
    with pytest.raises(pmlog.PoolLockedError):
        pmlog.open(pool.path)


def test_parents_lock_after_the_parents_close(open_pool: OpenPool) -> None:
    """A child that still lives holds no lock: the parent closes and opens again."""
    pool = open_pool()
    path = pool.path
    pool.dict("d")["x"] = 1
    read_end, write_end = os.pipe()
    alive_read, alive_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_end)
        os.write(alive_write, b"x")
        os.read(read_end, 1)  # until the parent closes its end
        os._exit(0)
    os.close(read_end)
    os.close(alive_write)
    assert os.read(alive_read, 1) == b"x"  # the child has let go of what it inherited
    os.close(alive_read)
    try:
        pool.close()
        with open_pool(path) as again:
            assert again.dict("d")["x"] == 1
    finally:
        os.close(write_end)
        os.waitpid(pid, 0)
