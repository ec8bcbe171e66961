"""The commands check, info and dump, on good, damaged, live and missing pools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pmlog
import pmlog.check
from pmlog.cli import ExitCode
from tests import children
from tests.fault import damage as dm
from tests.support import Child, OpenPool, abandon, faults_of

ROOT = Path(__file__).resolve().parents[2]


class Ran:
    """A command that has ended, in a process of its own that the fork server made."""

    def __init__(self, *arguments: object) -> None:
        with tempfile.TemporaryDirectory() as directory:
            out, err = Path(directory, "out"), Path(directory, "err")
            child = Child(children.run_command, [*map(str, arguments)], str(out), str(err))
            self.code = child.join()
            child.discard()
            self.out, self.err = out.read_text(), err.read_text()
        assert "Traceback" not in self.err, self.err

    @property
    def json(self) -> Any:
        """Return the output, which is one JSON document."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """Return the output, which is one JSON document a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def good(open_pool: OpenPool, pool_path: Path) -> Path:
    """Give a sound, closed pool."""
    with open_pool(log_size="1MiB") as pool:
        dm.fill(pool, 1)
    return pool_path


def spoil(path: Path) -> list[int]:
    """Damage two pages of a pool's image; return where."""
    pages = dm.used_pages(path)[2:4]
    for page in pages:
        assert dm.flip_bit(path, "image", page * dm.PAGE + 100, 3).inflict(path)
    return [page * dm.PAGE for page in pages]


# ---- check -----------------------------------------------------------------------------------


def test_check_of_a_good_pool(good: Path) -> None:
    """A sound pool: exit code 0, and words that say so; --json gives an empty list of faults."""
    ran = Ran("check", good)
    assert ran.code == 0
    assert ran.out.strip()
    ran = Ran("check", "--json", good)
    assert ran.code == 0
    assert ran.json["faults"] == []


@pytest.mark.damaged
def test_check_of_a_damaged_pool(good: Path) -> None:
    """Every fault is listed with file and place, and the exit code says damaged, not failed."""
    places = spoil(good)
    ran = Ran("check", good)
    assert ran.code == 1
    for place in places:
        assert str(place) in ran.out
    ran = Ran("check", "--json", good)
    assert ran.code == 1
    faults = ran.json["faults"]
    assert {fault["offset"] for fault in faults} >= set(places)
    assert {fault["file"] for fault in faults} == {"image"}
    assert all(fault["text"] for fault in faults)


@pytest.mark.damaged
@pytest.mark.parametrize("file", dm.FILES)
def test_check_of_a_bad_header(good: Path, file: str) -> None:
    """A pool that cannot even be opened is a fault that names the file, not a crash."""
    assert dm.flip_bit(good, file, 20, 1).inflict(good)
    ran = Ran("check", "--json", good)
    assert ran.code == 1
    assert [fault["file"] for fault in ran.json["faults"]] == [file]


def test_check_of_a_live_pool(pool: pmlog.Pool) -> None:
    """A pool that a writer has open is checked beside it."""
    dm.fill(pool, 1)
    ran = Ran("check", "--json", pool.path)
    assert (ran.code, ran.json["faults"]) == (0, [])
    pool.dict("d")["goes on"] = 1


def test_check_of_a_killed_pool(open_pool: OpenPool, pool_path: Path) -> None:
    """A pool whose writer died is sound, and check recovers nothing on the disk."""
    pool = open_pool(log_size="1MiB")
    dm.fill(pool, 1)
    abandon(pool)
    before = (pool_path / "image").read_bytes()
    ran = Ran("check", pool_path)
    assert ran.code == 0
    assert (pool_path / "image").read_bytes() == before


COMMANDS = ["check", "info", "dump"]


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_pool(memory_dir: Path, command: str) -> None:
    """No pool there: an error on stderr that names the path, and an exit code of its own."""
    ran = Ran(command, memory_dir / "none")
    assert ran.code == ExitCode.NO_POOL
    assert str(memory_dir / "none") in ran.err
    assert ran.out == ""
    assert not (memory_dir / "none").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_something_else(memory_dir: Path, command: str) -> None:
    """A directory of something else: the same, and it is left alone."""
    (memory_dir / "notes.txt").write_text("notes")
    ran = Ran(command, memory_dir)
    assert ran.code == ExitCode.NO_POOL
    assert str(memory_dir) in ran.err
    assert [entry.name for entry in memory_dir.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("command", COMMANDS)
def test_usage(command: str) -> None:
    """A command without a pool says how it is used; --help lists its options."""
    ran = Ran(command)
    assert ran.code == 2
    assert command in ran.err
    ran = Ran(command, "--help")
    assert ran.code == 0
    assert "--json" in ran.out


@pytest.mark.parametrize(
    "start", [[sys.executable, "-m", "pmlog.cli"], [str(Path(sys.executable).with_name("pmlog"))]]
)
def test_help_lists_the_commands(start: list[str]) -> None:
    """`pmlog --help` names every command, as a script and as a module."""
    done = subprocess.run([*start, "--help"], capture_output=True, text=True, check=True)
    for command in COMMANDS:
        assert command in done.stdout


# ---- info ------------------------------------------------------------------------------------


def test_info(good: Path) -> None:
    """Info tells what the pool is and holds; --json gives the figures of `status` by name."""
    with pmlog.open(good, readonly=True) as pool:
        status = pool.status()
    ran = Ran("info", good)
    assert ran.code == 0
    assert str(status.pool_id) in ran.out
    for name in ("d", "q", "a", "r"):
        assert name in ran.out
    info = Ran("info", "--json", good).json
    flat = json.dumps(info)
    assert str(status.pool_id) in flat
    assert str(status.lsn_committed) in flat
    assert "emulated" in flat


def test_info_of_a_live_pool(pool: pmlog.Pool) -> None:
    """Info beside a writer names its process."""
    dm.fill(pool, 1)
    ran = Ran("info", "--json", pool.path)
    assert ran.code == 0
    assert str(os.getpid()) in ran.out


@pytest.mark.damaged
def test_info_of_a_damaged_pool(good: Path) -> None:
    """Info of a pool with a bad header fails with the reason, not with a traceback."""
    assert dm.flip_bit(good, "image", 20, 1).inflict(good)
    ran = Ran("info", good)
    assert ran.code == ExitCode.UNREADABLE
    assert "image" in ran.err


# ---- dump ------------------------------------------------------------------------------------


def test_dump(open_pool: OpenPool, pool_path: Path) -> None:
    """Dump lists the records behind the checkpoint, or from an LSN; --json gives one a line."""
    pool = open_pool(log_size="1MiB")
    d = pool.dict("d")
    pool.checkpoint()
    positions = [pool.position]
    for n in range(5):
        d[n] = n
        positions.append(pool.position)
    abandon(pool)
    ran = Ran("dump", pool_path)
    assert ran.code == 0
    for position in positions[1:]:
        assert str(position.txn) in ran.out
    records = Ran("dump", "--json", pool_path).json_lines
    assert [record["lsn"] for record in records] == [p.lsn for p in positions[:-1]]
    assert [record["txn"] for record in records] == [p.txn for p in positions[1:]]
    assert all(record["length"] % 64 == 0 for record in records)
    records = Ran("dump", "--json", "--from", positions[2].lsn, pool_path).json_lines
    assert [record["lsn"] for record in records] == [p.lsn for p in positions[2:-1]]


@pytest.mark.parametrize(
    ("lsn", "code"),
    [
        ("64", ExitCode.GONE),
        ("1000000000", ExitCode.GONE),
        ("-1", ExitCode.GONE),
        ("x", ExitCode.USAGE),
    ],
)
def test_dump_from_nowhere(good: Path, lsn: str, code: ExitCode) -> None:
    """An LSN that the log does not hold, or that is none, is an error that names it."""
    ran = Ran("dump", f"--from={lsn}", good)
    assert ran.code == code
    assert lsn in ran.err


def test_dump_into_a_closed_pipe(open_pool: OpenPool, pool_path: Path) -> None:
    """A reader that goes away ends the command without a traceback."""
    pool = open_pool(log_size="4MiB")
    r = pool.region("r", 64)
    for n in range(3_000):
        r.write(0, n.to_bytes(8, "little"))
    abandon(pool)
    with subprocess.Popen(
        [sys.executable, "-m", "pmlog.cli", "dump", "--json", str(pool_path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


# ---- the same from Python --------------------------------------------------------------------


@pytest.mark.damaged
def test_check_lists_every_fault(good: Path) -> None:
    """`pmlog.check.check` goes on after the first fault."""
    places = spoil(good)
    faults = pmlog.check.check(good)
    assert {fault.offset for fault in faults} >= set(places)
    assert all(str(fault) for fault in faults)


@pytest.mark.parametrize("use", [lambda path: path, str, lambda path: f"{path}/"])
def test_check_takes_paths(good: Path, use: Callable[[Path], Any]) -> None:
    """A path may be a str or a Path."""
    assert pmlog.check.check(use(good)) == []


def test_check_beside_a_busy_writer(pool: pmlog.Pool) -> None:
    """A check beside a writer that commits and checkpoints finds no fault that is not there."""
    for generation in range(1, 6):
        dm.fill(pool, generation)
        assert faults_of(pool.path) == []
        pool.checkpoint()
        assert faults_of(pool.path) == []
