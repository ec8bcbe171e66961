"""The processes of the demo: an application and a shipper on one host, a receiver on another.

Hosts are folders here: losing the host means that every process and every file of its folder is
gone. Each process is a real one, in a session of its own, and ends by its number.
"""

import contextlib
import http.client
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pmlog
from pmlog.cli.request import ask
from pmlog.demo.acknowledgements import Acknowledgements
from pmlog.errors import PeerUnavailableError, ProtocolError

ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Whoever sends one of these to the demo wants it to end, and all that it has started."""

PATIENCE_S: Final = 60.0
LOOK_S: Final = 0.02
END_S: Final = 15.0
RECEIVER: Final = "replica"
_ARRIVED_SHARE: Final = 0.95
"""Of all flights, so many arrive at the host; the others only after it is lost."""


class DemoError(pmlog.PmlogError):
    """A process of the demo did not do what it should."""


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and its like back: a process that was started must be known, to be ended."""
    heard: list[int] = []
    before = [signal.signal(number, lambda number, _: heard.append(number)) for number in ENDS]
    try:
        yield
    finally:
        for number, handler in zip(ENDS, before, strict=True):
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt


class Stage:
    """The hosts and what runs on them; a context manager that ends it all.

    Args:
        host: Folder of the host that will be lost.
        elsewhere: Folder of the host that takes over.
        flights: How many flights the application takes in.
        battery: For `pmlog ship --battery`.
    """

    def __init__(self, host: Path, elsewhere: Path, flights: int, battery: str) -> None:
        self.host = host
        self.elsewhere = elsewhere
        self.pool = host / "pool"
        self.replica = elsewhere / RECEIVER / "pool"
        self._flights = flights
        self._battery = battery
        self._lives = 0
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._urls: dict[str, str] = {}

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        # The receiver ends the application that it has started, so it is asked to first.
        receiver = self._processes.get("receiver")
        if receiver is not None and receiver.poll() is None:
            receiver.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                receiver.wait(END_S)
        for name in list(self._processes):
            self.kill(name)

    # ---- processes -----------------------------------------------------------------------------

    def start_services(self) -> None:
        """Make the pool, ship it, receive it; on return the receiver is connected."""
        pmlog.open(self.pool).close()
        self._serve(
            "shipper", "ship", str(self.pool), "--listen", "127.0.0.1:0",
            "--battery", self._battery,
        )  # fmt: skip
        path = self.acknowledgements_path(promoted=True)
        taking_over = self._application(path, self._flights)
        self._serve(
            "receiver", "receive", "--from", self._urls["shipper"], "--name", RECEIVER,
            "--dir", str(self.replica.parent), "--listen", "127.0.0.1:0",
            "--on-promote", shlex.join(taking_over),
        )  # fmt: skip
        self.until(lambda: self.receiver()["state"] == "receiving", "the receiver to connect")

    def start_application(self) -> Acknowledgements:
        """Start the application on the host.

        Returns:
            What this life of it acknowledges.
        """
        self._lives += 1
        path = self.acknowledgements_path()
        acknowledgements = Acknowledgements(path)
        command = self._application(path, int(_ARRIVED_SHARE * self._flights))
        self._start("application", *command, "--pool", str(self.pool))
        return acknowledgements

    def acknowledgements_path(self, *, promoted: bool = False) -> Path:
        """Tell where a life of the application acknowledges.

        Args:
            promoted: Of the one at the promoted receiver, in place of the latest one on the host.

        Returns:
            The file; it is on neither host, as a customer's memory would be.
        """
        name = "promoted" if promoted else str(self._lives)
        return self.elsewhere / f"acknowledged-{name}"

    def _application(self, acknowledgements: Path, flights: int) -> tuple[str, ...]:
        return (
            sys.executable, "-m", "pmlog.demo.application", "--flights", str(flights),
            "--acknowledge", str(acknowledgements),
        )  # fmt: skip

    def _start(self, name: str, *command: str, **options: Any) -> "subprocess.Popen[str]":
        with (self.elsewhere / f"{name}.log").open("a") as log, _uninterrupted():
            process = subprocess.Popen(
                command, stderr=log, text=True, stdin=subprocess.DEVNULL,
                start_new_session=True, **options,
            )  # fmt: skip
            self._processes[name] = process
        return process

    def _serve(self, name: str, *arguments: str) -> None:
        command = (sys.executable, "-m", "pmlog.cli", *arguments)
        process = self._start(name, *command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline()  # ends: the process says where it listens, or ends
        if not line:
            raise DemoError(f"the {name} did not start: {self.last_words(name)}")
        self._urls[name] = f"http://127.0.0.1:{json.loads(line)['port']}"

    def kill(self, name: str) -> None:
        """Send SIGKILL, if it still runs, and wait for the end.

        Args:
            name: Of the process.
        """
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def application_here(self) -> int | None:
        """Tell how the application on the host has ended.

        Returns:
            Its exit code; None: it runs.
        """
        return self._processes["application"].poll()

    def application_elsewhere(self) -> int | None:
        """Tell how the application at the promoted receiver has ended.

        Returns:
            Its exit code; None: it runs.

        Raises:
            DemoError: It could not be started.
        """
        application = self.receiver()["application"]
        if application["failure"]:
            raise DemoError(f"the application could not be started: {application['failure']}")
        code: int | None = application["exit"]
        return code

    def last_words(self, name: str) -> str:
        """Read what a process said last.

        Args:
            name: Of the process.

        Returns:
            The last line of its standard error; empty: it said nothing.
        """
        lines = (self.elsewhere / f"{name}.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else ""

    # ---- what they say -------------------------------------------------------------------------

    def shipper(self) -> dict[str, Any]:
        """Ask the shipper how the pool is.

        Returns:
            Its figures.
        """
        pool: dict[str, Any] = ask(self._urls["shipper"], "/v1/pools")[1]["pools"][0]
        return pool

    def receiver(self) -> dict[str, Any]:
        """Ask the receiver how it is.

        Returns:
            Its figures.
        """
        status: dict[str, Any] = ask(self._urls["receiver"], "/v1/status")[1]
        return status

    def until(self, is_so: Callable[[], object], what: str) -> None:
        """Wait for something.

        Args:
            is_so: Whether it has come.
            what: What is waited for.

        Raises:
            DemoError: It does not come.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            if time.monotonic() > deadline:
                raise DemoError(f"waited {PATIENCE_S:.0f} s for {what}, in vain")
            time.sleep(LOOK_S)

    # ---- losing the host -----------------------------------------------------------------------

    def fail_power(self) -> dict[str, Any] | None:
        """Let power fail; on return the log is sealed, or will not be.

        Returns:
            What the shipper says of it; None: the lights went out before it could.
        """
        try:
            _, answer = ask(
                self._urls["shipper"], "/v1/power-loss", method="POST", timeout_s=PATIENCE_S + 30
            )
        except (PeerUnavailableError, ProtocolError, http.client.HTTPException):
            return None
        pool: dict[str, Any] = answer["pools"][0]
        return pool

    def lose_host(self) -> None:
        """Wait for the lights to go out, then take away what is left: every process, every file."""
        if self._battery.startswith("sim:"):
            shipper = self._processes["shipper"]
            self.until(lambda: shipper.poll() is not None, "the lights to go out")
            if self.pool.exists():
                raise DemoError(f"the lights are out, and {self.pool} is still there")
        self.kill("application")
        self.kill("shipper")
        shutil.rmtree(self.host)

    def promote(self) -> dict[str, Any]:
        """Promote the receiver as an operator does: if that is refused, take what is there.

        Returns:
            The receiver's answer; `complete` says whether anything may be missing.

        Raises:
            DemoError: It is refused all the same.
        """
        done = self._promote()
        if done.returncode:
            done = self._promote("--accept-loss")
        if done.returncode:
            raise DemoError(f"the receiver was not promoted: {done.stdout}{done.stderr}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _promote(self, *options: str) -> "subprocess.CompletedProcess[str]":
        command = (
            sys.executable, "-m", "pmlog.cli", "promote", self._urls["receiver"], "--json", *options,
        )  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, check=False)
