"""What services say on standard error: lines for people on a terminal, JSON objects elsewhere.

A line is an event with fields.
Whatever a field holds, an event is one line: control characters, which a peer may have sent, are
escaped, and values are cut.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from pmlog.errors import ConfigError

LEVELS: Final = ("debug", "info", "warning", "error")

VALUE_CHARS_MAX: Final = 2000
"""Longer values are cut: some of them come from peers."""

TRACE_CHARS_MAX: Final = 20_000


def note(log: logging.Logger, event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log an event.

    Args:
        log: The logger.
        event: What happened, in a few fixed words.
        level: As of `logging`.
        fields: What is known of it; never a secret.
    """
    log.log(level, "%s", event, extra={"fields": fields}, stacklevel=2)


def setup(level: str = "info", stream: TextIO | None = None) -> None:
    """Send everything that is logged to a stream, in place of where it went before.

    Args:
        level: The lowest one that is shown: one of `LEVELS`.
        stream: Where to; standard error if not given.

    Raises:
        ConfigError: There is no such level.
    """
    if level not in LEVELS:
        raise ConfigError(f"--log-level {level!r} is none of {', '.join(LEVELS)}")
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Human() if stream.isatty() else Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their chatter is about single packets.
    for name in ("asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


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
