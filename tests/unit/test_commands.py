"""What all commands have in common: help with an example, one line for a mistake, exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pmlog
from pmlog.cli import _MEANINGS, ExitCode, register
from tests.support import SMALL

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(
    one.name or (one.callback.__name__.replace("_", "-") if one.callback else "")
    for one in register().registered_commands
)


def run(*arguments: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, what it said, and what it complained of."""
    ran = CliRunner().invoke(register(), [*arguments], prog_name="pmlog")
    return ran.exit_code, ran.stdout, ran.stderr


def test_names() -> None:
    """The commands are those of the manual."""
    assert {"ship", "receive", "status", "promote", "power-loss", "top", "check"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_help(name: str) -> None:
    """Help teaches with an example of that command."""
    code, said, _ = run(name, "--help")
    assert code == 0
    assert re.search(rf"Example:\s+pmlog\s+{name}\b", said), said


def test_exit_codes_are_documented() -> None:
    """The table of the manual and the help of the program hold exactly the codes that there are."""
    text = (ROOT / "docs" / "commands.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| ([^|]+?) \|$", text, re.MULTILINE))
    assert rows == {str(code.value): _MEANINGS[code] for code in ExitCode}
    said = " ".join(run("--help")[1].split())
    for code in ExitCode:
        assert f"{code.value} {_MEANINGS[code]}" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["info", "NONE"], ExitCode.NO_POOL, "NONE"),
        (["check", "NONE"], ExitCode.NO_POOL, "NONE"),
        (["dump", "NONE"], ExitCode.NO_POOL, "NONE"),
        (["dump", "POOL", "--from", "7"], ExitCode.GONE, "7"),
        (["ship", "NONE", "--listen", "127.0.0.1:0"], ExitCode.NO_POOL, "NONE"),
        (["ship", "POOL", "POOL"], ExitCode.USAGE, "twice"),
        (["ship", "POOL", "--listen", "nowhere"], ExitCode.USAGE, "HOST:PORT"),
        (["ship", "POOL", "--listen", "127.0.0.1:0", "--log-level", "loud"], ExitCode.USAGE, "loud"),
        (["ship", "POOL", "--token-file", "NONE"], ExitCode.USAGE, "--token-file"),
        (["ship", "POOL", "--battery", "big"], ExitCode.USAGE, "big"),
        (["receive", "--from", "ftp://x", "--dir", "NONE"], ExitCode.USAGE, "ftp"),
        (["receive", "--from", "http://127.0.0.1:9", "--dir", "NONE", "--name", "n" * 32],
         ExitCode.USAGE, "--name"),
        (["repair", "NONE", "--from", "http://127.0.0.1:9"], ExitCode.NO_POOL, "NONE"),
        (["repair", "POOL", "--from", "ftp://x"], ExitCode.USAGE, "ftp"),
        (["repair", "POOL", "--from", "http://127.0.0.1:9"], ExitCode.FAILED, "is it running"),
        (["repair", "POOL", "--from", "http://192.0.2.1:9"], ExitCode.USAGE, "192.0.2.1"),
        (["status", "NONE"], ExitCode.NO_POOL, "NONE"),
        (["status", __file__], ExitCode.NO_POOL, "no pool"),
        (["status", str(ROOT)], ExitCode.NO_POOL, "pmlog:"),
        (["promote", "http://127.0.0.1:9", "--peer", "nowhere"], ExitCode.USAGE, "nowhere"),
        (["status", "http://127.0.0.1"], ExitCode.USAGE, "as in http"),
        (["status", "http://127.0.0.1:9"], ExitCode.FAILED, "is it running"),
        (["promote", "http://127.0.0.1:9"], ExitCode.FAILED, "is it running"),
        (["power-loss", "http://127.0.0.1:9"], ExitCode.FAILED, "is it running"),
        (["top", "ftp://127.0.0.1:9"], ExitCode.USAGE, "as in http"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)  # fmt: skip
def test_mistakes(memory_dir: Path, arguments: list[str], code: ExitCode, words: str) -> None:
    """A mistake is one line on standard error that names it, and its own exit code."""
    pmlog.open(memory_dir / "POOL", **SMALL).close()
    said = [str(memory_dir / one) if one in ("NONE", "POOL") else one for one in arguments]
    exit_code, out, errors = run(*said)
    assert exit_code == code, errors
    assert out == ""
    assert errors.count("\n") == 1, errors
    assert errors.startswith("pmlog: ")
    assert words in errors
    assert "Traceback" not in errors
