"""The application that runs once its receiver is promoted: started, watched, ended."""

import asyncio
import contextlib
import logging
import os

from pmlog.logs import note
from receiver.config import APP_GRACE_S

_log = logging.getLogger("receiver")


class Application:
    """A process of its own.

    Args:
        command: What to run; nothing: there is none.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self.failure: str | None = None
        """Why it could not be started."""

    async def start(self, pool: str, epoch: int) -> None:
        """Start it.

        Args:
            pool: The promoted pool, in its environment as PMLOG_POOL.
            epoch: The pool's, in its environment as PMLOG_EPOCH.
        """
        if not self._command:
            return
        environment = os.environ | {"PMLOG_POOL": pool, "PMLOG_EPOCH": str(epoch)}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=environment, stdin=asyncio.subprocess.DEVNULL
            )
        except OSError as error:
            self.failure = str(error)
            note(_log, "application not started", level=logging.ERROR, reason=error)
            return
        note(_log, "application started", pid=self._process.pid, epoch=epoch)
        self._watch = asyncio.create_task(self._note_exit(self._process), name="application")

    @staticmethod
    async def _note_exit(process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        level = logging.ERROR if code else logging.INFO
        note(_log, "application exited", level=level, pid=process.pid, exit=code)

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL if that does not do."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(APP_GRACE_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._watch is not None:
            await self._watch

    def describe(self) -> dict[str, object] | None:
        """Tell how it is.

        Returns:
            Its process number and exit code, ready for JSON; None: there is none.
        """
        if self.failure is not None:
            return {"pid": None, "exit": None, "failure": self.failure}
        if self._process is None:
            return None
        return {"pid": self._process.pid, "exit": self._process.returncode, "failure": None}
