"""Peers written in C: compiled here, run as a process, spoken to by lines (worker.h)."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from bench.peers.base import Store, UnavailableError
from bench.workload import Operation

SOURCES = Path(__file__).parent
ROOT = SOURCES.parents[1]
BUILD = ROOT / "build" / "bench"

CC = os.environ.get("CC", "cc")
CFLAGS = ["-O2", "-g", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"]


@cache
def compiled(name: str, *arguments: str) -> Path:
    """Compile a peer and answer its path; `arguments` go behind the source."""
    BUILD.mkdir(parents=True, exist_ok=True)
    binary = BUILD / name
    command = [CC, *CFLAGS, "-o", str(binary), str(SOURCES / f"{name}.c"), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UnavailableError(f"no C compiler: {CC}") from error
    if done.returncode:
        raise UnavailableError(f"{name}.c does not compile here: {first_error(done.stderr)}")
    return binary


def first_error(text: str) -> str:
    """The line of a compiler's output that says most."""
    lines = [line for line in text.splitlines() if "error" in line] or text.splitlines() or [""]
    return lines[0].strip()


@cache
def core_library() -> Path:
    """Build pmlog's C core as a static library."""
    # cmake and ninja of the virtual environment come first.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    folder = BUILD / "core"
    commands = [
        ["cmake", "-G", "Ninja", "-S", str(ROOT / "pmlog" / "_native"), "-B", str(folder),
         "--log-level=WARNING", "-DPML_EXTENSION=OFF", "-DPML_TESTING=OFF"],
        ["cmake", "--build", str(folder), "--", "--quiet"],
    ]  # fmt: skip
    for command in commands:
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False
        )
        if done.returncode:
            raise UnavailableError(
                f"the core does not build: {first_error(done.stderr + done.stdout)}"
            )
    return folder / "libpml_static.a"


class WorkerStore(Store):
    """A process that runs operations on command."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.cpu_ns = 0
        """Processor time of the last batch, of the process."""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env=os.environ | environment,
        )  # fmt: skip
        assert self._read() == ["ready"]

    def _read(self) -> list[str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return line.split()

    def _ask(self, verb: str, name: str, count: int) -> list[int]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{verb} {name} {count}\n")
        return [int(word) for word in self._read()]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        if status := self._process.wait():
            raise RuntimeError(f"{self._process.args!r} ended with {status}")

    def prepare(self, operation: Operation, batch: Any) -> tuple[str, int]:
        if operation.kind == "deque.popleft":
            self._ask("run", "deque.append", len(batch))
        return operation.kind, len(batch)

    def run(self, batch: tuple[str, int]) -> None:
        name, count = batch
        _, self.cpu_ns = self._ask("run", name, count)

    region_write = dict_set = dict_insert = dict_get = transaction_set = run
    deque_append = deque_popleft = run

    def latency(self, operation: Operation, count: int) -> dict[str, int]:
        """Percentiles of single operations in ns, as the process measures them."""
        p50, p99, p999, timer = self._ask("latency", operation.kind, count)
        return {"p50": p50, "p99": p99, "p99.9": p999, "timer": timer}

    def check(self, operation: Operation, batch: Any) -> None:
        """The process checks every status; its bytes are its own business."""
