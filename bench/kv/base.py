"""What a workload asks of a store. Keys are str in ascending order of making, values bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


class KvUnavailableError(Exception):
    """The store can't run here; the message says what is missing."""


class Kv:
    """A store. Each write is durable to the process's death when it returns."""

    threads = True
    """Whether several threads may use it at once."""

    def open(self, folder: Path) -> None:
        """Make the store in an empty folder."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def load(self, entries: dict[str, bytes]) -> None:
        """Put many entries in, by the means that the store offers for it."""
        raise NotImplementedError

    def read(self, key: str) -> bytes:
        raise NotImplementedError

    def write(self, key: str, value: bytes) -> None:
        """Put one entry in, new or not, as one transaction."""
        raise NotImplementedError

    def insert(self, key: str, value: bytes) -> None:
        """Put a new entry in, greater than all others, as one transaction."""
        self.write(key, value)

    def write_three(self, entries: Sequence[tuple[str, bytes]]) -> None:
        """Put three entries in, all or none."""
        raise NotImplementedError

    def scan(self, key: str, count: int) -> list[bytes]:
        """Read up to `count` values in the order of their keys, from a key on."""
        raise NotImplementedError

    def written_bytes(self) -> int:
        """What it has written so far, log and data, as far as that can be known; 0: unknown."""
        return _written_by(os.getpid())

    def pids(self) -> list[int]:
        """Processes besides this one whose work is the store's."""
        return []


def _written_by(pid: int) -> int:
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        name, _, value = line.partition(": ")
        if name == "wchar":
            return int(value)
    return 0


def written_by(pid: int) -> int:
    """Bytes that a process has given to write calls."""
    return _written_by(pid)
