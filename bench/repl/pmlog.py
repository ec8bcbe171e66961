"""pmlog: a shipper and a receiver as processes of their own, as an operator starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import IO, Any

import pmlog
from bench.repl.base import PATIENCE_S, Replicated, end, until

ROOT = Path(__file__).resolve().parents[2]
REGION_BYTES = 8 << 20


class PmlogReplicated(Replicated):
    small_count = 1_000_000
    large_count = 160

    def __init__(self, log_size: str = "512MiB") -> None:
        self.log_size = log_size

    def open(self, folder: Path) -> None:
        self.path = folder / "pool"
        self.pool = pmlog.open(self.path, size="16MiB", log_size=self.log_size)
        self.region = self.pool.region("r", REGION_BYTES)
        self.at = 0
        self.errors: list[IO[bytes]] = []
        self.shipper, source = self._start(
            folder, "shipper", str(self.path), "--listen", "127.0.0.1:0"
        )
        self.receiver, self.receiver_url = self._start(
            folder, "receiver", "--from", source, "--dir", str(folder / "copy"),
            "--name", "copy", "--listen", "127.0.0.1:0",
        )  # fmt: skip
        until(lambda: self._status()["state"] == "receiving", "the receiver does not receive")
        self.write(b"x")
        self.wait()

    def _start(self, folder: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
        self.errors.append((folder / f"{arguments[0]}.log").open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=self.errors[-1],
            cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())["url"]

    def _status(self) -> Any:
        url = f"{self.receiver_url}/v1/status"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310
            return json.loads(answer.read())

    def close(self) -> None:
        for process in (self.receiver, self.shipper):
            end(process)
            assert process.stdout is not None
            process.stdout.close()
        for file in self.errors:
            file.close()
        self.pool.close()

    def write(self, value: bytes) -> None:
        at = self.at
        if at + len(value) > REGION_BYTES:
            at = 0
        self.region.write(at, value)
        self.at = at + len(value)

    def wait(self) -> None:
        self.pool.wait(pmlog.Level.REPLICATED, timeout=PATIENCE_S)

    def sent(self) -> int:
        return self.pool.position.lsn

    def has(self, lsn: int) -> bool:
        try:
            self.pool.wait(pmlog.Level.REPLICATED, lsn, timeout=0)
        except pmlog.WaitTimeoutError:
            return False
        return True

    def hold(self) -> None:
        os.kill(self.shipper.pid, signal.SIGSTOP)

    def release(self) -> None:
        os.kill(self.shipper.pid, signal.SIGCONT)

    def pids(self) -> list[int]:
        return [self.shipper.pid, self.receiver.pid]

    def services(self) -> dict[str, int]:
        return {"shipper": self.shipper.pid, "receiver": self.receiver.pid}
