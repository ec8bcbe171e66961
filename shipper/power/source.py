"""What a source of power events is, and what it says."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import ClientError

from pmlog import logs
from pmlog.errors import PmlogError

_log = logging.getLogger("shipper")

BACKOFF_MAX_S: Final = 10.0
"""A source that cannot be read is tried again at least this often."""


@dataclass(frozen=True, slots=True)
class OnBattery:
    """Power is failing, or this host is about to be taken away."""

    source: str
    seconds_left: float | None = None
    """As far as the source knows."""
    is_firm: bool = False
    """Whether that is a promise; a UPS's own estimate is none."""
    is_repeated: bool = False
    """Whether the source goes on saying so for as long as it is so."""


@dataclass(frozen=True, slots=True)
class Restored:
    """Power is back, as far as this source knows."""

    source: str


Event = OnBattery | Restored
Report = Callable[[Event], None]


class Source(Protocol):
    """Where power events come from."""

    @property
    def name(self) -> str:
        """What it was asked for by."""

    @property
    def last_error(self) -> str | None:
        """Why it could not be read the last time; None: it could."""

    async def watch(self, report: Report) -> None:
        """Report events until cancelled.

        Args:
            report: Takes them, in the event loop's thread.
        """


class PolledSource:
    """A source that is read again and again; `step` does that once.

    Args:
        name: What it was asked for by.
        interval_s: How long to wait between two readings.
    """

    def __init__(self, name: str, interval_s: float) -> None:
        self.name = name
        self.last_error: str | None = None
        self._interval_s = interval_s

    async def watch(self, report: Report) -> None:
        """Report events until cancelled; what cannot be read says nothing, and is tried again.

        Args:
            report: Takes them.
        """
        failures = 0
        while True:  # until it is cancelled, at the end
            failures = 0 if await self._try(lambda: self.step(report)) else failures + 1
            await asyncio.sleep(min(BACKOFF_MAX_S, self._interval_s * (1 << min(failures, 10))))

    async def step(self, report: Report) -> None:
        """Read it once.

        Args:
            report: Takes what there is to say.
        """
        raise NotImplementedError

    async def _try(self, act: Callable[[], Awaitable[None]]) -> bool:
        try:
            await act()
        except (OSError, ClientError, ValueError, PmlogError) as error:
            text = f"{type(error).__name__}: {error}"
            if text != self.last_error:
                logs.note(
                    _log, "a power source cannot be read", level=logging.WARNING,
                    source=self.name, error=text,
                )  # fmt: skip
            self.last_error = text
            return False
        self.last_error = None
        return True
