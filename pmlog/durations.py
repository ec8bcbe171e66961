"""Durations as people write them: "45s", "500ms", "2min", "1.5h". Pure."""

import re
from typing import Final

from pmlog.errors import ConfigError

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ms|s|min|h)\s*", re.ASCII)

DURATION_S_MAX: Final = 7 * 86400.0
"""Longer ones are taken for a slip."""


def parse_duration(text: str, option: str = "duration") -> float:
    """Read a duration.

    Args:
        text: A decimal number with a unit: ms, s, min, h.
        option: What it is for; for the message.

    Returns:
        Seconds, more than 0, up to `DURATION_S_MAX`.

    Raises:
        ConfigError: It is not a duration, or out of range.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{option}: {text!r} is not a duration",
            hint="durations are numbers with a unit, as 45s, 500ms, 2min, 1h",
        )
    seconds = float(match[1]) * _UNITS_S[match[2]]
    if not 0 < seconds <= DURATION_S_MAX:
        raise ConfigError(f"{option}: {text!r} is out of range: more than 0, up to 168h")
    return seconds
