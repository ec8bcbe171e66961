"""Read-only handles in other processes beside a live writer: committed state, whole, always."""

# ruff: noqa: PT012 - whole blocks that raise are what is tested

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmlog
from tests import children
from tests.support import DOMAINS, MEDIA, SMALL, USES, Child, OpenPool, abandon, uses

Spawn = Callable[..., Child]

WRITES = ["dict write", "deque write", "array write", "region write", "make", "drop", "transaction"]
READS = [name for name in USES if name not in WRITES and name != "checkpoint"]


@pytest.fixture
def reader(open_pool: OpenPool, spawn: Spawn, pool_path: Path) -> Callable[..., Any]:
    """Start a reader in another process; return a function that asks it."""

    def start() -> Callable[..., Any]:
        child = spawn(children.serve_reads, str(pool_path), {})
        assert child.hear() == "open"

        def ask(*question: Any) -> Any:
            child.say(question)
            answer = child.hear()
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask

    return start


@pytest.mark.parametrize("domain", DOMAINS)
def test_sees_what_is_committed(
    open_pool: OpenPool, reader: Callable[[], Any], domain: str
) -> None:
    """A reader sees each commit at its next look, in every domain."""
    pool = open_pool()
    d = pool.dict("d")
    q = pool.deque("q")
    a = pool.array("a", shape=(3,), dtype="i8")
    r = pool.region("r", 100)
    ask = reader()
    for n in range(50):
        with pool.transaction():
            d[n] = n
            q.append(n)
            a[n % 3] = n
            r.write(n, bytes([n]))
        assert ask("dict", "d") == list(d.items())
        assert ask("deque", "q") == list(q)
        assert ask("array", "a", (3,), "i8") == a[...].tolist()
        assert ask("region", "r", 100) == r.read(0, 100)


def test_sees_nothing_uncommitted(pool: pmlog.Pool, reader: Callable[[], Any]) -> None:
    """A reader sees nothing of an open transaction, nor of an aborted one."""
    d = pool.dict("d")
    d["x"] = 1
    ask = reader()
    with pytest.raises(ZeroDivisionError), pool.transaction():
        d["x"] = 2
        d.update(dict.fromkeys(range(100), "y" * 100))
        pool.dict("new")
        assert ask("dict", "d") == [("x", 1)]
        assert ask("names") == ["d"]
        raise ZeroDivisionError
    assert ask("dict", "d") == [("x", 1)]
    with pool.transaction():
        d["x"] = 3
        assert ask("get", "d", "x") == 1
    assert ask("get", "d", "x") == 3


def test_containers_made_and_dropped(pool: pmlog.Pool, reader: Callable[[], Any]) -> None:
    """A reader sees containers come and go, and their names used again for another type."""
    ask = reader()
    assert ask("names") == []
    pool.dict("x")["a"] = 1
    assert ask("names") == ["x"]
    assert ask("dict", "x") == [("a", 1)]
    pool.drop("x")
    assert ask("names") == []
    with pytest.raises(pmlog.UsageError):
        ask("dict", "x")
    pool.deque("x").append(5)
    assert ask("deque", "x") == [5]


def test_survives_growth(open_pool: OpenPool, reader: Callable[[], Any]) -> None:
    """A reader follows while the pool grows to many times its first size."""
    pool = open_pool(size="1MiB", max_size="256MiB", log_size="1MiB")
    d = pool.dict("d")
    ask = reader()
    first = ask("image_bytes")
    for n in range(200):
        d[n] = bytes([n]) * 100_000
        if n % 20 == 0:
            assert ask("get", "d", n) == d[n]
    assert ask("get", "d", 3) == bytes([3]) * 100_000
    assert ask("image_bytes") > 10 * first
    d.clear()
    assert ask("dict", "d") == []


def test_survives_checkpoints_and_laps(open_pool: OpenPool, reader: Callable[[], Any]) -> None:
    """A reader that slept while the ring went round many times is right at its next look."""
    pool = open_pool()
    d = pool.dict("d")
    ask = reader()
    for lap in range(12):
        for n in range(40):
            d[n] = bytes([lap]) * (10_000 + lap)
        if lap % 3 == 0:
            pool.checkpoint()
        assert ask("get", "d", 39) == bytes([lap]) * (10_000 + lap)
    assert ask("dict", "d") == list(d.items())


@pytest.mark.parametrize("medium", MEDIA)
def test_never_half_a_transaction(
    open_pool: OpenPool, spawn: Spawn, pool_path: Path, medium: str
) -> None:
    """A reader that looks all the time beside a fast writer never sees half a transaction."""
    size = 120
    pool = open_pool()
    d = pool.dict("sums")
    with pool.transaction():
        d.update(dict.fromkeys(range(size), 0))
    watchers = [spawn(children.watch_sums, str(pool_path), size) for _ in range(2)]
    for watcher in watchers:
        assert watcher.hear() == "open"
    rounds = 1_500
    for generation in range(1, rounds + 1):
        with pool.transaction():
            for n in range(0, size, 2):
                d[n] = generation
                d[n + 1] = -generation
        if generation % 100 == 0:
            pool.checkpoint()
    for watcher in watchers:
        watcher.say("stop")
        looks, odd, last = watcher.hear()
        assert looks > 0
        assert odd == 0
        assert 0 <= last <= rounds


@pytest.mark.parametrize("domain", ["emulated", "page"])
def test_writer_killed_and_restarted(
    reader: Callable[[], Any], spawn: Spawn, pool_path: Path, open_pool: OpenPool, domain: str
) -> None:
    """A reader goes on through the writer's kill -9 and restart, and sees the new writer's commits."""
    options = {**SMALL, "domain": domain}
    told = 0
    ask: Any = None
    for _ in range(4):
        writer = spawn(children.write_forever, str(pool_path), options)
        assert writer.hear() >= told
        ask = ask or reader()
        told = writer.hear()
        assert ask("get", "d", "n") >= told
        writer.kill()
        n = ask("get", "d", "n")
        assert n >= told
        assert ask("deque", "q")[-1] == n
        assert int.from_bytes(ask("region", "r", 64)[:8], "little") == n
        told = n
    with open_pool() as pool:
        n = pool.dict("d")["n"]
        # In `page` a record may be whole without being durable: recovery makes it so.
        assert n == told or (domain == "page" and n == told + 1)
        assert ask("get", "d", "n") == n
        pool.dict("d")["n"] = -1
        assert ask("get", "d", "n") == -1
    assert ask("get", "d", "n") == -1


@pytest.mark.parametrize("name", WRITES)
def test_writes_are_refused(pool: pmlog.Pool, name: str) -> None:
    """Every change through a read-only handle raises ReadOnlyError and changes nothing."""
    uses(pool)
    before = sorted(pool.names()), dict(pool.dict("d")), list(pool.deque("q"))
    with pmlog.open(pool.path, readonly=True) as reader:
        d: Any = reader.dict("d")
        q: Any = reader.deque("q")
        a = reader.array("a", shape=(4,), dtype="i8")
        r = reader.region("r", 64)

        def transaction() -> None:
            with reader.transaction():
                raise AssertionError("the block must not be entered")

        changes: dict[str, list[Callable[[], Any]]] = {
            "dict write": [
                lambda: d.update(y=1), lambda: d.pop("x"), d.clear, d.popitem,
                lambda: d.setdefault("new", 1), lambda: d.__delitem__("x"),
                lambda: d.__setitem__("x", 5),
            ],
            "deque write": [
                lambda: q.append(1), lambda: q.appendleft(1), q.pop, q.popleft, q.clear,
                lambda: q.rotate(1), q.reverse, lambda: q.extend([1]), lambda: q.insert(0, 1),
                lambda: q.__setitem__(0, 5), lambda: q.__delitem__(0), lambda: q.remove(1),
            ],
            "array write": [lambda: a.__setitem__(0, 1), lambda: a.__setitem__(..., 1)],
            "region write": [lambda: r.write(0, b"x")],
            "make": [
                lambda: reader.dict("new"), lambda: reader.deque("new"),
                lambda: reader.array("new", shape=(1,), dtype="u1"), lambda: reader.region("new", 1),
            ],
            "drop": [lambda: reader.drop("d")],
            "transaction": [transaction],
        }  # fmt: skip
        q_items = list(q)
        for change in changes[name]:
            with pytest.raises(pmlog.UsageError) as raised:
                change()
            if name != "make":
                assert isinstance(raised.value, pmlog.ReadOnlyError)
            assert raised.value.changed is False
        assert list(q) == q_items
    assert (sorted(pool.names()), dict(pool.dict("d")), list(pool.deque("q"))) == before


@pytest.mark.parametrize("name", READS)
def test_reads_work(pool: pmlog.Pool, name: str) -> None:
    """Every read works through a read-only handle."""
    uses(pool)
    with pmlog.open(pool.path, readonly=True) as reader:
        d: Any = reader.dict("d")
        q: Any = reader.deque("q")
        a = reader.array("a", shape=(4,), dtype="i8")
        r = reader.region("r", 64)

        def waits() -> bool:
            reader.wait(pmlog.Level.COMMITTED)
            return True

        reads: dict[str, Callable[[], Any]] = {
            "dict read": lambda: d["x"] == 1,
            "dict iterate": lambda: list(d.items()) == [("x", 1)],
            "dict len": lambda: len(d) == 1,
            "deque read": lambda: q[0] == 1,
            "array read": lambda: a[0] == 0,
            "region read": lambda: r.read(0, 8) == bytes(8),
            "names": lambda: sorted(reader.names()) == ["a", "d", "q", "r"],
            "status": lambda: reader.status().readonly,
            "position": lambda: reader.position == pool.position,
            "wait": waits,
        }
        assert reads[name]()


def test_closed_pool(open_pool: OpenPool) -> None:
    """A closed pool is read by several handles at once, without a writer."""
    with open_pool(log_size="1MiB") as pool:
        pool.dict("d").update({n: n for n in range(1_000)})
    with open_pool(readonly=True) as one, open_pool(readonly=True) as two:
        assert dict(one.dict("d")) == dict(two.dict("d")) == {n: n for n in range(1_000)}


def test_reading_leaves_files_alone(open_pool: OpenPool, pool_path: Path) -> None:
    """A reader of a pool whose writer was killed recovers in memory and changes no file's bytes."""
    pool = open_pool()
    pool.dict("d").update({n: n for n in range(100)})
    pool.checkpoint()
    pool.dict("d")["tail"] = 1
    abandon(pool)
    names = ("image", "log", "sums")
    before = {name: (pool_path / name).read_bytes() for name in names}
    with open_pool(readonly=True) as reader:
        assert reader.dict("d")["tail"] == 1
        assert len(reader.dict("d")) == 101
    assert {name: (pool_path / name).read_bytes() for name in names} == before


def test_array_views_of_readers(pool: pmlog.Pool) -> None:
    """What a reader reads of an array is whole and does not change under its hands."""
    a = pool.array("a", shape=(1_000,), dtype="i8")
    with pmlog.open(pool.path, readonly=True) as reader:
        ra = reader.array("a", shape=(1_000,), dtype="i8")
        for n in range(1, 30):
            a[...] = n
            seen = ra[...]
            assert (seen == n).all()
        assert np.array_equal(ra[::7], a[::7])


def test_iteration_beside_commits(open_pool: OpenPool) -> None:
    """A reader's iteration beside commits gives each key once, in order, with committed values."""
    pool = open_pool(log_size="16MiB")
    d = pool.dict("d")
    d.update(dict.fromkeys(range(3000), 0))
    with pmlog.open(pool.path, readonly=True) as reader:
        rd = reader.dict("d")
        it = iter(rd.items())
        seen = [next(it) for _ in range(10)]
        with pool.transaction():
            for n in range(3_000):
                d[n] = "second state, larger than before"
            d[3_000] = 0
        seen += list(it)
        assert [key for key, _ in seen] == list(range(3_001))
        assert {value for _, value in seen} <= {0, "second state, larger than before"}
        assert dict(rd) == dict(d)
