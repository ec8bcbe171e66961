"""What is asked of every peer: the same keys, values and order, made from one seed.

Operations are named `subject.verb`; a peer that has no such thing leaves it out.
Values change with every write: a peer that skips unchanged rows gains nothing by it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

SEED = 20_261_121

# Also in peers/worker.h.
VALUE_BYTES = 64
VALUES = 4_093  # prime: neighbours in time and place differ
SLOTS = 16_384
SLOT_STEP = 5_167  # odd: visits every slot before it comes back to one
KEYS = 100_000

BULK = 1_000
GROWING_BATCH = 5_000
"""Operations a round where a store grows: the same for all, so that all grow to one size."""


@dataclass(frozen=True)
class Operation:
    name: str
    method: str
    """Of the peer: takes a batch; empty: latency only."""
    single: str
    """Of the peer: gives a callable that does one item of a batch; empty: it has none."""
    title: str
    items: int = 1
    """That one entry of a batch holds."""
    pause_s: float = 0.0
    """Idle time before a turn; then the turn has no warm-up."""

    @property
    def kind(self) -> str:
        """What is done, whenever."""
        return self.name.partition("@")[0]

    @property
    def needs_entries(self) -> bool:
        """Whether there are keys before it begins."""
        return self.kind.startswith(("dict.", "transaction.")) and not self.grows

    @property
    def grows(self) -> bool:
        """Whether stores are larger after it."""
        return self.kind in {"dict.insert", "deque.append"}


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("region.write", "region_write", "region_write_one", "write 64 bytes, committed"),
        Operation("dict.set", "dict_set", "dict_set_one", "set an existing key"),
        Operation("dict.insert", "dict_insert", "", "set a new key"),
        Operation("dict.get", "dict_get", "dict_get_one", "get a key"),
        Operation(
            "transaction.set", "transaction_set", "transaction_set_one",
            "set a key in an explicit transaction",
        ),
        Operation("dict.update", "dict_update", "", "update of 1,000 existing keys, an item", BULK),
        Operation("dict.get_many", "dict_get_many", "", "get of 1,000 keys at once, an item", BULK),
        Operation("deque.append", "deque_append", "", "append"),
        Operation("deque.popleft", "deque_popleft", "", "pop at the other end"),
        Operation(
            "dict.set@pause", "", "dict_set_one", "set an existing key, after a pause", pause_s=1.5
        ),
    )
}  # fmt: skip


class Workload:
    """Batches for one peer: each goes on where the last one ended."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        randomness = random.Random(SEED)
        self.values = [randomness.randbytes(VALUE_BYTES) for _ in range(VALUES)]
        self.keys = [b"key:%08d" % number for number in range(KEYS)]
        self.order = self.keys.copy()
        randomness.shuffle(self.order)
        self._done = 0

    def fill(self) -> dict[bytes, bytes]:
        """The entries before the first batch; none, if the operation needs none."""
        if not self.operation.needs_entries:
            return {}
        return {key: self.values[number % VALUES] for number, key in enumerate(self.keys)}

    def batch(self, count: int) -> Any:
        """The next `count` operations; bulk operations count items."""
        first, self._done = self._done, self._done + count
        numbers = range(first, first + count)
        values, order = self.values, self.order
        match self.operation.kind:
            case "region.write":
                return [
                    (number * SLOT_STEP % SLOTS * VALUE_BYTES, values[number % VALUES])
                    for number in numbers
                ]
            case "dict.set" | "transaction.set":
                return [(order[n % KEYS], values[n % VALUES]) for n in numbers]
            case "dict.insert":
                return [(b"new:%08d" % n, values[n % VALUES]) for n in numbers]
            case "dict.get":
                return [order[n % KEYS] for n in numbers]
            case "dict.update":
                return [
                    {order[n % KEYS]: values[n % VALUES] for n in numbers[at : at + BULK]}
                    for at in range(0, count, BULK)
                ]
            case "dict.get_many":
                return [
                    [order[n % KEYS] for n in numbers[at : at + BULK]]
                    for at in range(0, count, BULK)
                ]
            case "deque.append" | "deque.popleft":
                return [values[n % VALUES] for n in numbers]
            case other:
                raise ValueError(other)
