"""How far receivers are behind, and what follows from it. Pure."""

from typing import Final

DELAY_NS_MAX: Final = 50_000_000
"""Never more: a shipper that is killed leaves its last word behind, and writers must not stop."""

_LOW: Final = 0.25
_HIGH: Final = 0.75
_SHORT: Final = 0.5


def delay_ns(backlog_bytes: int, limit_bytes: int) -> int:
    """Choose what each commit waits, so that required receivers keep up.

    Args:
        backlog_bytes: What the slowest of them lacks.
        limit_bytes: What it may lack.

    Returns:
        Nothing up to a quarter of the limit, from there growing with the square up to
        `DELAY_NS_MAX` at three quarters: a transaction that has begun needs room too.
    """
    share = backlog_bytes / limit_bytes
    if share <= _LOW:
        return 0
    return int(DELAY_NS_MAX * min(1.0, (share - _LOW) / (_HIGH - _LOW)) ** 2)


def is_short(backlog_bytes: int, ring_bytes: int) -> bool:
    """Tell whether a receiver that is not required holds up too much of the ring.

    Args:
        backlog_bytes: What it lacks.
        ring_bytes: Size of the log.

    Returns:
        Whether it has to let go: it then gets a baseline instead.
    """
    return backlog_bytes > ring_bytes * _SHORT
