"""Threads: many readers and writers of one pool, with invariants that half a transaction breaks."""

# ruff: noqa: PT012 - whole blocks that raise are what is tested

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

import pmlog
from tests.support import DOMAINS, PATIENCE_S, OpenPool


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Let threads take turns much more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def run_together(*works: Callable[[], None]) -> None:
    """Run each function in a thread of its own; raise the first exception of any."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(len(works))

    def guarded(work: Callable[[], None]) -> None:
        try:
            barrier.wait(PATIENCE_S)
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("domain", DOMAINS)
def test_two_writers(open_pool: OpenPool, domain: str) -> None:
    """Two threads that add to one counter lose no step, with and without transactions of their own."""
    pool = open_pool()
    d = pool.dict("d")
    d["n"] = 0
    rounds = 300

    def count(name: str) -> Callable[[], None]:
        def work() -> None:
            for n in range(rounds):
                with pool.transaction():
                    d["n"] = d["n"] + 1
                d[name] = n

        return work

    run_together(count("a"), count("b"))
    assert d["n"] == 2 * rounds
    assert (d["a"], d["b"]) == (rounds - 1, rounds - 1)
    pool.close()
    with open_pool() as pool:
        assert pool.dict("d")["n"] == 2 * rounds


def test_many_writers_and_readers(open_pool: OpenPool) -> None:
    """Transfers between accounts keep their sum, which each reader sees in every transaction."""
    pool = open_pool()
    accounts = pool.dict("accounts")
    journal = pool.deque("journal")
    totals = pool.array("totals", shape=(4,), dtype="i8")
    count, rounds = 50, 150
    accounts.update(dict.fromkeys(range(count), 100))
    writing = threading.Event()
    writing.set()

    def write(me: int) -> Callable[[], None]:
        def work() -> None:
            for n in range(rounds):
                a, b = (me * 7 + n) % count, (me * 13 + 3 * n + 1) % count
                with pool.transaction():
                    accounts[a] = accounts[a] - n
                    accounts[b] = accounts[b] + n
                    journal.append([me, n])
                    totals[me] += 1

        return work

    def read() -> None:
        while writing.is_set():
            with pool.transaction():
                assert sum(accounts.values()) == 100 * count
                assert len(journal) == totals[...].sum()

    def write_all() -> None:
        try:
            run_together(*(write(me) for me in range(4)))
        finally:
            writing.clear()

    run_together(write_all, read, read)
    assert sum(accounts.values()) == 100 * count
    assert totals[...].tolist() == [rounds] * 4
    for me in range(4):
        assert [n for who, n in journal if who == me] == list(range(rounds))


def test_reads_without_transaction(open_pool: OpenPool) -> None:
    """Single reads need no transaction: each gives a value that was there, whole."""
    pool = open_pool()
    d = pool.dict("d")
    q = pool.deque("q")
    values = [bytes([n]) * (n * 97 % 5_000 + 1) for n in range(1, 60)]
    d["x"] = values[0]
    q.append(values[0])
    writing = threading.Event()
    writing.set()

    def write() -> None:
        try:
            for _ in range(10):
                for value in values:
                    d["x"] = value
                    q.append(value)
                    if len(q) > 5:
                        q.popleft()
                    d[f"other{value[0]}"] = value
        finally:
            writing.clear()

    def read() -> None:
        whole = set(values)
        while writing.is_set():
            assert d["x"] in whole
            assert q[0] in whole
            assert d.get("none") is None
            assert set(d.get_many(["x", "x"])) <= whole

    run_together(write, read, read)


def test_containers_made_by_many_threads(open_pool: OpenPool) -> None:
    """Threads that ask for the same new names get the same containers."""
    pool = open_pool()

    def work() -> None:
        for n in range(50):
            d = pool.dict(f"d{n}")
            with pool.transaction():
                d[0] = d.get(0, 0) + 1

    run_together(work, work, work)
    assert len(list(pool.names())) == 50
    assert all(pool.dict(f"d{n}")[0] == 3 for n in range(50))


def test_checkpoints_beside_writers(open_pool: OpenPool) -> None:
    """Checkpoints in one thread disturb no writer in another."""
    pool = open_pool()
    d = pool.dict("d")
    writing = threading.Event()
    writing.set()

    def write() -> None:
        try:
            for n in range(2_000):
                d[n % 200] = bytes([n % 256]) * (n % 300)
        finally:
            writing.clear()

    def checkpoint() -> None:
        while writing.is_set():
            pool.checkpoint()

    run_together(write, checkpoint)
    expected = {n % 200: bytes([n % 256]) * (n % 300) for n in range(2_000)}
    assert dict(d) == expected
    pool.close()
    with open_pool() as pool:
        assert dict(pool.dict("d")) == expected


def test_close_beside_users(open_pool: OpenPool) -> None:
    """Closing while other threads use the pool ends them with ClosedError; what they committed stays."""
    pool = open_pool()
    d = pool.dict("d")
    committed = {"a": 0, "b": 0}
    going = threading.Barrier(3)
    busy = {"a": threading.Event(), "b": threading.Event()}

    def work(name: str) -> Callable[[], None]:
        def until_closed() -> None:
            going.wait(PATIENCE_S)
            with pytest.raises(pmlog.ClosedError):
                for n in range(1, 10_000_000):
                    d[name] = n
                    committed[name] = n
                    if n == 100:
                        busy[name].set()

        return until_closed

    def close() -> None:
        going.wait(PATIENCE_S)
        assert busy["a"].wait(PATIENCE_S)
        assert busy["b"].wait(PATIENCE_S)
        pool.close()

    run_together(work("a"), work("b"), close)
    with open_pool() as pool:
        found = dict(pool.dict("d"))
        for name, n in committed.items():
            assert found[name] in (n, n + 1)


def test_iterating_beside_a_writer(open_pool: OpenPool) -> None:
    """An iterator beside a writer in another thread gives entries that were there, or RuntimeError."""
    pool = open_pool()
    d = pool.dict("d")
    d.update({n: n for n in range(500)})
    writing = threading.Event()
    writing.set()

    def write() -> None:
        try:
            for n in range(500, 1_500):
                d[n] = n
                del d[n - 500]
        finally:
            writing.clear()

    def read() -> None:
        while writing.is_set():
            try:
                for key, value in d.items():
                    assert key == value
            except RuntimeError as error:
                assert not isinstance(error, pmlog.PmlogError)  # noqa: PT017 - one of two good ends

    run_together(write, read)
    assert list(d) == list(range(1_000, 1_500))


def test_signal_while_waiting(open_pool: OpenPool) -> None:
    """A thread that waits for another's transaction sees signals: Ctrl-C ends the wait at once."""
    pool = open_pool()
    d = pool.dict("d")
    inside, over = threading.Event(), threading.Event()

    def hold() -> None:
        with pool.transaction():
            d["x"] = 1
            inside.set()
            assert over.wait(PATIENCE_S)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert inside.wait(PATIENCE_S)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for wait in (lambda: d.update(y=2), lambda: d["x"], pool.transaction().__enter__):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(KeyboardInterrupt):
                wait()
            assert holder.is_alive()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        over.set()
    holder.join(PATIENCE_S)
    assert dict(d) == {"x": 1}
    d["z"] = 3
