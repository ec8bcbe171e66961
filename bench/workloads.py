"""Whole workloads over the stores of `bench.kv`: YCSB A–F, transfers, bulk load, large values.

Each workload is a list of operations that is made before the clock starts, the same for all stores,
from one seed.  Records have 1,000 bytes, as YCSB's ten fields of 100; every write brings new bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.distributions import latest, scrambled_zipfian, uniform
from bench.kv import Kv
from bench.workload import SEED

RECORD_BYTES = 1_000
SCAN_MAX = 100
LARGE_BYTES = 1 << 20

Operation = tuple[str, Any]


@dataclass(frozen=True)
class Mix:
    """Shares of a YCSB workload; they add up to 1."""

    title: str
    read: float = 0.0
    update: float = 0.0
    insert: float = 0.0
    scan: float = 0.0
    modify: float = 0.0
    newest: bool = False


YCSB = {
    "A": Mix("half reads, half updates", read=0.5, update=0.5),
    "B": Mix("reads, 5 % updates", read=0.95, update=0.05),
    "C": Mix("reads only", read=1.0),
    "D": Mix("reads of the newest, 5 % inserts", read=0.95, insert=0.05, newest=True),
    "E": Mix("ranges of up to 100, 5 % inserts", scan=0.95, insert=0.05),
    "F": Mix("half reads, half read-modify-write", read=0.5, modify=0.5),
}


def key_of(number: int) -> str:
    """As YCSB's ordered keys: their order is the order of their making."""
    return f"user{number:012d}"


class Values:
    """New bytes for every write, cheap to make."""

    def __init__(self, size: int, rng: random.Random) -> None:
        self._pool = rng.randbytes(size + 65_536)
        self._size = size
        self._rng = rng

    def next(self) -> bytes:
        at = self._rng.randrange(65_536)
        return self._pool[at : at + self._size]


def records(count: int, size: int = RECORD_BYTES) -> dict[str, bytes]:
    """What a store holds before a workload."""
    values = Values(size, random.Random(SEED))
    return {key_of(number): values.next() for number in range(count)}


def ycsb(mix: Mix, count: int, operations: int, seed: int = SEED) -> list[Operation]:
    """The operations of a YCSB workload over `count` records."""
    rng = random.Random(seed + 1)
    values = Values(RECORD_BYTES, rng)
    popular, newest = scrambled_zipfian(count, rng), latest(count, rng)
    shares = [mix.read, mix.update, mix.insert, mix.scan, mix.modify]
    kinds = rng.choices(["read", "write", "insert", "scan", "modify"], shares, k=operations)
    there = count
    made: list[Operation] = []
    for kind in kinds:
        key = key_of(newest(there) if mix.newest else popular())
        if kind == "read":
            made.append((kind, key))
        elif kind == "insert":
            made.append((kind, (key_of(there), values.next())))
            there += 1
        elif kind == "scan":
            made.append((kind, (key, rng.randint(1, SCAN_MAX))))
        else:
            made.append((kind, (key, values.next())))
    return made


def transfers(count: int, operations: int) -> list[Operation]:
    """A bank: each transaction puts two accounts and an entry of the journal."""
    rng = random.Random(SEED + 2)
    values, account = Values(64, rng), uniform(count, rng)
    return [
        (
            "three",
            [
                (key_of(account()), values.next()),
                (key_of(account()), values.next()),
                (f"journal{number % 10_000:08d}", values.next()),
            ],
        )
        for number in range(operations)
    ]


def uniform_half(count: int, operations: int) -> list[Operation]:
    """Half reads, half writes of 64 bytes, all keys alike."""
    rng = random.Random(SEED + 4)
    values, pick = Values(64, rng), uniform(count, rng)
    return [
        ("read", key_of(pick()))
        if rng.random() < 0.5
        else ("write", (key_of(pick()), values.next()))
        for _ in range(operations)
    ]


def large(operations: int) -> list[Operation]:
    """Values of 1 MiB over 16 keys."""
    values = Values(LARGE_BYTES, random.Random(SEED + 3))
    return [("write", (key_of(number % 16), values.next())) for number in range(operations)]


def runners(store: Kv) -> dict[str, Callable[[Any], Any]]:
    """How each kind of operation is done: one Python call, the same for all stores."""

    def modify(item: tuple[str, bytes]) -> None:
        key, value = item
        store.write(key, store.read(key)[:500] + value[500:])

    return {
        "read": store.read,
        "write": lambda item: store.write(*item),
        "insert": lambda item: store.insert(*item),
        "scan": lambda item: store.scan(*item),
        "modify": modify,
        "three": store.write_three,
    }


def check(store: Kv, operations: list[Operation]) -> None:
    """Make sure that the last writes are there. Raises AssertionError."""
    last: dict[str, bytes] = {}
    for kind, item in operations:
        if kind in ("write", "insert"):
            last[item[0]] = item[1]
        elif kind == "three":
            last.update(item)
        elif kind == "modify":
            last.pop(item[0], None)
    for key, value in list(_some(last)):
        assert store.read(key) == value, key


def _some(last: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    step = max(1, len(last) // 200)
    yield from list(last.items())[::step]
