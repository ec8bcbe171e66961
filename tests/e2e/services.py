"""Real shippers, receivers and writers on loopback, for the tests of this tier."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pmlog
from pmlog import security
from tests.support import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
WRITER = Path(__file__).with_name("writer.py")
T = TypeVar("T")


def until(what: Callable[[], T], timeout_s: float = PATIENCE_S) -> T:
    """Return the first true answer; fail when the time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        if answer := what():
            return answer
        assert time.monotonic() < deadline, f"not in {timeout_s} s"
        time.sleep(0.005)


class Process:
    """A process that says things, one JSON object a line."""

    def __init__(self, *arguments: str, errors: Path) -> None:
        self._errors = errors
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with errors.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                cwd=ROOT,
                env=environment,
            )

    def hear(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it has ended: {self._errors.read_text()}"
        said: dict[str, Any] = json.loads(line)
        return said

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def end(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def discard(self) -> None:
        """End it however it is."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Service(Process):
    """A shipper or receiver."""

    def __init__(self, *arguments: str, errors: Path) -> None:
        super().__init__("-m", *arguments, errors=errors)
        self.has = security.NONE
        said = self.hear()
        assert said["event"] == "listening"
        self.port: int = said["port"]
        self.url: str = said["url"]

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310
            self.url + path, data=data, method=method, headers=self.has.headers()
        )
        context = self.has.dialling_context() if self.url.startswith("https") else None
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S, context=context) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def read(self, path: str) -> bytes:
        """Return the body of an answer."""
        request = urllib.request.Request(self.url + path, headers=self.has.headers())  # noqa: S310
        context = self.has.dialling_context() if self.url.startswith("https") else None
        with urllib.request.urlopen(request, timeout=PATIENCE_S, context=context) as answer:  # noqa: S310
            body: bytes = answer.read()
        return body


class Cluster:
    """Everything that one test has started, below one directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = folder / "pool"
        self.processes: list[Process] = []

    def _errors(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def writer(self, *arguments: str, path: Path | None = None) -> Process:
        """Start a writer."""
        process = Process(
            str(WRITER), str(path or self.pool), *arguments, errors=self._errors("writer")
        )
        self.processes.append(process)
        return process

    def shipper(self, *arguments: str, port: int = 0, path: Path | None = None) -> Service:
        """Start a shipper of the pool."""
        service = Service(
            "shipper", str(path or self.pool), "--listen", f"127.0.0.1:{port}", *arguments,
            errors=self._errors("shipper"),
        )  # fmt: skip
        self.processes.append(service)
        return service

    def receiver(self, name: str, source: int | str, *arguments: str) -> Service:
        """Start a receiver of a port or an address; with the same name it is the same one."""
        url = source if isinstance(source, str) else f"http://127.0.0.1:{source}"
        service = Service(
            "receiver", "--from", url, "--dir", str(self.folder / name),
            "--name", name, "--listen", "127.0.0.1:0", *arguments, errors=self._errors(name),
        )  # fmt: skip
        self.processes.append(service)
        return service

    def replica(self, name: str) -> Path:
        """Return where a receiver's replica is."""
        return self.folder / name / "pool"

    def make_pool(self) -> None:
        """Make the pool, small."""
        pmlog.open(self.pool, size="1MiB", log_size="4MiB").close()

    def image_bytes(self) -> int:
        """Return the size of the pool's image."""
        return (self.pool / "image").stat().st_size

    def pair(self, *shipper: str, receiver: tuple[str, ...] = ()) -> tuple[Service, Service]:
        """Make the pool; return a shipper of it and a receiver that is connected."""
        self.make_pool()
        source = self.shipper(*shipper)
        target = self.receiver("one", source.port, *receiver)
        until(lambda: status(target)["state"] == "receiving")
        return source, target

    def busy_writer(self, receiver: Service) -> Process:
        """Return a writer that is writing, and whose transactions arrive."""
        before = status(receiver)["txn_durable"]
        process = self.writer()
        assert process.hear()["event"] == "open"
        until(lambda: status(receiver)["txn_durable"] > before + 100)
        return process

    def close(self) -> None:
        """End everything."""
        for process in reversed(self.processes):
            process.discard()


def status(service: Service) -> dict[str, Any]:
    """Return a receiver's status."""
    code, answer = service.ask("/v1/status")
    assert code == 200
    known: dict[str, Any] = answer
    return known


def shipped(service: Service) -> dict[str, Any]:
    """Return the only pool of a shipper."""
    code, answer = service.ask("/v1/pools")
    assert code == 200
    known: dict[str, Any] = answer["pools"][0]
    return known
