"""py-lmdb: a transaction a write, as its documentation shows them.

- sync: the default. A commit ends with fdatasync, which costs a system call on tmpfs.
- nosync (`sync=False`): on tmpfs this survives what sync survives, the death of any process, since
  a commit writes to the file either way. On a disk it may lose and tear.

A read is a transaction too: that is what sees the last commit. `get_many` reads in one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Any

from bench.peers.base import Peer, Store, UnavailableError
from bench.workload import SLOTS, VALUE_BYTES, Operation, Workload

lmdb: Any
try:
    import lmdb
except ImportError:
    lmdb = None

_number = Struct(">Q")  # big-endian: keys are ordered as bytes

# Far more than is needed, as its documentation says: it is address space.
MAP_BYTES = 8 << 30


class LmdbStore(Store):
    def __init__(self, folder: Path, sync: bool, operation: Operation, workload: Workload) -> None:
        self.env = lmdb.open(str(folder), map_size=MAP_BYTES, sync=sync, metasync=sync)
        self.next = 0
        with self.env.begin(write=True) as txn:
            if operation.kind == "region.write":
                for slot in range(SLOTS):
                    txn.put(_number.pack(slot * VALUE_BYTES), bytes(VALUE_BYTES))
            for key, value in workload.fill().items():
                txn.put(key, value, append=True)

    def close(self) -> None:
        self.env.close()

    def prepare(self, operation: Operation, batch: Any) -> Any:
        if operation.kind == "region.write":
            return [(_number.pack(offset), data) for offset, data in batch]
        if operation.kind == "deque.popleft":
            with self.env.begin(write=True) as txn:
                for number, value in enumerate(batch, self.next):
                    txn.put(_number.pack(number), value, append=True)
            self.next += len(batch)
        return batch

    def dict_set(self, batch: Any) -> None:
        begin = self.env.begin
        for key, value in batch:
            with begin(write=True) as txn:
                txn.put(key, value)

    region_write = dict_insert = transaction_set = dict_set

    def dict_set_one(self) -> Callable[..., Any]:
        begin = self.env.begin

        def put(item: tuple[bytes, bytes]) -> None:
            key, value = item
            with begin(write=True) as txn:
                txn.put(key, value)

        return put

    region_write_one = transaction_set_one = dict_set_one

    def dict_get(self, batch: Any) -> None:
        begin = self.env.begin
        for key in batch:
            with begin() as txn:
                txn.get(key)

    def dict_get_one(self) -> Callable[..., Any]:
        begin = self.env.begin

        def get(key: bytes) -> Any:
            with begin() as txn:
                return txn.get(key)

        return get

    def dict_update(self, batch: Any) -> None:
        begin = self.env.begin
        for entries in batch:
            with begin(write=True) as txn, txn.cursor() as cursor:
                cursor.putmulti(entries.items())

    def dict_get_many(self, batch: Any) -> None:
        begin = self.env.begin
        for keys in batch:
            with begin() as txn:
                get = txn.get
                [get(key) for key in keys]

    def deque_append(self, batch: Any) -> None:
        begin, pack, number = self.env.begin, _number.pack, self.next
        for value in batch:
            with begin(write=True) as txn:
                txn.put(pack(number), value, append=True)
            number += 1
        self.next = number

    def deque_popleft(self, batch: Any) -> None:
        begin = self.env.begin
        for value in batch:
            with begin(write=True) as txn, txn.cursor() as cursor:
                cursor.first()
                assert cursor.value() == value
                cursor.delete()

    def check(self, operation: Operation, batch: Any) -> None:
        if operation.kind == "region.write":
            # Here the offsets are keys.
            assert self.dict_read(dict(batch)) == list(dict(batch).values())
        else:
            super().check(operation, batch)

    def dict_read(self, keys: Any) -> list[bytes]:
        with self.env.begin() as txn:
            return [txn.get(key) for key in keys]

    def deque_read(self, count: int) -> list[bytes]:
        return self.dict_read(_number.pack(n) for n in range(self.next - count, self.next))


class Lmdb(Peer):
    def __init__(self, name: str, sync: bool) -> None:
        super().__init__(name)
        self.sync = sync

    def can(self, operation: Operation) -> bool:
        return True

    def batch_size(self, operation: Operation) -> int:
        return 20_000 if operation.items > 1 or operation.kind == "dict.get" else 8_000

    def open(self, folder: Path, operation: Operation, workload: Workload) -> Store:
        if lmdb is None:
            raise UnavailableError("the package lmdb is not installed")
        return LmdbStore(folder, self.sync, operation, workload)

    def versions(self) -> dict[str, str]:
        if lmdb is None:
            return {}
        return {"py-lmdb": lmdb.__version__, "LMDB": ".".join(map(str, lmdb.version()))}
