"""How fast a receiver makes log bytes durable, from what it acknowledges. Pure.

Measured over windows in which it always had something to do; time in which there was nothing to
ship says nothing and changes nothing.

A window begins with what there is to ship, and ends when all of that is durable, or when its time
is up.
Either way the receiver was never short of work in it, so that its rate is what it can do, not what
the writer happened to write.
A small amount, though, takes as long as one message there and back: that is a lower bound, and may
raise the figure only.

The figure falls fast and rises slowly: one that is too high promises what cannot be kept.
"""

from dataclasses import dataclass, replace
from typing import Final

FIRST_BYTES_PER_S: Final = float(1 << 20)
"""Before anything was measured; low on purpose. Writing is what has it measured, within a second."""

SURE_BYTES: Final = 1 << 20
"""From this much to ship on, a window says what the receiver can do."""

WINDOW_S: Final = 0.5
LONG_WINDOW_S: Final = 2.0
"""For less than `SURE_BYTES`: a receiver that cannot do that in so long is slow, not far away."""

SHORT_WINDOW_S: Final = 0.02
"""Shorter ones count as if they took so long: two acknowledgements in a row are no rate."""

_FALL: Final = 0.7
_RISE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Rate:
    """What is known of one receiver, and the window that is being measured."""

    bytes_per_s: float = FIRST_BYTES_PER_S
    is_measured: bool = False
    begun_s: float | None = None
    """Of the window; None: there is nothing to ship."""
    lsn_begun: int = 0
    """What was durable there at its begin."""
    lsn_there: int = 0
    """What there was to ship at its begin: everything below."""


def observe(rate: Rate, now_s: float, durable: int, end: int) -> Rate:
    """Look at a receiver: when it acknowledges, when there is more, and now and then.

    Args:
        rate: What was known.
        now_s: On a clock that only grows.
        durable: What is durable there: everything below this LSN.
        end: What there is to ship: everything below this LSN.

    Returns:
        What is known now.
    """
    if rate.begun_s is None:
        return _begin(rate, now_s, durable, end)
    elapsed_s = now_s - rate.begun_s
    amount = rate.lsn_there - rate.lsn_begun
    is_done = durable >= rate.lsn_there
    time_is_up = elapsed_s >= (WINDOW_S if amount >= SURE_BYTES else LONG_WINDOW_S)
    if not time_is_up and (not is_done or (elapsed_s < SHORT_WINDOW_S and durable < end)):
        return rate
    sample = max(0, durable - rate.lsn_begun) / max(elapsed_s, SHORT_WINDOW_S)
    is_sure = (amount >= SURE_BYTES and elapsed_s >= SHORT_WINDOW_S) or not is_done
    return _begin(_learn(rate, sample, is_sure=is_sure), now_s, durable, end)


def pause(rate: Rate) -> Rate:
    """Forget the window: the connection has ended, or begins.

    Args:
        rate: What was known.

    Returns:
        The same figure.
    """
    return replace(rate, begun_s=None)


def _begin(rate: Rate, now_s: float, durable: int, end: int) -> Rate:
    if end <= durable:
        return replace(rate, begun_s=None)
    return replace(rate, begun_s=now_s, lsn_begun=durable, lsn_there=end)


def _learn(rate: Rate, sample: float, *, is_sure: bool) -> Rate:
    now = rate.bytes_per_s
    if sample < now and not is_sure:
        return rate
    if not rate.is_measured:
        return replace(rate, bytes_per_s=sample, is_measured=True)
    weight = _RISE if sample > now else _FALL
    return replace(rate, bytes_per_s=now + weight * (sample - now))
