"""What the pages name exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.format.tables import DOCS, NATIVE, ROOT

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
_TEST = re.compile(r"`(tests/[\w/]+\.(?:py|c))(?:::(\w+))?`")
_C_FUNCTION = re.compile(r"`(pml_\w+)`")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def mentions(pattern: re.Pattern[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return what matches in the pages: (page, groups)."""
    return [
        (str(page.relative_to(ROOT)), match.groups())
        for page in PAGES
        for match in pattern.finditer(page.read_text(encoding="utf-8"))
    ]


def names_in(path: Path) -> set[str]:
    """Return the functions and classes that a Python file defines at its top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_tests() -> None:
    """Every test that a page names is there."""
    found = mentions(_TEST)
    assert len(found) > 30
    missing = [
        f"{page}: {file}::{name}"
        for page, (file, name) in found
        if not (ROOT / file).is_file() or (name and name not in names_in(ROOT / file))
    ]
    assert missing == []


def test_functions_of_the_core() -> None:
    """Every function and struct of the core that a page names is there."""
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in [*NATIVE.glob("*.[ch]"), ROOT / "pmlog" / "medium" / "pmemobj.py"]
    )
    words = set(re.findall(r"\bpml_\w+", sources))
    found = mentions(_C_FUNCTION)
    assert found
    assert [(page, name) for page, (name,) in found if name not in words] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Every link to a file of the repository leads to one."""
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).is_file()] == []


def test_canaries() -> None:
    """Every canary that the guarantees name stands in the registry, each of whose names is one."""
    source = (NATIVE / "canary.h").read_text(encoding="utf-8")
    names = re.findall(r"^    X\((\w+), (?:engine|medium), \"", source, re.MULTILINE)
    assert len(names) == len(set(names)) >= 60
    text = (DOCS / "guarantees.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "canar" in line and "test_canaries.c" in line]
    named = {name for line in lines for name in re.findall(r"`([A-Z_]+)`", line)}
    assert len(named) > 4
    assert named <= set(names)


def test_every_canary_is_in_the_sources() -> None:
    """A canary of the engine breaks a line of it; one of the medium is made by the recording."""
    source = (NATIVE / "canary.h").read_text(encoding="utf-8")
    engine = "".join(path.read_text(encoding="utf-8") for path in NATIVE.glob("*.c"))
    medium = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "native").glob("*.h")
    )
    for name, where in re.findall(r"^    X\((\w+), (\w+), \"", source, re.MULTILINE):
        if where == "engine":
            assert f"PML_BROKEN({name})" in engine, name
        else:
            assert re.search(rf"\bPML_CANARY_{name}\b", medium), name


def test_the_model_is_quoted() -> None:
    """What may be seen after a cut stands in the guarantees as it is compiled."""
    source = (ROOT / "tests" / "native" / "model.h").read_text(encoding="utf-8")
    model = source.partition("/* model: begin */\n")[2].partition("/* model: end */")[0]
    assert "model_seen" in model
    assert f"```c\n{model}```\n" in (DOCS / "guarantees.md").read_text(encoding="utf-8")
