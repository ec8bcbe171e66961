"""Waits on a pool's log in a thread and wakes the event loop.

The thread sleeps on a futex in the engine, without the interpreter lock, so that an idle shipper
costs nothing and a commit is noticed at once.
It looks at the log only when the loop has nothing left to send: a busy writer wakes nobody.
"""

import asyncio
import threading
from collections.abc import Callable

from pmlog.errors import PmlogError
from pmlog.log import LogReader

_SLICE_S = 0.25
_NEVER = (1 << 63) - 1


class Tailer:
    """The thread of one pool.

    Args:
        reader: The pool's log; the thread only waits on it.
        wake: Called in the event loop when there is more.
    """

    def __init__(self, reader: LogReader, wake: Callable[[], None]) -> None:
        self._reader = reader
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._lsn = _NEVER
        self._armed = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"tail {reader.path}", daemon=True)
        self._thread.start()

    def arm(self, lsn: int) -> None:
        """Ask to be woken when the log reaches beyond an LSN.

        Of several that ask before the next waking the lowest counts: who was first to come to the
        log's end may be behind by now, and must not wait for the next commit.

        Args:
            lsn: The LSN.
        """
        self._lsn = min(self._lsn, lsn)
        self._armed.set()

    def _woken(self) -> None:
        self._lsn = _NEVER
        self._wake()

    async def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._armed.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._armed.wait()
            self._armed.clear()
            while not self._stopped.is_set() and not self._armed.is_set():
                try:
                    more = self._reader.wait_beyond(self._lsn, _SLICE_S)
                except PmlogError:
                    return  # closed: the service is ending
                if more:
                    self._loop.call_soon_threadsafe(self._woken)
                    break
