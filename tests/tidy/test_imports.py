"""Who may import whom: the folders show the architecture, and this keeps it true."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pmlog

ROOT = Path(__file__).resolve().parents[2]
PURE = {
    "errors",
    "history",
    "durations",
    "identity",
    "limits",
    "sizes",
    "position",
    "levels",
    "wire",
}
# Standard modules that touch no clock, file, socket, process or random source.
PURE_STANDARD = {
    "__future__", "abc", "bisect", "collections", "contextlib", "dataclasses", "decimal", "enum",
    "errno", "fractions", "functools", "itertools", "math", "operator", "re", "string", "struct",
    "textwrap", "types", "typing", "uuid", "zlib",
    "lz4", "msgspec", "xxhash",  # functions of their arguments
}  # fmt: skip


def sources(folder: str) -> list[Path]:
    """Return the Python files of a folder of the repository."""
    return sorted((ROOT / folder).rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Give the dotted names that a file imports, wherever in it."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_finds_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of imports sees every form, also inside functions."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "package" / "module.py"
    path.parent.mkdir()
    path.write_text(
        "import a.b\nfrom c import d as e\nfrom . import f\nfrom .g import h\n"
        "def function():\n    from pmlog._core import lib\n    import i\n"
    )
    assert sorted(imports_of(path)) == [
        "a.b", "c.d", "i", "package.f", "package.g.h", "pmlog._core.lib",
    ]  # fmt: skip


def test_one_importer_of_the_compiled_module() -> None:
    """Only pmlog/_engine.py imports the compiled module."""
    importers = {
        str(path.relative_to(ROOT))
        for folder in ("pmlog", "shipper", "receiver", "bench")
        for path in sources(folder)
        if any((name + ".").startswith("pmlog._core.") for name in imports_of(path))
    }
    assert importers == {"pmlog/_engine.py"}


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules(module: str) -> None:
    """Pure modules import pure modules only."""
    path = ROOT / "pmlog" / f"{module}.py"
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top == "pmlog":
            assert rest.partition(".")[0] in PURE, f"{module} imports {name}"
        else:
            assert top in PURE_STANDARD, f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_open_nothing(module: str) -> None:
    """Pure modules call no builtin that has an effect."""
    tree = ast.parse((ROOT / "pmlog" / f"{module}.py").read_text())
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}


@pytest.mark.parametrize(("package", "other"), [("shipper", "receiver"), ("receiver", "shipper")])
def test_processes_use_public_names(package: str, other: str) -> None:
    """Shipper and receiver import only pmlog's public names, and never each other."""
    for path in sources(package):
        for name in imports_of(path):
            where = path.relative_to(ROOT)
            assert name.partition(".")[0] != other, f"{where} imports {name}"
            if name.partition(".")[0] == "pmlog":
                private = [part for part in name.split(".") if part.startswith("_")]
                assert not private, f"{where} imports {name}"


def test_library_knows_no_process() -> None:
    """The library imports neither shipper nor receiver, nor asyncio's or the network's packages.

    The command line is where they are joined, and imports them by name when a subcommand runs.
    `http.py` is the one door of both services, which may not import each other; nothing else of
    the library may import it. `serving.py` starts the shipper in a thread, and imports it only
    then; `test_import_is_light` sees to that.
    """
    for path in sources("pmlog"):
        if "cli" in path.parts or path == ROOT / "pmlog" / "http.py":
            continue
        for name in imports_of(path):
            top = name.partition(".")[0]
            where = path.relative_to(ROOT)
            assert not name.startswith("pmlog.http"), f"{where} imports {name}"
            if top == "shipper" and path.name == "serving.py":
                continue
            assert top not in {"shipper", "receiver", "aiohttp", "pickle"}, (
                f"{where} imports {name}"
            )


def test_import_is_light() -> None:
    """Importing pmlog loads neither the network's packages nor the services."""
    code = "import pmlog, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.split()
    assert "pmlog.pool" in loaded
    heavy = {"asyncio", "aiohttp", "ssl", "numpy", "rich", "typer", "shipper", "receiver"}
    assert not heavy & set(loaded)


def test_public_names() -> None:
    """Every name in pmlog.__all__ is there, and none is private."""
    assert pmlog.__all__
    assert len(set(pmlog.__all__)) == len(pmlog.__all__)
    for name in pmlog.__all__:
        assert hasattr(pmlog, name)
        assert not name.startswith("_") or name == "__version__"


def test_engine_is_typed() -> None:
    """The package says that it is typed."""
    assert (ROOT / "pmlog" / "py.typed").exists()
