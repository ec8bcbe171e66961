"""Encoding a key or value may run its owner's code, which may use the very container that is changed.

An int of a subclass is encoded by its `__int__`.  Here that changes the container, empties the list
that is being stored, collects garbage, or interrupts; what is left is compared with plain Python, in
which the same was done one after the other.
"""

from __future__ import annotations

import contextlib
import gc
from collections import deque
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import pmlog
from tests.support import OpenPool

names = st.sampled_from(["a", "b", b"c", 4, 500, "d" * 40])
plain = st.one_of(
    st.integers(-300, 70_000),
    st.text(max_size=6),
    st.binary(max_size=6),
    st.lists(st.text(max_size=3), max_size=3),
    st.just("x" * 5000),
)
tricks = st.sampled_from(["set", "clear", "update", "pop", "collect", "empty", "interrupt", "none"])
ways = st.sampled_from(["item", "pairs", "default", "append", "appendleft", "extend"])
steps = st.lists(st.tuples(ways, names, plain, tricks, st.booleans()), min_size=1, max_size=12)


class Trick(int):
    """An int whose encoding does something first."""

    act: Callable[[], None]

    def __int__(self) -> int:
        self.act()
        return int.__int__(self)

    @classmethod
    def of(cls, number: int, act: Callable[[], None]) -> Trick:
        """Make one."""
        self = cls(number)
        self.act = act
        return self


class Both:
    """A dict and a deque of a pool, and their models."""

    def __init__(self, pool: pmlog.Pool) -> None:
        self.d, self.q = pool.dict("d"), pool.deque("q")
        self.d.clear()
        self.q.clear()
        self.plain_d: dict[Any, Any] = {}
        self.plain_q: deque[Any] = deque()

    def play(self, trick: str, holder: list[Any]) -> None:
        """Do what an element's encoding does, to the pool's containers and to the models."""
        if trick == "set":
            for d in (self.d, self.plain_d):
                d["trick"] = [1, 2]
            for q in (self.q, self.plain_q):
                q.append("trick")
        elif trick == "clear":
            for each in (self.d, self.plain_d, self.q, self.plain_q):
                each.clear()
        elif trick == "update":
            for d in (self.d, self.plain_d):
                d.update({n: "u" * n for n in range(40)})
            for q in (self.q, self.plain_q):
                q.extendleft(range(5))
        elif trick == "pop":
            assert self.d.pop("a", 0) == self.plain_d.pop("a", 0)
            if self.plain_q:
                assert self.q.pop() == self.plain_q.pop()
        elif trick == "collect":
            gc.collect()
        elif trick == "empty":
            holder.clear()
        elif trick == "interrupt":
            raise KeyboardInterrupt

    def step(self, way: str, name: Any, value: Any, trick: str, as_key: bool) -> None:
        """Store one pair in one way, to the pool's containers and then to the models."""
        holder: list[Any] = []
        odd = Trick.of(77, lambda: self.play(trick, holder))
        key, stored = (odd, value) if as_key and way in ("item", "pairs") else (name, [odd, value])
        holder += [key, stored]
        left_d: dict[Any, Any] = {77: value} if key is odd else {name: [77, value]}
        if way == "item":
            self.d[key] = stored
        elif way == "pairs":
            self.d.update([("first", 1), holder, ("last", value)])
            left_d = {"first": 1, **left_d, "last": value}
        elif way == "default":
            if name in self.plain_d:
                left_d = {}
            self.d.setdefault(name, stored)
        else:
            getattr(self.q, way)([stored] if way == "extend" else stored)
            getattr(self.plain_q, way)([[77, value]] if way == "extend" else [77, value])
            return
        self.plain_d.update(left_d)


def test_code_that_runs_while_something_is_encoded(open_pool: OpenPool) -> None:
    """Whatever it does, the pool is as if it had been done before; an interrupt stores nothing."""
    pool = open_pool(log_size="4MiB")

    @given(steps=steps)
    def run(steps: list[Any]) -> None:
        both = Both(pool)
        for step in steps:
            with contextlib.suppress(KeyboardInterrupt):
                both.step(*step)
            assert list(both.d.items()) == list(both.plain_d.items())
            assert both.q == both.plain_q

    run()
