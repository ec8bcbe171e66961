"""py-lmdb: a transaction a write, a transaction a read, as its documentation shows them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bench.kv.base import Kv, KvUnavailableError

lmdb: Any
try:
    import lmdb
except ImportError:
    lmdb = None

MAP_BYTES = 64 << 30


class LmdbKv(Kv):
    def __init__(self, sync: bool) -> None:
        self.sync = sync

    def open(self, folder: Path) -> None:
        if lmdb is None:
            raise KvUnavailableError("the package lmdb is not installed")
        self.env = lmdb.open(str(folder), map_size=MAP_BYTES, sync=self.sync, metasync=self.sync)

    def close(self) -> None:
        self.env.close()

    def load(self, entries: dict[str, bytes]) -> None:
        with self.env.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(sorted((key.encode(), value) for key, value in entries.items()))

    def read(self, key: str) -> bytes:
        with self.env.begin() as txn:
            value: bytes = txn.get(key.encode())
            return value

    def write(self, key: str, value: bytes) -> None:
        with self.env.begin(write=True) as txn:
            txn.put(key.encode(), value)

    def write_three(self, entries: Sequence[tuple[str, bytes]]) -> None:
        with self.env.begin(write=True) as txn:
            for key, value in entries:
                txn.put(key.encode(), value)

    def scan(self, key: str, count: int) -> list[bytes]:
        with self.env.begin() as txn, txn.cursor() as cursor:
            cursor.set_range(key.encode())
            return list(islice(cursor.iternext(keys=False), count))
