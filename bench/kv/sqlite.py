"""sqlite3 in WAL mode: one prepared statement a write, autocommit."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from bench.kv.base import Kv

_GET = "SELECT value FROM entries WHERE key = ?"
_PUT = "INSERT INTO entries VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_SCAN = "SELECT value FROM entries WHERE key >= ? ORDER BY key LIMIT ?"


class SqliteKv(Kv):
    def __init__(self, synchronous: str) -> None:
        self.synchronous = synchronous
        self._local = threading.local()

    def open(self, folder: Path) -> None:
        self.path = str(folder / "db")
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self.db.execute(
            "CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
        )

    @property
    def db(self) -> sqlite3.Connection:
        """A connection a thread."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self.path, isolation_level=None, timeout=60, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            connection.execute("PRAGMA cache_size = -65536")
            self._local.connection = connection
            self._all.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._all:
            connection.close()

    def load(self, entries: dict[str, bytes]) -> None:
        db = self.db
        db.execute("BEGIN")
        db.executemany(_PUT, sorted(entries.items()))
        db.execute("COMMIT")

    def read(self, key: str) -> bytes:
        value: bytes = self.db.execute(_GET, (key,)).fetchone()[0]
        return value

    def write(self, key: str, value: bytes) -> None:
        self.db.execute(_PUT, (key, value))

    def write_three(self, entries: Sequence[tuple[str, bytes]]) -> None:
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        db.executemany(_PUT, entries)
        db.execute("COMMIT")

    def scan(self, key: str, count: int) -> list[bytes]:
        return [row[0] for row in self.db.execute(_SCAN, (key, count))]
