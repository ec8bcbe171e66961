"""Redis: `SET` and `WAIT 1`, a primary and a replica that are real servers.

The append-only file of the primary is synced each second, as the documentation proposes; on tmpfs
that changes little.  The replica answers `WAIT` once it has the command in memory.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from bench.kv.redis import redis
from bench.repl.base import KvUnavailableError, Replicated, end, until

PIPELINE = 1000


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class RedisReplicated(Replicated):
    small_count = 100_000
    large_count = 100

    def __init__(self) -> None:
        self.servers: list[subprocess.Popen[bytes]] = []
        self.clients: list[Any] = []

    def open(self, folder: Path) -> None:
        if redis is None or shutil.which("redis-server") is None:
            raise KvUnavailableError("redis-server, or the package redis, is not installed")
        port = free_port()
        self.primary = self._start(
            folder / "primary", "--port", str(port), "--appendfsync", "everysec"
        )
        self.replica = self._start(
            folder / "replica", "--port", "0", "--replicaof", "127.0.0.1", str(port)
        )
        until(
            lambda: self.replica.info("replication").get("master_link_status") == "up",
            "the replica does not follow",
        )
        self.number = 0
        self.write(b"x")
        self.wait()

    def _start(self, folder: Path, *options: str) -> Any:
        folder.mkdir()
        place = folder / "socket"
        self.servers.append(
            subprocess.Popen(
                ["redis-server", "--bind", "127.0.0.1", "--unixsocket", str(place), "--dir",
                 str(folder), "--appendonly", "yes", "--save", "", "--repl-diskless-sync-delay", "0",
                 *options],
                stdout=subprocess.DEVNULL,
            )
        )  # fmt: skip
        client = redis.Redis(unix_socket_path=str(place), protocol=2)
        self.clients.append(client)

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

        until(answers, "redis-server does not answer")
        return client

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for server in reversed(self.servers):
            end(server)

    def _key(self) -> str:
        self.number += 1
        return f"k{self.number % 1000}"

    def write(self, value: bytes) -> None:
        self.primary.set(self._key(), value)

    def write_many(self, value: bytes, count: int) -> None:
        for at in range(0, count, PIPELINE):
            with self.primary.pipeline(transaction=False) as pipeline:
                for _ in range(min(PIPELINE, count - at)):
                    pipeline.set(self._key(), value)
                pipeline.execute()

    def wait(self) -> None:
        assert self.primary.wait(1, 60_000) == 1

    def sent(self) -> int:
        return int(self.primary.info("replication")["master_repl_offset"])

    def has(self, lsn: int) -> bool:
        return int(self.replica.info("replication")["slave_repl_offset"]) >= lsn

    def pids(self) -> list[int]:
        return [server.pid for server in self.servers]
