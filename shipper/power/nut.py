"""Network UPS Tools: asks upsd over its line protocol (its developer guide, "Network protocol").

`GET VAR <ups> ups.status` is answered by `VAR <ups> ups.status "<words>"` or `ERR <code>`.
Of the words OL is mains, OB battery, LB a low one, FSD a shutdown that is under way.
A UPS that cannot be asked says nothing: a broken network is no power failure, and one that began
before the network broke goes on.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import Final

from pmlog.errors import ProtocolError
from shipper.power.source import OnBattery, PolledSource, Report, Restored

PORT: Final = 3493
INTERVAL_S: Final = 1.0
TIMEOUT_S: Final = 5.0
LOW_S: Final = 30.0
"""No more is counted on once the UPS says that its battery is low."""

_VAR: Final = re.compile(r'VAR (\S+) (\S+) "((?:[^"\\]|\\.)*)"')
_LINE_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Reading:
    """What a UPS's status says."""

    on_battery: bool | None
    """None: neither that nor the contrary."""
    is_low: bool = False


def judge(status: str) -> Reading:
    """Read ups.status.

    Args:
        status: Its words.

    Returns:
        What they say.
    """
    words = set(status.split())
    if words & {"OB", "FSD"}:
        return Reading(True, bool(words & {"LB", "FSD"}))
    return Reading(False) if "OL" in words else Reading(None)


def parse_answer(line: str, ups: str, variable: str) -> str | None:
    """Read what upsd says to GET VAR.

    Args:
        line: The line.
        ups: The UPS.
        variable: The variable.

    Returns:
        Its value; None: this UPS has no such variable.

    Raises:
        ProtocolError: It is an error, or no answer to that.
    """
    if line == "ERR VAR-NOT-SUPPORTED":
        return None
    match = _VAR.fullmatch(line)
    if match is None or (match[1], match[2]) != (ups, variable):
        raise ProtocolError(f"upsd says {line[:80]!r} of {variable}")
    return re.sub(r"\\(.)", r"\1", match[3])


class NutSource(PolledSource):
    """A UPS that Network UPS Tools watches.

    Args:
        name: What it was asked for by.
        ups: Its name there.
        host: Where upsd runs.
        port: Where it listens.
        interval_s: How often it is asked.
    """

    def __init__(
        self, name: str, ups: str, host: str, port: int, interval_s: float = INTERVAL_S
    ) -> None:
        super().__init__(name, interval_s)
        self._ups = ups
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def watch(self, report: Report) -> None:
        """Report events until cancelled.

        Args:
            report: Takes them.
        """
        try:
            await super().watch(report)
        finally:
            self._hang_up()

    async def step(self, report: Report) -> None:
        """Ask once.

        Args:
            report: Takes what it says.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status = judge(await self._get("ups.status") or "")
                if status.on_battery:
                    report(OnBattery(self.name, await self._left_s(status), is_repeated=True))
                elif status.on_battery is False:
                    report(Restored(self.name))
        except BaseException:
            self._hang_up()
            raise

    async def _left_s(self, status: Reading) -> float | None:
        text = await self._get("battery.runtime")
        left = None
        with contextlib.suppress(ValueError):
            left = max(0.0, float(text or ""))
        return left if not status.is_low else LOW_S if left is None else min(left, LOW_S)

    async def _get(self, variable: str) -> str | None:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address, limit=_LINE_BYTES_MAX)
        reader, writer = self._streams
        writer.write(f"GET VAR {self._ups} {variable}\n".encode())
        await writer.drain()
        line = await reader.readline()  # a longer line than the limit raises ValueError
        if not line.endswith(b"\n"):
            raise ConnectionError("upsd has closed the connection")
        return parse_answer(line.decode(errors="replace").rstrip("\r\n"), self._ups, variable)

    def _hang_up(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
