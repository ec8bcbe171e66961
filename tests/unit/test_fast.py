"""The calls that are made in C: what they do themselves and what they leave to Python is one behaviour."""

# ruff: noqa: PT012 - whole loops that raise are what is tested

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pmlog
from pmlog.containers.codec import encode_key
from pmlog.containers.deque import PoolDeque
from pmlog.containers.dict import PoolDict
from pmlog.containers.region import PoolRegion
from tests.support import PATIENCE_S, OpenPool

EDGES = [
    sign * ((1 << bits) + step)
    for bits in (0, 5, 7, 8, 15, 16, 31, 32, 63, 64)
    for step in (-2, -1, 0, 1)
    for sign in (1, -1)
]
INTS = [number for number in EDGES if -(1 << 63) <= number < 1 << 64]


class Text(str):
    """A str that is not exactly one."""


@pytest.mark.parametrize("number", INTS)
def test_ints_are_stored_as_msgspec_writes_them(open_pool: OpenPool, number: int) -> None:
    """An int is the same key and value whether C or msgspec has encoded it."""
    d = open_pool().dict("d")
    d[number] = number
    d.update({float(number) if abs(number) < 1 << 50 else number: number})
    assert dict(d) == {number: number}
    assert d[number] == number
    d[(number,)] = [number]
    assert list(d) == [number, (number,)]
    decoder = msgspec.msgpack.Decoder(int)
    assert decoder.decode(msgspec.msgpack.encode(number)) == d.get(number)


@pytest.mark.parametrize(
    "key", ["a", b"a", 1, 1.0, True, None, ("a",), (1, ("b",)), Text("t"), "ü" * 700, b"x" * 5000]
)
def test_every_kind_of_key(open_pool: OpenPool, key: Any) -> None:
    """All calls agree on a key, whichever way it is taken."""
    d = open_pool().dict("d")
    assert key not in d
    assert d.get(key, 7) == 7
    with pytest.raises(KeyError) as caught:
        d[key]
    assert caught.value.args == (key,)
    with pytest.raises(KeyError):
        del d[key]
    d[key] = "value"
    assert key in d
    assert (d[key], d.get(key), d.get(key, default=1)) == ("value", "value", "value")
    d.update([(key, 2)])
    assert (d[key], len(d)) == (2, 1)
    del d[key]
    assert key not in d


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65_535, 65_536, 200_000])
def test_every_length_of_value(open_pool: OpenPool, size: int) -> None:
    """Values of every length come back, as bytes and as text."""
    pool = open_pool(log_size="4MiB")
    d, r = pool.dict("d"), pool.region("r", 262_144)
    d["bytes"], d["text"] = b"x" * size, "y" * size
    assert (d["bytes"], d.get("text")) == (b"x" * size, "y" * size)
    r.write(8, b"z" * size)
    assert r.read(8, size) == b"z" * size
    assert r.read(offset=8, size=size) == r.read()[8 : 8 + size]


def test_pops(open_pool: OpenPool) -> None:
    """Pops at both ends give values of every kind and length, and refuse what deque refuses."""
    q = open_pool(log_size="4MiB").deque("q")
    values = [b"", b"x", "", "text", 0, None, [1, {"a": 2}], b"y" * 4096, b"z" * 5000, "w" * 70_000]
    q.extend(values)
    assert [q.popleft() for _ in values] == values
    q.extend(values)
    assert [q.pop() if n % 2 else q.pop(-1) for n in range(len(values))] == values[::-1]
    for empty in (q.pop, q.popleft):
        with pytest.raises(IndexError):
            empty()
    q.append("stays")
    # Beyond 64 bits: a C conversion answers -1 with an error, which once passed for the index -1.
    for index in (0, 1, "x", 1 << 70, -(1 << 70), True, None):
        with pytest.raises(TypeError):
            q.pop(index)  # type: ignore[arg-type]
    assert list(q) == ["stays"]


def at_depth(depth: int, call: Callable[[], Any]) -> Any:
    """Call something with that many frames more on the stack."""
    return at_depth(depth - 1, call) if depth else call()


@pytest.mark.parametrize("size", [1, 5000])
def test_pop_that_cannot_be_decoded_changes_nothing(open_pool: OpenPool, size: int) -> None:
    """Where the stack is too deep to decode a value, popping it raises and the value stays.

    Pops once committed first and decoded afterwards, so that the value was lost.
    """
    pool = open_pool()
    q, d = pool.deque("q"), pool.dict("d")
    value: Any = ["x" * size]
    for _ in range(150):
        value = [value]
    q.extend([0, value, 0])
    q.pop()
    q.popleft()
    d.update({"a": 1, "deep": value, "z": 2})
    for pop in (q.pop, q.popleft, lambda: d.pop("deep")):
        refused = 0
        for depth in range(sys.getrecursionlimit() - 400, sys.getrecursionlimit(), 7):
            try:
                at_depth(depth, pop)
            except (RecursionError, pmlog.PmlogError):
                refused += 1
            else:
                q.append(value) if not q else d.update({"a": 1, "deep": value})
            assert len(q) == 1
            assert q[0] == value
            assert d["deep"] == value
        assert refused
    assert d.keys() == {"a", "deep", "z"}


def test_pop_of_another_type_stays(open_pool: OpenPool) -> None:
    """A value that is not of the deque's type is not popped."""
    pool = open_pool()
    pool.deque("q").append("text")
    typed = pool.deque("q", type=int)
    for pop in (typed.pop, typed.popleft):
        with pytest.raises(pmlog.DecodeError):
            pop()
    assert list(pool.deque("q")) == ["text"]


def test_get_many(open_pool: OpenPool) -> None:
    """Many keys of every kind, there or not, with values of every length."""
    d = open_pool(log_size="8MiB").dict("d")
    wanted = {"a": 1, b"b": b"", 3: b"x" * 300_000, ("t", 1): None, 1 << 63: "y" * 5000}
    d.update(wanted)
    keys = [*wanted, "missing", *wanted]
    assert d.get_many(keys, default=7) == [*wanted.values(), 7, *wanted.values()]
    assert d.get_many(iter([])) == []
    assert d.get_many(["no"] * 3) == [None] * 3
    with pytest.raises(pmlog.EncodeError):
        d.get_many([object()])


def test_bulk_forms_of_many_keys(open_pool: OpenPool) -> None:
    """Keys that come twice, or while the table grows, end as they do in a dict."""
    d = open_pool(log_size="8MiB").dict("d")
    plain: dict[Any, Any] = {}
    pairs: list[tuple[Any, Any]] = [((n * n) % 3001, b"v" * (n % 300)) for n in range(6000)]
    pairs += [(f"k{n % 7}", n) for n in range(100)]
    for some in (pairs[:40], pairs, pairs[::-1]):
        d.update(some)
        plain.update(some)
        assert d.copy() == plain
        assert list(d) == list(plain)
    keys = [key for key, _ in pairs] + ["missing"] * 20
    assert d.get_many(keys) == [plain.get(key) for key in keys]


def test_many_keys_leave_the_interpreter_to_others(open_pool: OpenPool) -> None:
    """While the engine looks many keys up, other threads run."""
    d = open_pool(log_size="32MiB").dict("d")
    keys = [str(n) for n in range(50_000)]
    d.update(dict.fromkeys(keys, b"x"))
    wait, ran = threading.Lock(), []
    wait.acquire()

    def other() -> None:
        with wait:
            ran.append(True)

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    before, deadline = sys.getswitchinterval(), time.monotonic() + PATIENCE_S
    sys.setswitchinterval(1000.0)  # nobody else gets the interpreter but by the call below
    try:
        wait.release()
        while not ran and time.monotonic() < deadline:
            d._get_many(keys, None, encode_key)
        assert ran
    finally:
        sys.setswitchinterval(before)
    thread.join(PATIENCE_S)


def test_not_bound() -> None:
    """A container that nobody has made says so, and does not end the process."""
    d: Any = PoolDict.__new__(PoolDict)
    q: Any = PoolDeque.__new__(PoolDeque)
    r: Any = PoolRegion.__new__(PoolRegion)
    for use in (
        lambda: d["a"], lambda: d.get("a"), lambda: "a" in d, lambda: d.__setitem__("a", 1),
        lambda: d.get_many(["a"]), lambda: q.append(1), q.pop, q.popleft,
        lambda: r.write(0, b"1"), lambda: r.read(0, 1),
    ):  # fmt: skip
        with pytest.raises(AttributeError):
            use()


def test_pairs_that_change_while_they_are_encoded(open_pool: OpenPool) -> None:
    """A pair is what it was when its turn came, though encoding it empties the caller's list.

    Key and value were once borrowed from that list, and read after they were freed.
    """
    d = open_pool().dict("d")

    class Number(int):
        def __int__(self) -> int:
            pair.clear()
            gc.collect()
            return 5

    for pair in (
        [Number(5), ["x" * 300 for _ in range(100)]],
        [5, [Number(5), ["x" * 300 for _ in range(100)]]],
    ):
        wanted = list(pair[1]) if isinstance(pair[1], list) else pair[1]
        d.update([pair])
        assert pair == []
        assert d[5] == wanted


def test_other_interpreters_are_refused(tmp_path: Path) -> None:
    """A second interpreter of the process cannot import pmlog; the first goes on.

    It once could, and left an encoder behind that ended the process when it was used.
    """
    program = f"""
import pmlog
try:
    import _interpreters as interpreters
    def run(code): return interpreters.exec(interpreters.create("legacy"), code)
except ImportError:
    import _xxsubinterpreters as interpreters
    def run(code): return interpreters.run_string(interpreters.create(isolated=False), code)
with pmlog.open({str(tmp_path / "pool")!r}, size="1MiB", log_size="1MiB") as pool:
    try:
        error = run("import pmlog")
    except Exception as raised:
        error = raised
    assert "main interpreter only" in str(error), error
    pool.dict("d")["a"] = [1]
    assert pool.dict("d")["a"] == [1]
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_refused_arguments(open_pool: OpenPool) -> None:
    """What cannot be stored is refused, and nothing has changed."""
    pool = open_pool()
    d, q, r = pool.dict("d"), pool.deque("q"), pool.region("r", 64)
    before = pool.position
    for refused in (object(), {1, object()}, 1 << 70):
        with pytest.raises(pmlog.EncodeError):
            d["a"] = refused
        with pytest.raises(pmlog.EncodeError):
            q.append(refused)
        with pytest.raises(pmlog.EncodeError):
            d.update({"a": refused})
    with pytest.raises(pmlog.EncodeError):
        d["\ud800"] = 1
    with pytest.raises(TypeError):
        d[[]] = 1
    with pytest.raises(TypeError):
        r.write("0", b"x")  # type: ignore[arg-type]
    for offset, data in ((-1, b"x"), (64, b"x"), (60, b"12345"), (1 << 64, b"x")):
        with pytest.raises(pmlog.BoundsError):
            r.write(offset, data)
        with pytest.raises(pmlog.BoundsError):
            r.read(offset, len(data))
    for pairs in ([("a",)], [("a", 1, 2)]):
        with pytest.raises(ValueError, match="2 is required"):
            d.update(pairs)
    with pytest.raises(TypeError):
        d.update([1])
    assert pool.position == before
    assert (dict(d), list(q), r.read()) == ({}, [], bytes(64))


def test_an_interrupt_while_encoding(open_pool: OpenPool) -> None:
    """An interrupt inside the encoder goes through, and the value is not stored."""
    d = open_pool().dict("d")

    class Number(int):
        def __int__(self) -> int:
            raise KeyboardInterrupt

    for rude in (Number(3), [Number(3)]):
        with pytest.raises(KeyboardInterrupt):
            d["a"] = rude
    assert "a" not in d


def test_waits_for_another_threads_transaction(open_pool: OpenPool) -> None:
    """Every call waits for an open transaction of another thread, which needs the interpreter."""
    pool = open_pool()
    d, q, r = pool.dict("d"), pool.deque("q"), pool.region("r", 64)
    d["n"] = 0
    uses = [
        lambda: d["n"], lambda: d.get("n"), lambda: "n" in d, lambda: d.__setitem__("m", 1),
        lambda: q.append(1), lambda: q.appendleft(0), lambda: r.write(0, b"1"),
        lambda: r.read(0, 1), lambda: d.update(k=1), lambda: d.pop("k"),
        lambda: d.get_many(["n", "m"]), q.pop, q.popleft,
    ]  # fmt: skip
    for use in uses:
        begun = threading.Event()
        results: list[Any] = []

        def work(use: Any = use, begun: threading.Event = begun, to: list[Any] = results) -> None:
            begun.set()
            to.append(use())

        thread = threading.Thread(target=work, daemon=True)
        with pool.transaction():
            d["n"] = d["n"] + 1
            thread.start()
            assert begun.wait(PATIENCE_S)
            total = sum(range(200_000))  # the interpreter goes on meanwhile
            assert total
            assert not results
        thread.join(PATIENCE_S)
        assert len(results) == 1
    assert d["n"] == len(uses)


def test_iterators_notice(open_pool: OpenPool) -> None:
    """A change made in C is seen by an iteration that is under way."""
    pool = open_pool(log_size="8MiB")
    d, q = pool.dict("d"), pool.deque("q")
    d.update({str(n): n for n in range(10_000)})
    q.extend(range(10_000))
    with pytest.raises(RuntimeError):
        for key in d:
            d[key + "!"] = 1
    with pytest.raises(RuntimeError):
        for value in q:
            q.append(value)


def test_objects_are_collected(open_pool: OpenPool) -> None:
    """A pool, its containers and a transaction in a cycle are collected together."""
    pool = open_pool()
    d = pool.dict("d")
    transaction = pool.transaction()

    class Owner:
        def __init__(self) -> None:
            self.things = [d, transaction, self]

    owner = Owner()
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
    d["a"] = 1
    assert d["a"] == 1


def test_no_reference_is_lost(open_pool: OpenPool) -> None:
    """Memory does not grow with the number of calls, refused ones among them."""
    pool = open_pool()
    d, q, r = pool.dict("d"), pool.deque("q"), pool.region("r", 64)
    value, key = ["x" * 500, {"a": 1.5}], "k" * 300

    def once() -> None:
        d[key] = value
        assert d[key] == value
        assert d.get(b"missing" + b"x" * 300) is None
        d.update({key: value, (1, 2): value})
        q.append(value)
        q.popleft()
        r.write(0, b"y" * 64)
        r.read(0, 64)
        with pool.transaction():
            d["t"] = value
        for refused in (lambda: d["missing"], lambda: d.__setitem__("a", object())):
            with pytest.raises((KeyError, pmlog.EncodeError)):
                refused()

    for _ in range(500):
        once()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3_000):
        once()
    # A lost reference to one value alone would take 3,000 x 500 bytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000
