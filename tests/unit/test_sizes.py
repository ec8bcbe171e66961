"""Sizes as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pmlog
from pmlog.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (67108864, 64 << 20),
        ("67108864", 64 << 20),
        ("64MiB", 64 << 20),
        ("64 mib", 64 << 20),
        (" 64MIB ", 64 << 20),
        ("64M", 64 << 20),
        ("64MB", 64_000_000),
        ("1.5 GiB", 3 << 29),
        ("1kB", 1000),
        ("1 KiB", 1024),
        ("2TiB", 2 << 40),
        ("1PiB", 1 << 50),
        ("512 B", 512),
    ],
)
def test_parse(text: int | str, size: int) -> None:
    """Bytes and decimal numbers with a unit are sizes."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "bad",
    ["", "MiB", "x", "12 parsecs", "-1", -1, "1.0001KiB", True, None, 1.5, b"1", "1e6", "0x10",
     2**63, "9999999PiB", "1 000", "٣MiB", [1]],
    ids=repr,
)  # fmt: skip
def test_refuses(bad: Any) -> None:
    """What is no size raises ConfigError that names the option and the value."""
    with pytest.raises(pmlog.ConfigError) as raised:
        parse_size(bad, "log_size")
    assert "log_size" in str(raised.value)


@given(st.integers(0, 2**60))
def test_format_is_close(size: int) -> None:
    """What is written for people reads back within a twentieth of itself."""
    shown = format_size(size)
    number, unit = shown.split(" ")
    factor = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].index(unit)
    assert abs(float(number) * factor - size) <= 0.05 * size


@given(st.integers(0, 2**63 - 1))
def test_bytes_round_trip(size: int) -> None:
    """A number of bytes is itself, as a number and as digits."""
    assert parse_size(size) == parse_size(str(size)) == size
