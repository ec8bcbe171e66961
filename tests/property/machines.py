"""State machines that do the same to containers of a pool and to plain Python, and compare.

`PoolMachine` has what a pool can suffer: transactions, savepoints, aborts, checkpoints, close and
open, crash and recovery, growth.  Each subclass adds one kind of container.
The model of the whole pool is a plain dict of plain values; a transaction keeps copies of it.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import pmlog
from tests.support import SMALL, abandon, faults_of

NESTING_MAX = 3

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=12),
    st.binary(max_size=12),
)
keys = st.one_of(
    st.integers(0, 12),
    st.sampled_from(["a", "b", "c", b"a", b"b", None, 0.5, (), (1, "a"), True]),
    scalars,
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=4),
    st.dictionaries(st.text(max_size=4), scalars, max_size=3),
    st.integers(0, 9_000).map(lambda n: b"x" * n),
    st.integers(0, 3_000).map(lambda n: "é" * n),
)


class _AbortError(Exception):
    pass


class PoolMachine(RuleBasedStateMachine):
    """What all machines do: transactions, and everything that happens to pools."""

    def __init__(self, domain: str, medium: str, directory: Path) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(dir=directory))
        self.options = {**SMALL, "domain": domain, "medium": medium}
        self.model: dict[str, Any] = {}
        self.saved: list[dict[str, Any]] = []
        self.open: list[Any] = []
        self.bigs = 0
        self._open_pool()

    # ---- the pool --------------------------------------------------------------------------

    def _open_pool(self) -> None:
        self.pool = pmlog.open(self.directory / "pool", **self.options)
        self.bind()

    def bind(self) -> None:
        """Get the containers of the open pool; machines add theirs."""
        self.ballast = self.pool.dict("ballast")
        self.model.setdefault("ballast", {})

    def state(self) -> dict[str, Any]:
        """Return what the containers hold, as the model says it; machines add theirs."""
        return {"ballast": dict(self.ballast.items())}

    def try_change(self, change: Callable[[], Any], change_model: Callable[[], Any]) -> None:
        """Do the same to both; a change too large for the log must leave everything as it was."""
        try:
            result = change()
        except pmlog.TransactionTooLargeError:
            return
        except (KeyError, IndexError, ValueError) as error:
            with pytest.raises(type(error)):
                change_model()
            return
        expected_result = change_model()
        assert result == expected_result

    # ---- transactions ------------------------------------------------------------------------

    @precondition(lambda self: len(self.open) < NESTING_MAX)
    @rule()
    def begin(self) -> None:
        """Begin a transaction, or a savepoint inside the open one."""
        self.saved.append(copy.deepcopy(self.model))
        tx = self.pool.transaction()
        tx.__enter__()
        self.open.append(tx)

    @precondition(lambda self: self.open)
    @rule()
    def commit(self) -> None:
        """End the innermost block well."""
        self.open.pop().__exit__(None, None, None)
        self.saved.pop()

    @precondition(lambda self: self.open)
    @rule()
    def abort(self) -> None:
        """End the innermost block by an exception."""
        error = _AbortError()
        self.open.pop().__exit__(_AbortError, error, None)
        self.model = self.saved.pop()

    # ---- what happens to pools -----------------------------------------------------------------

    @rule()
    def checkpoint(self) -> None:
        """Bring the image up to date, inside transactions too."""
        self.pool.checkpoint()

    @precondition(lambda self: not self.open)
    @rule()
    def close_and_open(self) -> None:
        """Close cleanly and open again."""
        self.pool.close()
        self._open_pool()

    @rule()
    def crash_and_open(self) -> None:
        """Let go of the pool as a killed process would, and recover what was committed."""
        abandon(self.pool)
        if self.saved:
            self.model = self.saved[0]
        self.saved.clear()
        self.open.clear()
        self._open_pool()

    @rule()
    def look_read_only(self) -> None:
        """Another handle sees exactly what is committed."""
        committed = self.saved[0] if self.saved else self.model
        with pmlog.open(
            self.directory / "pool", readonly=True, medium=self.options["medium"]
        ) as pool:
            assert dict(pool.dict("ballast").items()) == committed["ballast"]

    @rule(size=st.integers(20_000, 60_000))
    def grow(self, size: int) -> None:
        """Add a large value, so that the pool outgrows its first size."""
        self.bigs += 1
        key, value = f"big{self.bigs}", bytes([self.bigs % 256]) * size
        self.try_change(
            lambda: self.ballast.__setitem__(key, value),
            lambda: self.model["ballast"].__setitem__(key, value),
        )

    @rule()
    def shrink(self) -> None:
        """Give the large values back."""
        self.try_change(self.ballast.clear, self.model["ballast"].clear)

    @invariant()
    def is_equal(self) -> None:
        """The pool holds what the model holds."""
        assert self.state() == self.model

    def teardown(self) -> None:
        """Abort what is open, close, and let the checker look."""
        try:
            while self.open:
                self.abort()
            self.is_equal()
            self.pool.close()
            assert faults_of(self.directory / "pool") == []
        finally:
            self.pool.close()
            shutil.rmtree(self.directory)


class DictMachine(PoolMachine):
    """A dict beside the builtin; order counts."""

    def bind(self) -> None:
        """Get the dict."""
        super().bind()
        self.d = self.pool.dict("d")
        self.model.setdefault("d", {})

    def state(self) -> dict[str, Any]:
        """Return the dict's content."""
        found = dict(self.d.items())
        assert len(self.d) == len(found)
        assert list(self.d) == list(self.model["d"])
        assert list(reversed(self.d)) == list(reversed(self.model["d"]))
        return {**super().state(), "d": found}

    @rule(key=keys, value=values)
    def set_item(self, key: Any, value: Any) -> None:
        """Set one key."""
        self.try_change(
            lambda: self.d.__setitem__(key, value), lambda: self.model["d"].__setitem__(key, value)
        )

    @rule(key=keys)
    def del_item(self, key: Any) -> None:
        """Delete one key."""
        self.try_change(lambda: self.d.__delitem__(key), lambda: self.model["d"].__delitem__(key))

    @rule(key=keys, default=st.just("default"))
    def pop(self, key: Any, default: Any) -> None:
        """Pop one key with a default."""
        self.try_change(lambda: self.d.pop(key, default), lambda: self.model["d"].pop(key, default))

    @rule()
    def popitem(self) -> None:
        """Pop the newest entry."""
        self.try_change(self.d.popitem, self.model["d"].popitem)

    @rule(key=keys, value=values)
    def setdefault(self, key: Any, value: Any) -> None:
        """Set one key if it is missing."""
        self.try_change(
            lambda: self.d.setdefault(key, value), lambda: self.model["d"].setdefault(key, value)
        )

    @rule(entries=st.lists(st.tuples(keys, values), max_size=12))
    def update(self, entries: list[tuple[Any, Any]]) -> None:
        """Set many keys at once."""
        self.try_change(lambda: self.d.update(entries), lambda: self.model["d"].update(entries))

    @rule()
    def clear(self) -> None:
        """Remove everything."""
        self.try_change(self.d.clear, self.model["d"].clear)

    @rule(wanted=st.lists(keys, max_size=6))
    def get_many(self, wanted: list[Any]) -> None:
        """Look several keys up at once."""
        assert self.d.get_many(wanted) == [self.model["d"].get(key) for key in wanted]

    @rule()
    def drop(self) -> None:
        """Drop the dict and make a new one of the same name."""
        try:
            with self.pool.transaction():
                self.pool.drop("d")
                self.d = self.pool.dict("d")
                self.model["d"] = {}
        except pmlog.TransactionTooLargeError:
            self.d = self.pool.dict("d")

    @precondition(lambda self: not self.open)
    @rule()
    def rebind(self) -> None:
        """Get the dict by its name again."""
        self.d = self.pool.dict("d")


class DequeMachine(PoolMachine):
    """A deque beside collections.deque."""

    def bind(self) -> None:
        """Get the deque."""
        super().bind()
        self.q = self.pool.deque("q")
        self.model.setdefault("q", deque())

    def state(self) -> dict[str, Any]:
        """Return the deque's content."""
        assert len(self.q) == len(self.model["q"])
        assert list(reversed(self.q)) == list(reversed(self.model["q"]))
        return {**super().state(), "q": deque(self.q)}

    def do(self, name: str, *args: Any) -> None:
        """Call a method of both."""
        self.try_change(
            lambda: getattr(self.q, name)(*args), lambda: getattr(self.model["q"], name)(*args)
        )

    @rule(value=values, left=st.booleans())
    def push(self, value: Any, left: bool) -> None:
        """Add one item at one end."""
        self.do("appendleft" if left else "append", value)

    @rule(left=st.booleans())
    def pop(self, left: bool) -> None:
        """Take one item from one end."""
        self.do("popleft" if left else "pop")

    @rule(items=st.lists(values, max_size=90), left=st.booleans())
    def extend(self, items: list[Any], left: bool) -> None:
        """Add many items at one end."""
        self.do("extendleft" if left else "extend", items)

    @rule(count=st.integers(1, 150), left=st.booleans())
    def extend_far(self, count: int, left: bool) -> None:
        """Add enough small items for several blocks."""
        self.do("extendleft" if left else "extend", list(range(count)))

    @rule(index=st.integers(-200, 200), value=values)
    def insert(self, index: int, value: Any) -> None:
        """Insert one item."""
        self.do("insert", index, value)

    @rule(index=st.integers(-200, 200), value=values)
    def set_item(self, index: int, value: Any) -> None:
        """Replace one item."""
        self.do("__setitem__", index, value)

    @rule(index=st.integers(-200, 200))
    def del_item(self, index: int) -> None:
        """Delete one item."""
        self.do("__delitem__", index)

    @rule(index=st.integers(-200, 200))
    def get_item(self, index: int) -> None:
        """Read one item."""
        self.do("__getitem__", index)

    @rule(value=st.integers(0, 12))
    def remove(self, value: int) -> None:
        """Remove the first item equal to a value."""
        self.do("remove", value)

    @rule(steps=st.integers(-300, 300))
    def rotate(self, steps: int) -> None:
        """Rotate."""
        self.do("rotate", steps)

    @rule()
    def reverse(self) -> None:
        """Turn round."""
        self.do("reverse")

    @rule()
    def clear(self) -> None:
        """Remove everything."""
        self.do("clear")


class ArrayMachine(PoolMachine):
    """An array beside numpy, and a region beside a bytearray."""

    SHAPE = (11, 7, 3)
    REGION_BYTES = 9_000

    def bind(self) -> None:
        """Get the array and the region."""
        super().bind()
        self.a = self.pool.array("a", shape=self.SHAPE, dtype="i4")
        self.r = self.pool.region("r", self.REGION_BYTES)
        self.model.setdefault("a", np.zeros(self.SHAPE, "i4").tolist())
        self.model.setdefault("r", bytes(self.REGION_BYTES))

    def state(self) -> dict[str, Any]:
        """Return the content of both."""
        return {
            **super().state(),
            "a": self.a[...].tolist(),
            "r": self.r.read(0, self.REGION_BYTES),
        }

    def assign(self, index: Any, value: Any) -> None:
        """Assign to both."""

        def assign_model() -> None:
            plain = np.array(self.model["a"], "i4").reshape(self.SHAPE)
            plain[index] = value
            self.model["a"] = plain.tolist()

        self.try_change(lambda: self.a.__setitem__(index, value), assign_model)

    @rule(data=st.data(), value=st.integers(-(2**31), 2**31 - 1))
    def assign_basic(self, data: st.DataObject, value: int) -> None:
        """Assign a scalar to a basic index."""
        parts: list[Any] = []
        for size in self.SHAPE[: data.draw(st.integers(0, 3))]:
            ends = st.one_of(st.none(), st.integers(-size - 1, size + 1))
            steps = st.sampled_from([None, 1, 2, -1, -2])
            parts.append(
                data.draw(
                    st.one_of(st.integers(-size, size - 1), st.builds(slice, ends, ends, steps))
                )
            )
        self.assign(tuple(parts), value)

    @rule(
        rows=st.lists(st.integers(-11, 10), min_size=1, max_size=6),
        value=st.integers(-(2**31), 2**31 - 1),
    )
    def assign_rows(self, rows: list[int], value: int) -> None:
        """Assign rows by a list of integers, one of them broadcast."""
        self.assign(rows, np.arange(21, dtype="i4").reshape(7, 3) ^ value)

    @rule(bits=st.integers(0, 2**11 - 1), value=st.integers(0, 100))
    def assign_mask(self, bits: int, value: int) -> None:
        """Assign by a mask over the first axis."""
        self.assign(np.array([bool(bits >> n & 1) for n in range(11)]), value)

    @rule(bad=st.sampled_from([[1, 2], [[1, 2, 3]] * 5, "text"]))
    def assign_badly(self, bad: Any) -> None:
        """Assign what does not fit: nothing may change."""
        try:
            self.a[...] = bad
        except ValueError:
            return
        raise AssertionError("the assignment did not raise")

    @rule(offset=st.integers(0, 9_000), size=st.integers(0, 5_000), byte=st.integers(0, 255))
    def write(self, offset: int, size: int, byte: int) -> None:
        """Write a run of bytes."""
        size = min(size, self.REGION_BYTES - offset)
        self.r.write(offset, bytes([byte]) * size)
        old = self.model["r"]
        self.model["r"] = old[:offset] + bytes([byte]) * size + old[offset + size :]


class WholeMachine(DictMachine, DequeMachine, ArrayMachine):
    """All kinds of containers in one pool, in the same transactions."""

    # Rules of the same name would hide one another: the dict's and the deque's go by new names.
    set_entry = DictMachine.set_item
    del_entry = DictMachine.del_item
    pop_entry = DictMachine.pop
    clear_entries = DictMachine.clear
    set_item = DequeMachine.set_item
    del_item = DequeMachine.del_item
    pop = DequeMachine.pop
    clear = DequeMachine.clear
