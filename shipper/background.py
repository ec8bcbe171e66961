"""A shipper in a thread of the application, with an event loop of its own.

The thread ends at `stop`, or at the interpreter's exit, whichever comes first.
A forked child has no such thread: there the port is closed, and nothing else touched.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401 - its own hook for the exit has to be there before ours
import contextlib
import logging
import os
import threading
import weakref
from typing import Any, Final

from aiohttp import web

from pmlog import http
from pmlog.errors import ClosedError, ForkedError
from pmlog.logs import note
from shipper.config import Config
from shipper.service import descriptions, make_app

_ANSWER_TIMEOUT_S: Final = 10.0

_log = logging.getLogger("shipper")
_running: Final[weakref.WeakSet["Background"]] = weakref.WeakSet()


class Background:
    """The thread of one shipper.

    Args:
        config: What is shipped, and where it listens.

    Raises:
        PmlogError: A pool cannot be read.
        OSError: The address cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._pid = os.getpid()
        self._ready = threading.Event()
        self._failures: list[BaseException] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._app: web.Application | None = None
        self.listening: http.Listening | None = None
        """Where; None before it listens and after it has ended."""
        self._thread = threading.Thread(target=self._run, name="pmlog ship", daemon=True)
        _running.add(self)
        self._thread.start()
        self._ready.wait()
        if self._failures:
            self._thread.join()
            raise self._failures[0]

    def describe(self) -> list[dict[str, Any]]:
        """Tell how the pools are.

        Returns:
            As `GET /v1/pools`.

        Raises:
            ClosedError: The thread has ended.
            ForkedError: It belongs to the parent process.
        """
        if os.getpid() != self._pid:
            raise ForkedError("the shipper's thread belongs to the parent process")
        loop, app = self._loop, self._app
        if loop is None or app is None or not self._thread.is_alive():
            raise ClosedError("the shipper's thread has ended")

        async def ask() -> list[dict[str, Any]]:
            return descriptions(app)

        asked = ask()
        try:
            answer = asyncio.run_coroutine_threadsafe(asked, loop)
        except RuntimeError:  # the loop was closed a moment ago
            asked.close()
            raise ClosedError("the shipper's thread has ended") from None
        return answer.result(_ANSWER_TIMEOUT_S)

    def stop(self) -> None:
        """End the thread: receivers are told, and nothing of it is left. Again is fine."""
        if os.getpid() != self._pid:
            return
        _running.discard(self)
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            with contextlib.suppress(RuntimeError):  # closed: it has ended by itself
                loop.call_soon_threadsafe(stopping.set)
        self._thread.join()

    def forget(self) -> None:
        """In a forked child: close the port, which the parent's end would not free otherwise."""
        if self.listening is not None:
            self.listening.socket.close()
            self.listening = None

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            if self._ready.is_set():
                note(_log, "the shipper's thread has failed", level=logging.ERROR, reason=error)
            self._failures.append(error)
        finally:
            self.listening = None
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._app = make_app(self._config)

        def announce(at: http.Listening) -> None:
            self.listening = at
            self._ready.set()

        config = self._config
        await http.serve(self._app, config.listen, config.security, self._stopping, announce)


def _stop_all() -> None:
    for one in list(_running):
        one.stop()


def _forget_all() -> None:
    for one in list(_running):
        one.forget()
    _running.clear()


# `atexit` comes too late: by then executors take no more work, and the service needs one to end.
threading._register_atexit(_stop_all)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_forget_all)
