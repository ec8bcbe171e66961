"""What the shipper decides without looking at anything: levels, compression, addresses."""

from __future__ import annotations

import itertools

import pytest

from pmlog import limits
from pmlog.addresses import Address, parse_listen, parse_source
from pmlog.errors import ConfigError
from pmlog.wire import Codec
from receiver.config import BACKOFF_FIRST_S, BACKOFF_MAX_S, backoff_s
from shipper import batcher
from shipper.levels import Progress, reached


def test_level_is_the_kth_best() -> None:
    """Each figure is what at least K receivers have, whoever they are; none with fewer than K."""
    three = [Progress(30, 20, 5), Progress(40, 10, 10), Progress(20, 15, 15)]
    for order in itertools.permutations(three):
        assert reached(order, 1) == Progress(40, 20, 15)
        assert reached(order, 2) == Progress(30, 15, 10)
        assert reached(order, 3) == Progress(20, 10, 5)
        assert reached(order, 4) == Progress()


def test_pieces() -> None:
    """The pieces of a run are the run, and none is too large for a frame."""
    data = bytes(range(256)) * 10_000
    pieces = list(batcher.pieces(memoryview(data)))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) == limits.FRAME_RAW_BYTES_MAX


@pytest.mark.parametrize(("plain_s", "lz4_s", "better"), [(1, 2, Codec.NONE), (2, 1, Codec.LZ4)])
def test_compression_follows_what_is_faster(plain_s: float, lz4_s: float, better: Codec) -> None:
    """The faster way is taken, the other one is tried again now and then."""
    rates = batcher.Rates()
    chosen = []
    for _ in range(1000):
        codec = batcher.choose(rates, 1 << 20)
        chosen.append(codec)
        rates = batcher.learn(rates, codec, 1 << 20, lz4_s if codec is Codec.LZ4 else plain_s)
    assert 0.95 < chosen.count(better) / len(chosen) < 1


def test_compression_changes_its_mind() -> None:
    """When the network turns slow, compression begins to pay, and is taken up."""
    rates = batcher.Rates()
    late = []
    for turn in range(2000):
        codec = batcher.choose(rates, 1 << 20)
        slow = turn > 500
        seconds = 2.0 if codec is Codec.LZ4 else 5.0 if slow else 1.0
        rates = batcher.learn(rates, codec, 1 << 20, seconds)
        if turn > 1000:
            late.append(codec)
    assert late.count(Codec.LZ4) > 0.9 * len(late)


def test_small_frames_are_sent_plain() -> None:
    """An idle log's frames are never compressed, and teach nothing."""
    rates = batcher.Rates(plain=1.0, lz4=100.0)
    assert batcher.choose(rates, batcher.COMPRESS_BYTES_MIN - 1) is Codec.NONE
    assert batcher.learn(rates, Codec.NONE, 100, 1.0) == rates


def test_backoff() -> None:
    """It doubles from its first to its last figure."""
    waits = [backoff_s(attempt) for attempt in range(50)]
    assert waits[0] == BACKOFF_FIRST_S
    assert waits == sorted(waits)
    assert waits[-1] == BACKOFF_MAX_S


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:7070", Address("::1", 7070)),
        ("localhost:1", Address("localhost", 1)),
    ],
)
def test_listen(text: str, address: Address) -> None:
    """Loopback addresses are understood."""
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "text", ["", ":1", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "0.0.0.0:1", "example.org:1"]
)
def test_not_listened_at(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigError):
        parse_listen(text)


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1:1", "https://192.0.2.1:1", "http://127.0.0.1", "http://192.0.2.1:1",
     "http://127.0.0.1:1/x", "http://127.0.0.1:99999", "ftp://127.0.0.1:1"],
)  # fmt: skip
def test_not_dialled(text: str) -> None:
    """Sources that cannot be used are refused."""
    with pytest.raises(ConfigError):
        parse_source(text)


def test_source() -> None:
    """A slash at the end does no harm."""
    assert parse_source("http://127.0.0.1:7070/") == "http://127.0.0.1:7070"
