"""Tables in the project's Markdown pages, as the tests of this tier read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NATIVE = ROOT / "pmlog" / "_native"

_SEPARATOR = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")


def tables(page: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield each table of a page: the heading that it stands under, and its rows by column.

    Backquotes around a cell are left out.
    """
    heading = ""
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
        elif line.startswith("|") and at + 1 < len(lines) and _SEPARATOR.fullmatch(lines[at + 1]):
            columns = _cells(line)
            rows = []
            at += 2
            while at < len(lines) and lines[at].startswith("|"):
                cells = _cells(lines[at])
                assert len(cells) == len(columns), f"{page.name}: {lines[at]}"
                rows.append(dict(zip(columns, cells, strict=True)))
                at += 1
            yield heading, rows
            continue
        at += 1


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]


def constants_in(header: str, pattern: str) -> dict[str, int]:
    """Return the constants of a header whose names match, by name.

    The binding knows most constants; this is for those outside of its declarations.
    """
    text = (NATIVE / header).read_text(encoding="utf-8")
    found = re.findall(rf"^#define ({pattern})[ \t]+([^/\n]+)", text, re.MULTILINE)
    return {name: value_of(expression) for name, expression in found}


def value_of(expression: str) -> int:
    """Return the value of a C integer or of one shifted to the left by another."""
    parts = [int(part.strip().rstrip("uUlL"), 0) for part in expression.strip(" ()").split("<<")]
    assert len(parts) in (1, 2), expression
    return parts[0] << parts[1] if len(parts) == 2 else parts[0]
