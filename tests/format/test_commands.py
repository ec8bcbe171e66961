"""Every command line of `pmlog` in the texts is one that the program takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from pmlog.cli import register
from tests.format.commands import lines_in, parse, words_of
from tests.format.tables import DOCS, ROOT, tables

PAGES = [
    ROOT / "README.md",
    *sorted(DOCS.glob("*.md")),
    *sorted((DOCS / "examples").rglob("*.md")),
]
_OPTION = re.compile(r"`(--[a-z][a-z-]+)[^`]*`")
# Of programs that the texts speak of, and that are not ours.
FOREIGN = {"--sparse"}


def options() -> set[str]:
    """Return every option of every command."""
    group: object = get_command(register())
    return {
        name
        for command in group.commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_lines(page: Path) -> None:
    """A page's command lines are taken as they stand."""
    for words in lines_in(page):
        if len(words) == 1 and page.suffix == ".md":
            assert words[0] in get_command(register()).commands  # type: ignore[attr-defined]
        else:
            parse(words)


def test_there_are_lines() -> None:
    """The readers above find command lines, in blocks and in running text."""
    found = [words for page in PAGES for words in lines_in(page)]
    assert len(found) > 20
    assert {words[0] for words in found} >= {"ship", "receive", "promote", "power-loss", "status"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options(page: Path) -> None:
    """An option that a page names is an option of some command."""
    known = options() | FOREIGN
    named = set(_OPTION.findall(page.read_text(encoding="utf-8")))
    assert named <= known


def test_every_command_is_in_the_readme() -> None:
    """The README's table of commands lists each of them."""
    named = {
        words[1]
        for _, rows in tables(ROOT / "README.md")
        for row in rows
        if "command" in row and (words := row["command"].strip("`").split())[0] == "pmlog"
    }
    assert named == set(get_command(register()).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        "pmlog ship",
        "pmlog ship /dev/shm/x --no-such-option",
        "pmlog ship /dev/shm/x --power steam",
        "pmlog ship /dev/shm/x --battery 3",
        "pmlog receive --from http://127.0.0.1:1",
        "pmlog receive --from http://127.0.0.1:1 --dir x --listen nowhere",
        "pmlog promote",
    ],
)
def test_wrong_lines_are_refused(line: str) -> None:
    """A line that the program would refuse fails here too."""
    words = words_of(line)
    assert words is not None
    with pytest.raises(Exception):  # noqa: B017, PT011 - of the parser's many kinds
        parse(words)
