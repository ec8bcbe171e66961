"""An event loop on virtual time: when nothing is ready it jumps to the next timer.

What would run in a thread runs at once, so that the order of everything depends on the seed only.
Nothing of it looks at a real clock.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import contextvars
from collections.abc import Callable
from typing import Any


class DeadlockError(Exception):
    """Nothing is ready, and no timer will ever fire."""


class _Jump:
    """In place of a selector: waiting moves the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise DeadlockError
        self._loop.now_s += timeout
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.base_events.BaseEventLoop):
    """The loop.

    Args:
        after_step: Called after each turn: invariants are checked there; what it raises ends all.
    """

    def __init__(self, after_step: Callable[[], None]) -> None:
        super().__init__()
        self.now_s = 0.0
        self.steps = 0
        self._after_step = after_step
        # Above the spacing of numbers of this size, or a timer that is due would never be due.
        self._clock_resolution = 1e-6
        self._selector = _Jump(self)

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self.now_s

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]  # the base class does not declare it
        self.steps += 1
        self._after_step()

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        pass  # there is no other thread to wake this one from

    def call_soon_threadsafe(  # type: ignore[override]  # any callback will do
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Call soon: every call comes from the one thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]  # a future of this loop, which is done
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run at once what would run in a thread."""
        del executor
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future
