"""diskcache: a cache over SQLite, nothing evicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.kv.base import Kv, KvUnavailableError

diskcache: Any
try:
    import diskcache
except ImportError:
    diskcache = None


class DiskcacheKv(Kv):
    def open(self, folder: Path) -> None:
        if diskcache is None:
            raise KvUnavailableError("the package diskcache is not installed")
        self.cache = diskcache.Cache(
            str(folder), eviction_policy="none", size_limit=1 << 40, timeout=60
        )

    def close(self) -> None:
        self.cache.close()

    def load(self, entries: dict[str, bytes]) -> None:
        with self.cache.transact():
            for key, value in entries.items():
                self.cache[key] = value

    def read(self, key: str) -> bytes:
        value: bytes = self.cache[key]
        return value

    def write(self, key: str, value: bytes) -> None:
        self.cache[key] = value

    def write_three(self, entries: Sequence[tuple[str, bytes]]) -> None:
        with self.cache.transact():
            for key, value in entries:
                self.cache[key] = value

    def scan(self, key: str, count: int) -> list[bytes]:
        raise KvUnavailableError("diskcache has no order of keys")
