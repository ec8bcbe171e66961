"""pmlog itself, through its Python interface."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pmlog
from bench.peers.base import Peer, Store
from bench.workload import SLOTS, VALUE_BYTES, Operation, Workload

LOG_BYTES = 64 << 20  # the default


class PmlogStore(Store):
    def __init__(self, path: Path, domain: str, workload: Workload) -> None:
        self.pool = pmlog.open(path, domain=domain, log_size=LOG_BYTES)
        self.region = self.pool.region("region", SLOTS * VALUE_BYTES)
        self.dict = self.pool.dict("dict")
        self.deque = self.pool.deque("deque")
        self.dict.update(workload.fill())
        # A pool in use: its log has been round once, so that the kernel has given it its pages.
        for _ in range(LOG_BYTES // len(self.region) + 1):
            self.region.write(0, bytes(len(self.region)))

    def close(self) -> None:
        self.pool.close()

    def prepare(self, operation: Operation, batch: Any) -> Any:
        if operation.kind == "deque.popleft":
            self.deque.extend(batch)
        return batch

    def region_write(self, batch: Any) -> None:
        write = self.region.write
        for offset, data in batch:
            write(offset, data)

    def region_write_one(self) -> Callable[..., Any]:
        region = self.region

        def write(item: tuple[int, bytes]) -> None:
            offset, data = item
            region.write(offset, data)

        return write

    def dict_set(self, batch: Any) -> None:
        entries = self.dict
        for key, value in batch:
            entries[key] = value

    dict_insert = dict_set

    def dict_set_one(self) -> Callable[..., Any]:
        entries = self.dict

        def put(item: tuple[bytes, bytes]) -> None:
            key, value = item
            entries[key] = value

        return put

    def dict_get(self, batch: Any) -> None:
        entries = self.dict
        for key in batch:
            entries[key]

    def dict_get_one(self) -> Callable[..., Any]:
        entries = self.dict

        def get(key: bytes) -> Any:
            return entries[key]

        return get

    def transaction_set(self, batch: Any) -> None:
        entries = self.dict
        transaction = self.pool.transaction
        for key, value in batch:
            with transaction():
                entries[key] = value

    def transaction_set_one(self) -> Callable[..., Any]:
        entries = self.dict
        transaction = self.pool.transaction

        def put(item: tuple[bytes, bytes]) -> None:
            key, value = item
            with transaction():
                entries[key] = value

        return put

    def dict_update(self, batch: Any) -> None:
        update = self.dict.update
        for entries in batch:
            update(entries)

    def dict_get_many(self, batch: Any) -> None:
        get_many = self.dict.get_many
        for keys in batch:
            get_many(keys)

    def deque_append(self, batch: Any) -> None:
        append = self.deque.append
        for value in batch:
            append(value)

    def deque_popleft(self, batch: Any) -> None:
        popleft = self.deque.popleft
        for value in batch:
            assert popleft() == value

    def region_read(self, offset: int, size: int) -> bytes:
        return self.region.read(offset, size)

    def dict_read(self, keys: Any) -> list[bytes]:
        return self.dict.get_many(keys)

    def deque_read(self, count: int) -> list[bytes]:
        return list(self.deque)[-count:]


class Pmlog(Peer):
    def __init__(self, name: str, domain: str) -> None:
        super().__init__(name)
        self.domain = domain

    def can(self, operation: Operation) -> bool:
        return True

    def batch_size(self, operation: Operation) -> int:
        return 20_000

    def open(self, folder: Path, operation: Operation, workload: Workload) -> Store:
        return PmlogStore(folder / "pool", self.domain, workload)

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("pmlog", "cffi", "msgspec")}
