"""The floor: Python's own dict, which survives nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.kv.base import Kv
from bench.kv.order import Order


class BuiltinKv(Kv):
    def open(self, folder: Path) -> None:
        self.entries: dict[str, bytes] = {}
        self.order = Order()

    def close(self) -> None:
        self.entries.clear()

    def load(self, entries: dict[str, bytes]) -> None:
        self.entries.update(entries)
        self.order.load(entries)

    def read(self, key: str) -> bytes:
        return self.entries[key]

    def write(self, key: str, value: bytes) -> None:
        self.entries[key] = value

    def insert(self, key: str, value: bytes) -> None:
        self.entries[key] = value
        self.order.add(key)

    def write_three(self, entries: Sequence[tuple[str, bytes]]) -> None:
        self.entries.update(entries)

    def scan(self, key: str, count: int) -> list[bytes]:
        return [self.entries[name] for name in self.order.run(key, count)]

    def written_bytes(self) -> int:
        return 0
