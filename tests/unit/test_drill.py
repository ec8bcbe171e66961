"""Drills: a copy comes up as a primary with all that was committed, and the original is untouched."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pmlog
from pmlog import drill, image, marks
from pmlog.cli import ExitCode
from pmlog.drill import Report
from pmlog.log import LogReader
from tests import children
from tests.fault import damage as dm
from tests.support import SMALL, Child, OpenPool, abandon, faults_of
from tests.unit.test_check_cli import Ran

Spawn = Callable[..., Child]


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file of a folder; holes are skipped, sizes count."""
    return {
        str(path.relative_to(folder)): digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def digest(path: Path) -> str:
    """Return the digest of a file's size and data, wherever that stands in it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = hashlib.sha256(str(size).encode())
        end = 0
        while end < size:
            try:
                begin = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                break  # nothing but a hole up to the end
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            found.update(b"%d" % begin + os.pread(file.fileno(), end - begin, begin))
    return found.hexdigest()


def state_in(report: Report) -> object:
    """Return what the promoted copy holds."""
    assert report.is_well
    assert faults_of(report.copy) == []
    with pmlog.open(report.copy) as copy:
        assert copy.position.epoch == report.epoch
        return dm.state_of(copy)


@pytest.mark.parametrize(
    ("make", "medium"),
    [(dm.make_closed, "file"), (dm.make_killed, "file"), (dm.make_closed, "pmemobj")],
)
def test_without_a_writer(
    make: Callable[..., object], medium: str, pool_path: Path, memory_dir: Path
) -> None:
    """A pool at rest, closed or killed: its copy holds every committed transaction.

    Not one byte of the original is another one afterwards.
    """
    expected = make(pool_path, medium=medium, max_size="16MiB")
    before = digests(pool_path)
    report = drill.drill(pool_path, memory_dir / "copy")
    assert digests(pool_path) == before
    assert (report.epoch, report.attempts, report.exit_code) == (2, 1, None)
    assert state_in(report) == expected
    assert digests(pool_path) == before


def test_stopped_pool(pool_path: Path, memory_dir: Path) -> None:
    """A pool that is stopped can be tried out; the stop mark is not copied, and stays."""
    expected = dm.make_closed(pool_path)
    marks.set_stop(pool_path, marks.Stop(why="power", epoch=1))
    before = digests(pool_path)
    assert state_in(drill.drill(pool_path, memory_dir / "copy")) == expected
    assert digests(pool_path) == before


def test_beside_a_writer(spawn: Spawn, pool_path: Path, memory_dir: Path) -> None:
    """The writer goes on, laps of its ring too; each copy is one of its committed states.

    Nothing pins the ring, so that it is lapped while blocks are copied.
    """
    options = {**SMALL, "size": "8MiB", "log_size": "4MiB"}
    writer = spawn(children.write_forever, str(pool_path), options)
    assert writer.hear() == 0
    for turn in range(4):
        before = writer.hear()
        report = drill.drill(pool_path, memory_dir / f"copy{turn}")
        with LogReader(pool_path) as reader:
            known = reader.status()
            assert known is not None
            assert known.consumers == ()
            assert known.lsn_durable >= report.position.lsn
        assert report.is_well
        with pmlog.open(report.copy) as copy:
            number = copy.dict("d")["n"]
            assert copy.deque("q")[-1] == number
            assert copy.region("r", 64).read(0, 8) == number.to_bytes(8, "little")
            assert number >= before
        assert writer.hear() > before
    writer.kill()
    with pmlog.open(pool_path) as pool:
        assert pool.dict("d")["n"] >= number
        assert pool.position.epoch == 1


def test_replica_of_a_receiver(pool_path: Path, memory_dir: Path) -> None:
    """The folder of a receiver stands for its replica; an incomplete one is refused."""
    folder = pool_path.parent / "receiver"
    folder.mkdir()
    expected = dm.make_killed(folder / "pool")
    report = drill.drill(folder, memory_dir / "copy")
    assert report.source == str(folder / "pool")
    assert state_in(report) == expected
    marks.set_incomplete(folder / "pool", marks.Incomplete("baseline"))
    for path in (folder, folder / "pool"):
        with pytest.raises(pmlog.NotPromotableError):
            drill.drill(path, memory_dir / "other")


def test_rot_is_not_copied(
    pool_path: Path, memory_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that does not match its checksum ends the drill, named."""
    monkeypatch.setattr(image, "SETTLE_S", 0.05)
    dm.make_closed(pool_path)
    page = dm.used_pages(pool_path)[2]
    assert dm.flip_bit(pool_path, "image", page * dm.PAGE + 100, 3).inflict(pool_path)
    with pytest.raises(pmlog.CorruptionError) as caught:
        drill.drill(pool_path, memory_dir / "copy")
    assert caught.value.offset == page * dm.PAGE


def test_scratch_must_be_empty(open_pool: OpenPool, pool_path: Path) -> None:
    """Nothing is ever written where something is, least of all over the original."""
    open_pool().close()
    before = digests(pool_path)
    for place in (pool_path, pool_path.parent):
        with pytest.raises(pmlog.ConfigError):
            drill.drill(pool_path, place)
    assert digests(pool_path) == before


def test_command_line(pool_path: Path, memory_dir: Path) -> None:
    """It says what it found; exit code 0 only if the command's is 0; the copy stays if named."""
    pool = pmlog.open(pool_path, **SMALL)
    pool.dict("d")["answer"] = 42
    position = pool.position
    abandon(pool)
    script = memory_dir / "look.py"
    script.write_text(
        "import os, sys, pmlog\n"
        "with pmlog.open(os.environ['PMLOG_POOL']) as pool:\n"
        "    assert pool.position.epoch == int(os.environ['PMLOG_EPOCH']) == 2\n"
        "    pool.dict('d')['answer'] += 1\n"
        "    print(pool.dict('d')['answer'])\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    command = shlex.join([sys.executable, str(script)])
    scratch = memory_dir / "copy"
    good = Ran("drill", pool_path, "--dir", scratch, "--run", f"{command} 0", "--json")
    assert (good.code, good.err) == (ExitCode.OK, "43\n")
    found = good.json
    assert found["is_well"] is True
    assert (found["exit_code"], found["epoch"], found["faults"]) == (0, 2, [])
    assert (found["position"]["lsn"], found["position"]["txn"]) == (position.lsn, position.txn)
    with pmlog.open(found["copy"]) as copy:
        assert copy.dict("d")["answer"] == 43
    bad = Ran("drill", pool_path, "--run", f"{command} 7")
    assert bad.code == ExitCode.FAILED
    assert "exit code: 7" in bad.out
    assert "NOT well" in bad.out
    assert Ran("drill", pool_path, "--dir", scratch).code == ExitCode.USAGE
    assert Ran("drill", pool_path, "--run", "no-such-program-at-all").code == ExitCode.USAGE
    assert Ran("drill", memory_dir / "nothing").code == ExitCode.NO_POOL
    with pmlog.open(pool_path) as original:
        assert original.dict("d")["answer"] == 42
