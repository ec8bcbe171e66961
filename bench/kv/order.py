"""The order of keys beside a hash table: sorted runs, as an application would keep them in memory.

pmlog's dict, like Python's, knows the order of insertion only; who needs ranges keeps such an index,
which is made anew from the keys when the pool is opened.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

RUN = 1000


class Order:
    """Sorted keys in runs of up to 2 * RUN."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = [[]]
        self.firsts: list[str] = [""]

    def load(self, keys: Iterable[str]) -> None:
        ordered = sorted(keys)
        self.runs = [ordered[at : at + RUN] for at in range(0, len(ordered), RUN)] or [[]]
        self.firsts = ["", *(run[0] for run in self.runs[1:])]

    def add(self, key: str) -> None:
        at = bisect_left(self.firsts, key + "\0") - 1
        run = self.runs[at]
        insort(run, key)
        if len(run) > 2 * RUN:
            self.runs[at : at + 1] = [run[:RUN], run[RUN:]]
            self.firsts.insert(at + 1, run[RUN])

    def run(self, key: str, count: int) -> list[str]:
        at = bisect_left(self.firsts, key + "\0") - 1
        start = bisect_left(self.runs[at], key)
        found = self.runs[at][start : start + count]
        while len(found) < count and at + 1 < len(self.runs):
            at += 1
            found += self.runs[at][: count - len(found)]
        return found
