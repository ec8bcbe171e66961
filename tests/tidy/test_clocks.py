"""No decision asks the wall clock: somebody may set it, back and forth, while services run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.tidy.test_imports import ROOT, sources

WALL = {"time", "time_ns", "now", "utcnow", "today", "localtime", "gmtime", "fromtimestamp"}
OF_MODULES = {"time", "datetime", "date"}

ALLOWED = {
    "pmlog/logs.py": "when a line was logged",
    "pmlog/status.py": "when a pool was made, for people",
    "shipper/power/cloud.py": "clouds name the end of a machine by wall clock, and by nothing else",
}
"""Where the wall clock is asked, and why that decides nothing, or has to."""


def wall_clocks(text: str) -> list[str]:
    """Return the calls in a source that ask the wall clock."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Attribute) and node.attr in WALL):
            continue
        if isinstance(node.value, ast.Name) and node.value.id in OF_MODULES:
            found.append(f"{node.value.id}.{node.attr}")
    imported = [
        alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module == "time"
        for alias in node.names
    ]
    return found + [name for name in imported if name in WALL]


def test_finds_wall_clocks() -> None:
    """The reader of sources sees what it is there for, and no other clock."""
    assert wall_clocks("import time\ntime.time()\n") == ["time.time"]
    assert wall_clocks("from time import time_ns\n") == ["time_ns"]
    assert wall_clocks("from datetime import datetime\nx = datetime.now()\n") == ["datetime.now"]
    assert wall_clocks("import time\ntime.monotonic()\nloop.time()\nself.time.now()\n") == []


@pytest.mark.parametrize("folder", ["pmlog", "shipper", "receiver"])
def test_no_wall_clock(folder: str) -> None:
    """Library and services use clocks that only grow; the exceptions have a reason."""
    found = {str(path.relative_to(ROOT)): wall_clocks(path.read_text()) for path in sources(folder)}
    asking = {name for name, calls in found.items() if calls}
    assert asking == {name for name in ALLOWED if Path(name).parts[0] == folder}


def test_engine_asks_for_the_wall_clock_once() -> None:
    """The engine notes when a pool was made, and waits by a clock that only grows."""
    files = sorted((ROOT / "pmlog/_native").glob("*.[ch]"))
    found = [path.name for path in files for _ in range(path.read_text().count("CLOCK_REALTIME"))]
    assert found == ["medium.c"]
    for name in ("time(NULL)", "gettimeofday"):
        assert not [path.name for path in files if name in path.read_text()]
