"""pool.dict behaves as the builtin: each test runs on both, so that the builtin proves the test."""

from __future__ import annotations

import collections
import itertools
import math
import random
from collections.abc import Callable, ItemsView, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any

import pytest

import pmlog
from tests.support import OpenPool

Make = Callable[..., Any]

ODD_KEYS = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    0.5,
    -0.0,
    1e308,
    5e-324,
    math.inf,
    -math.inf,
    "",
    "a",
    "\0",
    "é",
    "e\u0301",
    "\U0001f40d",
    b"",
    b"a",
    b"\0\0",
    (),
    (1,),
    (1, "a"),
    ((1,),),
    ("a", ("b", None, (2.5,))),
]


@pytest.fixture(params=["builtin", "pmlog"])
def make(request: pytest.FixtureRequest) -> Make:
    """Return a function that makes a new mapping from what `update` takes."""
    if request.param == "builtin":
        return dict
    open_pool: OpenPool = request.getfixturevalue("open_pool")
    pool = open_pool(log_size="4MiB")
    names = (f"dict{n}" for n in itertools.count())

    def make_one(*args: Any, **kwargs: Any) -> pmlog.PoolDict:
        made = pool.dict(next(names))
        made.update(*args, **kwargs)
        return made

    return make_one


@pytest.fixture
def pool_dict(open_pool: OpenPool) -> pmlog.PoolDict:
    """Return an empty dict of a pool, for what the builtin has no counterpart of."""
    return open_pool(log_size="4MiB").dict("d")


# ---- reading and writing ---------------------------------------------------------------------


def test_is_a_mapping(make: Make) -> None:
    """It registers as the abstract classes that code asks for."""
    d = make()
    assert isinstance(d, Mapping)
    assert isinstance(d, MutableMapping)


def test_new_is_empty(make: Make) -> None:
    """A new mapping has no entry, and is false."""
    d = make()
    assert len(d) == 0
    assert not d
    assert list(d) == []
    assert list(d.items()) == []
    assert d == {}


def test_truth(make: Make) -> None:
    """A mapping with one entry is true, even when key and value are false."""
    assert make({None: None})
    assert make({0: 0})


def test_get_set_delete(make: Make) -> None:
    """What was set is found, what was deleted is not, and the count follows."""
    d = make()
    d["a"] = 1
    d["b"] = 2
    assert (d["a"], d["b"], len(d)) == (1, 2, 2)
    d["a"] = 3
    assert (d["a"], len(d)) == (3, 2)
    del d["a"]
    assert "a" not in d
    assert dict(d) == {"b": 2}


def test_missing_key(make: Make) -> None:
    """A missing key raises KeyError with that key as its only argument."""
    d = make({"a": 1})
    for key in ("b", 7, None, ("a",), b"a"):
        with pytest.raises(KeyError) as raised:
            d[key]
        assert raised.value.args == (key,)
        with pytest.raises(KeyError) as raised:
            del d[key]
        assert raised.value.args == (key,)
        with pytest.raises(KeyError) as raised:
            d.pop(key)
        assert raised.value.args == (key,)
    assert d == {"a": 1}


def test_get(make: Make) -> None:
    """`get` answers the value, else the default, else None, and stores nothing."""
    d = make({"a": 1})
    assert d.get("a") == 1
    assert d.get("a", 9) == 1
    assert d.get("b") is None
    assert d.get("b", 9) == 9
    assert d == {"a": 1}
    with pytest.raises(TypeError):
        d.get()
    with pytest.raises(TypeError):
        d.get(1, 2, 3)


def test_contains(make: Make) -> None:
    """`in` answers True or False and tells types of keys apart."""
    d = make({"a": 1, 2: "two"})
    assert "a" in d
    assert 2 in d
    assert "2" not in d
    assert b"a" not in d
    assert None not in d


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        2**64 - 1,
        0.1,
        -0.0,
        math.inf,
        "",
        "text",
        "\U0001f40d\0é",
        b"",
        b"\0\xff",
        [],
        [1, [2, [3]]],
        {},
        {"a": {"b": [1, 2.5, None, b"x"]}},
        {1: "int key", "s": 2},
        "x" * 100_000,
        b"y" * 100_000,
    ],
    ids=lambda value: repr(value)[:30],
)
def test_value_round_trip(make: Make, value: Any) -> None:
    """A value comes back equal and of its own type."""
    d = make()
    d["k"] = value
    got = d["k"]
    assert got == value
    assert type(got) is type(value)
    assert d.get("k") == value
    assert list(d.values()) == [value]
    assert math.copysign(1, got) == math.copysign(1, value) if isinstance(value, float) else True
    assert d.pop("k") == value


def test_nan_value(make: Make) -> None:
    """A value that is not equal to itself comes back as what it was."""
    d = make()
    d["k"] = math.nan
    assert math.isnan(d["k"])


# ---- keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ODD_KEYS, ids=repr)
def test_key_round_trip(make: Make, key: Any) -> None:
    """A key of any kind is found, listed equal, and deleted."""
    d = make({"other": 0})
    d[key] = "v"
    assert d[key] == "v"
    assert key in d
    assert d.get(key) == "v"
    last = list(d)[-1]
    assert last == key
    if isinstance(key, (str, bytes, tuple)) or key is None or type(key) is int:
        assert type(last) is type(key)  # bools and integral floats come back as the int they equal
    assert list(d.items())[-1] == (key, "v")
    del d[key]
    assert key not in d
    assert dict(d) == {"other": 0}


def test_odd_keys_together(make: Make) -> None:
    """Keys of all kinds live in one mapping, as equal ones share an entry."""
    d = make()
    model: dict[Any, int] = {}
    for n, key in enumerate(ODD_KEYS):
        d[key] = n
        model[key] = n
    assert d == model
    assert list(d) == list(model)
    for key in ODD_KEYS:
        assert d[key] == model[key]


@pytest.mark.parametrize(
    ("first", "others"),
    [
        (1, [1.0, True]),
        (1.0, [1, True]),
        (True, [1, 1.0]),
        (0, [0.0, -0.0, False]),
        (-0.0, [0, 0.0, False]),
        (2**53, [float(2**53)]),
        (float(2**63), [2**63]),
        ((1, "a"), [(1.0, "a"), (True, "a")]),
        (((0,), 2), [((False,), 2.0), ((-0.0,), 2)]),
    ],
    ids=repr,
)
def test_equal_keys_are_one_key(make: Make, first: Any, others: list[Any]) -> None:
    """Keys that compare equal find the same entry."""
    d = make()
    d[first] = "first"
    for n, other in enumerate(others):
        assert other in d
        d[other] = n
        assert d[first] == n
        assert len(d) == 1
    assert list(d) == [first]
    assert d.pop(others[0]) == len(others) - 1
    assert not d


def test_unequal_keys_are_apart(make: Make) -> None:
    """Keys that look alike but are not equal have entries of their own."""
    keys = ["1", b"1", 1, 1.5, (1,), "é", "e\u0301", 2**53, 2**53 + 1, "", b"", None, (), (None,)]
    d = make((key, n) for n, key in enumerate(keys))
    assert len(d) == len(keys)
    for n, key in enumerate(keys):
        assert d[key] == n


def test_nan_key(make: Make) -> None:
    """The same NaN finds its entry."""
    d = make()
    d[math.nan] = 1
    assert d[math.nan] == 1
    assert math.isnan(next(iter(d)))
    del d[math.nan]
    assert not d


@pytest.mark.parametrize("key", [[], {}, set(), bytearray(b"x"), ([],), (1, {})], ids=repr)
def test_unhashable_keys(make: Make, key: Any) -> None:
    """An unhashable key raises TypeError in every method and nothing changes."""
    d = make({"a": 1})
    with pytest.raises(TypeError):
        d[key]
    with pytest.raises(TypeError):
        d[key] = 2
    with pytest.raises(TypeError):
        del d[key]
    with pytest.raises(TypeError):
        key in d  # noqa: B015 - the question itself must raise
    with pytest.raises(TypeError):
        d.get(key)
    with pytest.raises(TypeError):
        d.pop(key)
    with pytest.raises(TypeError):
        d.setdefault(key, 2)
    with pytest.raises(TypeError):
        d.update([("b", 2), (key, 3)][1:])
    assert d == {"a": 1}


class _HashRaisesError(Exception):
    pass


class _BadHash:
    def __hash__(self) -> int:
        raise _HashRaisesError


def test_hash_that_raises(make: Make) -> None:
    """What a key's `__hash__` raises comes out, and nothing changes."""
    d = make({"a": 1})
    with pytest.raises((_HashRaisesError, TypeError)):
        d[_BadHash()] = 1
    with pytest.raises((_HashRaisesError, TypeError)):
        d.setdefault(_BadHash(), 1)
    assert d == {"a": 1}


@pytest.mark.parametrize(
    "key", [object(), 1j, frozenset({1}), range(3), int, "\ud800", ("a", "\udfff")], ids=repr
)
def test_keys_that_cannot_be_stored(pool_dict: pmlog.PoolDict, key: Any) -> None:
    """A hashable key that has no encoding raises EncodeError, and nothing changes."""
    pool_dict["a"] = 1
    with pytest.raises(pmlog.EncodeError):
        pool_dict[key] = 2
    with pytest.raises(pmlog.EncodeError):
        pool_dict.setdefault(key, 2)
    with pytest.raises(pmlog.EncodeError):
        pool_dict.update({"b": 2, key: 3})
    assert pool_dict == {"a": 1}


def test_huge_keys(pool_dict: pmlog.PoolDict) -> None:
    """Keys reach 64 KiB; a longer one raises EncodeError and nothing changes."""
    whole = 64 * 1024
    for key in (b"k" * whole, "k" * whole, "é" * (whole // 2)):
        pool_dict[key] = 1
        assert pool_dict[key] == 1
        assert list(pool_dict) == [key]
        del pool_dict[key]
    for key in (b"k" * (whole + 1), "k" * (whole + 1), "é" * (whole // 2) + "k"):
        with pytest.raises(pmlog.EncodeError):
            pool_dict[key] = 1
        assert not pool_dict


# ---- order -----------------------------------------------------------------------------------


def test_insertion_order(make: Make) -> None:
    """Iteration follows insertion; a new value keeps the place, a deletion loses it."""
    d = make()
    for key in "zyxwa":
        d[key] = key.upper()
    assert list(d) == list("zyxwa")
    d["y"] = 1
    assert list(d) == list("zyxwa")
    del d["y"]
    d["y"] = 2
    assert list(d) == list("zxway")
    assert list(d.keys()) == list("zxway")
    assert list(d.values()) == ["Z", "X", "W", "A", 2]
    assert list(d.items()) == list(zip("zxway", ["Z", "X", "W", "A", 2], strict=True))


def test_reversed(make: Make) -> None:
    """`reversed` goes from the newest entry, over the mapping and its three views."""
    d = make({"a": 1, "b": 2, "c": 3})
    assert list(reversed(d)) == ["c", "b", "a"]
    assert list(reversed(d.keys())) == ["c", "b", "a"]
    assert list(reversed(d.values())) == [3, 2, 1]
    assert list(reversed(d.items())) == [("c", 3), ("b", 2), ("a", 1)]
    assert list(reversed(make())) == []


def test_iterators_are_iterators(make: Make) -> None:
    """An iterator is its own iterator, ends with StopIteration and stays at its end."""
    d = make({"a": 1, "b": 2})
    for what in (d, d.keys(), d.values(), d.items()):
        it = iter(what)
        assert iter(it) is it
        assert len(list(it)) == 2
        with pytest.raises(StopIteration):
            next(it)
        with pytest.raises(StopIteration):
            next(it)


def test_two_iterators(make: Make) -> None:
    """Iterators over the same mapping do not disturb one another."""
    d = make((n, n) for n in range(5))
    assert [(a, b) for a in d for b in d] == [(a, b) for a in range(5) for b in range(5)]


# ---- change while iterating ------------------------------------------------------------------


@pytest.mark.parametrize("view", ["__iter__", "keys", "values", "items", "__reversed__"])
@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("new", 1),
        lambda d: d.__delitem__("b"),
        lambda d: d.clear(),
        lambda d: d.popitem(),
        lambda d: d.update(x=1, y=2),
        lambda d: d.setdefault("new", 1),
    ],
    ids=["insert", "delete", "clear", "popitem", "update", "setdefault"],
)
def test_size_change_in_iteration(make: Make, view: str, change: Callable[[Any], None]) -> None:
    """An iterator raises RuntimeError at its next step after the size has changed."""
    d = make({"a": 1, "b": 2, "c": 3})
    it = iter(getattr(d, view)())
    next(it)
    change(d)
    with pytest.raises(RuntimeError):
        next(it)


def test_value_change_in_iteration(make: Make) -> None:
    """Values may be replaced while iterating, by values of any size."""
    d = make((n, n) for n in range(200))
    for key in d:
        d[key] = "x" * (key * 7)
    assert d == {n: "x" * (n * 7) for n in range(200)}
    for key, value in d.items():
        d[key] = len(value)
    assert d == {n: n * 7 for n in range(200)}


def test_value_change_ahead_is_seen(make: Make) -> None:
    """An iterator gives the value that is there when it arrives."""
    d = make({"a": 1, "b": 2})
    seen = []
    for key, value in d.items():
        seen.append((key, value))
        d["b"] = "long enough to need another place" * 50
    assert seen[0] == ("a", 1)
    assert seen[1][0] == "b"
    assert len(seen) == 2


def test_iteration_over_many(make: Make) -> None:
    """An iterator that is read in pieces gives every entry once, in order."""
    d = make((n, str(n) * (n % 50)) for n in range(3_000))
    it = iter(d.items())
    head = list(itertools.islice(it, 7))
    tail = list(it)
    assert head + tail == [(n, str(n) * (n % 50)) for n in range(3_000)]


# ---- views -----------------------------------------------------------------------------------


def test_views_are_live(make: Make) -> None:
    """A view made before a change shows the change."""
    d = make({"a": 1})
    keys, values, items = d.keys(), d.values(), d.items()
    d["b"] = 2
    assert list(keys) == ["a", "b"]
    assert list(values) == [1, 2]
    assert list(items) == [("a", 1), ("b", 2)]
    assert (len(keys), len(values), len(items)) == (2, 2, 2)
    del d["a"]
    assert list(keys) == ["b"]


def test_view_types(make: Make) -> None:
    """Views register as the abstract views."""
    d = make()
    assert isinstance(d.keys(), KeysView)
    assert isinstance(d.values(), ValuesView)
    assert isinstance(d.items(), ItemsView)


def test_view_membership(make: Make) -> None:
    """Views answer `in`; items compare both key and value."""
    d = make({"a": 1, "b": [2]})
    assert "a" in d.keys()  # noqa: SIM118 - the view is what is tested
    assert "z" not in d.keys()  # noqa: SIM118 - the view is what is tested
    assert [2] in d.values()
    assert 3 not in d.values()
    assert ("a", 1) in d.items()
    assert ("a", 1.0) in d.items()
    assert ("b", [2]) in d.items()
    assert ("a", 2) not in d.items()
    assert ("z", 1) not in d.items()
    assert "a" not in d.items()


def test_keys_are_a_set(make: Make) -> None:
    """Keys combine and compare as sets do, with sets, views and iterables."""
    a = make({"x": 1, "y": 2, 3: 3})
    b = make({"y": 5, 3: 6, "z": 7})
    assert a.keys() & b.keys() == {"y", 3}
    assert a.keys() | b.keys() == {"x", "y", 3, "z"}
    assert a.keys() - b.keys() == {"x"}
    assert a.keys() ^ b.keys() == {"x", "z"}
    assert a.keys() & {"x"} == {"x"}
    assert {"x", "q"} & a.keys() == {"x"}
    assert {"x", "q"} - a.keys() == {"q"}
    assert a.keys() & ["x", "y"] == {"x", "y"}
    assert a.keys().isdisjoint(["q"])
    assert not a.keys().isdisjoint(["x"])
    assert a.keys() == {"x", "y", 3}
    assert a.keys() != b.keys()
    assert a.keys() <= {"x", "y", 3}
    assert a.keys() < {"x", "y", 3, 4}
    assert a.keys() >= {"x"}
    assert not a.keys() < a.keys()
    assert isinstance(a.keys() & b.keys(), set)


def test_items_are_a_set(make: Make) -> None:
    """Items combine and compare as sets of pairs."""
    a = make({"x": 1, "y": 2})
    b = make({"y": 2, "x": 9})
    assert a.items() & b.items() == {("y", 2)}
    assert a.items() | b.items() == {("x", 1), ("y", 2), ("x", 9)}
    assert a.items() - b.items() == {("x", 1)}
    assert a.items() ^ b.items() == {("x", 1), ("x", 9)}
    assert a.items() == {("x", 1), ("y", 2)}
    assert a.items() >= {("x", 1)}
    assert a.items().isdisjoint([("x", 2)])
    assert not a.items().isdisjoint([("x", 1)])


def test_values_do_not_compare(make: Make) -> None:
    """Views of values compare by identity only."""
    d = make({"a": 1})
    assert d.values() != d.values()
    view = d.values()
    assert view == view  # noqa: PLR0124 - identity is what is tested


# ---- pop, popitem, setdefault, update, clear ---------------------------------------------------


def test_pop(make: Make) -> None:
    """`pop` removes and answers; the default serves a missing key, None included."""
    d = make({"a": 1, "b": None, "c": "x" * 9_999})
    assert d.pop("a") == 1
    assert d.pop("b", 7) is None
    assert d.pop("c") == "x" * 9_999
    assert d.pop("a", 7) == 7
    assert d.pop("a", None) is None
    with pytest.raises(KeyError):
        d.pop("a")
    with pytest.raises(TypeError):
        d.pop()
    assert not d


def test_popitem_is_last_in_first_out(make: Make) -> None:
    """`popitem` removes the newest entry; on an empty mapping it raises KeyError."""
    d = make((n, n * n) for n in range(100))
    for n in reversed(range(100)):
        assert d.popitem() == (n, n * n)
        assert len(d) == n
    with pytest.raises(KeyError):
        d.popitem()


def test_popitem_after_changes(make: Make) -> None:
    """The order of `popitem` is the order of insertion after deletions too."""
    d = make({"a": 1, "b": 2, "c": 3})
    del d["c"]
    d["a"] = 9
    assert d.popitem() == ("b", 2)
    d["d"] = 4
    assert d.popitem() == ("d", 4)
    assert d.popitem() == ("a", 9)


def test_setdefault(make: Make) -> None:
    """`setdefault` answers what is there, else stores the default, which may be None."""
    d = make()
    assert d.setdefault("a") is None
    assert d == {"a": None}
    assert d.setdefault("a", 1) is None
    assert d.setdefault("b", [1]) == [1]
    assert d.setdefault("b", 2) == [1]
    with pytest.raises(TypeError):
        d.setdefault()
    assert d == {"a": None, "b": [1]}


class _Keyed:
    """Has `keys` and `__getitem__`, and is no Mapping."""

    def keys(self) -> list[str]:
        return ["k1", "k2"]

    def __getitem__(self, key: str) -> str:
        return key.upper()


@pytest.mark.parametrize(
    ("make_args", "kwargs", "expected"),
    [
        (lambda: (), {}, {}),
        (lambda: ({"a": 1, 2: 3},), {}, {"a": 1, 2: 3}),
        (lambda: ([("a", 1), ["b", 2], "cd"],), {}, {"a": 1, "b": 2, "c": "d"}),
        (lambda: (iter([("g", 1), ("h", 2)]),), {}, {"g": 1, "h": 2}),
        (lambda: (), {"a": 1, "self": 2, "other": 3}, {"a": 1, "self": 2, "other": 3}),
        (lambda: ({"a": 1},), {"a": 2, "b": 3}, {"a": 2, "b": 3}),
        (lambda: (_Keyed(),), {}, {"k1": "K1", "k2": "K2"}),
        (lambda: (collections.OrderedDict(z=1, y=2),), {}, {"z": 1, "y": 2}),
        (lambda: ({"a": 1}.items(),), {}, {"a": 1}),
        (lambda: ([("a", 1), ("b", 2), ("a", 3)],), {}, {"a": 3, "b": 2}),
    ],
    ids=[
        "nothing",
        "dict",
        "pairs",
        "iterator",
        "kwargs",
        "both",
        "keyed",
        "odict",
        "view",
        "again",
    ],
)
def test_update(
    make: Make, make_args: Callable[[], Any], kwargs: Any, expected: dict[Any, Any]
) -> None:
    """`update` takes a mapping, anything with `keys`, pairs, keywords, and mixtures."""
    d = make({"before": 0})
    assert d.update(*make_args(), **kwargs) is None
    assert d == {"before": 0, **expected}
    assert list(d) == ["before", *expected]


@pytest.mark.parametrize(
    "bad",
    [1, [1], [("a",)], [("a", 1, 2)], None, ["abc"]],
    ids=["int", "ints", "1", "3", "None", "str"],
)
def test_update_refuses(make: Make, bad: Any) -> None:
    """`update` refuses what is neither mapping nor pairs, with the builtin's exceptions."""
    d = make({"before": 0})
    with pytest.raises((TypeError, ValueError)):
        d.update(bad)
    assert d == {"before": 0}
    with pytest.raises(TypeError):
        d.update({}, {})


def test_update_from_another(make: Make) -> None:
    """`update` from the same kind of mapping, and from itself, copies what is there."""
    a = make({"x": 1, "y": [2]})
    b = make({"y": 0, "z": 3})
    b.update(a)
    assert b == {"y": [2], "z": 3, "x": 1}
    b.update(b)
    assert b == {"y": [2], "z": 3, "x": 1}


def test_update_that_raises_on_the_way(make: Make) -> None:
    """What the caller's iterable raises comes out of `update`."""

    class OnTheWayError(Exception):
        pass

    def pairs() -> Any:
        yield "a", 1
        raise OnTheWayError

    d = make()
    with pytest.raises(OnTheWayError):
        d.update(pairs())


def test_update_is_one_transaction(pool_dict: pmlog.PoolDict) -> None:
    """An `update` that fails on its way changes nothing, unlike the builtin's."""
    pool_dict["a"] = 0
    with pytest.raises(pmlog.EncodeError):
        pool_dict.update([("a", 1), ("b", 2), ("c", object())])
    assert pool_dict == {"a": 0}


def test_clear(make: Make) -> None:
    """`clear` removes everything, and the mapping serves on."""
    d = make((n, n) for n in range(1_000))
    d.clear()
    assert d == {}
    assert list(d) == []
    d.clear()
    d["a"] = 1
    assert d == {"a": 1}


# ---- comparing, merging, showing -------------------------------------------------------------


def test_equality(make: Make) -> None:
    """Mappings are equal when their entries are, whatever their order."""
    d = make({"a": 1, "b": [2, {"c": 3}]})
    assert d == {"b": [2, {"c": 3}], "a": 1}
    assert {"b": [2, {"c": 3}], "a": 1} == d  # noqa: SIM300 - the reflected operator
    assert d == make({"b": [2, {"c": 3}], "a": 1.0})
    assert d == d  # noqa: PLR0124 - equality with itself is what is tested
    assert d != {"a": 1}
    assert d != {"a": 1, "b": 2}
    assert d != {"a": 1, "c": [2, {"c": 3}]}
    assert d != {}
    assert d != [("a", 1)]
    assert d != 1
    assert not d == None  # noqa: E711, SIM201 - the operators themselves are what is tested


def test_no_order_between_mappings(make: Make) -> None:
    """`<` between mappings raises TypeError."""
    with pytest.raises(TypeError):
        make() < make()  # noqa: B015 - the comparison itself must raise


def test_unhashable_itself(make: Make) -> None:
    """A mapping that changes is not hashable."""
    with pytest.raises(TypeError):
        hash(make())


def test_merge_in_place(make: Make) -> None:
    """`|=` updates from a mapping or pairs, keeps the object, and refuses else."""
    d = make({"a": 1})
    same = d
    d |= {"b": 2}
    d |= [("c", 3), ("a", 9)]
    assert d is same
    assert d == {"a": 9, "b": 2, "c": 3}
    assert list(d) == ["a", "b", "c"]
    with pytest.raises(TypeError):
        d |= None
    with pytest.raises(ValueError, match=r"."):
        d |= ["abc"]
    assert d == {"a": 9, "b": 2, "c": 3}


def test_repr_names_the_entries(make: Make) -> None:
    """`repr` works on empty, filled and nested mappings."""
    assert isinstance(repr(make()), str)
    shown = repr(make({"key one": ["value"]}))
    assert "key one" in shown or "1" in shown


def test_unpacking(make: Make) -> None:
    """It unpacks into calls, dicts and lists."""
    d = make({"a": 1, "b": 2})
    assert {**d} == {"a": 1, "b": 2}
    assert [*d] == ["a", "b"]
    assert dict(**d) == {"a": 1, "b": 2}
    assert dict(d) == {"a": 1, "b": 2}
    assert collections.ChainMap({}, d)["b"] == 2
    match d:
        case {"a": found}:
            assert found == 1
        case _:
            pytest.fail("no match")


# ---- size ------------------------------------------------------------------------------------


def test_many_keys(make: Make) -> None:
    """100,000 keys are kept, found, iterated in order and deleted."""
    count = 100_000
    d = make()
    for start in range(0, count, 5_000):
        d.update((n, n) for n in range(start, start + 5_000))
    assert len(d) == count
    assert list(d) == list(range(count))
    assert all(n in d for n in range(0, count, 97))
    assert count not in d
    for n in range(0, count, 2):
        del d[n]
    assert len(d) == count // 2
    assert list(d) == list(range(1, count, 2))
    assert all((n in d) == bool(n % 2) for n in range(0, count, 101))
    d.clear()
    assert list(d) == []


def test_delete_all_one_by_one(make: Make) -> None:
    """Deleting every entry in any order leaves an empty mapping that serves on."""
    keys = [f"key{n}" for n in range(2_000)]
    for order in (keys, keys[::-1], random.Random(1).sample(keys, len(keys))):
        d = make(dict.fromkeys(keys, b"value"))
        for n, key in enumerate(order):
            del d[key]
            assert len(d) == len(keys) - n - 1
        assert d == {}
        d["again"] = 1
        assert list(d.items()) == [("again", 1)]


def test_colliding_keys(make: Make) -> None:
    """Keys that Python's own hash throws together are kept apart."""
    modulus = 2**61 - 1  # hash(n) == n % modulus for ints
    keys = [n * modulus for n in range(8)] + [n * 2**32 for n in range(1, 2_000)]
    d = make((key, key) for key in keys)
    assert len(d) == len(keys)
    assert all(d[key] == key for key in keys)


def test_random_operations(make: Make, rng: random.Random) -> None:
    """A long random walk of operations ends where the builtin ends."""
    d = make()
    model: dict[Any, Any] = {}
    pool = [*ODD_KEYS, *range(40), *(f"key{n}" for n in range(40))]
    for _ in range(4_000):
        key = rng.choice(pool)
        value: Any = rng.choice([None, rng.random(), rng.randbytes(rng.randrange(200)), [key, "x"]])
        if isinstance(value, list) and isinstance(key, tuple):
            value = "tuple"
        match rng.randrange(8):
            case 0 | 1 | 2:
                d[key] = model[key] = value
            case 3:
                assert d.pop(key, "none") == model.pop(key, "none")
            case 4:
                assert d.setdefault(key, value) == model.setdefault(key, value)
            case 5:
                assert d.get(key) == model.get(key)
            case 6:
                if model and rng.random() < 0.5:
                    assert d.popitem() == model.popitem()
            case 7:
                assert (key in d) == (key in model)
        assert len(d) == len(model)
    assert list(d.items()) == list(model.items())
    assert list(reversed(d)) == list(reversed(model))


# ---- what the builtin has not ----------------------------------------------------------------


def test_get_many(pool_dict: pmlog.PoolDict) -> None:
    """`get_many` answers in the order asked for, with the default for missing keys."""
    pool_dict.update({n: str(n) * n for n in range(300)})
    keys = [5, 299, 5, "none", 0]
    assert list(pool_dict.get_many(keys)) == ["5" * 5, "299" * 299, "5" * 5, None, ""]
    assert list(pool_dict.get_many(["none"], "d")) == ["d"]
    assert list(pool_dict.get_many([])) == []
    with pytest.raises(TypeError):
        pool_dict.get_many([[]])


def test_equal_after_reopen(open_pool: OpenPool) -> None:
    """Entries and their order are the same after close and open."""
    d: Any
    with open_pool() as pool:
        d = pool.dict("d")
        d.update({n: [n] for n in range(500)})
        for n in range(0, 500, 3):
            del d[n]
        d[0] = "again"
        before = list(d.items())
    with open_pool() as pool:
        d = pool.dict("d")
        assert list(d.items()) == before
        assert list(reversed(d.items())) == before[::-1]


def test_same_name_is_same_dict(open_pool: OpenPool) -> None:
    """Two handles by one name show one another's changes."""
    pool = open_pool()
    a = pool.dict("d")
    b = pool.dict("d")
    a["x"] = 1
    assert b["x"] == 1
    del b["x"]
    assert "x" not in a
    assert a == b
