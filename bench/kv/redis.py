"""Redis over a Unix socket, with its append-only file: a real server, started and ended here."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.kv.base import Kv, KvUnavailableError, written_by

redis: Any
try:
    import redis
except ImportError:
    redis = None


class RedisKv(Kv):
    def __init__(self, fsync: str) -> None:
        self.fsync = fsync

    def open(self, folder: Path) -> None:
        if redis is None:
            raise KvUnavailableError("the package redis is not installed")
        if shutil.which("redis-server") is None:
            raise KvUnavailableError("redis-server is not installed")
        socket = folder / "socket"
        self.server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(folder),
             "--appendonly", "yes", "--appendfsync", self.fsync, "--save", ""],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.client = redis.Redis(unix_socket_path=str(socket), protocol=2)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    self.server.kill()
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        self.client.close()
        self.server.terminate()
        self.server.wait()

    def load(self, entries: dict[str, bytes]) -> None:
        pairs = list(entries.items())
        for at in range(0, len(pairs), 1000):
            self.client.mset(dict(pairs[at : at + 1000]))
            self.client.zadd("order", dict.fromkeys((key for key, _ in pairs[at : at + 1000]), 0))

    def read(self, key: str) -> bytes:
        value: bytes = self.client.get(key)
        return value

    def write(self, key: str, value: bytes) -> None:
        self.client.set(key, value)

    def insert(self, key: str, value: bytes) -> None:
        with self.client.pipeline(transaction=True) as pipeline:
            pipeline.set(key, value).zadd("order", {key: 0}).execute()

    def write_three(self, entries: Sequence[tuple[str, bytes]]) -> None:
        self.client.mset(dict(entries))

    def scan(self, key: str, count: int) -> list[bytes]:
        keys = self.client.zrange("order", f"[{key}", "+", bylex=True, offset=0, num=count)
        return list(self.client.mget(keys))

    def written_bytes(self) -> int:
        return written_by(self.server.pid)

    def pids(self) -> list[int]:
        return [self.server.pid]
