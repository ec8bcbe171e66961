"""Breaks one module on purpose, as it is imported: PMLOG_CANARY names the canary.

Only tests load this, so that no program can trip over it.
It rewrites the source in memory; no file changes.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tests.canaries.registry import CANARIES, Canary


class _Loader(importlib.abc.Loader):
    def __init__(self, canary: Canary, origin: str) -> None:
        self._canary, self._origin = canary, origin

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        source = self._canary.breaks(Path(self._origin).read_text())
        module.__file__ = self._origin
        exec(compile(source, self._origin, "exec"), module.__dict__)  # noqa: S102 - our own source
        Path(os.environ["PMLOG_CANARY_SEEN"]).write_text(self._canary.name)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, canary: Canary) -> None:
        self._canary = canary

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._canary.module:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.origin is not None:
                spec.loader = _Loader(self._canary, spec.origin)
                return spec
        return None


def install() -> None:
    """Put the canary in, if the environment names one; before anything of pmlog is imported."""
    name = os.environ.get("PMLOG_CANARY")
    if not name:
        return
    canary = CANARIES[name]
    assert canary.module not in sys.modules, f"{canary.module} is imported already"
    sys.meta_path.insert(0, _Finder(canary))
