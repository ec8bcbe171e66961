"""What a peer is to the harness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.workload import GROWING_BATCH, Operation, Workload


class UnavailableError(Exception):
    """The peer can't run here; the message says what is missing."""


class Store:
    """A peer at work on one operation: opened and filled for it, closed after it.

    Subclasses have the methods that `Operation.method` and `Operation.single` name.  A method
    takes a batch and does all of it in the loop that a user of that peer would write.  What
    `Operation.single` names takes nothing and gives a callable for one item.
    """

    def close(self) -> None:
        raise NotImplementedError

    def prepare(self, operation: Operation, batch: Any) -> Any:
        """Do what must not be timed before a batch; answer the batch to run."""
        return batch

    def check(self, operation: Operation, batch: Any) -> None:
        """Make sure that the last batch was done. Raises AssertionError."""
        if operation.kind == "region.write":
            # Later writes of a batch may be to the same place.
            for offset, data in dict(batch).items():
                assert self.region_read(offset, len(data)) == data
        elif operation.kind in {"dict.set", "dict.insert", "transaction.set"}:
            assert self.dict_read(key for key, _ in batch) == [value for _, value in batch]
        elif operation.kind == "dict.update":
            for entries in batch:
                assert self.dict_read(entries) == list(entries.values())
        elif operation.kind == "deque.append":
            assert self.deque_read(len(batch)) == batch

    def region_read(self, offset: int, size: int) -> bytes:
        raise NotImplementedError

    def dict_read(self, keys: Any) -> list[bytes]:
        raise NotImplementedError

    def deque_read(self, count: int) -> list[bytes]:
        """The last `count` values, oldest first."""
        raise NotImplementedError


class Peer:
    """A setting of a peer."""

    def __init__(self, name: str) -> None:
        self.name = name

    def can(self, operation: Operation) -> bool:
        """Whether it has such an operation."""
        raise NotImplementedError

    def batch_size(self, operation: Operation) -> int:
        """Operations a round: enough for several milliseconds; of those that leave stores as large
        as they are."""
        raise NotImplementedError

    def open(self, folder: Path, operation: Operation, workload: Workload) -> Store:
        """Make a store in an empty folder and fill it for an operation."""
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        """Of what it is made of, for the result's machine facts."""
        return {}


def count_of(peer: Peer, operation: Operation, scale: float) -> int:
    """Operations in a round."""
    count = GROWING_BATCH if operation.grows else peer.batch_size(operation)
    return max(operation.items, int(count * scale) // operation.items * operation.items)


def single_of(store: Store, operation: Operation) -> Callable[..., Any] | None:
    """The callable for one item of an operation, if the peer has one."""
    make = getattr(store, operation.single, None) if operation.single else None
    return make() if make is not None else None
