"""rocksdict (RocksDB): raw mode, the write-ahead log on; sync=True syncs it at each write."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bench.kv.base import Kv, KvUnavailableError

rocksdict: Any
try:
    import rocksdict
except ImportError:
    rocksdict = None


class RocksKv(Kv):
    def __init__(self, sync: bool) -> None:
        self.sync = sync

    def open(self, folder: Path) -> None:
        if rocksdict is None:
            raise KvUnavailableError("the package rocksdict is not installed")
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        self.db = rocksdict.Rdict(str(folder / "db"), options=options)
        self.options = rocksdict.WriteOptions()
        self.options.sync = self.sync

    def close(self) -> None:
        self.db.close()

    def load(self, entries: dict[str, bytes]) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for number, (key, value) in enumerate(entries.items(), 1):
            batch.put(key.encode(), value)
            if number % 10_000 == 0:
                self.db.write(batch, self.options)
                batch = rocksdict.WriteBatch(raw_mode=True)
        self.db.write(batch, self.options)

    def read(self, key: str) -> bytes:
        value: bytes = self.db[key.encode()]
        return value

    def write(self, key: str, value: bytes) -> None:
        self.db.put(key.encode(), value, self.options)

    def write_three(self, entries: Sequence[tuple[str, bytes]]) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in entries:
            batch.put(key.encode(), value)
        self.db.write(batch, self.options)

    def scan(self, key: str, count: int) -> list[bytes]:
        return list(islice(self.db.values(from_key=key.encode()), count))
