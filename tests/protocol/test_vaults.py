"""Vaults in one process: what is durable when, and what a vault must hold to be taken in."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pmlog
from pmlog import marks, vault
from pmlog.errors import CorruptionError, MediumError
from pmlog.log import LogReader
from pmlog.replica import Replica
from receiver.state import State
from receiver.vault import _rebuild, take
from shipper.vault import Filled, Plan, fill
from tests.support import faults_of

BLOB_BYTES = 200_000


def fill_one(pool: pmlog.Pool, parent: Path) -> Filled:
    """Freeze a pool with some blocks of data, and put all of it into a vault."""
    blob = pool.region("blob", BLOB_BYTES)
    for at in range(0, BLOB_BYTES, 40_000):
        blob.write(at, bytes([1 + at // 40_000]) * 40_000)
    pool.checkpoint()
    pool.dict("words")["last"] = "word"
    with LogReader(pool.path) as reader:
        reader.freeze()
    try:
        return fill(pool.path, parent, [Plan(None, 0)], pool.position.lsn, threading.Event())
    finally:
        with LogReader(pool.path) as reader:
            reader.unfreeze()


def test_round_trip(pool: pmlog.Pool, disk_dir: Path, memory_dir: Path) -> None:
    """What is taken in is the pool, to the last byte of the last transaction."""
    filled = fill_one(pool, disk_dir / "vaults")
    assert filled.has_image
    vault.seal(filled.path)
    taken = take(memory_dir / "r", memory_dir / "r" / "pool", filled.path)
    assert taken.place.lsn == pool.position.lsn
    assert faults_of(memory_dir / "r" / "pool") == []
    with pmlog.open(memory_dir / "r" / "pool", readonly=True) as copy:
        blob = copy.region("blob")
        assert blob.read(0, BLOB_BYTES) == pool.region("blob").read(0, BLOB_BYTES)
        assert copy.dict("words")["last"] == "word"


def test_order_of_stores(pool: pmlog.Pool, disk_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, then their names, then the folder's own name, and only then the seal, are durable.

    Model: a power cut leaves any renaming that no sync of the folder followed, and any bytes that
    no sync of the file followed.
    Method: the order of the calls.
    """
    calls: list[str] = []

    def note(name: str, describe: Callable[..., str]) -> None:
        real = getattr(os, name)

        def call(*args: Any, **named: Any) -> Any:
            calls.append(f"{name} {describe(*args)}")
            return real(*args, **named)

        monkeypatch.setattr(os, name, call)

    note("fsync", lambda fd: Path(os.readlink(f"/proc/self/fd/{fd}")).name)
    note("rename", lambda old, new: f"{Path(old).name} {Path(new).name}")
    note("replace", lambda old, new: f"{Path(old).name} {Path(new).name}")
    path = fill_one(pool, disk_dir / "vaults").path
    name = path.name
    assert calls == [
        "fsync log", "fsync image", "fsync manifest", f"fsync {name}.new",
        f"rename {name}.new {name}", "fsync vaults",
    ]  # fmt: skip
    calls.clear()
    vault.seal(path)
    assert calls == ["fsync sealed.new", "replace sealed.new sealed", f"fsync {name}"]


def test_seal_of_another_manifest(pool: pmlog.Pool, disk_dir: Path, memory_dir: Path) -> None:
    """A manifest that was changed behind the seal is refused, though it makes sense."""
    path = fill_one(pool, disk_dir / "vaults").path
    vault.seal(path)
    where = path / "manifest"
    manifest = msgspec.json.decode(where.read_bytes(), type=vault.Manifest)
    other = replace(manifest.identity, created_ns=1)
    where.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, identity=other)))
    with pytest.raises(CorruptionError):
        take(memory_dir / "r", memory_dir / "r" / "pool", path)
    assert not (memory_dir / "r" / "pool").exists()


@pytest.mark.damaged
def test_incomplete_while_it_is_taken_in(
    pool: pmlog.Pool, disk_dir: Path, memory_dir: Path
) -> None:
    """Blocks go into a replica that says that it is incomplete, so that nobody opens half a copy.

    1. The vault was verified; its disk dies before the blocks are read again.
    2. The replica holds some of them.
    """
    path = fill_one(pool, disk_dir / "vaults").path
    vault.seal(path)
    reader = vault.VaultReader(path)
    (path / "image").unlink()
    where = memory_dir / "r" / "pool"
    where.parent.mkdir()
    with Replica(where, reader.manifest.identity) as replica:
        with pytest.raises(MediumError):
            _rebuild(replica, State(memory_dir / "r"), reader)
        assert marks.incomplete_of(where) is not None
    with pytest.raises(pmlog.IncompleteError):
        pmlog.open(where)
