"""The processes of a run: a primary's host, receivers, and a network between them.

All are real ones, forked from a server that has imported everything, so that a start costs
milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pmlog
from tests.chaos.history import Claims
from tests.chaos.model import SLOTS, State
from tests.chaos.plan import Plan
from tests.chaos.writer import Ended, Notes, Word, write
from tests.children import run_command
from tests.e2e.relay import Relay
from tests.support import PATIENCE_S, Child

T = TypeVar("T")


END_S = 2.0
"""A writer waits up to a minute for a required receiver, which may be dead just then."""


class BrokenRunError(AssertionError):
    """Something is not as it must be."""


def until(what: Callable[[], T], words: str, timeout_s: float = PATIENCE_S) -> T:
    """Return the first true answer; a fault when the time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        if answer := what():
            return answer
        if time.monotonic() > deadline:
            raise BrokenRunError(f"not in {timeout_s:.0f} s: {words}")
        time.sleep(0.005)


class Service:
    """A shipper or receiver that can be started again and again.

    It listens at another port each time: one that was free a moment ago may be anybody's by now.
    """

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.name = name
        self.arguments = list(arguments)
        self.log = folder / f"{name}.log"
        self.starts = 0
        self.child: Child | None = None
        self.is_stopped = False
        self.relays: list[Relay] = []
        """They lead to it, wherever it is."""
        self.url = "http://127.0.0.1:9"

    @property
    def is_alive(self) -> bool:
        """Whether it runs, stopped or not."""
        return self.child is not None and self.child.process.is_alive()

    def start(self) -> None:
        """Start it; return when it listens."""
        if self.is_alive:
            return
        self.starts += 1
        out = self.log.with_suffix(f".{self.starts}")
        out.touch()
        self.child = Child(
            run_command,
            [*self.arguments, "--listen", "127.0.0.1:0"],
            str(out),
            str(out) + ".err",
        )
        self.is_stopped = False

        def listens() -> str | None:
            if not self.is_alive:
                text = Path(str(out) + ".err").read_text() + out.read_text()
                raise BrokenRunError(f"{self.name} did not start: {text}")
            line, newline, _ = out.read_text().partition("\n")
            return line if newline else None

        said = json.loads(until(listens, f"{self.name} listens") or "")
        self.url = f"http://127.0.0.1:{said['port']}"
        for relay in self.relays:
            relay.target_port = said["port"]

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        if self.child is not None:
            self.child.discard()
        self.is_stopped = False

    def stop(self) -> None:
        """Send SIGSTOP."""
        if self.child is not None and self.is_alive:
            os.kill(self.child.pid, signal.SIGSTOP)
            self.is_stopped = True

    def go_on(self) -> None:
        """Send SIGCONT."""
        if self.child is not None and self.is_alive and self.is_stopped:
            os.kill(self.child.pid, signal.SIGCONT)
        self.is_stopped = False

    def end(self) -> None:
        """Send SIGTERM and wait for a clean end."""
        if self.child is None or not self.is_alive:
            return
        self.go_on()
        os.kill(self.child.pid, signal.SIGTERM)
        code = self.child.join()
        if code:
            raise BrokenRunError(f"{self.name} ended with {code}")

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """Return status and JSON of an answer; status 0: it cannot be reached."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
                if error.code >= 500:
                    raise BrokenRunError(f"{self.name}: {error.code} {text.decode()}") from None
                return error.code, json.loads(text)
        except (OSError, urllib.error.URLError):
            return 0, {}

    def complaints(self) -> list[str]:
        """Return tracebacks that it has written."""
        texts = [path.read_text() for path in self.log.parent.glob(f"{self.name}.*.err")]
        return [text for text in texts if "Traceback" in text or "never retrieved" in text]


class World:
    """Everything of one run, below one directory."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.pool = folder / "pool"
        self.begun = time.monotonic()
        self.events: list[str] = []
        self.sessions = 0
        self.writer: Child | None = None
        self.notes: list[tuple[int, Notes]] = []
        self.writer_stopped = False
        required = [word for name in sorted(plan.required) for word in ("--required", name)]
        self._services: list[Service] = []
        battery = ("--battery", f"sim:{plan.battery_s}s") if plan.is_simulated else ()
        self.shipper = self.service(
            "shipper", "ship", str(self.pool), "--require", str(plan.require), *required,
            *battery,
        )  # fmt: skip
        self.relays = {name: Relay(9) for name in plan.receivers}
        self.shipper.relays.extend(self.relays.values())
        self.receivers = {
            name: self.service(
                name, "receive", "--from", self.relays[name].url,
                "--dir", str(folder / name), "--name", name,
            )
            for name in plan.receivers
        }  # fmt: skip

    def service(self, name: str, *arguments: str) -> Service:
        """Make a service; it is ended with the world."""
        made = Service(self.folder, name, *arguments)
        self._services.append(made)
        return made

    def complaints(self) -> list[str]:
        """Return tracebacks that any service has written."""
        return [text for service in self._services for text in service.complaints()]

    def log(self, text: str) -> None:
        """Note what happens, for whoever has to read of it."""
        self.events.append(f"{time.monotonic() - self.begun:7.3f} {text}")

    # ---- writers -------------------------------------------------------------------------------

    def start_writer(self, path: Path | None = None, load: int = 0) -> None:
        """Start a writer, of the primary if no other pool is named; it may be refused."""
        if self.writer is not None and self.writer.process.is_alive():
            return
        self.sessions += 1
        file = self.folder / f"notes.{self.sessions}"
        notes = Notes(file)
        self.writer = Child(
            write, str(path or self.pool), str(file), self.plan.seed, self.sessions,
            self.plan.log, load,
        )  # fmt: skip
        self.writer_stopped = False
        self.notes.append((self.sessions, notes))

    def kill_writer(self) -> None:
        """Send SIGKILL to the writer."""
        if self.writer is not None:
            self.writer.discard()
        self.writer_stopped = False

    def end_writer(self) -> None:
        """Tell the writer to end; one that waits for a receiver is killed when it takes too long."""
        if self.writer is None or not self.writer.process.is_alive():
            return
        self.signal_writer(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self.writer.say("end")
        deadline = time.monotonic() + END_S
        while self.writer.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        self.kill_writer()

    def signal_writer(self, number: int) -> None:
        """Stop the writer, or let it go on."""
        if self.writer is not None and self.writer.process.is_alive():
            os.kill(self.writer.pid, number)
            self.writer_stopped = number == signal.SIGSTOP

    def ended(self) -> Ended:
        """Why the present writer has ended."""
        return Ended(self.notes[-1][1][Word.ENDED]) if self.notes else Ended.NO

    def claims(self) -> list[Claims]:
        """Return what all writers were told."""
        return [
            Claims(
                session,
                epoch=notes[Word.EPOCH],
                first=notes[Word.FIRST],
                begun=notes[Word.BEGUN],
                committed=notes[Word.COMMITTED],
                replicated=notes[Word.REPLICATED],
            )
            for session, notes in self.notes
        ]

    # ---- all -----------------------------------------------------------------------------------

    def heal(self) -> None:
        """Start whoever is dead, let whoever is stopped go on, repair the network."""
        for relay in self.relays.values():
            relay.restore()
            relay.throttle(None)
            relay.flip(0)
            relay.delay_s = 0.0
        for service in (self.shipper, *self.receivers.values()):
            service.go_on()
            service.start()
        self.signal_writer(signal.SIGCONT)

    def lose_host(self) -> None:
        """Lose the primary's host: all of its processes and its memory at once."""
        self.kill_writer()
        self.shipper.kill()
        shutil.rmtree(self.pool, ignore_errors=True)

    def close(self) -> None:
        """End everything."""
        self.kill_writer()
        for service in self._services:
            service.kill()
        for relay in self.relays.values():
            relay.close()


def read_state(path: Path) -> State:
    """Read everything that a pool of these writers holds."""
    with pmlog.open(path, readonly=True) as pool:
        names = pool.names()
        if "last" not in names or not int(pool.array("last")[0]):
            return State(0, 0, {}, {}, [], bytes(SLOTS * 64))
        last = pool.array("last")
        known: Any = dict(pool.dict("sessions").items())
        values: Any = dict(pool.dict("values").items())
        return State(
            last=int(last[0]),
            session=int(last[1]),
            sessions={int(one): (first, epoch) for one, (first, epoch) in known.items()},
            values=values,
            items=list(pool.deque("items")),
            blob=pool.region("blob").read(0, SLOTS * 64),
        )
