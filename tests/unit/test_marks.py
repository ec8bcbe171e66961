"""Marks: the order in which their bytes and their names become durable."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pmlog import marks
from pmlog.marks import Stop


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the calls that matter, in order, and what they are of."""
    noted: list[str] = []

    def note(name: str, describe: Callable[..., str]) -> None:
        real = getattr(os, name)

        def call(*args: Any, **named: Any) -> Any:
            noted.append(f"{name} {describe(*args)}")
            return real(*args, **named)

        monkeypatch.setattr(os, name, call)

    note("fsync", lambda fd: Path(os.readlink(f"/proc/self/fd/{fd}")).name)
    note("replace", lambda old, new: f"{Path(old).name} {Path(new).name}")
    note("unlink", lambda path, *_: Path(path).name)
    return noted


def test_stored_in_order(tmp_path: Path, calls: list[str]) -> None:
    """The bytes are durable before the name says that they are there; then the name is.

    Model: a power cut leaves any renaming that no sync of the folder followed, and any bytes that
    no sync of the file followed.
    Method: the order of the calls.
    """
    marks.set_stop(tmp_path, Stop("power", 3))
    assert calls == ["fsync stop.new", "replace stop.new stop", f"fsync {tmp_path.name}"]
    assert marks.stop_of(tmp_path) == Stop("power", 3)


def test_removed_in_order(tmp_path: Path, calls: list[str]) -> None:
    """A removed mark does not come back: the folder is synced behind its removal."""
    marks.set_stop(tmp_path, Stop("power", 3))
    calls.clear()
    marks.set_stop(tmp_path, None)
    assert calls == ["unlink stop", f"fsync {tmp_path.name}"]
    assert marks.stop_of(tmp_path) is None


def test_half_written(tmp_path: Path) -> None:
    """What a crash left beside a mark is no mark, and the next one takes its place."""
    (tmp_path / "stop.new").write_bytes(b'{"why":"pow')
    assert marks.stop_of(tmp_path) is None
    marks.set_stop(tmp_path, Stop("power", 3))
    assert marks.stop_of(tmp_path) == Stop("power", 3)
