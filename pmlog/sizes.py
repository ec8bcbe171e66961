"""Sizes in bytes, as people write them: 67108864, "64MiB", "1 GB", "1.5 GiB". Pure."""

import re
from decimal import Decimal
from typing import Final

from pmlog.errors import ConfigError

_UNITS: Final = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgtp", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgtp", 1)},
    # A bare letter means what people who tune memory mean by it: a power of two.
    **{prefix: 1024**power for power, prefix in enumerate("kmgtp", 1)},
}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", re.ASCII)
_SIZE_MAX: Final = (1 << 63) - 1


def parse_size(value: int | str, option: str = "size") -> int:
    """Read a size.

    Args:
        value: Bytes, or a decimal number with a unit: B, kB, KiB, MB, MiB, GB, GiB, TB, TiB, PB,
            PiB in any case; K, M, G, T, P mean KiB and so on.
        option: What the size is for; for the message.

    Returns:
        Whole bytes, 0 ≤ size < 2**63.

    Raises:
        ConfigError: It is not a size, is negative, not whole, or too large.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        factor = _UNITS.get(match[2].lower()) if match else None
        if match is None or factor is None:
            raise ConfigError(
                f"{option}={value!r} is not a size",
                hint='sizes are bytes or numbers with a unit, as 67108864, "64MiB", "1 GB"',
            )
        exact = Decimal(match[1]) * factor
        size = int(exact)
        if size != exact:
            raise ConfigError(f"{option}={value!r} is not a whole number of bytes")
    if not 0 <= size <= _SIZE_MAX:
        raise ConfigError(f"{option}={value!r} is out of range: sizes are 0 … 2**63 - 1 bytes")
    return size


def format_size(size: int) -> str:
    """Write a size for people.

    Args:
        size: Bytes.

    Returns:
        It in the largest binary unit in which it is at least 1, with up to one decimal.
    """
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            return f"{value:.1f}".removesuffix(".0") + f" {unit}"
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + " PiB"
