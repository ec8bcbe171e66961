"""The Python examples in the texts run as they stand."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

import pmlog
from tests.format.tables import DOCS, ROOT
from tests.support import faults_of

PAGES = [ROOT / "README.md", DOCS / "quickstart.md", DOCS / "guide.md"]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_examples(page: Path, place: Path, module: types.ModuleType) -> None:
    """Run a page's examples in a module, with paths under /dev/shm put into `place`."""
    text = page.read_text(encoding="utf-8")
    blocks = list(_BLOCK.finditer(text))
    assert blocks
    for block in blocks:
        line = text.count("\n", 0, block.start()) + 1
        source = "\n" * line + block[1].replace("/dev/shm", str(place))
        exec(compile(source, str(page), "exec"), module.__dict__)  # noqa: S102 - our own texts


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page: Path, memory_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's examples run one after the other, as one program; what they assert holds."""
    module = types.ModuleType("pmlog_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look there
    try:
        run_examples(page, memory_dir, module)
    finally:
        for value in vars(module).values():
            if isinstance(value, pmlog.Pool):
                value.close()
    pools = [path for path in memory_dir.iterdir() if (path / "log").exists()]
    assert pools
    for path in pools:
        assert faults_of(path) == []
