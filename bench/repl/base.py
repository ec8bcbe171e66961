"""What replication is asked of: a primary, one replica on loopback, and a writer, this process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.kv import KvUnavailableError

PATIENCE_S = 60.0

__all__ = ["KvUnavailableError", "Replicated", "end", "spin", "until"]


class Replicated:
    """A store with one replica. A write is durable to its own process's death on return."""

    acknowledges = True
    """Whether a writer can wait for the replica to have what it has written."""
    small_count = 1000
    """Commits of 64 bytes, for a second of work or less."""
    large_count = 10
    """Commits of 1 MiB."""

    def open(self, folder: Path) -> None:
        """Start everything in an empty folder; on return the replica follows."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def write(self, value: bytes) -> None:
        """Commit one record."""
        raise NotImplementedError

    def write_waiting(self, value: bytes) -> None:
        """Commit one record and return when the replica has acknowledged it."""
        self.write(value)
        self.wait()

    def write_many(self, value: bytes, count: int) -> None:
        """Commit many records, one transaction each, as fast as the interface allows."""
        for _ in range(count):
            self.write(value)

    def wait(self) -> None:
        """Return when the replica has acknowledged what was written."""
        raise NotImplementedError

    def sent(self) -> int:
        """Where the primary's log ends."""
        raise NotImplementedError

    def has(self, lsn: int) -> bool:
        """Whether the replica has everything below a place that `sent` has told."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """All processes but this one."""
        raise NotImplementedError

    def hold(self) -> None:
        """Stop shipping, so that a backlog can be made; `release` goes on. Optional."""
        raise KvUnavailableError("it cannot be stopped from outside")

    def release(self) -> None:
        raise NotImplementedError

    def services(self) -> dict[str, int]:
        """Processes that only replicate, by name."""
        return {}


def until(what: Callable[[], object], why: str, step_s: float = 0.02) -> None:
    """Wait for something that is about to become true."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(why)
        time.sleep(step_s)


def spin(store: Replicated, lsn: int, step_s: float = 0.0002) -> None:
    until(lambda: store.has(lsn), f"the replica never came to {lsn}", step_s)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """End a process that was started here."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
