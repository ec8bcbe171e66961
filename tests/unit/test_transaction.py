"""Transactions: all or nothing, whatever ends them; savepoints; limits; order between threads."""

# ruff: noqa: PT012 - whole blocks that raise are what is tested

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pmlog
from tests.support import DOMAINS, PATIENCE_S, OpenPool


class Containers:
    """One container of each kind, and what all of them hold."""

    def __init__(self, pool: pmlog.Pool) -> None:
        self.pool = pool
        self.d: pmlog.PoolDict = pool.dict("d")
        self.q: pmlog.PoolDeque = pool.deque("q")
        self.a = pool.array("a", shape=(8,), dtype="i8")
        self.r = pool.region("r", 4096)

    def change(self, n: int) -> None:
        """Change every container so that the change shows the number."""
        self.d[f"key{n}"] = n
        self.d["last"] = n
        self.q.append(n)
        self.q.rotate(1)
        self.a[n % 8] = n
        self.a[::2] = self.a[::2] + n
        self.r.write(8 * n, n.to_bytes(8, "little"))

    def state(self) -> Any:
        """Return what all containers hold, as plain values."""
        return list(self.d.items()), list(self.q), self.a[...].tolist(), self.r.read(0, 4096)


@pytest.fixture
def cs(pool: pmlog.Pool) -> Containers:
    """Return containers with one committed change."""
    containers = Containers(pool)
    containers.change(1)
    return containers


# ---- ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", DOMAINS)
def test_commit(open_pool: OpenPool, domain: str) -> None:
    """What a transaction changed is there after it, and after close and open, in every domain."""
    pool = open_pool()
    cs = Containers(pool)
    with pool.transaction():
        cs.change(1)
        cs.change(2)
        inside = cs.state()
    assert cs.state() == inside
    pool.close()
    assert Containers(open_pool()).state() == inside


def test_reads_see_own_writes(cs: Containers) -> None:
    """Inside a transaction reads see its changes."""
    with cs.pool.transaction():
        cs.d["x"] = 1
        assert cs.d["x"] == 1
        assert list(cs.d)[-1] == "x"
        cs.q.append("y")
        assert "y" in cs.q
        cs.a[0] = 77
        assert cs.a[0] == 77


class _CustomError(Exception):
    pass


@pytest.mark.parametrize(
    "exception",
    [_CustomError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, MemoryError],
)
def test_exception_aborts(cs: Containers, exception: type[BaseException]) -> None:
    """Any exception that leaves the block undoes every change, comes out itself, and the pool goes on."""
    before = cs.state()
    raised = exception()
    with pytest.raises(exception) as caught, cs.pool.transaction():
        cs.change(2)
        cs.change(3)
        raise raised
    assert caught.value is raised
    assert cs.state() == before
    with cs.pool.transaction():
        cs.change(4)
    assert cs.d["last"] == 4


def test_abort_is_not_a_commit(open_pool: OpenPool) -> None:
    """An aborted transaction leaves no trace after close and open, nor a transaction number."""
    pool = open_pool()
    cs = Containers(pool)
    cs.change(1)
    before, position = cs.state(), pool.position
    for _ in range(50):
        with pytest.raises(_CustomError), pool.transaction():
            cs.change(2)
            raise _CustomError
    assert pool.position == position
    pool.close()
    assert Containers(open_pool()).state() == before


def test_empty_transaction(cs: Containers) -> None:
    """A transaction that changes nothing appends nothing to the log."""
    position = cs.pool.position
    with cs.pool.transaction():
        assert cs.d["last"] == 1
    assert cs.pool.position == position


def test_one_record_a_transaction(cs: Containers) -> None:
    """However much a transaction changes, the transaction number rises by one."""
    txn = cs.pool.status().txn
    with cs.pool.transaction():
        for n in range(30):
            cs.change(n)
    assert cs.pool.status().txn == txn + 1


def test_return_break_continue_commit(cs: Containers) -> None:
    """Leaving the block by return, break or continue is no failure: it commits."""

    def leave() -> str:
        with cs.pool.transaction():
            cs.d["return"] = 1
            return "left"

    assert leave() == "left"
    for n in range(3):
        with cs.pool.transaction():
            cs.d[f"loop{n}"] = n
            if n == 0:
                continue
            break
    assert [key for key in cs.d if key in ("return", "loop0", "loop1", "loop2")] == [
        "return", "loop0", "loop1",
    ]  # fmt: skip


# ---- savepoints ------------------------------------------------------------------------------


def test_nested_commits_with_the_outer(cs: Containers) -> None:
    """Inner blocks are parts of the outer transaction: one record, at the outermost end."""
    txn = cs.pool.status().txn
    with cs.pool.transaction():
        cs.change(2)
        with cs.pool.transaction():
            cs.change(3)
            with cs.pool.transaction():
                cs.change(4)
        assert cs.pool.status().txn == txn
    assert cs.pool.status().txn == txn + 1
    assert cs.d["last"] == 4
    assert [cs.d[f"key{n}"] for n in (2, 3, 4)] == [2, 3, 4]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_inner_exception_caught(cs: Containers, depth: int) -> None:
    """A failed inner block undoes itself and what is inside it; the outer ones keep theirs."""
    states = []
    with cs.pool.transaction():
        cs.change(2)
        states.append(cs.state())
        try:
            with cs.pool.transaction():
                cs.change(3)
                states.append(cs.state())
                try:
                    with cs.pool.transaction():
                        cs.change(4)
                        states.append(cs.state())
                        try:
                            with cs.pool.transaction():
                                cs.change(5)
                                raise _CustomError
                        except _CustomError:
                            assert cs.state() == states[2]
                            if depth < 3:
                                raise
                except _CustomError:
                    assert cs.state() == states[1]
                    if depth < 2:
                        raise
        except _CustomError:
            assert cs.state() == states[0]
    assert cs.state() == states[depth - 1]


def test_outer_abort_undoes_inner(cs: Containers) -> None:
    """A failed outer block undoes inner blocks that had ended well."""
    before = cs.state()
    with pytest.raises(_CustomError), cs.pool.transaction():
        with cs.pool.transaction():
            cs.change(2)
        cs.change(3)
        raise _CustomError
    assert cs.state() == before


def test_savepoints_in_a_loop(cs: Containers) -> None:
    """Many inner blocks, every second failing, leave exactly the others' changes."""
    with cs.pool.transaction():
        for n in range(100):
            try:
                with cs.pool.transaction():
                    cs.d[n] = n
                    cs.q.append(n)
                    if n % 2:
                        raise _CustomError
            except _CustomError:
                assert n not in cs.d
    assert [key for key in cs.d if isinstance(key, int)] == list(range(0, 100, 2))
    assert list(cs.q)[-50:] == list(range(0, 100, 2))


def test_rollback_to_savepoint_is_durable(open_pool: OpenPool) -> None:
    """What a savepoint undid is not in the log: close and open show the same state."""
    pool = open_pool()
    cs = Containers(pool)
    with pool.transaction():
        cs.change(1)
        with pytest.raises(_CustomError), pool.transaction():
            for n in range(2, 20):
                cs.change(n)
            cs.d.clear()
            cs.q.clear()
            raise _CustomError
        cs.change(20)
    expected = cs.state()
    pool.close()
    assert Containers(open_pool()).state() == expected


def test_failed_operation_inside_changes_nothing(cs: Containers) -> None:
    """An operation that raises inside a transaction changes nothing, and the rest commits."""
    with cs.pool.transaction():
        cs.change(2)
        state = cs.state()
        with pytest.raises(KeyError):
            del cs.d["none"]
        with pytest.raises(IndexError):
            cs.q[10_000] = 1
        with pytest.raises(pmlog.EncodeError):
            cs.d.update({"x": 1, "y": object()})
        with pytest.raises(pmlog.EncodeError):
            cs.q.extend([1, 2, object()])
        assert cs.state() == state
        cs.d["after"] = 1
    assert cs.d["after"] == 1
    assert "x" not in cs.d


def test_containers_made_inside(cs: Containers) -> None:
    """A container made in an aborted transaction is gone, and its handle says so."""
    with pytest.raises(_CustomError), cs.pool.transaction():
        made = cs.pool.dict("made inside")
        made["a"] = 1
        raise _CustomError
    assert "made inside" not in cs.pool.names()
    with pytest.raises(pmlog.UsageError):
        made["b"] = 2
    with pytest.raises(pmlog.UsageError):
        len(made)
    with cs.pool.transaction():
        again = cs.pool.dict("made inside")
        again["c"] = 3
    assert dict(again) == {"c": 3}


def test_drop_inside_aborted(cs: Containers) -> None:
    """A drop is undone with its transaction."""
    before = cs.state()
    with pytest.raises(_CustomError), cs.pool.transaction():
        cs.pool.drop("d")
        assert "d" not in cs.pool.names()
        raise _CustomError
    assert "d" in cs.pool.names()
    assert Containers(cs.pool).state() == before


# ---- the object ------------------------------------------------------------------------------


def test_ended_transaction(cs: Containers) -> None:
    """A transaction object serves one `with` block; entering or leaving again is an error."""
    tx = cs.pool.transaction()
    with tx:
        cs.change(2)
    before = cs.state()
    with pytest.raises(pmlog.UsageError), tx:
        cs.change(3)
    assert cs.state() == before
    with pytest.raises(pmlog.UsageError):
        tx.__exit__(None, None, None)
    assert cs.state() == before
    cs.change(4)
    assert cs.d["last"] == 4


def test_entered_twice(cs: Containers) -> None:
    """An open transaction object cannot be entered again: nesting takes a new one."""
    tx = cs.pool.transaction()
    with tx:
        cs.change(2)
        with pytest.raises(pmlog.UsageError):
            tx.__enter__()
    assert cs.d["last"] == 2


def test_never_entered(cs: Containers) -> None:
    """A transaction object that is never entered holds nothing up."""
    tx = cs.pool.transaction()
    cs.change(2)
    del tx
    assert cs.d["last"] == 2


# ---- generators and the garbage collector ----------------------------------------------------


def _open_in_generator(cs: Containers, n: int) -> Iterator[int]:
    with cs.pool.transaction():
        cs.change(n)
        yield n
        cs.change(n + 1)


def _works_from_another_thread(cs: Containers, n: int) -> None:
    done: list[int] = []

    def work() -> None:
        cs.d["other thread"] = n
        done.append(n)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert done == [n]
    assert cs.d["other thread"] == n


def test_generator_runs_to_its_end(cs: Containers) -> None:
    """A generator with a transaction that runs to its end commits."""
    assert list(_open_in_generator(cs, 2)) == [2]
    assert cs.d["last"] == 3


def test_generator_dropped(cs: Containers) -> None:
    """A generator that is dropped inside its transaction aborts it at once."""
    before = cs.state()
    generator = _open_in_generator(cs, 2)
    next(generator)
    assert cs.d["last"] == 2
    del generator
    assert cs.state() == before
    _works_from_another_thread(cs, 5)


def test_generator_closed_in_order(cs: Containers) -> None:
    """`close` on a generator inside its transaction aborts it."""
    before = cs.state()
    generator = _open_in_generator(cs, 2)
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert cs.state() == before


def test_generator_in_a_cycle(cs: Containers) -> None:
    """A generator in a reference cycle aborts its transaction when it is collected."""
    before = cs.state()

    class Holder:
        generator: Iterator[int]

    holder = Holder()
    holder.generator = _open_in_generator(cs, 2)
    holder.self = holder  # type: ignore[attr-defined]
    next(holder.generator)
    assert cs.d["last"] == 2
    del holder
    gc.collect()
    assert cs.state() == before
    _works_from_another_thread(cs, 6)


def test_generator_collected_by_another_thread(cs: Containers) -> None:
    """A transaction whose generator another thread collects is aborted, and both threads go on."""
    before = cs.state()
    generators = [_open_in_generator(cs, 2)]
    next(generators[0])

    def collect() -> None:
        generators.clear()
        gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert cs.state() == before
    with cs.pool.transaction():
        cs.change(7)
    assert cs.d["last"] == 7
    _works_from_another_thread(cs, 7)


def test_object_dropped_while_open(cs: Containers) -> None:
    """A transaction entered by hand and dropped is aborted when it is collected."""
    before = cs.state()
    tx = cs.pool.transaction()
    tx.__enter__()
    cs.change(2)
    del tx
    gc.collect()
    assert cs.state() == before
    _works_from_another_thread(cs, 8)


def test_thread_that_ends_inside(cs: Containers) -> None:
    """A thread that ends with a transaction open leaves no change and no lock behind."""
    before = cs.state()

    def work() -> None:
        tx = cs.pool.transaction()
        tx.__enter__()
        cs.change(2)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE_S)
    gc.collect()
    assert cs.state() == before
    _works_from_another_thread(cs, 9)


# ---- threads ---------------------------------------------------------------------------------


def test_others_wait(cs: Containers) -> None:
    """A second thread's transaction waits for the first one's end, and then goes on."""
    order: list[str] = []
    started = threading.Event()

    def second() -> None:
        started.set()
        with cs.pool.transaction():
            order.append("second")
            cs.d["value"] = cs.d["value"] + 1

    with cs.pool.transaction():
        cs.d["value"] = 1
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        assert started.wait(PATIENCE_S)
        thread.join(0.2)  # waiting longer could only make the assertion below stronger
        assert thread.is_alive()
        cs.d["value"] = 10
        order.append("first")
    thread.join(PATIENCE_S)
    assert order == ["first", "second"]
    assert cs.d["value"] == 11


def test_two_threads_in_turn(cs: Containers) -> None:
    """Two threads that each wait for the other's commit alternate to the end."""
    rounds = 200
    turns = [threading.Event(), threading.Event()]
    turns[0].set()
    failures: list[BaseException] = []

    def play(me: int) -> None:
        try:
            for n in range(rounds):
                assert turns[me].wait(PATIENCE_S)
                turns[me].clear()
                with cs.pool.transaction():
                    cs.q.append(f"{n}.{me}")
                    cs.d["turn"] = me
                turns[1 - me].set()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=play, args=(me,), daemon=True) for me in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert failures == []
    assert list(cs.q)[-2 * rounds :] == [f"{n}.{me}" for n in range(rounds) for me in (0, 1)]


def test_another_threads_transaction_is_not_joined(cs: Containers) -> None:
    """A transaction belongs to its thread: another thread's abort does not undo it."""
    first_inside, second_done = threading.Event(), threading.Event()

    def second() -> None:
        assert first_inside.wait(PATIENCE_S)
        with pytest.raises(_CustomError), cs.pool.transaction():
            cs.d["second"] = 1
            raise _CustomError
        second_done.set()

    thread = threading.Thread(target=second, daemon=True)
    thread.start()
    with cs.pool.transaction():
        cs.d["first"] = 1
        first_inside.set()
    assert second_done.wait(PATIENCE_S)
    thread.join(PATIENCE_S)
    assert cs.d["first"] == 1
    assert "second" not in cs.d


# ---- limits ----------------------------------------------------------------------------------


def test_too_large_value(open_pool: OpenPool) -> None:
    """A value larger than the log takes raises TransactionTooLargeError; nothing changed."""
    pool = open_pool(log_size="256KiB")
    cs = Containers(pool)
    cs.change(1)
    before, position = cs.state(), pool.position
    with pytest.raises(pmlog.TransactionTooLargeError) as raised:
        cs.d["big"] = b"x" * (512 << 10)
    assert raised.value.changed is False
    with pytest.raises(pmlog.TransactionTooLargeError):
        cs.q.append("y" * (512 << 10))
    with pytest.raises(pmlog.TransactionTooLargeError):
        cs.d.update(dict.fromkeys(range(512), b"x" * 1000))
    assert cs.state() == before
    assert pool.position == position
    cs.change(2)
    assert cs.d["last"] == 2


def test_too_large_transaction(open_pool: OpenPool) -> None:
    """Many changes that together pass the limit fail as one, and the pool goes on."""
    pool = open_pool(log_size="256KiB")
    cs = Containers(pool)
    cs.change(1)
    before = cs.state()
    done = 0
    with pytest.raises(pmlog.TransactionTooLargeError), pool.transaction():
        for n in range(1_000):
            cs.d[f"k{n}"] = bytes([n % 256]) * 1_000
            done += 1
    assert done > 50
    assert cs.state() == before
    with pool.transaction():
        for n in range(50):
            cs.d[f"k{n}"] = bytes([n % 256]) * 1_000
    assert cs.d["k49"] == bytes([49]) * 1_000
    pool.close()
    reopened = Containers(open_pool())
    assert reopened.d["k49"] == bytes([49]) * 1_000
    assert "k50" not in reopened.d


@pytest.mark.parametrize("what", ["replace", "delete", "push and pop"])
def test_limit_shows_at_the_change(open_pool: OpenPool, what: str) -> None:
    """A change that was taken is never refused by the commit: the limit shows at the change itself."""
    pool = open_pool(log_size="256KiB")
    d, q = pool.dict("d"), pool.deque("q")
    for n in range(0, 4_000, 100):
        d.update(dict.fromkeys(range(n, n + 100), b"x" * 50))
    model = dict(d)
    pushed: list[int] = []

    def change(n: int) -> None:
        if what == "replace":
            d[n] = model[n] = bytes([n % 256]) * 60
        elif what == "delete":
            del d[n]
            del model[n]
        else:
            q.append(n)
            pushed.append(n)
            if n % 3 == 0:
                assert q.popleft() == pushed[0]
                pushed.pop(0)

    with pool.transaction():
        for n in range(4_000):
            try:
                change(n)
            except pmlog.TransactionTooLargeError:
                break
        else:
            pytest.fail("the log took it all")
    assert list(q) == pushed
    assert dict(d) == model
    pool.close()
    with open_pool() as pool:
        assert dict(pool.dict("d")) == model
        assert list(pool.deque("q")) == pushed


def test_too_large_caught_inside(open_pool: OpenPool) -> None:
    """A change that is too large may be caught inside: what came before commits."""
    pool = open_pool(log_size="256KiB")
    cs = Containers(pool)
    with pool.transaction():
        cs.d["before"] = 1
        try:
            with pool.transaction():
                cs.d["big"] = b"x" * (512 << 10)
        except pmlog.TransactionTooLargeError:
            cs.d["caught"] = True
        cs.d["after"] = 1
    assert dict(cs.d) == {"before": 1, "caught": True, "after": 1}


def test_laps_of_the_ring(open_pool: OpenPool) -> None:
    """Far more than the ring holds goes through it, transaction by transaction."""
    pool = open_pool(log_size="256KiB")
    r = pool.region("r", 64 << 10)
    ring = pool.status().ring_bytes
    first = pool.position.lsn
    for n in range(64):
        r.write(0, bytes([n]) * (64 << 10))
    assert pool.position.lsn - first > 10 * ring
    assert r.read(0, 64 << 10) == bytes([63]) * (64 << 10)
    pool.close()
    assert open_pool().region("r", 64 << 10).read(0, 64 << 10) == bytes([63]) * (64 << 10)


@pytest.mark.parametrize("kind", ["dict", "deque"])
@pytest.mark.parametrize("how", ["clear", "drop"])
def test_emptying_what_is_larger_than_the_log(open_pool: OpenPool, kind: str, how: str) -> None:
    """A container that is many times larger than the log can be cleared and dropped; its room is reused."""
    pool = open_pool(size="1MiB", log_size="256KiB")
    used = []
    for _ in range(6):
        c: Any = pool.dict("c") if kind == "dict" else pool.deque("c")
        for start in range(0, 20_000, 200):
            if kind == "dict":
                c.update(dict.fromkeys(range(start, start + 200), b"x" * 60))
            else:
                c.extend([b"x" * 60] * 200)
        assert len(c) == 20_000
        used.append(pool.status().heap_used_bytes)
        if how == "clear":
            c.clear()
            assert len(c) == 0
            assert list(c) == []
        else:
            pool.drop("c")
            assert pool.names() == []
    assert used[-1] <= 1.2 * used[0]
    pool.close()
    with open_pool() as pool:
        assert pool.names() == (["c"] if how == "clear" else [])


@pytest.mark.parametrize("how", ["clear", "drop"])
def test_emptying_is_undone(open_pool: OpenPool, how: str) -> None:
    """Emptying a container that is larger than the log is undone with its transaction."""
    pool = open_pool(size="1MiB", log_size="256KiB")
    d = pool.dict("d")
    for start in range(0, 10_000, 200):
        d.update({n: n for n in range(start, start + 200)})
    with pytest.raises(_CustomError), pool.transaction():
        if how == "clear":
            d.clear()
        else:
            pool.drop("d")
        raise _CustomError
    d = pool.dict("d")
    assert list(d.items()) == [(n, n) for n in range(10_000)]


def test_one_drain_a_commit(open_pool: OpenPool) -> None:
    """A commit drains the log once, whether it has one range or a thousand."""
    pool = open_pool(domain="adr", log_size="4MiB")
    r = pool.region("r", 1 << 20)
    for ranges in (1, 2, 10, 100, 1_000):
        drains = pool.status().drains
        with pool.transaction():
            for n in range(ranges):
                r.write(n * 1024, b"x")
        assert pool.status().drains == drains + 1


# ---- levels ----------------------------------------------------------------------------------


def test_level_committed(cs: Containers) -> None:
    """COMMITTED is what every transaction reaches."""
    with cs.pool.transaction(level=pmlog.Level.COMMITTED):
        cs.change(2)
    cs.pool.wait(pmlog.Level.COMMITTED)
    assert cs.d["last"] == 2


def test_local_on_emulated(open_pool: OpenPool) -> None:
    """LOCAL cannot be had on `emulated`: it is refused before anything changes."""
    pool = open_pool(domain="emulated")
    cs = Containers(pool)
    cs.change(1)
    before = cs.state()
    with (
        pytest.raises(pmlog.LevelUnavailableError) as raised,
        pool.transaction(level=pmlog.Level.LOCAL),
    ):
        cs.change(2)
    assert raised.value.changed is False
    assert cs.state() == before
    with pytest.raises(pmlog.LevelUnavailableError):
        pool.wait(pmlog.Level.LOCAL)
    cs.change(3)
    assert cs.d["last"] == 3


@pytest.mark.parametrize("domain", ["eadr", "adr", "page"])
def test_local_elsewhere(open_pool: OpenPool, domain: str) -> None:
    """LOCAL holds in the domains that keep what is drained."""
    pool = open_pool()
    cs = Containers(pool)
    with pool.transaction(level=pmlog.Level.LOCAL):
        cs.change(2)
    pool.wait(pmlog.Level.LOCAL)
    status = pool.status()
    assert status.lsn_durable == status.lsn_committed


@pytest.mark.parametrize("level", ["RECEIVED", "REPLICATED", "APPLIED"])
def test_levels_of_receivers(cs: Containers, level: str) -> None:
    """Without a shipper no receiver's level can be had, and the error says so."""
    with pytest.raises(pmlog.PmlogError):
        cs.pool.wait(pmlog.Level[level], timeout=0.01)


def test_levels_are_ordered() -> None:
    """Each level says more than the one before."""
    levels = [
        pmlog.Level[name] for name in ("COMMITTED", "LOCAL", "RECEIVED", "REPLICATED", "APPLIED")
    ]
    assert all(a < b for a, b in itertools.pairwise(levels))
    assert len(set(levels)) == 5


def test_views_inside_a_transaction(cs: Containers) -> None:
    """Numpy views show uncommitted changes to their own process, and the rollback too."""
    view = cs.a[...]
    before = np.array(view)
    with pytest.raises(_CustomError), cs.pool.transaction():
        cs.a[...] = 5
        assert (view == 5).all()
        raise _CustomError
    assert np.array_equal(view, before)
