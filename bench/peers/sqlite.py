"""sqlite3 with its write-ahead log, through the standard library.

- full: `synchronous=FULL`, a sync at every commit. What is to be set where a commit must be durable.
- normal: `synchronous=NORMAL`, a sync at checkpoints only, which SQLite's documentation recommends
  with WAL where a power cut may take the last commits: the death of a process takes none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.peers.base import Peer, Store
from bench.workload import SLOTS, VALUE_BYTES, Operation, Workload

_PUT = (
    "INSERT INTO entry (key, value) VALUES (?, ?) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
_GET = "SELECT value FROM entry WHERE key = ?"
_WRITE = "UPDATE slot SET value = ? WHERE offset = ?"
_APPEND = "INSERT INTO item (value) VALUES (?)"
_POPLEFT = "DELETE FROM item WHERE id = (SELECT min(id) FROM item) RETURNING value"


class SqliteStore(Store):
    def __init__(
        self, folder: Path, synchronous: str, operation: Operation, workload: Workload
    ) -> None:
        # isolation_level=None: the statement is the transaction, unless BEGIN is said.
        self.db = db = sqlite3.connect(folder / "store.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {synchronous}")
        db.execute("CREATE TABLE entry (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        db.execute("CREATE TABLE slot (offset INTEGER PRIMARY KEY, value BLOB)")
        # AUTOINCREMENT: an id must not come back once the queue has been empty.
        db.execute("CREATE TABLE item (id INTEGER PRIMARY KEY AUTOINCREMENT, value BLOB)")
        db.execute("BEGIN")
        if operation.kind == "region.write":
            empty = bytes(VALUE_BYTES)
            db.executemany(
                "INSERT INTO slot VALUES (?, ?)",
                [(slot * VALUE_BYTES, empty) for slot in range(SLOTS)],
            )
        db.executemany(_PUT, workload.fill().items())
        db.execute("COMMIT")

    def close(self) -> None:
        self.db.close()

    def prepare(self, operation: Operation, batch: Any) -> Any:
        if operation.kind == "deque.popleft":
            self.db.execute("BEGIN")
            self.db.executemany(_APPEND, [(value,) for value in batch])
            self.db.execute("COMMIT")
        return batch

    def region_write(self, batch: Any) -> None:
        execute = self.db.execute
        for offset, data in batch:
            execute(_WRITE, (data, offset))

    def region_write_one(self) -> Callable[..., Any]:
        execute = self.db.execute

        def write(item: tuple[int, bytes]) -> None:
            offset, data = item
            execute(_WRITE, (data, offset))

        return write

    def dict_set(self, batch: Any) -> None:
        execute = self.db.execute
        for key, value in batch:
            execute(_PUT, (key, value))

    dict_insert = dict_set

    def dict_set_one(self) -> Callable[..., Any]:
        execute = self.db.execute

        def put(item: tuple[bytes, bytes]) -> None:
            execute(_PUT, item)

        return put

    def dict_get(self, batch: Any) -> None:
        execute = self.db.execute
        for key in batch:
            execute(_GET, (key,)).fetchone()[0]

    def dict_get_one(self) -> Callable[..., Any]:
        execute = self.db.execute

        def get(key: bytes) -> Any:
            return execute(_GET, (key,)).fetchone()[0]

        return get

    def transaction_set(self, batch: Any) -> None:
        execute = self.db.execute
        for key, value in batch:
            execute("BEGIN IMMEDIATE")
            execute(_PUT, (key, value))
            execute("COMMIT")

    def transaction_set_one(self) -> Callable[..., Any]:
        execute = self.db.execute

        def put(item: tuple[bytes, bytes]) -> None:
            execute("BEGIN IMMEDIATE")
            execute(_PUT, item)
            execute("COMMIT")

        return put

    def dict_update(self, batch: Any) -> None:
        db = self.db
        for entries in batch:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(_PUT, entries.items())
            db.execute("COMMIT")

    def dict_get_many(self, batch: Any) -> None:
        execute = self.db.execute
        for keys in batch:
            execute("BEGIN")
            [execute(_GET, (key,)).fetchone()[0] for key in keys]
            execute("COMMIT")

    def deque_append(self, batch: Any) -> None:
        execute = self.db.execute
        for value in batch:
            execute(_APPEND, (value,))

    def deque_popleft(self, batch: Any) -> None:
        execute = self.db.execute
        for value in batch:
            assert execute(_POPLEFT).fetchone()[0] == value

    def region_read(self, offset: int, size: int) -> bytes:
        query = "SELECT value FROM slot WHERE offset = ?"
        return bytes(self.db.execute(query, (offset,)).fetchone()[0])

    def dict_read(self, keys: Any) -> list[bytes]:
        return [self.db.execute(_GET, (key,)).fetchone()[0] for key in keys]

    def deque_read(self, count: int) -> list[bytes]:
        rows = self.db.execute("SELECT value FROM item ORDER BY id DESC LIMIT ?", (count,))
        return [value for (value,) in rows][::-1]


class Sqlite(Peer):
    def __init__(self, name: str, synchronous: str) -> None:
        super().__init__(name)
        self.synchronous = synchronous

    def can(self, operation: Operation) -> bool:
        return True

    def batch_size(self, operation: Operation) -> int:
        return 10_000 if operation.items > 1 else 2_000

    def open(self, folder: Path, operation: Operation, workload: Workload) -> Store:
        return SqliteStore(folder, self.synchronous, operation, workload)

    def versions(self) -> dict[str, str]:
        return {"SQLite": sqlite3.sqlite_version}
