"""ZODB with FileStorage: an OOBTree, a transaction a write."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bench.kv.base import Kv, KvUnavailableError

ZODB: Any
try:
    import transaction
    import ZODB
    import ZODB.FileStorage
    from BTrees.OOBTree import OOBTree
except ImportError:
    ZODB = None


class ZodbKv(Kv):
    threads = False

    def open(self, folder: Path) -> None:
        if ZODB is None:
            raise KvUnavailableError("the package ZODB is not installed")
        self.db = ZODB.DB(ZODB.FileStorage.FileStorage(str(folder / "Data.fs")), cache_size=200_000)
        self.connection = self.db.open()
        self.entries = self.connection.root()["entries"] = OOBTree()
        self.commit = transaction.commit
        self.commit()

    def close(self) -> None:
        transaction.abort()
        self.connection.close()
        self.db.close()

    def load(self, entries: dict[str, bytes]) -> None:
        for number, (key, value) in enumerate(entries.items(), 1):
            self.entries[key] = value
            if number % 10_000 == 0:
                self.commit()
        self.commit()

    def read(self, key: str) -> bytes:
        value: bytes = self.entries[key]
        return value

    def write(self, key: str, value: bytes) -> None:
        self.entries[key] = value
        self.commit()

    def write_three(self, entries: Sequence[tuple[str, bytes]]) -> None:
        for key, value in entries:
            self.entries[key] = value
        self.commit()

    def scan(self, key: str, count: int) -> list[bytes]:
        return list(islice(self.entries.values(key), count))
