"""pool.array indexes as numpy does: rules run on both, so that the plain ndarray proves the test."""

# ruff: noqa: PT012 - whole blocks that raise are what is tested

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pmlog
from tests.support import OpenPool

Make = Callable[..., Any]
POINT = np.dtype([("x", "<f8"), ("y", "<i4"), ("name", "S5")])


@pytest.fixture(params=["numpy", "pmlog"])
def make(request: pytest.FixtureRequest) -> Make:
    """Return a function that makes a new array of zeros."""
    if request.param == "numpy":
        return np.zeros
    open_pool: OpenPool = request.getfixturevalue("open_pool")
    pool = open_pool(log_size="4MiB")
    made: list[pmlog.PoolArray] = []

    def make_one(shape: Any, dtype: Any = "f8") -> pmlog.PoolArray:
        made.append(pool.array(f"array{len(made)}", shape=shape, dtype=dtype))
        return made[-1]

    return make_one


def filled(
    make: Make, shape: tuple[int, ...], dtype: str = "i8"
) -> tuple[Any, np.ndarray[Any, Any]]:
    """Return an array that counts up from 0, and a plain one that is equal."""
    model = np.arange(np.prod(shape, dtype=int), dtype=dtype).reshape(shape)
    a = make(shape, dtype)
    a[...] = model
    return a, model


# ---- what it is ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (7,), (0,), (3, 4), (2, 0, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize(
    "dtype", ["u1", "?", "<i2", ">i4", "f4", "<f8", "c16", "S3", "U4", "M8[s]"]
)
def test_shape_and_dtype(make: Make, shape: tuple[int, ...], dtype: str) -> None:
    """A new array is zeros of the shape and dtype asked for."""
    a = make(shape, dtype)
    assert a.shape == shape
    assert a.dtype == np.dtype(dtype)
    assert a.ndim == len(shape)
    assert a.size == np.prod(shape, dtype=int)
    assert a.nbytes == a.size * np.dtype(dtype).itemsize
    whole = a[...]
    assert whole.shape == shape
    assert whole.dtype == np.dtype(dtype)
    assert np.array_equal(whole, np.zeros(shape, dtype))


def test_length_and_iteration(make: Make) -> None:
    """Length and iteration go along the first axis; a 0-d array has neither."""
    a, model = filled(make, (5, 3))
    assert len(a) == 5
    assert np.array_equal(np.array(list(a)), model)
    with pytest.raises(TypeError):
        len(make(()))
    with pytest.raises(TypeError):
        iter(make(()))


def test_converts(make: Make) -> None:
    """Numpy's functions take it as an array."""
    a, model = filled(make, (4, 5))
    assert np.array_equal(np.asarray(a), model)
    assert np.sum(a) == model.sum()
    assert np.array_equal(np.asarray(a, dtype="f4"), model.astype("f4"))
    assert np.array_equal(np.array(a, copy=True), model)
    assert np.array_equal(np.concatenate([a, a]), np.concatenate([model, model]))


# ---- reading ---------------------------------------------------------------------------------

READS: dict[str, Any] = {
    "ellipsis": ...,
    "nothing": (),
    "row": 2,
    "row-negative": -1,
    "element": (1, 2, 3),
    "element-negative": (-1, -2, -3),
    "slice": slice(1, 3),
    "slice-step": slice(None, None, 2),
    "slice-back": slice(None, None, -1),
    "slice-back-part": (slice(None), slice(3, 0, -2)),
    "slice-beyond": slice(2, 1000),
    "slice-empty": slice(3, 1),
    "columns": (slice(None), 1),
    "last-axis": (..., 0),
    "first-and-last": (0, ..., -1),
    "newaxis": (None, slice(None), None, 0),
    "newaxis-alone": None,
    "ints": [0, 2, 2],
    "ints-negative": [-1, 0],
    "ints-two": ([0, 1, 3], [1, 0, 2]),
    "ints-broadcast": (np.array([[0], [3]]), np.array([1, 2])),
    "ints-and-slice": ([0, 2], slice(None), [1, 1]),
    "ints-empty": np.array([], dtype=int),
    "mask": np.arange(4) % 2 == 0,
    "mask-whole": np.arange(4 * 5 * 6).reshape(4, 5, 6) % 7 == 0,
    "mask-none": np.zeros(4, bool),
    "mask-and-int": (np.array([True, False, True, True]), 2),
    "true": True,
    "false": False,
    "numpy-int": np.int16(1),
    "index-protocol": (np.uint8(3), slice(np.int64(1), np.int64(4))),
}


@pytest.mark.parametrize("index", READS.values(), ids=READS)
def test_read(make: Make, index: Any) -> None:
    """Each kind of index reads what it reads of a plain ndarray, scalars as scalars."""
    a, model = filled(make, (4, 5, 6))
    got, expected = a[index], model[index]
    if isinstance(expected, np.ndarray):
        assert isinstance(got, np.ndarray)
    else:
        assert type(got) is type(expected)
    assert np.array_equal(got, expected)
    assert np.shape(got) == np.shape(expected)


@pytest.mark.parametrize(
    "index",
    [
        4,
        -5,
        (0, 5),
        (0, 0, 0, 0),
        [0, 4],
        ([0, 1], [0, 1, 2]),
        np.zeros(3, bool),
        "x",
        1.5,
        (..., ...),
    ],
    ids=repr,
)
def test_bad_index(make: Make, index: Any) -> None:
    """A bad index raises IndexError for reading and for writing, and changes nothing."""
    a, model = filled(make, (4, 5, 6))
    with pytest.raises(IndexError):
        a[index]
    with pytest.raises(IndexError):
        a[index] = 1
    assert np.array_equal(a[...], model)


# ---- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("index", READS.values(), ids=READS)
def test_write_scalar(make: Make, index: Any) -> None:
    """A scalar is stored at every place that the index means, and nowhere else."""
    a, model = filled(make, (4, 5, 6))
    a[index] = -7
    model[index] = -7
    assert np.array_equal(a[...], model)


@pytest.mark.parametrize("index", READS.values(), ids=READS)
def test_write_same_shape(make: Make, index: Any) -> None:
    """Values of the selection's own shape go each to its place."""
    a, model = filled(make, (4, 5, 6))
    values = np.arange(1000, 1000 + model[index].size).reshape(np.shape(model[index]))
    a[index] = values
    model[index] = values
    assert np.array_equal(a[...], model)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (..., [1, 2, 3, 4, 5, 6]),
        (..., np.arange(5)[:, None]),
        (slice(1, 3), np.arange(30).reshape(1, 5, 6)),
        (slice(None, None, -2), np.arange(6)),
        ((..., 0), [1, 2, 3, 4, 5]),
        (0, np.ones((1, 1, 5, 6))),
        ([1, 3], [[5], [6], [7], [8], [9]]),
        (np.arange(4) > 1, 4.0),
        (None, np.arange(6)),
    ],
    ids=range(9),
)
def test_write_broadcast(make: Make, index: Any, value: Any) -> None:
    """Values are broadcast to the selection."""
    a, model = filled(make, (4, 5, 6))
    a[index] = value
    model[index] = value
    assert np.array_equal(a[...], model)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (..., [1, 2, 3]),
        (slice(0, 2), np.zeros((3, 5, 6))),
        (0, np.zeros((2, 5, 6))),
        ([0, 1, 2], np.zeros((2, 5, 6))),
        (np.arange(4) > 1, np.zeros((3, 5, 6))),
        ((0, 0, 0), [1, 2]),
        (..., "text"),
        (..., object()),
        (..., [[1], [1, 2]]),
    ],
    ids=range(9),
)
def test_write_that_fails(make: Make, index: Any, value: Any) -> None:
    """What cannot be broadcast or converted raises as numpy does, and changes nothing."""
    a, model = filled(make, (4, 5, 6))
    with pytest.raises((ValueError, TypeError)):
        a[index] = value
    assert np.array_equal(a[...], model)


def test_write_repeated_index(make: Make) -> None:
    """Where an index names a place twice, the last value stays."""
    a, model = filled(make, (5,))
    a[[1, 1, 1, 3]] = [7, 8, 9, 10]
    model[[1, 1, 1, 3]] = [7, 8, 9, 10]
    assert np.array_equal(a[...], model)


def test_write_from_itself(make: Make) -> None:
    """Overlapping parts of one array may be assigned to one another."""
    a, model = filled(make, (20,))
    a[1:] = a[:-1]
    model[1:] = model[:-1].copy()
    assert np.array_equal(a[...], model)
    a[...] = a[::-1]
    model[...] = model[::-1].copy()
    assert np.array_equal(a[...], model)
    a[:-3] = a[3:]
    model[:-3] = model[3:].copy()
    assert np.array_equal(a[...], model)


def test_augmented(make: Make) -> None:
    """`a[i] += x` and its kin read, compute and store."""
    a, model = filled(make, (4, 5))
    a[1, 2] += 5
    model[1, 2] += 5
    a[0] -= 1
    model[0] -= 1
    a[:, ::2] *= 3
    model[:, ::2] *= 3
    a[[0, 3]] //= 2
    model[[0, 3]] //= 2
    a[a[...] > 10] = 0
    model[model > 10] = 0
    assert np.array_equal(a[...], model)


def test_casts(make: Make) -> None:
    """Values are cast as numpy casts on assignment: complex to float warns, NaN stays NaN."""
    a = make((4,), "f4")
    a[...] = [1, True, 2.5, np.nan]
    assert np.array_equal(a[...], np.array([1, 1, 2.5, np.nan], "f4"), equal_nan=True)
    b = make((3,), "u1")
    b[...] = np.array([1.9, 2.1, 255.0])
    assert list(b[...]) == [1, 2, 255]
    with pytest.raises(OverflowError):
        b[0] = 256
    c = make((2,), "S3")
    c[...] = [b"abcdef", "x"]
    assert list(c[...]) == [b"abc", b"x"]
    d = make((2,), "U2")
    d[...] = ["é\U0001f40d!", ""]
    assert list(d[...]) == ["é\U0001f40d", ""]
    e = make((2,), "M8[D]")
    e[0] = "2013-01-01"
    e[1] = np.datetime64("NaT", "D")
    assert str(e[0]) == "2013-01-01"
    assert np.isnat(e[1])


def test_zero_dimensions(make: Make) -> None:
    """A 0-d array is read and written through () and ...."""
    a = make((), "i4")
    a[()] = 5
    assert a[()] == 5
    a[...] = 6
    assert a[...].shape == ()
    assert int(a[()]) == 6
    a[()] += 1
    assert a[()] == 7
    with pytest.raises(IndexError):
        a[0]


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 2)])
def test_zero_size(make: Make, shape: tuple[int, ...]) -> None:
    """An array without elements takes reads and assignments that fit."""
    a = make(shape, "f8")
    a[...] = 1
    a[...] = np.zeros(shape)
    assert a[...].shape == shape
    assert a.size == 0
    with pytest.raises(ValueError, match=r"."):
        a[...] = np.zeros((5, 5, 5, 5))


def test_structured(make: Make) -> None:
    """Records are read and written whole, by field and by several fields."""
    a = make((4,), POINT)
    model = np.zeros((4,), POINT)
    for target in (a, model):
        target[0] = (1.5, 2, b"one")
        target[1:3] = [(2.5, 3, b"two"), (3.5, 4, b"three")]
        target["y"] = [7, 8, 9, 10]
    assert np.array_equal(a[...], model)
    assert np.array_equal(a["x"], model["x"])
    assert a[1]["name"] == b"two"
    assert np.array_equal(a[["x", "y"]], model[["x", "y"]])
    a[["x", "y"]] = np.zeros(4, np.dtype([("x", "<f8"), ("y", "<i4")]))
    assert not a["x"].any()
    assert not a["y"].any()
    assert a["name"][2] == b"three"
    with pytest.raises(ValueError, match=r"."):
        a["none"]
    with pytest.raises(ValueError, match=r"."):
        a["none"] = 1


def test_random_indices(make: Make, rng: random.Random) -> None:
    """Random basic, mask and integer assignments stay equal to a plain ndarray."""
    shape = (7, 9, 5)
    a, model = filled(make, shape)

    def basic(size: int) -> Any:
        if rng.random() < 0.3:
            return rng.randrange(-size, size)
        ends = [None, *range(-size - 2, size + 3)]
        return slice(rng.choice(ends), rng.choice(ends), rng.choice([None, 1, 2, 3, -1, -2, -3]))

    for step in range(300):
        match rng.randrange(4):
            case 0:
                index: Any = tuple(basic(size) for size in shape[: rng.randrange(4)])
            case 1:
                index = (..., basic(shape[-1]))
            case 2:
                index = np.array([rng.random() < 0.4 for _ in range(model.size)]).reshape(shape)
            case _:
                count = rng.randrange(6)
                index = tuple([rng.randrange(-n, n) for _ in range(count)] for n in shape[:2])
                index = tuple(np.array(part, dtype=int) for part in index)
        value: Any = step
        if rng.random() < 0.5:
            value = np.arange(model[index].size).reshape(np.shape(model[index])) + step
        a[index] = value
        model[index] = value
        assert np.array_equal(a[index], model[index])
    assert np.array_equal(a[...], model)


# ---- what the plain ndarray has not ----------------------------------------------------------


@pytest.fixture
def pool_array(pool: pmlog.Pool) -> pmlog.PoolArray:
    """Return a pool's array that counts up."""
    a = pool.array("a", shape=(4, 6), dtype="i8")
    a[...] = np.arange(24).reshape(4, 6)
    return a


@pytest.mark.parametrize("index", [(0, 0), ([0, 1],), (slice(None), slice(0, None))])
def test_assignment_that_fails_half_way(pool: pmlog.Pool, index: Any) -> None:
    """An assignment whose last value cannot be converted changes nothing, unlike numpy's."""
    a = pool.array("a", shape=(4, 5, 6), dtype="i8")
    model = np.arange(120).reshape(4, 5, 6)
    a[...] = model
    bad = np.ones(model[index].shape, object)
    bad[..., -1] = "six"
    with pytest.raises((ValueError, TypeError)):
        a[index] = bad
    assert np.array_equal(a[...], model)
    with pool.transaction():
        with pytest.raises((ValueError, TypeError)):
            a[index] = bad
        a[3, 3, 3] = -1
    model[3, 3, 3] = -1
    assert np.array_equal(a[...], model)


def test_views_do_not_copy(pool_array: pmlog.PoolArray) -> None:
    """A view shows what is assigned after it was taken."""
    row, part = pool_array[1], pool_array[:, 2]
    pool_array[1, 2] = 99
    assert row[2] == 99
    assert part[1] == 99


def test_views_are_read_only(pool_array: pmlog.PoolArray) -> None:
    """Numpy refuses every write through a view, and the flag cannot be turned."""
    for view in (pool_array[...], pool_array[0], pool_array[::2, 1:], np.asarray(pool_array)):
        assert not view.flags.writeable
        with pytest.raises(ValueError, match=r"."):
            view[...] = 0
        with pytest.raises(ValueError, match=r"."):
            view.fill(0)
        with pytest.raises(ValueError, match=r"."):
            view.sort()
        with pytest.raises(ValueError, match=r"."):
            view.setflags(write=True)
        with pytest.raises(ValueError, match=r"."):
            np.add(view, 1, out=view)
        changed = view
        with contextlib.suppress(ValueError):
            changed += 1  # an array of its own, or refused
    assert np.array_equal(pool_array[...], np.arange(24).reshape(4, 6))


def test_views_survive_close(open_pool: OpenPool) -> None:
    """A view stays readable after close, and after the container and the pool are gone."""
    pool = open_pool()
    a = pool.array("a", shape=(1000,), dtype="i8")
    a[...] = np.arange(1000)
    view = a[10:20]
    pool.close()
    del pool, a
    assert list(view) == list(range(10, 20))


def test_views_survive_growth(open_pool: OpenPool) -> None:
    """Growth moves nothing: a view taken before shows what is assigned after."""
    pool = open_pool(size="1MiB", max_size="256MiB", log_size="4MiB")
    a = pool.array("a", shape=(1000,), dtype="i8")
    view = a[...]
    size_before = pool.status().image_bytes
    for n in range(24):
        pool.region(f"filler{n}", 1 << 20).write(0, b"x" * (1 << 20))
    assert pool.status().image_bytes > size_before
    a[500] = 7
    assert view[500] == 7


def test_rollback_restores(pool_array: pmlog.PoolArray, pool: pmlog.Pool) -> None:
    """An aborted transaction puts every element back, whatever the kind of index."""
    before = pool_array[...].copy()
    with pytest.raises(ZeroDivisionError), pool.transaction():
        pool_array[0] = 7
        pool_array[:, ::2] = -1
        pool_array[pool_array[...] > 5] = 0
        pool_array[[0, 1], [0, 1]] += 5
        pool_array[::-1] = pool_array[...]
        raise ZeroDivisionError
    assert np.array_equal(pool_array[...], before)


@pytest.mark.parametrize("dtype", [object, "O", [("a", "O")], [("a", "i4"), ("b", [("c", "O")])]])
def test_objects_are_refused(pool: pmlog.Pool, dtype: Any) -> None:
    """A dtype that holds Python objects is refused, and no name is made."""
    with pytest.raises((pmlog.UsageError, TypeError, ValueError)):
        pool.array("a", shape=(3,), dtype=dtype)
    assert "a" not in pool.names()


@pytest.mark.parametrize("shape", [(-1,), (2, -3), "x", 1.5, (2**62, 2**62), None, (1,) * 100])
def test_bad_shape(pool: pmlog.Pool, shape: Any) -> None:
    """A shape that is none, or too large, is refused and no name is made."""
    with pytest.raises((pmlog.UsageError, pmlog.CapacityError, TypeError, ValueError)):
        pool.array("a", shape=shape, dtype="i8")
    assert "a" not in pool.names()


def test_shape_as_int(pool: pmlog.Pool) -> None:
    """A single integer is the shape of one axis, as in numpy."""
    assert pool.array("a", shape=5, dtype="i8").shape == (5,)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((4, 7), "i8"), ((24,), "i8"), ((4, 6), "u8"), ((4, 6), ">i8"), ((4, 6, 1), "i8")],
)
def test_other_shape_refused(
    pool_array: pmlog.PoolArray, pool: pmlog.Pool, shape: Any, dtype: str
) -> None:
    """The name of an array of another shape or dtype is refused with both in the message."""
    with pytest.raises(pmlog.UsageError) as raised:
        pool.array("a", shape=shape, dtype=dtype)
    assert "a" in str(raised.value)
    assert raised.value.changed is False
    assert np.array_equal(pool_array[...], np.arange(24).reshape(4, 6))


def test_reopen(open_pool: OpenPool) -> None:
    """Elements, shape and structured dtype are the same after close and open."""
    with open_pool() as pool:
        a = pool.array("a", shape=(3, 2), dtype=POINT)
        a[1, 1] = (0.5, -3, b"name")
        expected = a[...].copy()
    with open_pool() as pool:
        a = pool.array("a", shape=(3, 2), dtype=POINT)
        assert a.dtype == POINT
        assert np.array_equal(a[...], expected)
        with pytest.raises(pmlog.UsageError):
            pool.array("a", shape=(2, 3), dtype=POINT)


def test_large_array_in_parts(open_pool: OpenPool) -> None:
    """An array larger than the ring is made, and written part by part."""
    pool = open_pool(log_size="256KiB")
    a = pool.array("a", shape=(1 << 20,), dtype="u1")
    assert not a[...].any()
    for start in range(0, 1 << 20, 1 << 16):
        a[start : start + (1 << 16)] = start >> 16
    assert np.array_equal(a[...], np.repeat(np.arange(16, dtype="u1"), 1 << 16))
    before = a[...].copy()
    with pytest.raises(pmlog.TransactionTooLargeError):
        a[...] = 77
    assert np.array_equal(a[...], before)


def test_noncontiguous_values(make: Make) -> None:
    """Values may be transposed, strided, of other byte order, lists or memory views."""
    a, model = filled(make, (3, 4), "i4")
    for value in (
        np.arange(12).reshape(4, 3).T,
        np.arange(96).reshape(6, 16)[::2, ::4],
        np.arange(12, dtype=">i8").reshape(3, 4),
        [[1, 2, 3, 4]] * 3,
        np.arange(4, dtype="i4").data,
        range(4),
    ):
        a[...] = value
        model[...] = value
        assert np.array_equal(a[...], model)
