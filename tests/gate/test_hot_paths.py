"""What the hot paths take, counted, not timed: instructions, drains, flushes, allocations, calls.

`figures.json` holds the counts; a change that makes a path dearer fails here, and so does one that
makes it so much cheaper that the figures are no longer true.
`python -m tests.gate.test_hot_paths` writes them anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pmlog

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FIGURES = HERE / "figures.json"
BUILD = ROOT / "build" / "gate"
OPERATIONS = 2000
# Another memcpy of another processor may take a few instructions more or less.
DEARER = 1.06
CHEAPER = 0.80


def compiler() -> str:
    """Return the compiler and its major version: others make other code."""
    cc = os.environ.get("CC", "cc")
    said = subprocess.run([cc, "--version"], capture_output=True, text=True, check=True).stdout
    version = subprocess.run([cc, "-dumpversion"], capture_output=True, text=True, check=True)
    return f"{'clang' if 'clang' in said else 'gcc'} {version.stdout.split('.')[0].strip()}"


def build() -> Path:
    """Build the program against a core as it is installed; return its path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {"PATH": path}
    for command in (
        ["cmake", "-G", "Ninja", "-S", str(ROOT / "pmlog" / "_native"), "-B", str(BUILD),
         "--log-level=WARNING", "-DPML_EXTENSION=OFF", "-DPML_TESTING=OFF"],
        ["cmake", "--build", str(BUILD), "--", "--quiet"],
    ):  # fmt: skip
        subprocess.run(command, env=environment, check=True)
    program = BUILD / "hot_paths"
    subprocess.run(
        [os.environ.get("CC", "cc"), "-O2", "-g", "-std=c11", "-D_GNU_SOURCE", "-pthread",
         f"-I{ROOT / 'pmlog' / '_native'}", "-Wl,--wrap=malloc,--wrap=realloc,--wrap=calloc",
         "-o", str(program), str(HERE / "hot_paths.c"), str(BUILD / "libpml_static.a")],
        check=True,
    )  # fmt: skip
    return program


def count() -> dict[str, dict[str, float]]:
    """Run the program under callgrind; return what each path takes, per operation."""
    program = build()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        out = Path(folder, "callgrind.out")
        done = subprocess.run(
            ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}",
             str(program), str(Path(folder, "pool"))],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        listed = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(out)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    instructions = {
        found[2]: int(found[1].replace(",", ""))
        for found in re.finditer(r"^\s*([\d,]+) .*:path_(\w+)", listed, re.MULTILINE)
    }
    counts = {}
    for line in done.stdout.splitlines():
        name, drains, flushes, mallocs = line.split()
        counts[name] = {
            "instructions": round(instructions[name] / OPERATIONS),
            "drains": float(drains),
            "flushes": float(flushes),
            "mallocs": float(mallocs),
        }
    return counts


def calls_of(operation: Callable[[], Any]) -> list[str]:
    """Return the functions, Python's and C's, that an operation calls, as a profiler sees them."""
    seen: list[str] = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            seen.append(frame.f_code.co_qualname)
        elif event == "c_call":
            seen.append(argument.__name__)

    sys.setprofile(note)
    try:
        operation()
    finally:
        sys.setprofile(None)
    return [name for name in seen if name != "setprofile"][1:]  # without the operation itself


def test_counts() -> None:
    """No path takes more instructions, drains, flushes or allocations than it did."""
    known = json.loads(FIGURES.read_text())
    assert shutil.which("valgrind"), "valgrind is not installed: make system"
    if compiler() != known["compiler"]:
        pytest.skip(f"the figures are of {known['compiler']}, here is {compiler()}")
    counted = count()
    assert counted.keys() == known["paths"].keys()
    for name, figures in counted.items():
        print(name, figures, known["paths"][name])
    for name, figures in counted.items():
        for what, value in figures.items():
            before = known["paths"][name][what]
            assert value <= before * DEARER + 0.01, f"{name}: {what}"
            assert value >= before * CHEAPER - 0.01, f"{name}: {what}: write the figures anew"


def test_calls(tmp_path: Path) -> None:
    """Hot operations call nothing that they need not: no Python function, one C method at most."""
    with pmlog.open(tmp_path / "pool", size="1MiB", log_size="1MiB", domain="emulated") as pool:
        d, q, r = pool.dict("d"), pool.deque("q"), pool.region("r", 64)
        d["a"] = b"x"
        assert calls_of(lambda: d["a"]) == []

        def assign() -> None:
            d["a"] = b"y"

        assert calls_of(assign) == []
        assert calls_of(lambda: d.get("a")) == ["get"]
        assert calls_of(lambda: q.append(b"x")) == ["append"]
        assert calls_of(lambda: q.popleft() or 1) == ["popleft"]
        assert calls_of(lambda: r.write(0, b"x")) == ["write"]
        assert calls_of(lambda: r.read(0, 1)) == ["read"]

        def transaction() -> None:
            with pool.transaction():
                d["a"] = b"z"

        assert calls_of(transaction) == ["Pool.transaction", "__exit__"]


if __name__ == "__main__":
    FIGURES.write_text(json.dumps({"compiler": compiler(), "paths": count()}, indent=1) + "\n")
    print(FIGURES.read_text())
