"""pmlog, with an index of its keys' order in memory for the workloads that read ranges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pmlog
from bench.kv.base import Kv
from bench.kv.order import Order


class PmlogKv(Kv):
    def __init__(self, domain: str = "auto") -> None:
        self.domain = domain

    def open(self, folder: Path) -> None:
        self.pool = pmlog.open(folder / "pool", domain=self.domain)
        self.entries = self.pool.dict("entries")
        self.read = self.entries.__getitem__  # type: ignore[method-assign]  # the same call
        self.order = Order()

    def close(self) -> None:
        self.pool.close()

    def load(self, entries: dict[str, bytes]) -> None:
        pairs = list(entries.items())
        step = max(1, (4 << 20) // max(1, len(pairs[0][1]) + 64))
        for at in range(0, len(pairs), step):
            self.entries.update(pairs[at : at + step])
        self.order.load(entries)

    def write(self, key: str, value: bytes) -> None:
        self.entries[key] = value

    def insert(self, key: str, value: bytes) -> None:
        self.entries[key] = value
        self.order.add(key)

    def write_three(self, entries: Sequence[tuple[str, bytes]]) -> None:
        with self.pool.transaction():
            for key, value in entries:
                self.entries[key] = value

    def scan(self, key: str, count: int) -> list[bytes]:
        return self.entries.get_many(self.order.run(key, count))

    def written_bytes(self) -> int:
        return self.pool.position.lsn
