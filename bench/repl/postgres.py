"""PostgreSQL: streaming replication, `synchronous_commit=remote_write`, Debian's build.

`remote_write`: a commit returns once the standby has given it to its kernel, which on tmpfs is
where pmlog's replica keeps it too.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from bench.repl.base import PATIENCE_S, KvUnavailableError, Replicated, until
from bench.repl.redis import free_port

psycopg: Any
try:
    import psycopg
except ImportError:
    psycopg = None

SETTINGS = {
    "listen_addresses": "''", "max_wal_senders": "4", "wal_level": "replica",
    "synchronous_commit": "local", "synchronous_standby_names": "'copy'", "max_wal_size": "4GB",
    "wal_keep_size": "1GB", "hot_standby": "on", "logging_collector": "off",
}  # fmt: skip


def _programs() -> Path:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda at: int(at.parts[-3])
    )
    if not found or psycopg is None:
        raise KvUnavailableError("postgresql, or the package psycopg, is not installed")
    return found[-1].parent


class PostgresReplicated(Replicated):
    small_count = 10_000
    large_count = 40

    def __init__(self) -> None:
        self.servers: list[subprocess.Popen[bytes]] = []
        self.connections: list[Any] = []
        self.user: str | None = None

    def open(self, folder: Path) -> None:
        self.programs = _programs()
        if os.geteuid() == 0:
            # It refuses to run as root; Debian's package has made a user for it.
            self.user = "postgres"
            try:
                pwd.getpwnam(self.user)
            except KeyError:
                raise KvUnavailableError("there is no user postgres") from None
            folder.chmod(0o755)
        self.folder = folder
        # The path of a Unix socket may have 107 bytes.
        self.sockets = folder / "s"
        for place in (self.sockets, folder / "primary", folder / "replica"):
            place.mkdir(mode=0o700)
            if self.user:
                shutil.chown(place, self.user, self.user)
        self.port = free_port()
        self._run("initdb", "-D", str(folder / "primary"), "-U", "bench", "-A", "trust", "-N")
        with (folder / "primary" / "postgresql.conf").open("a") as file:
            for name, value in {**SETTINGS, "unix_socket_directories": f"'{self.sockets}'"}.items():
                file.write(f"{name} = {value}\n")
        self._start(folder / "primary", self.port)
        self.primary = self._connect(self.port)
        self.primary.execute("create table t (k int primary key, v bytea)")
        self._run(
            "pg_basebackup", "-D", str(folder / "replica"), "-U", "bench", "-h", str(self.sockets),
            "-p", str(self.port), "-R", "-X", "stream", "-c", "fast", "--no-sync",
        )  # fmt: skip
        with (folder / "replica" / "postgresql.conf").open("a") as file:
            file.write(
                f"primary_conninfo = 'host={self.sockets} port={self.port} user=bench "
                "application_name=copy'\n"
            )
        auto = folder / "replica" / "postgresql.auto.conf"
        lines = [line for line in auto.read_text().splitlines() if "primary_conninfo" not in line]
        auto.write_text("\n".join(lines) + "\n")
        self._start(folder / "replica", self.port + 1)
        self.replica = self._connect(self.port + 1)
        state = "select 1 from pg_stat_replication where sync_state = 'sync'"
        until(lambda: self.primary.execute(state).fetchone(), "the standby does not follow")
        self.number = 0
        # A pipeline would make one transaction of many: commits are sent one by one.
        # The session's setting: `write` does not wait, `write_waiting` does.
        self.waiting = self._connect(self.port)
        self.waiting.execute("set synchronous_commit = remote_write")

    def _command(self, name: str, *arguments: str) -> list[str]:
        as_user = ["runuser", "-u", self.user, "--"] if self.user else []
        return [*as_user, str(self.programs / name), *arguments]

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            self._command(name, *arguments), capture_output=True, text=True, check=False,
            cwd=self.folder,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr}")

    def _start(self, data: Path, port: int) -> None:
        with (self.folder / f"{data.name}.log").open("wb") as log:
            self.servers.append(
                subprocess.Popen(
                    self._command("postgres", "-D", str(data), "-p", str(port)),
                    stdout=log, stderr=subprocess.STDOUT, cwd=self.folder,
                )
            )  # fmt: skip

    def _connect(self, port: int) -> Any:
        found: list[Any] = []

        def answers() -> bool:
            try:
                found.append(
                    psycopg.connect(
                        host=str(self.sockets), port=port, user="bench", dbname="postgres",
                        autocommit=True,
                    )
                )  # fmt: skip
            except psycopg.OperationalError:
                return False
            return True

        until(answers, "postgres does not answer")
        self.connections += found
        return found[0]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        for data in ("replica", "primary"):
            if self.servers and (pid := self._postmaster(data)):
                os.kill(pid, signal.SIGINT)  # fast: it ends its connections
        for server in reversed(self.servers):
            server.wait(PATIENCE_S)

    def _postmaster(self, data: str) -> int:
        try:
            return int((self.folder / data / "postmaster.pid").read_text().split()[0])
        except (OSError, IndexError):
            return 0

    _INSERT = "insert into t values (%s, %s) on conflict (k) do update set v = excluded.v"

    def _key(self) -> int:
        self.number += 1
        return self.number % 1000

    def write(self, value: bytes) -> None:
        self.primary.execute(self._INSERT, (self._key(), value), prepare=True)

    def write_waiting(self, value: bytes) -> None:
        self.waiting.execute(self._INSERT, (self._key(), value), prepare=True)

    def wait(self) -> None:
        lsn = self.sent()
        until(lambda: self.has(lsn), "the standby is behind", 0.001)

    def _lsn(self, connection: Any, expression: str) -> int:
        query = f"select ({expression} - '0/0'::pg_lsn)::bigint"
        return int(connection.execute(query, prepare=True).fetchone()[0])

    def sent(self) -> int:
        return self._lsn(self.primary, "pg_current_wal_lsn()")

    def has(self, lsn: int) -> bool:
        return self._lsn(self.replica, "pg_last_wal_receive_lsn()") >= lsn

    def pids(self) -> list[int]:
        found: list[int] = []
        for data in ("primary", "replica"):
            first = self._postmaster(data)
            found.append(first)
            children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
            found += map(int, children)
        return found
