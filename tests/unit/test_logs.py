"""What services log: one event a line, whatever a peer has put into it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from pmlog import logs
from pmlog.errors import ConfigError


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
