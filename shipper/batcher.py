"""How log bytes become frames: where to cut, and whether to compress. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from pmlog import limits
from pmlog.wire import Codec

COMPRESS_BYTES_MIN: Final = 4096
"""Smaller frames are sent as they are: they are there because the log is idle."""

PROBE_FRAMES: Final = 64
"""After so many frames sent one way the other is tried again."""

_WEIGHT: Final = 0.2


def pieces(data: memoryview) -> Iterator[memoryview]:
    """Cut a run into what one frame carries.

    Args:
        data: The run.

    Yields:
        Its pieces, in order.
    """
    for at in range(0, len(data), limits.FRAME_RAW_BYTES_MAX):
        yield data[at : at + limits.FRAME_RAW_BYTES_MAX]


@dataclass(frozen=True, slots=True)
class Rates:
    """Raw log bytes per second, from the first look at a frame until it is handed to the network."""

    plain: float = 0.0
    """0: not measured yet."""
    lz4: float = 0.0
    since_probe: int = 0
    """Frames since the slower way was measured."""


def choose(rates: Rates, size: int, *, may_probe: bool = True) -> Codec:
    """Choose how to pack a frame: whichever is faster from end to end, now and then the other.

    Args:
        rates: What was measured on this connection.
        size: Bytes of the frame.
        may_probe: Whether the slower way, or one that was never tried, may be tried.

    Returns:
        The codec.
    """
    if size < COMPRESS_BYTES_MIN:
        return Codec.NONE
    if not rates.plain:
        return Codec.NONE
    if not rates.lz4:
        return Codec.LZ4 if may_probe else Codec.NONE
    faster = Codec.LZ4 if rates.lz4 > rates.plain else Codec.NONE
    if rates.since_probe < PROBE_FRAMES or not may_probe:
        return faster
    return Codec.NONE if faster is Codec.LZ4 else Codec.LZ4


def learn(rates: Rates, codec: Codec, size: int, seconds: float) -> Rates:
    """Note how fast a frame went.

    Args:
        rates: What was known.
        codec: How it was packed.
        size: Its raw bytes.
        seconds: From packing until there was room for the next one.

    Returns:
        What is known now.
    """
    if size < COMPRESS_BYTES_MIN:
        return rates
    rate = size / max(seconds, 1e-9)
    packed = codec is Codec.LZ4
    before = rates.lz4 if packed else rates.plain
    mean = rate if not before else before + _WEIGHT * (rate - before)
    is_slower = packed == (rates.lz4 <= rates.plain)
    since = 0 if is_slower else rates.since_probe + 1
    if packed:
        return replace(rates, lz4=mean, since_probe=since)
    return replace(rates, plain=mean, since_probe=since)
