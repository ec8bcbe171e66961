from __future__ import annotations

import contextlib
import fcntl
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pmlog
from pmlog import _engine, errors
from pmlog.medium import pmemobj
from tests.support import Child, OpenPool, faults_of

# Python 3.12 and later warn of any fork of a process with threads; here the fork is the subject.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

Spawn = Callable[..., Child]
Attach = Callable[..., pmemobj.Attachment]

MIB = 1 << 20
GIB = 1 << 30
UNIT = 64 << 10
LAST_ROOM = 512  # bytes of the root object that pmlog leaves unused: tests write marks there
MARK_BYTES = 64
FILE = pmemobj.FILE_NAME
# Repetitions of what happens by chance.
KILLS = 20
FLIPS = 300


@pytest.fixture
def directory(memory_dir: Path) -> Path:
    """Return a path for a pool; nothing is there yet."""
    return memory_dir / "pool"


@pytest.fixture
def attach(directory: Path) -> Iterator[Attach]:
    """Attach to the pool at `directory` or another one; all are closed after the test."""
    opened: list[pmemobj.Attachment] = []

    def attach_one(where: Path = directory, **options: Any) -> pmemobj.Attachment:
        attachment = pmemobj.attach(where, **{"max_size": 64 * MIB, "create": True, **options})
        opened.append(attachment)
        return attachment

    yield attach_one
    for attachment in opened:
        attachment.close()


def _image(attachment: pmemobj.Attachment) -> Any:
    """Return the image's first page: the one that is reserved without the engine."""
    where = _engine.ffi.cast("char *", attachment.api.pool) + attachment.api.image_offset
    return _engine.ffi.buffer(where, 4096)


def _pretend_to_format(attachment: pmemobj.Attachment) -> None:
    """Store something where the engine puts its header's magic, so that closing keeps the file."""
    _image(attachment)[0:8] = b"PMLIMAGE"


def _make(where: Path) -> Path:
    """Make a file that is kept, and return its path."""
    attachment = pmemobj.attach(where, max_size=64 * MIB, create=True)
    _pretend_to_format(attachment)
    attachment.close()
    return where / FILE


def _library_root(attachment: pmemobj.Attachment) -> tuple[Any, Any, Any]:
    """Return libpmemobj, its pool and the address of the root object."""
    library, ffi = pmemobj.load(), pmemobj._ffi
    pool = ffi.cast("PMEMobjpool *", int(_engine.ffi.cast("uintptr_t", attachment.api.pool)))
    return library, pool, ffi.cast("char *", pool) + library.pmemobj_root(pool, 4096).off


# ---- where things lie ---------------------------------------------------------------------------


@given(st.integers(0, 1 << 40))
def test_room_holds_its_regions(max_size: int) -> None:
    """Whatever max_size is: the regions are aligned, lie in the object, and every page has a sum."""
    room = pmemobj.room_for(max_size)
    assert room.sums_offset % UNIT == room.image_offset % UNIT == room.image_bytes_max % UNIT == 0
    assert room.sums_bytes_max % UNIT == 0
    assert room.sums_offset + room.sums_bytes_max <= room.image_offset
    object_end = 0x3C2400 + 16 + room.object_bytes
    assert room.image_offset + room.image_bytes_max <= object_end <= room.file_bytes
    assert 4096 + room.image_bytes_max // 4096 * 4 <= room.sums_bytes_max
    # As the engine rounds it: medium.c, sums_bytes().
    rounded = -(-(4096 + room.image_bytes_max // 4096 * 4) // UNIT) * UNIT
    assert rounded <= room.sums_bytes_max
    assert room.image_bytes_max >= min(max_size, pmemobj.IMAGE_BYTES_MAX)
    assert room.image_bytes_max <= pmemobj.IMAGE_BYTES_MAX
    assert 8 * MIB <= room.file_bytes < 16 * GIB + 4 * MIB


def test_the_cap() -> None:
    """A larger max_size than libpmemobj's largest object gets that object: nearly 16 GiB."""
    assert 16 * GIB - 32 * MIB < pmemobj.IMAGE_BYTES_MAX < 16 * GIB
    assert pmemobj.room_for(64 * GIB) == pmemobj.room_for(1 << 50)
    assert pmemobj.room_for(64 * GIB).image_bytes_max == pmemobj.IMAGE_BYTES_MAX


def test_the_root_struct_is_pinned() -> None:
    """The root object's fields stay where format 1 has them."""
    fields = {
        name: (field.offset, pmemobj._ffi.sizeof(field.type))
        for name, field in pmemobj._ffi.typeof("struct pml_pmemobj_root").fields
    }
    assert fields == {
        "magic": (0, 8),
        "version": (8, 4),
        "checksum": (12, 4),
        "object": (16, 16),
        "file_bytes": (32, 8),
        "sums_offset": (40, 8),
        "sums_bytes_max": (48, 8),
        "image_offset": (56, 8),
        "image_bytes_max": (64, 8),
        "fixed_checksum": (72, 4),
        "reserved0": (76, 4),
        "reserved": (80, 48),
    }
    assert pmemobj._ffi.sizeof("struct pml_pmemobj_root") == 128


# ---- making and opening -------------------------------------------------------------------------


def test_a_new_file_is_large_and_takes_little(directory: Path, attach: Attach) -> None:
    """A new file has room for the largest image and takes 5 MiB of the file system at most."""
    attachment = attach(max_size=64 * GIB)
    assert attachment.was_created
    assert attachment.image_bytes_max == pmemobj.IMAGE_BYTES_MAX
    assert os.listdir(directory) == [FILE]
    status = os.stat(directory / FILE)
    assert status.st_size == pmemobj.room_for(64 * GIB).file_bytes
    assert status.st_blocks * 512 < 5 * MIB
    umask = os.umask(0)
    os.umask(umask)
    assert status.st_mode & 0o777 == 0o666 & ~umask
    assert bytes(_image(attachment)) == bytes(4096)


@pytest.mark.parametrize("max_size", [0, 4 * MIB, 5 * MIB + 1, GIB, 64 * GIB])
def test_no_heap_is_left(directory: Path, monkeypatch: pytest.MonkeyPatch, max_size: int) -> None:
    """The object takes all of libpmemobj's heap, whatever the size of the file."""
    monkeypatch.setattr(pmemobj, "_LARGEST", pmemobj.room_for(max_size))
    attachment = pmemobj.attach(directory, max_size=max_size, create=True)
    library, pool, _ = _library_root(attachment)
    oid = pmemobj._ffi.new("PMEMoid *")
    for size in (1 << 18, 1 << 17):
        assert library.pmemobj_xalloc(pool, oid, size, 1, 0, pmemobj._NULL, pmemobj._NULL) == -1
    attachment.close()


def test_reopen(directory: Path, attach: Attach) -> None:
    """What was stored is there again, at the same place; max_size is not asked a second time."""
    first = attach()
    _image(first)[0:16] = b"PMLIMAGE and so "
    api = first.api
    first.close()
    again = attach(max_size=1, create=False)
    assert not again.was_created
    assert bytes(_image(again)[0:16]) == b"PMLIMAGE and so "
    for name in ("image_offset", "image_bytes_max", "sums_offset", "sums_bytes_max"):
        assert getattr(again.api, name) == getattr(api, name)
    assert again.image_bytes_max == api.image_bytes_max


def test_the_engine_gets_addresses(attach: Attach) -> None:
    """Every function that the engine calls has an address, and the pool's is the file's mapping."""
    attachment = attach()
    api = attachment.api
    for name, _ in _engine.ffi.typeof("struct pml_pmemobj_api").fields:
        assert getattr(api, name), name
    where = int(_engine.ffi.cast("uintptr_t", api.pool))
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    mapped = [line for line in lines if line[-1] == str(attachment.directory / FILE)]
    assert [line[0].partition("-")[0] for line in mapped] == [f"{where:x}"]
    assert mapped[0][2] == "00000000"


def test_close_twice(attach: Attach) -> None:
    """Closing again does nothing."""
    attachment = attach()
    assert not attachment.is_closed
    attachment.close()
    assert bool(attachment.is_closed)
    attachment.close()


def test_a_creation_that_the_engine_gives_up_leaves_nothing(
    directory: Path, attach: Attach
) -> None:
    """A new file that never got an image header goes away with its attachment."""
    attach().close()
    assert os.listdir(directory) == []


def test_exists(directory: Path, memory_dir: Path) -> None:
    """A directory with an image.pmemobj holds a pool of this medium; nothing else does."""
    assert not pmemobj.exists(directory)
    assert not pmemobj.exists(memory_dir)
    file = _make(directory)
    assert pmemobj.exists(directory)
    assert not pmemobj.exists(file)


def test_pmempool_recognises_the_file(directory: Path) -> None:
    """PMDK's own tool knows the file as an object pool with layout "pmlog", and finds it consistent."""
    tool = shutil.which("pmempool")
    assert tool, "pmempool is missing: install the Debian package pmdk-tools"
    file = _make(directory)
    info = subprocess.run([tool, "info", file], capture_output=True, text=True, check=True).stdout
    words = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in info.splitlines())
    }
    assert words["Signature"] == "PMEMOBJ"
    assert words["Layout"] == pmemobj.LAYOUT
    check = subprocess.run([tool, "check", "-v", file], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout
    assert "consistent" in check.stdout


# ---- the library itself -------------------------------------------------------------------------


def test_the_version() -> None:
    """The interface's version is 2.4 or a later minor one."""
    major, minor = pmemobj.library_version().split(".")
    assert major == "2"
    assert int(minor) >= 4


def test_an_absent_library(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libpmemobj the error names the package, and no directory is made."""
    monkeypatch.setattr(pmemobj, "SONAME", "libpmemobj-not-installed.so.1")
    for call in (
        pmemobj.library_version,
        lambda: pmemobj.attach(directory, max_size=MIB, create=True),
        lambda: pmlog.open(directory, medium="pmemobj"),
    ):
        with pytest.raises(pmlog.MediumError) as raised:
            call()
        assert "libpmemobj1" in str(raised.value)
        assert "medium='file'" in str(raised.value)
    assert not directory.exists()


def test_an_old_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A libpmemobj without the functions that are needed is refused with its own reason."""
    monkeypatch.setattr(pmemobj, "_VERSION", (2, 99))
    pmemobj._load.cache_clear()
    with pytest.raises(pmlog.MediumError, match=r"minor version.*libpmemobj1"):
        pmemobj.load()


HOSTILE = """
import os, sys
from pathlib import Path
from pmlog.medium import pmemobj
library, value = pmemobj.load(), pmemobj._ffi.new("int *")
attachment = pmemobj.attach(Path(sys.argv[1]), max_size=1 << 30, create=True)
print(os.stat(Path(sys.argv[1]) / pmemobj.FILE_NAME).st_blocks * 512)
attachment._magic[0] = 1
attachment.close()
pmemobj.attach(Path(sys.argv[1]), max_size=1 << 30, create=False)._magic[0] = 2
for name in pmemobj._SETTINGS:
    assert library.pmemobj_ctl_get(pmemobj._NULL, name, value) == 0
    print(value[0])
print(os.environ.get("PMEM_IS_PMEM_FORCE"))
"""


def test_settings_of_the_process(directory: Path) -> None:
    """Settings in PMEMOBJ_CONF neither fill the file system nor lose stores, and are left alone."""
    conf = "fallocate.at_create=1;prefault.at_create=1;prefault.at_open=1;copy_on_write.at_open=1;"
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, directory],
        env={**os.environ, "PMEMOBJ_CONF": conf},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    size, *settings, force = done.stdout.split()
    assert int(size) < 5 * MIB
    assert settings == ["1", "1", "1", "1"]
    assert force == "None"
    attachment = pmemobj.attach(directory, max_size=MIB, create=False)
    assert _image(attachment)[0] == b"\2"
    attachment.close()


# ---- who may open it ----------------------------------------------------------------------------


def _hold(connection: Any, directory: str) -> None:
    attachment = pmemobj.attach(Path(directory), max_size=MIB, create=False)
    connection.send("open")
    connection.recv()
    attachment.close()
    connection.send("closed")


def test_locked_by_this_process(directory: Path, attach: Attach) -> None:
    """A second handle of the process that has the pool open is refused, with its pid."""
    first = attach()
    with pytest.raises(pmlog.PoolLockedError) as raised:
        attach()
    assert raised.value.pid == os.getpid()
    assert str(directory) in str(raised.value)
    _pretend_to_format(first)
    first.close()
    attach(create=False)


def test_locked_by_another_process(directory: Path, spawn: Spawn, attach: Attach) -> None:
    """A second process is refused with the holder's pid, until that one closes or dies."""
    _make(directory)
    child = spawn(_hold, str(directory))
    assert child.hear() == "open"
    with pytest.raises(pmlog.PoolLockedError) as raised:
        attach()
    assert raised.value.pid == child.pid
    assert raised.value.retryable
    child.say("close")
    assert child.hear() == "closed"
    attach().close()
    child = spawn(_hold, str(directory))
    assert child.hear() == "open"
    child.kill()
    attach()


def test_two_creators(directory: Path, attach: Attach) -> None:
    """While somebody makes the file, nobody else does, nor takes it for a leftover."""
    directory.mkdir()
    unfinished = directory / pmemobj.UNFINISHED_NAME
    unfinished.write_bytes(b"half")
    descriptor = os.open(directory, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(pmlog.PoolLockedError) as raised:
        attach()
    assert raised.value.pid == os.getpid()
    assert unfinished.read_bytes() == b"half"
    os.close(descriptor)
    assert attach().was_created
    assert not unfinished.exists()


def test_a_copy_beside_its_original(directory: Path, memory_dir: Path, attach: Attach) -> None:
    """The library opens no two pools of one identity in a process; the error says what to do."""
    file = _make(directory)
    copy = memory_dir / "copy"
    copy.mkdir()
    subprocess.run(["cp", "--sparse=always", file, copy / FILE], check=True)
    attach()
    with pytest.raises(pmlog.PoolLockedError, match=r"identity.*processes of their own"):
        attach(copy, create=False)


def test_fork(directory: Path) -> None:
    """A forked child has nothing of the pool: closing does nothing there, and it keeps no lock."""
    attachment = pmemobj.attach(directory, max_size=MIB, create=True)
    _pretend_to_format(attachment)
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            assert attachment.is_closed
            attachment.close()
            maps = Path("/proc/self/maps").read_text()
            os.read(go_read, 1)
            os._exit(0 if str(directory / FILE) not in maps else 3)
        finally:
            os._exit(4)
    try:
        assert bytes(_image(attachment)[0:8]) == b"PMLIMAGE"
        attachment.close()
        pmemobj.attach(directory, max_size=MIB, create=False).close()
    finally:
        os.write(go_write, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        os.close(go_read)
        os.close(go_write)


# ---- what cannot be opened ----------------------------------------------------------------------


def test_nothing_there(directory: Path, memory_dir: Path) -> None:
    """Without create: a missing or empty directory is PoolNotFoundError, and stays as it is."""
    for where in (directory, memory_dir):
        with pytest.raises(pmlog.PoolNotFoundError):
            pmemobj.attach(where, max_size=MIB, create=False)
    assert list(memory_dir.iterdir()) == []
    with pytest.raises(pmlog.PoolNotFoundError):
        pmemobj.attach(memory_dir / "missing" / "pool", max_size=MIB, create=True)


def test_a_file_in_the_way(memory_dir: Path) -> None:
    """A path that is a file is FormatError."""
    path = memory_dir / "file"
    path.write_text("mine")
    for create in (False, True):
        with pytest.raises(pmlog.FormatError, match="a pool is a directory"):
            pmemobj.attach(path, max_size=MIB, create=create)
    assert path.read_text() == "mine"


def test_somebody_elses_directory(directory: Path) -> None:
    """A directory that holds something else gets no file."""
    directory.mkdir()
    (directory / "letter.txt").write_text("dear")
    with pytest.raises(pmlog.FormatError, match=r"letter\.txt"):
        pmemobj.attach(directory, max_size=MIB, create=True)
    assert os.listdir(directory) == ["letter.txt"]


def test_a_pool_of_the_other_medium(pool_path: Path, open_pool: OpenPool) -> None:
    """A pool of medium file is not opened as this one, nor the other way round."""
    open_pool(medium="file").close()
    before = sorted(os.listdir(pool_path))
    with pytest.raises(pmlog.UsageError, match="medium is file"):
        pmlog.open(pool_path, medium="pmemobj")
    assert sorted(os.listdir(pool_path)) == before
    other = pool_path.with_name("other")
    open_pool(other, medium="pmemobj").close()
    with pytest.raises(pmlog.UsageError, match="medium is pmemobj"):
        pmlog.open(other, medium="file")


@pytest.mark.damaged
def test_a_lost_file(pool_path: Path, open_pool: OpenPool) -> None:
    """Where a pool's log is but its image is not, that is corruption, and no new image is made."""
    with open_pool(medium="pmemobj") as pool:
        pool.dict("d")["x"] = 1
    (pool_path / FILE).unlink()
    with pytest.raises(pmlog.CorruptionError, match="missing") as raised:
        pmlog.open(pool_path, medium="pmemobj")
    assert raised.value.file == FILE
    assert not (pool_path / FILE).exists()


def test_another_layout(directory: Path, attach: Attach) -> None:
    """A pool of libpmemobj that another program made is FormatError, whatever its layout."""
    directory.mkdir()
    for layout, kind in (("theirs", pmlog.FormatError), (pmemobj.LAYOUT, pmlog.CorruptionError)):
        command = ["pmempool", "create", "obj", f"--layout={layout}", "--size=16M"]
        subprocess.run([*command, directory / FILE], check=True)
        before = (directory / FILE).read_bytes()
        with pytest.raises(kind):
            attach()
        after = (directory / FILE).read_bytes()
        # libpmemobj keeps its own pointers between the two even while it looks.
        assert (after[:0x1800], after[0x2000:]) == (before[:0x1800], before[0x2000:])
        (directory / FILE).unlink()


def test_a_later_version(directory: Path, attach: Attach) -> None:
    """A root object of a later version is FormatError with both numbers."""
    attachment = attach()
    _pretend_to_format(attachment)
    library, pool, root = _library_root(attachment)
    new = pmemobj._ffi.new("struct pml_pmemobj_root *")
    pmemobj._ffi.memmove(new, root, pmemobj._ROOT_STRUCT_BYTES)
    new.version = 7
    new.checksum = pmemobj._root_checksum(new)
    assert pmemobj._store(library, pool, root, pmemobj._ffi.buffer(new)[:]) == 0
    attachment.close()
    with pytest.raises(pmlog.FormatError, match="version 7") as raised:
        attach()
    assert (raised.value.expected, raised.value.found) == (1, 7)


@pytest.mark.parametrize("size", [0, 100, 4096, 4 * MIB - 1, 4 * MIB, 32 * MIB, 20 * GIB])
def test_another_size(directory: Path, attach: Attach, size: int) -> None:
    """A truncated or lengthened file is CorruptionError, never SIGBUS, and is left as it is."""
    file = _make(directory)
    os.truncate(file, size)
    with pytest.raises(pmlog.CorruptionError) as raised:
        attach()
    assert raised.value.file == FILE
    assert file.stat().st_size == size


def _try_flips(connection: Any, directory: str) -> None:
    """Flip what the parent says, one byte at a time; tell what the next open said."""
    path = Path(directory) / FILE
    descriptor = os.open(path, os.O_RDWR)
    while (order := connection.recv()) is not None:
        offset, value = order
        # Opens change bytes too: begin each time with the file as it was made.
        original = os.pread(descriptor, 4 * MIB, 0)
        os.pwrite(descriptor, bytes([original[offset] ^ value]), offset)
        said = "opened"
        try:
            attachment = pmemobj.attach(Path(directory), max_size=MIB, create=False)
            library, pool, root = _library_root(attachment)
            assert pmemobj._store(library, pool, root + LAST_ROOM, bytes(MARK_BYTES)) == 0
            attachment.close()
        except pmlog.PmlogError as error:
            said = type(error).__name__
        os.pwrite(descriptor, original, 0)
        connection.send(said)


def _place_of_root(file: Path) -> int:
    with file.open("rb") as stream:
        stream.seek(0x1800)
        return int.from_bytes(stream.read(8), "little")


LANE = 0x2000 + 17 * 3072


DAMAGES = {
    "signature": (0, 0x20, "FormatError"),
    "version": (8, 0x08, "FormatError"),
    "features": (16, 0x08, "CorruptionError"),
    "identity": (24, 0x01, "CorruptionError"),
    "header checksum": (4088, 0x01, "CorruptionError"),
    "layout": (0x1000, 0x01, "CorruptionError"),
    "place of lanes": (0x1401, 0x10, "CorruptionError"),
    "number of lanes": (0x1409, 0x01, "CorruptionError"),
    "place of the heap": (0x1412, 0x10, "CorruptionError"),
    "descriptor checksum": (0x17F8, 0x01, "CorruptionError"),
    "place of the root": (0x1800, 0x10, "CorruptionError"),
    "place of the root, far": (0x1807, 0x10, "CorruptionError"),
    "size of the root": (0x1811, 0x20, "CorruptionError"),
    "size of the heap": (0x1822, 0x02, "CorruptionError"),
    "redo entry": (LANE + 71, 0xE0, "CorruptionError"),
    "redo next": (LANE + 256 + 14, 0x01, "CorruptionError"),
    "undo next": (LANE + 960 + 8, 0x10, "CorruptionError"),
    "undo capacity": (LANE + 960 + 17, 0x10, "CorruptionError"),
    "undo entry": (LANE + 1024 + 2, 0x01, "CorruptionError"),
    "heap header": (0x302000, 0x01, "CorruptionError"),
    "zone header": (0x302400, 0x01, "CorruptionError"),
    "chunk header": (0x302444, 0x01, "CorruptionError"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage(directory: Path, spawn: Spawn, what: str) -> None:
    """A flipped bit in what libpmemobj trusts is an error that is raised, never a dead process."""
    offset, value, said = DAMAGES[what]
    _make(directory)
    child = spawn(_try_flips, str(directory))
    child.say((offset, value))
    assert child.hear() == said
    child.say(None)
    assert child.join() == 0
    pmemobj.attach(directory, max_size=MIB, create=False).close()


def test_a_damaged_root(directory: Path, spawn: Spawn) -> None:
    """Every byte of pmlog's own root struct is covered."""
    root = _place_of_root(_make(directory))
    child = spawn(_try_flips, str(directory))
    for offset in range(pmemobj._ROOT_STRUCT_BYTES):
        child.say((root + offset, 1 << offset % 8))
        assert child.hear() == "CorruptionError", offset
    child.say(None)
    assert child.join() == 0


def test_random_damage(directory: Path, spawn: Spawn, rng: random.Random) -> None:
    """Whichever bit of libpmemobj's metadata flips, the process lives: it opens, or says why not.

    Method: half of the places are bytes that are not zero, since most of the metadata are.
    """
    with _make(directory).open("rb") as file:
        data = file.read(4 * MIB)
    told = [offset for offset in range(4 * MIB) if data[offset]]
    child = spawn(_try_flips, str(directory))
    answers = []
    for number in range(FLIPS):
        offset = rng.choice(told) if number % 2 else rng.randrange(4 * MIB)
        child.say((offset, 1 << rng.randrange(8)))
        answers.append(child.hear())
    child.say(None)
    assert child.join() == 0
    assert set(answers) <= {"opened", "CorruptionError", "FormatError"}
    assert answers.count("CorruptionError") > FLIPS // 4  # else nothing is looked at


# ---- no room ------------------------------------------------------------------------------------


# Runs in a mount namespace of its own, where it may mount and where nothing is left behind.
WITHOUT_ROOM = """
import gc, os, subprocess, sys
import pmlog
where = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", where], check=True)
path, hog = where + "/pool", where + "/hog"
options = {"medium": "pmemobj", "size": "1MiB", "log_size": "256KiB"}
sizes = []
for left in [*range(0, 10 << 20, 160 << 10), 16 << 20]:
    with open(hog, "wb") as file:
        free = os.statvfs(where).f_bavail * 4096
        if free > left:
            os.posix_fallocate(file.fileno(), 0, free - left)
    try:
        pool = pmlog.open(path, **options)
    except pmlog.PoolFullError as error:
        assert error.changed is False and error.hint, error
        assert not os.path.exists(path) or "image.pmemobj" not in os.listdir(path), left
        sizes.append(0)
        subprocess.run(["rm", "-rf", path], check=True)
        continue
    with pool:
        d, n = pool.dict("d"), 0
        try:
            while True:
                d[n] = bytes([n % 251]) * 10_000
                n += 1
        except pmlog.PoolFullError:
            pass
        pool.checkpoint()
        sizes.append(n)
    with pmlog.open(path, **options) as pool:
        assert list(pool.dict("d").items()) == [(k, bytes([k % 251]) * 10_000) for k in range(n)]
    del pool, d
    gc.collect()  # what is mapped still takes room, also when it has no name any more
    subprocess.run(["rm", "-rf", path], check=True)
print(*sizes)
"""


def test_a_full_tmpfs(memory_dir: Path) -> None:
    """However little room there is: PoolFullError with nothing left behind, or a pool that works.

    Method: 65 amounts of free room on a tmpfs of 16 MiB, from none at all to all of it; with each a
    new pool is filled up, closed, and read back.
    """
    command = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]
    done = subprocess.run(
        [*command, sys.executable, "-c", WITHOUT_ROOM, memory_dir],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    sizes = [int(size) for size in done.stdout.split()]
    assert sizes[0] == 0
    assert sizes[-1] > 400
    assert sizes == sorted(sizes)


def _attach_with_limit(
    connection: Any, directory: str, limit: int, size: int, max_size: int
) -> None:
    resource.setrlimit(limit, (size, size))
    try:
        attachment = pmemobj.attach(Path(directory), max_size=max_size, create=True)
        connection.send(attachment.image_bytes_max)
        attachment.close()
    except pmlog.PmlogError as error:
        connection.send(error)


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        (resource.RLIMIT_FSIZE, pmlog.PoolFullError),
        (resource.RLIMIT_AS, errors.MemoryExhaustedError),
    ],
)
def test_limits_of_the_process(
    directory: Path, spawn: Spawn, limit: int, kind: type[pmlog.CapacityError]
) -> None:
    """Where 16 GiB of file or address space are not allowed, max_size is what must fit."""
    child = spawn(_attach_with_limit, str(directory), limit, 8 * GIB, GIB)
    assert GIB <= child.hear() <= GIB + MIB
    child = spawn(_attach_with_limit, str(directory), limit, 8 * GIB, 9 * GIB)
    error = child.hear()
    assert isinstance(error, kind)
    assert "max_size" in str(error)
    assert os.listdir(directory) == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (1, pmlog.errors.PoolPermissionError),  # EPERM
        (2, pmlog.PoolNotFoundError),  # ENOENT
        (5, pmlog.MediumError),  # EIO
        (11, pmlog.PoolLockedError),  # EAGAIN
        (12, errors.MemoryExhaustedError),  # ENOMEM
        (13, pmlog.errors.PoolPermissionError),  # EACCES
        (17, pmlog.PoolLockedError),  # EEXIST: a pool of that identity
        (22, pmlog.CorruptionError),  # EINVAL: a checksum
        (28, pmlog.PoolFullError),  # ENOSPC
        (30, pmlog.errors.PoolPermissionError),  # EROFS
        (122, pmlog.PoolFullError),  # EDQUOT
        (-1, pmlog.CorruptionError),
    ],
)
def test_errors_of_the_library(number: int, kind: type[pmlog.PmlogError]) -> None:
    """Each error number of libpmemobj has its class; path, reason and advice are told."""
    error = pmemobj._library_failure(Path("/p"), "open it", number, "the reason")
    assert type(error) is kind
    assert error.path == "/p"
    assert number == 17 or "the reason" in str(error)
    assert error.hint
    if isinstance(error, pmlog.MediumError):
        assert error.os_errno == number


# ---- crashes ------------------------------------------------------------------------------------

STEPS = (
    "os.ftruncate",
    "os.posix_fallocate",
    "pmemobj._format",
    "pmemobj._store",
    "os.fsync",
    "os.rename",
    "pmemobj._attached",
)


def _die_at(connection: Any, directory: str, step: str) -> None:
    """Make a pool and be killed just before a step of it."""
    holder = {"os": os, "pmemobj": pmemobj}[step.partition(".")[0]]
    setattr(holder, step.partition(".")[2], lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    pmemobj.attach(Path(directory), max_size=MIB, create=True)
    connection.send("survived")


@pytest.mark.parametrize("step", STEPS)
def test_killed_while_it_is_made(directory: Path, spawn: Spawn, attach: Attach, step: str) -> None:
    """A creation that is killed before any of its steps leaves no pool, and the next one works.

    Method: SIGKILL in place of each call that changes the directory or the file.
    """
    child = spawn(_die_at, str(directory), step)
    child.process.join()
    assert child.process.exitcode == -signal.SIGKILL
    is_named = step == "pmemobj._attached"
    assert os.listdir(directory) == [FILE if is_named else pmemobj.UNFINISHED_NAME]
    attachment = attach()
    assert attachment.was_created is not is_named
    assert os.listdir(directory) == [FILE]
    assert bytes(_image(attachment)) == bytes(4096)


def _keep_marking(connection: Any, directory: str) -> None:
    """Store marks of eight equal words for ever."""
    attachment = pmemobj.attach(Path(directory), max_size=MIB, create=False)
    library, pool, root = _library_root(attachment)
    (number,) = struct.unpack("<Q", pmemobj._ffi.buffer(root + LAST_ROOM, 8)[:])
    connection.send(number)
    while True:
        number += 1
        mark = struct.pack("<Q", number) * (MARK_BYTES // 8)
        assert pmemobj._store(library, pool, root + LAST_ROOM, mark) == 0
        if number % 8 == 0:
            connection.send(number)


def test_killed_while_marks_are_stored(
    directory: Path, spawn: Spawn, rng: random.Random, attach: Attach
) -> None:
    """After a SIGKILL a mark is the last one told of or a later one, and whole.

    Model: only the process is lost.
    Method: SIGKILLs after random numbers of marks; libpmemobj rolls back what was under way.
    """
    _make(directory)
    for _ in range(KILLS):
        child = spawn(_keep_marking, str(directory))
        told = child.hear()
        for _ in range(rng.randrange(60)):
            told = child.hear()
        child.kill()
        attachment = attach(create=False)
        words = struct.unpack(
            "<8Q", pmemobj._ffi.buffer(_library_root(attachment)[2] + LAST_ROOM, MARK_BYTES)[:]
        )
        attachment.close()
        assert len(set(words)) == 1
        assert words[0] >= told


def _die_before_commit(connection: Any, directory: str) -> None:
    attachment = pmemobj.attach(Path(directory), max_size=MIB, create=False)
    library, pool, root = _library_root(attachment)
    assert pmemobj._store(library, pool, root + LAST_ROOM, b"a" * MARK_BYTES) == 0
    ffi = pmemobj._ffi
    assert library.pmemobj_tx_begin(pool, ffi.NULL, ffi.cast("int", 0)) == 0
    assert library.pmemobj_tx_add_range_direct(root + LAST_ROOM, MARK_BYTES) == 0
    ffi.memmove(root + LAST_ROOM, b"b" * 40, 40)
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_before_the_commit(directory: Path, spawn: Spawn, attach: Attach) -> None:
    """A mark that was half stored in a transaction is as it was before, after the next open."""
    file = _make(directory)
    child = spawn(_die_before_commit, str(directory))
    child.process.join()
    assert child.process.exitcode == -signal.SIGKILL
    at = _place_of_root(file) + LAST_ROOM
    with file.open("rb") as stream:
        stream.seek(at)
        assert stream.read(MARK_BYTES) == b"b" * 40 + b"a" * 24
    attachment = attach(create=False)
    mark = pmemobj._ffi.buffer(_library_root(attachment)[2] + LAST_ROOM, MARK_BYTES)[:]
    assert mark == b"a" * MARK_BYTES


def test_interrupted_transaction(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the middle of a transaction rolls it back, and the next one works."""
    library, pool, root = _library_root(attach())

    class Interrupting:
        """The library, with a signal that arrives as the commit begins."""

        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

        def pmemobj_tx_commit(self) -> None:
            raise KeyboardInterrupt

    place = root + LAST_ROOM
    assert pmemobj._store(library, pool, place, b"a" * MARK_BYTES) == 0
    with pytest.raises(KeyboardInterrupt):
        pmemobj._store(Interrupting(), pool, place, b"b" * MARK_BYTES)
    assert pmemobj._ffi.buffer(place, MARK_BYTES)[:] == b"a" * MARK_BYTES
    outside = pmemobj._ffi.new("char[]", MARK_BYTES)
    assert pmemobj._store(library, pool, outside, b"b" * MARK_BYTES) == 22
    assert pmemobj._store(library, pool, place, b"c" * MARK_BYTES) == 0
    assert pmemobj._ffi.buffer(place, MARK_BYTES)[:] == b"c" * MARK_BYTES


# ---- whole pools --------------------------------------------------------------------------------


@pytest.fixture
def medium() -> str:
    """Return the medium of pools here."""
    return "pmemobj"


def test_a_pool(pool_path: Path, open_pool: OpenPool) -> None:
    """Commits, checkpoints, growth and reopening work as in the medium file."""
    with open_pool() as pool:
        assert pool.status().medium == "pmemobj"
        d, q = pool.dict("d"), pool.deque("q")
        for n in range(3_000):
            with pool.transaction():
                d[n] = bytes([n % 251]) * 1_000
                q.append(n)
        pool.checkpoint()
        assert pool.status().image_bytes > 3_000_000
        del d[7]
        with contextlib.suppress(ZeroDivisionError), pool.transaction():
            d[8] = b"undone"
            raise ZeroDivisionError
    assert sorted(os.listdir(pool_path)) == ["control", FILE, "lock", "log"]
    with open_pool() as pool:
        d = pool.dict("d")
        assert dict(d) == {n: bytes([n % 251]) * 1_000 for n in range(3_000) if n != 7}
        assert list(pool.deque("q")) == list(range(3_000))
    assert faults_of(pool_path) == []
    check = ["pmempool", "check", str(pool_path / FILE)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0


def _append(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.append(bytes(100_000))


def test_max_size_is_of_the_open(open_pool: OpenPool) -> None:
    """max_size binds one open: status shows it, capped at what libpmemobj holds; the next may raise it."""
    pool = open_pool(max_size="4MiB")
    assert pool.status().max_bytes == 4 * MIB
    with pytest.raises(pmlog.PoolFullError):
        _append(pool.deque("q"), 100)
    assert 20 < len(pool.deque("q")) < 42
    pool.close()
    with open_pool(max_size="64GiB") as pool:
        assert pool.status().max_bytes == pmemobj.IMAGE_BYTES_MAX
        _append(pool.deque("q"), 100)


def test_a_failed_creation_can_be_repeated(pool_path: Path, open_pool: OpenPool) -> None:
    """Options that the engine refuses leave no file behind."""
    with pytest.raises(pmlog.UsageError):
        open_pool(log_size=1)
    assert not pool_path.exists() or FILE not in os.listdir(pool_path)
    open_pool()


def test_readers_beside_the_writer(pool_path: Path, open_pool: OpenPool, spawn: Spawn) -> None:
    """Other processes read while the writer commits, checkpoints and grows; they need no libpmemobj."""
    from tests.children import serve_reads

    pool = open_pool()
    d = pool.dict("d")
    d["x"] = 1
    reader = spawn(serve_reads, str(pool_path), {})
    assert reader.hear() == "open"
    for n in range(50):
        d["x"] = n
        d[n] = bytes(100_000)
        if n % 10 == 0:
            pool.checkpoint()
        reader.say(("get", "d", "x"))
        assert reader.hear() == n
    reader.say(("dict", "d"))
    assert reader.hear() == list(d.items())
    reader.say(None)
    assert reader.hear() == "closed"


def test_a_pool_and_fork(pool_path: Path, open_pool: OpenPool) -> None:
    """In a forked child the pool raises; the parent goes on, and may close and open it meanwhile."""
    pool = open_pool()
    pool.dict("d")["x"] = 1
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for call in (lambda: pool.dict("new"), pool.checkpoint, lambda: pool.dict("d")["x"]):
                with pytest.raises(pmlog.ForkedError):
                    call()
            with contextlib.suppress(pmlog.ForkedError):
                pool.close()
            os.read(go_read, 1)
            code = 0
        finally:
            os._exit(code)
    try:
        pool.dict("d")["x"] = 2
        pool.close()
        with open_pool() as pool:
            assert pool.dict("d")["x"] == 2
    finally:
        os.write(go_write, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        os.close(go_read)
        os.close(go_write)


def test_a_pool_and_sigkill(
    pool_path: Path, open_pool: OpenPool, spawn: Spawn, rng: random.Random
) -> None:
    """A killed writer's pool opens at its last commit, all containers agreeing.

    Model: only the process is lost.
    Method: SIGKILLs after random numbers of transactions, in the middle of checkpoints too: the
    ring is small.
    """
    from tests.children import write_forever

    open_pool().close()
    options = {"size": "1MiB", "log_size": "256KiB", "medium": "pmemobj"}
    for _ in range(KILLS):
        child = spawn(write_forever, str(pool_path), options)
        told = child.hear()
        for _ in range(rng.randrange(80)):
            told = child.hear()
        child.kill()
        with pmlog.open(pool_path, medium="pmemobj") as pool:
            n = pool.dict("d").get("n", 0)
            assert n >= told
            if n:
                assert pool.deque("q")[-1] == n
                assert pool.region("r", 64).read(0, 8) == n.to_bytes(8, "little")
        assert faults_of(pool_path) == []
