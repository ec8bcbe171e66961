"""What services log: one event a line, whatever a peer has put into it."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from pmlog import logs
from pmlog.errors import ConfigError
from tests.support import PATIENCE_S


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Return that it is."""
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = before, level


NASTY = "a\nb\r\x1b[2J\u2028\x85\udc80{}%s"


def test_json() -> None:
    """Elsewhere than on a terminal a line is one JSON object with the event and its fields."""
    out = io.StringIO()
    logs.setup("info", out)
    log = logging.getLogger("shipper")
    logs.note(log, "receiver connected", receiver=NASTY, lsn=4096, sealed=False, nothing=None)
    logs.note(log, "quiet", level=logging.DEBUG)
    log.warning("an %s line", "ordinary")
    first, second = [json.loads(line) for line in out.getvalue().splitlines()]
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info", "logger": "shipper", "event": "receiver connected", "receiver": NASTY,
        "lsn": 4096, "sealed": False, "nothing": None,
    }  # fmt: skip
    assert (second["level"], second["event"]) == ("warning", "an ordinary line")
    assert out.getvalue().isascii()


def test_human() -> None:
    """On a terminal a line is for people, and a peer's control characters stay in it."""
    out = Terminal()
    logs.setup("debug", out)
    logs.note(
        logging.getLogger("shipper"), "receiver connected", receiver=NASTY, reason="two words"
    )
    (line,) = out.getvalue().split("\n")[:-1]
    assert "receiver connected" in line
    assert 'reason="two words"' in line
    assert all(one.isprintable() for one in line)


def test_tracebacks() -> None:
    """A traceback poses neither as an event nor as a second line of JSON."""
    for out in (io.StringIO(), Terminal()):
        logs.setup("info", out)
        try:
            raise ValueError(NASTY)
        except ValueError:
            logging.getLogger("x").exception("failed")
        lines = out.getvalue().split("\n")[:-1]
        if out.isatty():
            assert all(line.startswith("    ") for line in lines[1:])
            assert "\x1b" not in out.getvalue()
        else:
            assert "ValueError" in json.loads(lines[0])["traceback"]
            assert len(lines) == 1


def test_long_values() -> None:
    """What a peer says is cut."""
    out = io.StringIO()
    logs.setup("info", out)
    logs.note(logging.getLogger("x"), "said", words="y" * 1_000_000)
    assert len(out.getvalue()) < 3000


def test_levels() -> None:
    """Unknown levels are refused; a higher level shows less."""
    with pytest.raises(ConfigError, match="--log-level"):
        logs.setup("loud")
    out = io.StringIO()
    logs.setup("error", out)
    logs.note(logging.getLogger("x"), "hidden", level=logging.WARNING)
    logs.note(logging.getLogger("x"), "shown", level=logging.ERROR)
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["shown"]


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """Give a pipe: where it is read, and what writes."""
    end, start = os.pipe()
    with open(start, "w", encoding="utf-8", closefd=False) as stream:
        yield end, stream
    os.close(end)  # whoever still writes finds nobody there
    os.close(start)


def test_nobody_reads(pipe: tuple[int, TextIO]) -> None:
    """Whoever logs never waits for whoever reads; what is left out is counted, and told.

    Once the loop of a service wrote to a pipe that nobody read: it stood still, and nothing was
    acknowledged, shipped or stopped.
    """
    end, stream = pipe
    logs.setup("info", stream, is_queued=True)
    log = logging.getLogger("shipper")
    count = 20 * logs.LINES_MAX
    for number in range(count):
        logs.note(log, "event", number=number)
    dropped = logs.dropped()
    assert dropped > 0
    numbers: list[int] = []
    told = 0
    with open(end, "rb", closefd=False) as reader:
        while len(numbers) + told < count:
            line = json.loads(reader.readline())
            if line["event"] == "lines were left out":
                told += line["count"]
            else:
                numbers.append(line["number"])
    # Which ones are left out depends on when the pipe had room; the order does not.
    assert told == dropped == count - len(numbers)
    assert numbers == sorted(set(numbers))


def test_queued_in_order(pipe: tuple[int, TextIO]) -> None:
    """What is read in time comes whole, in order, and before `flush` returns."""
    end, stream = pipe
    logs.setup("info", stream, is_queued=True)
    log = logging.getLogger("shipper")
    for number in range(100):
        logs.note(log, "event", number=number)
    logs.flush(PATIENCE_S)
    lines = os.read(end, 1 << 20).splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(100))
    assert logs.dropped() == 0


ENDS = """
import logging
from pmlog import logs
logs.setup("info", is_queued=True)
for number in range(20000):
    logs.note(logging.getLogger("shipper"), "event", number=number)
"""


@pytest.mark.parametrize("is_read", [False, True])
def test_end_with_lines(is_read: bool) -> None:
    """A process ends though nobody reads its lines, and has written them if somebody does."""
    with subprocess.Popen([sys.executable, "-c", ENDS], stderr=subprocess.PIPE) as process:
        if not is_read:
            assert process.wait(PATIENCE_S) == 0
        assert process.stderr is not None
        if not is_read:
            return
        lines = [json.loads(line) for line in process.stderr]
        assert process.wait(PATIENCE_S) == 0
    numbers = [line["number"] for line in lines if line["event"] == "event"]
    assert numbers == sorted(numbers)
    missing = sum(line.get("count", 0) for line in lines)
    assert len(numbers) + missing == 20000
