"""pool.deque behaves as collections.deque: each test runs on both, so that the one proves the test."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Callable, Iterable, MutableSequence
from typing import Any

import pytest

import pmlog
from tests.support import OpenPool

Make = Callable[..., Any]
BIG = 1_000


@pytest.fixture(params=["builtin", "pmlog"])
def make(request: pytest.FixtureRequest) -> Make:
    """Return a function that makes a new deque of an iterable's items."""
    if request.param == "builtin":
        return collections.deque
    open_pool: OpenPool = request.getfixturevalue("open_pool")
    pool = open_pool(log_size="4MiB")
    names = (f"deque{n}" for n in itertools.count())

    def make_one(items: Iterable[Any] = ()) -> pmlog.PoolDeque:
        made = pool.deque(next(names))
        made.extend(items)
        return made

    return make_one


@pytest.fixture
def pool_deque(open_pool: OpenPool) -> pmlog.PoolDeque:
    """Return an empty deque of a pool, for what collections.deque has no counterpart of."""
    return open_pool(log_size="4MiB").deque("d")


# ---- the ends --------------------------------------------------------------------------------


def test_is_a_sequence(make: Make) -> None:
    """It registers as the abstract class that code asks for."""
    assert isinstance(make(), MutableSequence)


def test_new_is_empty(make: Make) -> None:
    """A new deque has no item, and is false."""
    d = make()
    assert len(d) == 0
    assert not d
    assert list(d) == []
    assert list(reversed(d)) == []


def test_both_ends(make: Make) -> None:
    """Items go in and come out at either end."""
    d = make()
    d.append("b")
    d.appendleft("a")
    d.append("c")
    assert list(d) == ["a", "b", "c"]
    assert d.pop() == "c"
    assert d.popleft() == "a"
    assert d.pop() == "b"
    assert not d


def test_queue_and_stack(make: Make) -> None:
    """It is a queue and a stack over many items."""
    d = make()
    for n in range(BIG):
        d.append(n)
    assert [d.popleft() for _ in range(BIG)] == list(range(BIG))
    for n in range(BIG):
        d.appendleft(n)
    assert [d.popleft() for _ in range(BIG)] == list(range(BIG))[::-1]
    for n in range(BIG):
        d.append(n)
    assert [d.pop() for _ in range(BIG)] == list(range(BIG))[::-1]
    assert len(d) == 0


def test_pop_of_empty(make: Make) -> None:
    """Taking from an empty deque raises IndexError, again and again, and it serves on."""
    d = make()
    for _ in range(2):
        with pytest.raises(IndexError):
            d.pop()
        with pytest.raises(IndexError):
            d.popleft()
    d.append(1)
    assert d.pop() == 1
    with pytest.raises(IndexError):
        d.popleft()
    assert list(d) == []


def test_truth(make: Make) -> None:
    """A deque of one false item is true."""
    assert make([None])
    assert make([0])


def test_extend(make: Make) -> None:
    """`extend` adds at the right in order, from any iterable."""
    d = make("ab")
    assert d.extend("cd") is None
    d.extend(iter(["e"]))
    d.extend([])
    d.extend(c for c in "fg")
    d.extend({"h": 1})
    assert list(d) == list("abcdefgh")


def test_extendleft(make: Make) -> None:
    """`extendleft` adds at the left, one by one, so the order turns round."""
    d = make("ab")
    assert d.extendleft("cd") is None
    d.extendleft([])
    d.extendleft(iter(range(3)))
    assert list(d) == [2, 1, 0, "d", "c", "a", "b"]


def test_extend_with_itself(make: Make) -> None:
    """A deque may be extended with itself at either end, and ends."""
    d = make("abc")
    d.extend(d)
    assert list(d) == list("abcabc")
    d = make("abc")
    d.extendleft(d)
    assert list(d) == list("cbaabc")
    d = make("abc")
    d += d
    assert list(d) == list("abcabc")


@pytest.mark.parametrize("method", ["extend", "extendleft"])
def test_extend_refuses(make: Make, method: str) -> None:
    """What is no iterable raises TypeError, and nothing changes."""
    d = make("ab")
    with pytest.raises(TypeError):
        getattr(d, method)(1)
    with pytest.raises(TypeError):
        getattr(d, method)()
    assert list(d) == list("ab")


def test_add_in_place(make: Make) -> None:
    """`+=` extends from any iterable and keeps the object."""
    d = make("ab")
    same = d
    d += "cd"
    d += [1]
    assert d is same
    assert list(d) == ["a", "b", "c", "d", 1]
    with pytest.raises(TypeError):
        d += 1


def test_clear(make: Make) -> None:
    """`clear` removes everything, and the deque serves on."""
    d = make(range(BIG))
    d.clear()
    assert list(d) == []
    d.clear()
    d.append(1)
    d.appendleft(0)
    assert list(d) == [0, 1]


# ---- indexing --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 59, 60, 61, 119, 120, 121, 300])
def test_get_item(make: Make, size: int) -> None:
    """Indexing answers like a list's from both ends, around block borders too."""
    d = make(range(size))
    for n in range(size):
        assert d[n] == n
        assert d[n - size] == n
    for bad in (size, -size - 1, size + 100, -size - 100, 2**62, -(2**62)):
        with pytest.raises(IndexError):
            d[bad]


def test_set_item(make: Make) -> None:
    """Assignment by index replaces one item, by one of any size."""
    d = make(range(200))
    model = list(range(200))
    for n in range(-200, 200, 7):
        d[n] = "x" * abs(n * 3)
        model[n] = "x" * abs(n * 3)  # type: ignore[call-overload]
    assert list(d) == model
    for bad in (200, -201, 2**62):
        with pytest.raises(IndexError):
            d[bad] = 0
    assert list(d) == model


def test_index_types(make: Make) -> None:
    """Indices are integers or know `__index__`; slices and others raise TypeError."""

    class Two:
        def __index__(self) -> int:
            return 2

    d = make("abcd")
    assert d[Two()] == "c"
    assert d[True] == "b"
    for bad in ("1", 1.0, None, slice(0, 1), (0,)):
        with pytest.raises(TypeError):
            d[bad]
        with pytest.raises(TypeError):
            d[bad] = 1
        with pytest.raises(TypeError):
            del d[bad]
    assert list(d) == list("abcd")


def test_delete_item(make: Make) -> None:
    """`del` by index removes exactly that item."""
    size = 150
    for n in [0, 1, 59, 60, 61, 75, 119, 120, 148, 149, -1, -2, -75, -149, -150]:
        d = make(range(size))
        model = list(range(size))
        del d[n]
        del model[n]
        assert list(d) == model
    d = make("a")
    del d[0]
    assert list(d) == []
    for bad in (0, -1, 5):
        with pytest.raises(IndexError):
            del d[bad]


def test_delete_until_empty(make: Make, rng: random.Random) -> None:
    """Deleting at random places until nothing is left stays equal to a list."""
    d = make(range(400))
    model = list(range(400))
    while model:
        n = rng.randrange(-len(model), len(model))
        del d[n]
        del model[n]
        assert len(d) == len(model)
        if len(model) % 20 == 0:
            assert list(d) == model
    d.append(1)
    assert list(d) == [1]


@pytest.mark.parametrize("size", [0, 1, 5, 60, 61, 130])
def test_insert(make: Make, size: int) -> None:
    """`insert` goes before the index; beyond the ends it goes to the ends."""
    for n in (
        0,
        1,
        2,
        size // 2,
        size - 1,
        size,
        size + 5,
        -1,
        -2,
        -size,
        -size - 5,
        2**40,
        -(2**40),
    ):
        d = make(range(size))
        model = list(range(size))
        d.insert(n, "new")
        model.insert(n, "new")  # type: ignore[arg-type]
        assert list(d) == model
    with pytest.raises(TypeError):
        make().insert("0", 1)
    with pytest.raises(TypeError):
        make().insert(0)


def test_remove(make: Make) -> None:
    """`remove` takes the first equal item; a missing one raises ValueError."""
    d = make("abcabc")
    assert d.remove("b") is None
    assert list(d) == list("acabc")
    d.remove("c")
    d.remove("c")
    assert list(d) == list("aab")
    with pytest.raises(ValueError, match=r"."):
        d.remove("c")
    assert list(d) == list("aab")
    numbers = make([1, 2.0, True])
    numbers.remove(1.0)
    assert list(numbers) == [2.0, True]
    with pytest.raises(ValueError, match=r"."):
        make().remove(1)


def test_index(make: Make) -> None:
    """`index` finds the first equal item between start and stop, negative ones included."""
    d = make("ABCDEFGHIABC")
    model = list("ABCDEFGHIABC")
    for value, start, stop in itertools.product("AIX", range(-15, 15, 2), range(-14, 16, 2)):
        try:
            expected = model.index(value, start, stop)
        except ValueError:
            with pytest.raises(ValueError, match=r"."):
                d.index(value, start, stop)
        else:
            assert d.index(value, start, stop) == expected
    assert d.index("C") == 2
    assert d.index("C", 3) == 11
    assert d.index("C", -2) == 11
    with pytest.raises(ValueError, match=r"."):
        d.index("X")
    with pytest.raises(TypeError):
        d.index()


def test_count(make: Make) -> None:
    """`count` counts equal items."""
    d = make([1, 2, 1.0, "1", True, None, [1]])
    assert d.count(1) == 3
    assert d.count("1") == 1
    assert d.count([1]) == 1
    assert d.count(7) == 0
    assert make([0] * 500).count(0) == 500


def test_contains(make: Make) -> None:
    """`in` compares with equality."""
    d = make([1, "a", [2], b"b", None])
    for present in (1, 1.0, True, "a", [2], b"b", None):
        assert present in d
    for absent in (2, "b", [3], b"a", object()):
        assert absent not in d


class _CompareError(Exception):
    pass


class _BadEqual:
    def __eq__(self, other: object) -> bool:
        raise _CompareError

    __hash__ = None  # type: ignore[assignment]


def test_comparison_that_raises(make: Make) -> None:
    """What an `__eq__` raises comes out of the searching methods, and nothing changes."""
    d = make([1, 2])
    with pytest.raises(_CompareError):
        d.index(_BadEqual())
    with pytest.raises(_CompareError):
        d.count(_BadEqual())
    with pytest.raises(_CompareError):
        d.remove(_BadEqual())
    with pytest.raises(_CompareError):
        _BadEqual() in d  # noqa: B015 - the question itself must raise
    assert list(d) == [1, 2]


# ---- rotate, reverse -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 7, 60, 61, 150])
def test_rotate(make: Make, size: int) -> None:
    """`rotate` moves right by n modulo the length, left for negative n."""
    for n in [0, 1, -1, 2, -2, size, -size, size + 1, -size - 1, 3 * size + 2, 10**9 + 7, -(10**9)]:
        d = make(range(size))
        model = collections.deque(range(size))
        d.rotate(n)
        model.rotate(n)
        assert list(d) == list(model)
    d = make(range(size))
    d.rotate()
    model = collections.deque(range(size))
    model.rotate()
    assert list(d) == list(model)


def test_rotate_refuses(make: Make) -> None:
    """`rotate` takes one integer."""
    d = make("abc")
    for bad in ("x", 1.5, None):
        with pytest.raises(TypeError):
            d.rotate(bad)
    with pytest.raises(TypeError):
        d.rotate(1, 2)
    assert list(d) == list("abc")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 60, 61, 120, 151])
def test_reverse(make: Make, size: int) -> None:
    """`reverse` turns the items round in place; twice is nothing."""
    d = make(range(size))
    assert d.reverse() is None
    assert list(d) == list(range(size))[::-1]
    d.append("right")
    d.appendleft("left")
    d.reverse()
    assert list(d) == ["right", *range(size), "left"]


# ---- iterating -------------------------------------------------------------------------------


def test_iterators(make: Make) -> None:
    """Iterators give every item once in order, forwards and backwards, and stay at their end."""
    d = make(range(500))
    assert list(d) == list(range(500))
    assert list(reversed(d)) == list(range(500))[::-1]
    it = iter(make("ab"))
    assert iter(it) is it
    assert list(it) == ["a", "b"]
    with pytest.raises(StopIteration):
        next(it)
    with pytest.raises(StopIteration):
        next(it)


@pytest.mark.parametrize("direction", [iter, reversed])
@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.append(1),
        lambda d: d.appendleft(1),
        lambda d: d.pop(),
        lambda d: d.popleft(),
        lambda d: d.clear(),
        lambda d: d.rotate(1),
        lambda d: d.extend("xy"),
        lambda d: d.insert(3, 1),
        lambda d: d.remove("b"),
        lambda d: d.__delitem__(1),
    ],
    ids=[
        "append", "appendleft", "pop", "popleft", "clear", "rotate", "extend", "insert", "remove",
        "del",
    ],
)  # fmt: skip
def test_change_in_iteration(
    make: Make, direction: Callable[[Any], Any], change: Callable[[Any], None]
) -> None:
    """An iterator raises RuntimeError at its next step after items came, went or moved."""
    d = make("abcdefgh")
    it = direction(d)
    next(it)
    change(d)
    with pytest.raises(RuntimeError):
        next(it)


def test_replacement_in_iteration(make: Make) -> None:
    """Items may be replaced while iterating."""
    d = make(range(150))
    for n, item in enumerate(d):
        d[n] = "y" * item
    assert list(d) == ["y" * n for n in range(150)]


# ---- comparing and showing -------------------------------------------------------------------


def test_equality(make: Make) -> None:
    """Deques are equal when their items are, in order; nothing else is equal to one."""
    d = make([1, "a", [2]])
    assert d == make([1.0, "a", [2]])
    assert d == d  # noqa: PLR0124 - equality with itself is what is tested
    assert d != make([1, "a"])
    assert d != make(["a", 1, [2]])
    assert d != [1, "a", [2]]
    assert d != 1
    assert make() == make()


def test_equal_to_the_builtin(pool_deque: pmlog.PoolDeque) -> None:
    """A pool's deque equals a collections.deque of the same items."""
    pool_deque.extend("abc")
    assert pool_deque == collections.deque("abc")
    assert collections.deque("abc") == pool_deque
    assert pool_deque != collections.deque("abx")
    assert pool_deque != collections.deque("abcd")


def test_unhashable_itself(make: Make) -> None:
    """A deque that changes is not hashable."""
    with pytest.raises(TypeError):
        hash(make())


def test_repr(make: Make) -> None:
    """`repr` works on empty and filled deques."""
    assert "deque" in repr(make()).lower()
    assert "deque" in repr(make(["item one"])).lower()


def test_unpacking(make: Make) -> None:
    """It unpacks and sorts as other sequences do."""
    first, *middle, last = make([3, 1, 2, 0])
    assert (first, middle, last) == (3, [1, 2], 0)
    assert sorted(make([3, 1, 2])) == [1, 2, 3]
    assert sum(make([3, 1, 2])) == 6
    assert list(map(str, make([1, 2]))) == ["1", "2"]


# ---- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**63), 2**64 - 1, 0.1, "", "é\U0001f40d\0", b"", b"\0\xff", [], [1, [2]], {},
     {"a": [b"x", None]}, "x" * 70_000, b"y" * 70_000],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_value_round_trip(make: Make, value: Any) -> None:
    """An item comes back equal and of its own type, from every way out."""
    d = make([1, value, 2])
    for got in (d[1], list(d)[1], list(reversed(d))[1]):
        assert got == value
        assert type(got) is type(value)
    assert d.index(value) == (0 if value is True else 1)
    d.rotate(1)
    assert d.pop() == value


def test_encode_error_changes_nothing(pool_deque: pmlog.PoolDeque) -> None:
    """An item that has no encoding raises EncodeError and changes nothing, in `extend` too."""
    pool_deque.extend("ab")
    bad: Any = object()
    with pytest.raises(pmlog.EncodeError):
        pool_deque.append(bad)
    with pytest.raises(pmlog.EncodeError):
        pool_deque.appendleft(bad)
    with pytest.raises(pmlog.EncodeError):
        pool_deque.extend(["c", "d", bad])
    with pytest.raises(pmlog.EncodeError):
        pool_deque.extendleft(["c", "d", bad])
    with pytest.raises(pmlog.EncodeError):
        pool_deque.insert(1, bad)
    with pytest.raises(pmlog.EncodeError):
        pool_deque[0] = bad
    assert list(pool_deque) == ["a", "b"]


# ---- size and random walks -------------------------------------------------------------------


def test_large(make: Make) -> None:
    """100,000 items keep their order and indices through rotation and reversal."""
    count = 100_000
    d = make()
    for start in range(0, count, 5_000):
        d.extend(range(start, start + 5_000))
    assert len(d) == count
    assert d[count // 2] == count // 2
    assert d[-3] == count - 3
    d.rotate(12_345)
    assert d[0] == count - 12_345
    d.rotate(-12_345)
    d.reverse()
    assert d[0] == count - 1
    assert list(d) == list(range(count))[::-1]
    d.clear()
    assert list(d) == []


def test_sliding_window(make: Make) -> None:
    """A window that slides far keeps its items; what is left behind is given back."""
    d = make(range(100))
    for n in range(100, 5_000):
        d.append(n)
        assert d.popleft() == n - 100
    assert list(d) == list(range(4_900, 5_000))
    for n in range(4_899, 2_000, -1):
        d.appendleft(n)
        assert d.pop() == n + 100
    assert list(d) == list(range(2_001, 2_101))


def test_rotation_walk(make: Make, rng: random.Random) -> None:
    """Random rotations between pushes and pops stay equal to collections.deque."""
    d = make(range(130))
    model = collections.deque(range(130))
    for step in range(300):
        n = rng.randrange(-200, 200)
        d.rotate(n)
        model.rotate(n)
        if rng.random() < 0.5:
            d.append(step)
            model.append(step)
        else:
            assert d.popleft() == model.popleft()
        assert d[0] == model[0]
        assert d[-1] == model[-1]
    assert list(d) == list(model)


def test_random_operations(make: Make, rng: random.Random) -> None:
    """A long random walk of all operations ends where collections.deque ends."""
    d = make()
    model: collections.deque[Any] = collections.deque()
    for step in range(5_000):
        size = len(model)
        item = rng.choice([step, f"s{step}", rng.randbytes(rng.randrange(90)), [step]])
        at = rng.randrange(size) - rng.choice([0, size]) if size else 0
        match rng.randrange(14):
            case 0 | 1 | 2:
                d.append(item)
                model.append(item)
            case 3 | 4:
                d.appendleft(item)
                model.appendleft(item)
            case 5 if size:
                assert d.pop() == model.pop()
            case 6 if size:
                assert d.popleft() == model.popleft()
            case 7:
                d.insert(at, item)
                model.insert(at, item)
            case 8 if size:
                del d[at]
                del model[at]
            case 9 if size:
                d[at] = item
                model[at] = item
            case 10:
                n = rng.randrange(-300, 300)
                d.rotate(n)
                model.rotate(n)
            case 11 if rng.random() < 0.2:
                d.reverse()
                model.reverse()
            case 12 if size:
                wanted = model[at]
                d.remove(wanted)
                model.remove(wanted)
            case 13:
                items = [rng.random() for _ in range(rng.randrange(9))]
                d.extendleft(items)
                model.extendleft(items)
        assert len(d) == len(model)
        if step % 250 == 0:
            assert list(d) == list(model)
    assert list(d) == list(model)
    assert list(reversed(d)) == list(reversed(model))


def test_equal_after_reopen(open_pool: OpenPool) -> None:
    """Items and their order are the same after close and open."""
    with open_pool() as pool:
        d = pool.deque("d")
        d.extend(range(200))
        d.rotate(33)
        for _ in range(70):
            d.popleft()
        before = list(d)
    with open_pool() as pool:
        assert list(pool.deque("d")) == before
