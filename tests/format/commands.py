"""Command lines of `pmlog` that stand in texts, and whether the program would take them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from pmlog.addresses import parse_listen
from pmlog.cli import register
from pmlog.security import Security
from shipper.battery import parse_battery
from shipper.power.spec import parse_powers

_FENCE = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:sudo )?pmlog [^`\n]+)`")
_FULL = Security(token="x" * 32, cert=Path("tls.crt"), key=Path("tls.key"))
"""Whatever a service may need to listen elsewhere."""


def parse(words: list[str]) -> dict[str, Any]:
    """Return the parameters that the program reads from a command line; raise if it refuses.

    Nothing is run, and no file that the line names is looked at.
    """
    group: Any = get_command(register())
    command = group.commands[words[0]]
    parameters: dict[str, Any] = command.make_context(words[0], list(words[1:])).params
    if words[0] == "ship":
        parse_powers(tuple(parameters["power"] or ()))
        if parameters["battery"]:
            parse_battery(parameters["battery"])
    if words[0] in ("ship", "receive"):
        parse_listen(parameters["listen"], _FULL)
    return parameters


def words_of(line: str) -> list[str] | None:
    """Return what follows `pmlog` in a shell's line; None: it runs something else."""
    words = shlex.split(line, comments=True)
    places = [place for place, word in enumerate(words) if word.rpartition("/")[2] == "pmlog"]
    if not places:
        return None
    rest = words[places[0] + 1 :]
    for end, word in enumerate(rest):
        if word in {"|", "&", "&&", "||", ";", ">", "2>&1"}:
            return rest[:end]
    return rest


def lines_in(page: Path) -> Iterator[list[str]]:
    """Give the command lines of `pmlog` in a Markdown page: in shell blocks and in backquotes."""
    text = page.read_text(encoding="utf-8")
    for block in _FENCE.finditer(text):
        for line in block[1].replace("\\\n", " ").splitlines():
            words = words_of(line)
            if words:
                yield words
    for match in _INLINE.finditer(text):
        words = words_of(match[1])
        # `pmlog promote URL` names what to put there: such words are arguments like others.
        if words and words[0] != "COMMAND":
            yield [word.rstrip("…") or word for word in words if word != "…"]
