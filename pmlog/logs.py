"""What services say on standard error: lines for people on a terminal, JSON objects elsewhere.

A line is an event with fields.
Whatever a field holds, an event is one line: control characters, which a peer may have sent, are
escaped, and values are cut.
"""

import contextlib
import io
import json
import logging
import os
import select
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from pmlog.errors import ConfigError

LEVELS: Final = ("debug", "info", "warning", "error")

VALUE_CHARS_MAX: Final = 2000
"""Longer values are cut: some of them come from peers."""

TRACE_CHARS_MAX: Final = 20_000

LINES_MAX: Final = 1000
"""So many wait to be written by a service; further ones are left out."""

FLUSH_TIMEOUT_S: Final = 1.0
"""So long the end of a process waits for its last lines to be read."""


def note(log: logging.Logger, event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log an event.

    Args:
        log: The logger.
        event: What happened, in a few fixed words.
        level: As of `logging`.
        fields: What is known of it; never a secret.
    """
    log.log(level, "%s", event, extra={"fields": fields}, stacklevel=2)


def setup(level: str = "info", stream: TextIO | None = None, *, is_queued: bool = False) -> None:
    """Send everything that is logged to a stream, in place of where it went before.

    Args:
        level: The lowest one that is shown: one of `LEVELS`.
        stream: Where to; standard error if not given.
        is_queued: Whether a thread writes, so that nobody waits for whoever reads; for services.

    Raises:
        ConfigError: There is no such level.
    """
    if level not in LEVELS:
        raise ConfigError(f"--log-level {level!r} is none of {', '.join(LEVELS)}")
    stream = stream or sys.stderr
    handler: logging.Handler = logging.StreamHandler(stream)
    if is_queued:
        # A stream in memory has no descriptor, and makes nobody wait.
        with contextlib.suppress(io.UnsupportedOperation):
            handler = Outbox(stream.fileno())
    handler.setFormatter(Human() if stream.isatty() else Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their chatter is about single packets.
    for name in ("asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def dropped() -> int:
    """Tell how many lines were left out because nobody read them.

    Returns:
        That, since the start.
    """
    return sum(one.dropped for one in logging.getLogger().handlers if isinstance(one, Outbox))


def flush(timeout_s: float = FLUSH_TIMEOUT_S) -> None:
    """Wait until what was logged is written, as far as somebody reads.

    Args:
        timeout_s: How long at most.
    """
    for one in logging.getLogger().handlers:
        if isinstance(one, Outbox):
            one.flush(timeout_s)


def plain(value: object) -> str:
    """Write a value in one line that a terminal shows as it is.

    Args:
        value: Anything.

    Returns:
        Its text; what cannot be printed is escaped.
    """
    text = str(value)
    if len(text) > VALUE_CHARS_MAX:
        text = text[:VALUE_CHARS_MAX] + "…"
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "replace").decode()
        for one in text
    )


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})


class Outbox(logging.Handler):
    """Writes lines in a thread of its own: whoever logs never waits for whoever reads.

    An event loop that stops writers when power fails must not stand still because nobody reads the
    pipe behind standard error. The queue is bounded: what finds it full is counted and left out, and
    a line says how much that was once there is room.

    Args:
        fd: Where lines go.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.dropped = 0
        """Lines that were left out."""
        self._fd = fd
        self._said = 0
        """Of those, how many a line has told of."""
        self._lines: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._is_writing = False
        # Not joined at the end: it may hang in a write for ever.
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line.

        Args:
            record: The event.
        """
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if len(self._lines) >= LINES_MAX:
                self.dropped += 1
                return
            self._lines.append(line)
            self._changed.notify_all()

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Wait until everything is written, as far as somebody reads.

        Args:
            timeout_s: But no longer than this.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._is_writing, timeout_s)

    def _run(self) -> None:
        while True:  # until the process ends
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or self.dropped > self._said)
                self._is_writing = True
                line = self._lines.popleft() if self._lines else self._tell()
            self._write(line)

    def _tell(self) -> bytes:
        """Say that lines are missing, behind those that are not."""
        count, self._said = self.dropped - self._said, self.dropped
        record = logging.LogRecord(
            "log", logging.WARNING, __file__, 0, "lines were left out", None, None
        )
        record.fields = {"count": count}
        return (self.format(record) + "\n").encode()

    def _write(self, line: bytes) -> None:
        # Not through the stream: its lock, held by a thread that hangs, aborts the interpreter's end.
        while line:
            try:
                line = line[os.write(self._fd, line) :]
            except BlockingIOError:
                select.select([], [self._fd], [])
            except OSError:
                return  # nobody will ever read it


class Human(logging.Formatter):
    """Time, level, logger, event, name=value; tracebacks are indented, so that they pose as none."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one event.

        Args:
            record: The event.

        Returns:
            The line, and below it a traceback if there is one.
        """
        time = (
            datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(" ", "milliseconds")
        )
        words = [time[:23], record.levelname.lower().ljust(7), record.name.ljust(8)]
        words.append(plain(record.getMessage()))
        for name, value in _fields(record).items():
            text = plain(value)
            words.append(f"{name}={json.dumps(text, ensure_ascii=False) if ' ' in text else text}")
        lines = [" ".join(words)]
        if record.exc_info:
            trace = self.formatException(record.exc_info)[-TRACE_CHARS_MAX:]
            lines += [f"    {plain(line)}" for line in trace.splitlines()]
        return "\n".join(lines)


class Json(logging.Formatter):
    """One JSON object a line: time, level, logger, event, and the fields beside them."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one event.

        Args:
            record: The event.

        Returns:
            The line.
        """
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _cut(record.getMessage()),
        }
        for name, value in _fields(record).items():
            known = isinstance(value, int | float | bool) or value is None
            said.setdefault(name, value if known else _cut(str(value)))
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)[-TRACE_CHARS_MAX:]
        return json.dumps(said)


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_CHARS_MAX else text[:VALUE_CHARS_MAX] + "…"
