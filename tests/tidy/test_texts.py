"""What tracked texts may not hold."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Written in pieces, so that this file does not hold what it looks for.
MARKERS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
MACHINE_PATHS = re.compile(r"(^|[^A-Za-z0-9_.])/(work|farm|root|home)" + r"/[A-Za-z]")
CONFLICT = re.compile("^(" + "<" * 7 + "|" + ">" * 7 + ") ", re.MULTILINE)


def texts() -> list[Path]:
    """Return the text files of the repository: what git tracks and what it would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in path.read_bytes()[:4096]:
            found.append(path)
    return found


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """Return the places that match."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def test_there_are_texts() -> None:
    """The tests below look at something."""
    names = {str(path.relative_to(ROOT)) for path in texts()}
    assert {"pyproject.toml", "pmlog/errors.py", "pmlog/_native/layout.h"} <= names


def test_no_work_left_in_comments() -> None:
    """Work to be done stands in issues, not in comments."""
    assert lines_with(MARKERS) == []


def test_no_paths_of_one_machine() -> None:
    """No file names a directory that only one machine has."""
    assert lines_with(MACHINE_PATHS) == []


def test_no_conflict_markers() -> None:
    """No merge was left half done."""
    assert lines_with(CONFLICT) == []


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (MARKERS, "# TO" + "DO: later"),
        (MACHINE_PATHS, 'path = "/ho' + 'me/me"'),
        (CONFLICT, "<" * 7 + " HEAD"),
    ],
)
def test_patterns_find(pattern: re.Pattern[str], line: str) -> None:
    """Each pattern finds what it is for."""
    assert pattern.search(line)


def test_decisions_are_listed() -> None:
    """Each decision record is named in the index of decisions, and the index names no other."""
    folder = ROOT / "docs" / "decisions"
    records = {path.name for path in folder.glob("[0-9][0-9][0-9][0-9]-*.md")}
    indexes = [path for path in (folder / "index.md", folder / "README.md") if path.exists()]
    assert records, "there are no decision records"
    assert indexes, "docs/decisions has no index"
    text = "".join(path.read_text() for path in indexes)
    listed = set(re.findall(r"\b(\d{4}-[a-z0-9-]+)(?:\.md)?\b", text))
    assert listed == {name.removesuffix(".md") for name in records}


def test_decision_numbers_are_used_once() -> None:
    """No two decision records share a number."""
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers))
