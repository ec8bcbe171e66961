"""The floor: Python's own dict, deque and bytearray, which survive nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

from bench.peers.base import Peer, Store
from bench.workload import SLOTS, VALUE_BYTES, Operation, Workload


class BuiltinStore(Store):
    def __init__(self, workload: Workload) -> None:
        self.region = bytearray(SLOTS * VALUE_BYTES)
        self.dict = workload.fill()
        self.deque: deque[bytes] = deque()

    def close(self) -> None:
        self.dict.clear()

    def prepare(self, operation: Operation, batch: Any) -> Any:
        if operation.kind == "deque.popleft":
            self.deque.extend(batch)
        return batch

    def region_write(self, batch: Any) -> None:
        region = self.region
        for offset, data in batch:
            region[offset : offset + VALUE_BYTES] = data

    def region_write_one(self) -> Callable[..., Any]:
        region = self.region

        def write(item: tuple[int, bytes]) -> None:
            offset, data = item
            region[offset : offset + VALUE_BYTES] = data

        return write

    def dict_set(self, batch: Any) -> None:
        entries = self.dict
        for key, value in batch:
            entries[key] = value

    dict_insert = transaction_set = dict_set

    def dict_set_one(self) -> Callable[..., Any]:
        entries = self.dict

        def put(item: tuple[bytes, bytes]) -> None:
            key, value = item
            entries[key] = value

        return put

    transaction_set_one = dict_set_one

    def dict_get(self, batch: Any) -> None:
        entries = self.dict
        for key in batch:
            entries[key]

    def dict_get_one(self) -> Callable[..., Any]:
        entries = self.dict

        def get(key: bytes) -> bytes:
            return entries[key]

        return get

    def dict_update(self, batch: Any) -> None:
        for entries in batch:
            self.dict.update(entries)

    def dict_get_many(self, batch: Any) -> None:
        for keys in batch:
            itemgetter(*keys)(self.dict)

    def deque_append(self, batch: Any) -> None:
        append = self.deque.append
        for value in batch:
            append(value)

    def deque_popleft(self, batch: Any) -> None:
        popleft = self.deque.popleft
        for value in batch:
            assert popleft() == value

    def region_read(self, offset: int, size: int) -> bytes:
        return bytes(self.region[offset : offset + size])

    def dict_read(self, keys: Any) -> list[bytes]:
        return [self.dict[key] for key in keys]

    def deque_read(self, count: int) -> list[bytes]:
        return list(self.deque)[-count:]


class Builtin(Peer):
    def can(self, operation: Operation) -> bool:
        return True

    def batch_size(self, operation: Operation) -> int:
        return 50_000

    def open(self, folder: Path, operation: Operation, workload: Workload) -> Store:
        return BuiltinStore(workload)
