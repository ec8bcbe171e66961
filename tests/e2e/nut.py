"""Network UPS Tools' own upsd with its dummy driver, as child processes on a folder of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.services import until

UPS = "simple"
# Debian's /sbin/upsd is a script that wants /etc/nut to allow it; this is the program.
FOLDER = Path("/lib/nut")


def free_port() -> int:
    """Return a port that was free just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Nut:
    """A UPS that does what the test says."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self._device = folder / "ups.dev"
        self._log = folder / "nut.log"
        state = folder / "state"
        state.mkdir(mode=0o700, parents=True)
        self._environment = os.environ | {
            "NUT_CONFPATH": str(folder),
            "NUT_STATEPATH": str(state),
            "NUT_ALTPIDPATH": str(state),
        }
        self.say("OL")
        (folder / "ups.conf").write_text(
            f"[{UPS}]\ndriver = dummy-ups\nport = {self._device}\nmode = dummy-loop\n"
            "pollinterval = 1\n"
        )
        (folder / "upsd.conf").write_text(f"LISTEN 127.0.0.1 {self.port}\n")
        (folder / "upsd.users").write_text("")
        for name in ("ups.conf", "upsd.conf", "upsd.users"):
            (folder / name).chmod(0o600)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.driver = self.start("dummy-ups", "-F", "-a", UPS)
        self.daemon = self.start("upsd", "-F")

    @property
    def spec(self) -> str:
        """What --power takes."""
        return f"nut:{UPS}@127.0.0.1:{self.port}"

    def start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one of its programs in the foreground."""
        user = ["-u", "root"] if os.geteuid() == 0 else []
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [str(FOLDER / program), *arguments, *user],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def say(self, status: str, runtime_s: int | None = 600) -> None:
        """Set the UPS's status."""
        text = f"ups.status: {status}\n"
        if runtime_s is not None:
            text += f"battery.runtime: {runtime_s}\n"
        beside = self._device.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._device)

    def status(self) -> str:
        """Return what upsd says of the UPS now."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as line,
        ):
            line.sendall(f"GET VAR {UPS} ups.status\n".encode())
            return line.makefile().readline().strip()
        return ""

    def close(self) -> None:
        """End its processes."""
        for process in self._processes:
            process.kill()
            process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def nut(folder: Path) -> Iterator[Nut]:
    """Run a UPS that is on mains."""
    made = Nut(folder)
    try:
        until(lambda: '"OL"' in made.status())
        yield made
    finally:
        made.close()
