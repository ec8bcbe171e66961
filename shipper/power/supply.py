"""The power of this host: listens to all sources, and has every pool saved when one says so.

Power fails while any source says so.
It is back when every one of those has said that, or the operator has.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from pmlog import logs
from pmlog.errors import ConfigError
from shipper.battery import SimulatedBattery
from shipper.config import Config
from shipper.power import lights
from shipper.power.decide import Failures, State
from shipper.power.source import Event, OnBattery, Source
from shipper.power.spec import parse_powers
from shipper.power_loss import Saver
from shipper.shared import SharedPool

_log = logging.getLogger("shipper")

COMMAND: Final = "command"
"""The name of `pmlog power-loss` among the sources."""
LIGHTS_STEP_S: Final = 0.02


class Supply:
    """The power of this host. For the event loop's thread.

    Args:
        config: What the shipper was told.
        pools: What it ships.
        stop: Ends the service; called once what a source asked for is done.
        clock: Seconds that only grow.

    Raises:
        ConfigError: A source cannot be read, or a simulated battery may not end.
    """

    def __init__(
        self,
        config: Config,
        pools: Mapping[str, SharedPool],
        stop: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.exit_code = 0
        self._clock = clock
        self._stop = stop
        self._battery = config.battery
        self._simulated: SimulatedBattery | None = None
        self._doomed: list[lights.Doomed] = []
        if config.battery is not None and config.battery.is_simulated:
            self._doomed = [lights.examine(path) for path in config.pools]
            self._simulated = SimulatedBattery(config.battery.seconds, clock)
        if config.vault is not None:
            _prepare(config.vault)
        specs = parse_powers(config.power)
        self._ends_with = {spec.text for spec in specs if spec.kind == "term"}
        self._sources: list[Source] = [spec.make() for spec in specs]
        self._savers = {number: Saver(pool, self) for number, pool in pools.items()}
        self._failures = Failures()
        # A shipper that was killed while power failed takes it up again, on the word of the same
        # source: if that one says that power is back, it is.
        for pool in pools.values():
            if pool.is_stopping:
                self._hear(OnBattery(pool.stop_source or COMMAND))
        self._tasks: list[asyncio.Task[None]] = []
        self._is_ending = False

    # ---- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen."""
        for saver in self._savers.values():
            self._begin(saver.run(), f"save {saver.pool.path}")
        for source in self._sources:
            self._begin(source.watch(self.hear), f"watch {source.name}")
        if self._simulated is not None:
            self._begin(self._watch_battery(self._simulated), "simulated battery")

    def _begin(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_note_end)
        self._tasks.append(task)

    async def close(self) -> None:
        """Listen no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch_battery(self, battery: SimulatedBattery) -> None:
        while True:  # until it is cancelled, at the end
            if battery.on_battery and battery.seconds_left() <= 0:
                logs.note(_log, "the simulated battery is empty: lights out", level=logging.ERROR)
                logs.flush(LIGHTS_STEP_S)
                lights.go_out(self._doomed)
            await asyncio.sleep(LIGHTS_STEP_S)

    # ---- events --------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Take in what a source says.

        Args:
            event: What it says.
        """
        was_failing = self.is_failing
        if isinstance(event, OnBattery) and event.source not in self._failures.ends:
            is_heard = event.source not in self._failures.dismissed
            if is_heard:
                logs.note(
                    _log, "power fails", level=logging.WARNING,
                    source=event.source, seconds_left=event.seconds_left,
                )  # fmt: skip
        elif not isinstance(event, OnBattery) and event.source in self._failures.ends:
            logs.note(_log, "power is back", source=event.source)
        self._hear(event)
        if self.is_failing != was_failing:
            for saver in self._savers.values():
                saver.wake()
        if isinstance(event, OnBattery) and event.source in self._ends_with and not self._is_ending:
            self._is_ending = True
            self._begin(self._end_when_saved(), "end when saved")

    def _hear(self, event: Event) -> None:
        self._failures = self._failures.heard(event, self._clock())
        self._follow()

    def _follow(self) -> None:
        if self._simulated is not None:
            (self._simulated.fail if self.is_failing else self._simulated.restore)()

    async def _end_when_saved(self) -> None:
        left = self.seconds_left() or 0.0
        savers = self._savers.values()
        saved = asyncio.gather(*(saver.save(left) for saver in savers))
        await saved
        self.exit_code = 0 if all(saver.result()["saved"] for saver in savers) else 1
        self._stop()

    # ---- what savers want to know --------------------------------------------------------------

    @property
    def is_failing(self) -> bool:
        """Whether power fails."""
        return self._failures.is_failing

    @property
    def source(self) -> str | None:
        """Who said so first."""
        return self._failures.source

    def seconds_left(self) -> float | None:
        """Tell how long there is power.

        Returns:
            Seconds, the least of what battery and sources say; None: nobody knows.
        """
        return self._failures.seconds_left(self._battery_s(), self._clock())

    def _battery_s(self) -> float | None:
        if self._simulated is not None:
            return self._simulated.seconds_left()
        if self._battery is None:
            return None
        since_s = self._failures.since_s
        return self._battery.seconds - (0.0 if since_s is None else self._clock() - since_s)

    # ---- the operator --------------------------------------------------------------------------

    async def power_loss(self, timeout_s: float) -> list[dict[str, Any]]:
        """Save all pools, on the operator's word.

        Args:
            timeout_s: How long to wait for receivers.

        Returns:
            What came of it, for each pool.
        """
        self.hear(OnBattery(COMMAND))
        saves = (saver.save(timeout_s) for saver in self._savers.values())
        return list(await asyncio.gather(*saves))

    async def restored(self, timeout_s: float, forget: Iterable[str]) -> list[dict[str, Any]]:
        """Let writers go on, on the operator's word, whatever the sources say.

        Args:
            timeout_s: How long to wait for receivers.
            forget: Holders of a seal that will never be promoted.

        Returns:
            What came of it, for each pool.
        """
        self._failures = self._failures.overruled()
        self._follow()
        restore = partial(Saver.restored, timeout_s=timeout_s, forget=tuple(forget))
        return list(await asyncio.gather(*map(restore, self._savers.values())))

    # ---- what a person sees --------------------------------------------------------------------

    def describe(self, pool: SharedPool) -> dict[str, Any]:
        """Tell how a pool stands to the power.

        Args:
            pool: The pool.

        Returns:
            Its figures, ready for JSON.
        """
        saver = self._savers[pool.id]
        since_s = self._failures.since_s
        state = saver.state()
        left_s = self.seconds_left()
        return {
            "state": state.value,
            "source": None if state is State.MAINS and not self.is_failing else self.source,
            "since_s": None if since_s is None else self._clock() - since_s,
            "battery_seconds_left": left_s,
            "waiting_for": sorted(saver.waiting_for),
            "last_error": saver.last_error,
            "sources": {source.name: source.last_error for source in self._sources},
        }


def _prepare(vaults: Path) -> None:
    """Find out at the start, not on battery, that there is nowhere to write."""
    try:
        vaults.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--vault {vaults}: {error}") from error
    if not os.access(vaults, os.W_OK | os.X_OK):
        raise ConfigError(f"--vault {vaults}: it cannot be written")
    if lights.kind_of(str(vaults)) == "tmpfs":
        logs.note(
            _log, "the vault is in memory and will not survive", level=logging.WARNING,
            vault=str(vaults),
        )  # fmt: skip


def _note_end(task: asyncio.Task[None]) -> None:
    """A source or saver that ends by itself is a defect; it must not go unseen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logs.note(
            _log, "a task has ended", level=logging.ERROR, task=task.get_name(), error=repr(error)
        )
