"""Signals: SIGPWR, and SIGTERM with a grace period.

Neither can say that power is back: that is `pmlog power-loss --restored`.
"""

import asyncio
import signal
from typing import Final

from pmlog.errors import ConfigError
from shipper.power.source import OnBattery, Report

ENDING_S: Final = 2.0
"""So much of a grace is kept for saying goodbye and ending."""


class SignalSource:
    """A signal.

    Args:
        name: What it was asked for by.
        number: The signal.
        grace_s: How long after it this process may live; None: nobody has said.
    """

    def __init__(self, name: str, number: signal.Signals, grace_s: float | None = None) -> None:
        self.name = name
        self.last_error: str | None = None
        self._number = number
        self.seconds_left = None if grace_s is None else grace_s - min(ENDING_S, grace_s / 5)
        """What a signal says of the time that is left."""

    async def watch(self, report: Report) -> None:
        """Report the signal until cancelled.

        Args:
            report: Takes it; the first one counts, a second does no harm.

        Raises:
            ConfigError: This thread gets no signals.
        """
        loop = asyncio.get_running_loop()
        is_heard = False

        def hear() -> None:
            nonlocal is_heard
            # The grace runs from the first one: whoever sends it again does not begin anew.
            if self.seconds_left is None:
                report(OnBattery(self.name))
            elif not is_heard:
                is_heard = True
                report(OnBattery(self.name, self.seconds_left, is_firm=True))

        try:
            loop.add_signal_handler(self._number, hear)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"--power {self.name}: signals are heard in a process's main thread only"
            ) from error
        try:
            await asyncio.Event().wait()  # until it is cancelled
        finally:
            loop.remove_signal_handler(self._number)
