"""What the tests share: children in real processes, seeds, sizes of small pools, struct layouts."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import pmlog
import pmlog.check

DOMAINS = ("emulated", "eadr", "adr", "page")
MEDIA = ("file", "pmemobj")
# Small enough that laps of the ring, checkpoints and growth happen often.
SMALL: dict[str, Any] = {"size": "1MiB", "log_size": "256KiB", "max_size": "1GiB"}
# Longer than anything here takes; a wait that reaches it is a failure, never a pass.
PATIENCE_S = 60.0
# Repositories of paths: /dev/shm where it is a tmpfs, a folder of the working tree's disk else.
SHM = Path("/dev/shm")


class OpenPool(Protocol):
    """The `open_pool` fixture: `pmlog.open`, small, closed and checked after the test."""

    def __call__(self, path: Path | str | None = None, **options: Any) -> pmlog.Pool:
        """Open a pool, at `pool_path` if no other is named."""


def abandon(pool: pmlog.Pool) -> None:
    """Let go of a pool as a killed process would: no checkpoint, no mark, no flush."""
    pool._core.abandon()


def faults_of(path: Path | str) -> list[str]:
    """Return every fault that the checker finds in a pool, as text."""
    return [str(fault) for fault in pmlog.check.check(path)]


def uses(pool: pmlog.Pool) -> dict[str, Callable[[], Any]]:
    """Return every kind of use of a pool and its containers."""
    d = pool.dict("d")
    q = pool.deque("q")
    a = pool.array("a", shape=(4,), dtype="i8")
    r = pool.region("r", 64)
    d["x"] = 1
    q.extend([1, 2])

    def transaction() -> None:
        with pool.transaction():
            raise AssertionError("the block must not be entered")

    return {
        "dict read": lambda: d["x"],
        "dict write": lambda: d.update(y=2),
        "dict iterate": lambda: list(d.items()),
        "dict len": lambda: len(d),
        "deque read": lambda: q[0],
        "deque write": lambda: q.append(2),
        "array read": lambda: a[0],
        "array write": lambda: a.__setitem__(0, 5),
        "region read": lambda: r.read(0, 8),
        "region write": lambda: r.write(0, b"x"),
        "names": lambda: list(pool.names()),
        "make": lambda: pool.dict("new"),
        "drop": lambda: pool.drop("d"),
        "transaction": transaction,
        "checkpoint": pool.checkpoint,
        "status": pool.status,
        "position": lambda: pool.position,
        "wait": lambda: pool.wait(pmlog.Level.COMMITTED),
    }


USES = [
    "dict read", "dict write", "dict iterate", "dict len", "deque read", "deque write", "array read",
    "array write", "region read", "region write", "names", "make", "drop", "transaction",
    "checkpoint", "status", "position", "wait",
]  # fmt: skip


class Child:
    """A real process that runs `target(connection, *args)` and talks over a pipe.

    The fork server has imported everything already, so that one costs a few milliseconds.
    """

    def __init__(self, target: Callable[..., None], *args: Any) -> None:
        self.connection, theirs = _context.Pipe()
        self.process = _context.Process(
            target=_run_child, args=(theirs, target, args), daemon=True, name=target.__name__
        )
        self.process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        assert self.process.pid is not None
        return self.process.pid

    def say(self, message: Any) -> None:
        """Send the child a message."""
        self.connection.send(message)

    def hear(self, timeout_s: float = PATIENCE_S) -> Any:
        """Return the child's next message; an exception in the child is raised here."""
        if not self.connection.poll(timeout_s):
            raise AssertionError(f"no word from {self.process.name} in {timeout_s} s")
        message = self.connection.recv()
        if isinstance(message, ChildFailure):
            raise AssertionError(f"{self.process.name} failed:\n{message.text}")
        return message

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        os.kill(self.pid, signal.SIGKILL)
        self.join()
        assert self.process.exitcode == -signal.SIGKILL

    def join(self, timeout_s: float = PATIENCE_S) -> int | None:
        """Wait for the end and return the exit code."""
        self.process.join(timeout_s)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError(f"{self.process.name} did not end in {timeout_s} s")
        return self.process.exitcode

    def discard(self) -> None:
        """End the process if it still lives, without a word."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.connection.close()


class ChildFailure:
    """What a child sends instead of a message when its target raised."""

    def __init__(self, text: str) -> None:
        self.text = text


def _run_child(
    connection: Connection[Any, Any], target: Callable[..., None], args: tuple[Any, ...]
) -> None:
    try:
        target(connection, *args)
    except BaseException:
        with contextlib.suppress(OSError):
            connection.send(ChildFailure(traceback.format_exc()))
        raise


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "pmlog", "pmlog.check", "pmlog.cli", "numpy", "tests.support", "tests.children",
        "shipper.run", "receiver.run", "pmlog.cli.ship", "pmlog.cli.receive", "tests.chaos.writer",
    ]
)  # fmt: skip
