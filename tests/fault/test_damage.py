"""Damaged files: refused or detected by name, or harmless; never a crash, never wrong data."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pmlog
from pmlog._engine import ffi, lib
from tests.fault import damage as dm
from tests.support import PATIENCE_S, Child, faults_of

pytestmark = pytest.mark.damaged
Spawn = Callable[..., Child]
Verdicts = dict[str, tuple[list[str], list[str]]]


class Subject:
    """A pool to be damaged, and what it holds."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.path = directory / kind
        make = dm.make_closed if kind == "closed" else dm.make_killed
        self.expected = make(self.path)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Subject]]:
    """Make one pool of each kind, whole; the tests damage copies."""
    shm = Path("/dev/shm")
    directory = Path(f"{shm}/pmlog-test-damage-{random.SystemRandom().randrange(2**48):x}")
    if not shm.is_dir():
        directory = tmp_path_factory.mktemp("damage") / "pools"
    directory.mkdir()
    yield {kind: Subject(kind, directory) for kind in ("closed", "killed")}
    shutil.rmtree(directory)


@pytest.fixture(params=["closed", "killed"])
def subject(
    request: pytest.FixtureRequest, subjects: dict[str, Subject], memory_dir: Path
) -> Subject:
    """Give one of the pools, copied to a directory of its own."""
    whole = subjects[request.param]
    own = Subject.__new__(Subject)
    own.kind, own.expected, own.path = whole.kind, whole.expected, memory_dir / "template"
    shutil.copytree(whole.path, own.path)
    return own


def judge(spawn: Spawn, subject: Subject, damages: list[dm.Damage]) -> Verdicts:
    """Let a child inflict each damage; return its verdicts; fail if it dies on the way."""
    assert damages
    child = spawn(dm.judge_all, str(subject.path), subject.expected, damages)
    verdicts: Verdicts = {}
    now = "the begin"
    while True:
        if not child.connection.poll(PATIENCE_S / 4):
            pytest.fail(f"the process hangs at: {now}")
        try:
            message = child.hear()
        except EOFError:
            pytest.fail(f"the process died ({child.join()}) at: {now}")
        if message[0] == "begin":
            now = message[1]
        elif message[0] == "end":
            break
        else:
            verdicts[message[0]] = (message[1], message[2])
    assert verdicts, "no damage changed a byte"
    return verdicts


def expect(verdicts: Verdicts, allowed: set[str], *, is_reported: bool = True) -> None:
    """Every outcome is among the allowed ones, and the checker saw every damage."""
    wrong = [
        f"{name}: {outcomes}"
        for name, (_, outcomes) in verdicts.items()
        if not set(outcomes) <= allowed
    ]
    if is_reported:
        wrong += [
            f"{name}: not reported by check" for name, (faults, _) in verdicts.items() if not faults
        ]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(verdicts)}, such as:", *wrong[:8]])


# ---- whole pools -----------------------------------------------------------------------------


def test_undamaged(subject: Subject) -> None:
    """The pools that the tests damage are sound, and the judge says so."""
    assert faults_of(subject.path) == []
    assert dm.look(subject.path, subject.expected, readonly=True) == dm.EXACT
    assert dm.look(subject.path, subject.expected, readonly=False) == dm.EXACT


def test_judge_sees_wrong_data(subject: Subject) -> None:
    """The judge itself is no rubber stamp: other data than expected is called wrong."""
    other = {**subject.expected, "r": bytes(20_000)}
    assert "WRONG DATA" in dm.look(subject.path, other, readonly=True)


# ---- every field of every header -------------------------------------------------------------

HEADERS = [("image", "pml_image_header"), ("log", "pml_log_header"), ("sums", "pml_sums_header")]


@pytest.mark.parametrize(("file", "struct_name"), HEADERS)
def test_header_fields(subject: Subject, spawn: Spawn, file: str, struct_name: str) -> None:
    """A bad bit in any field of any file's header is refused at open."""
    damages = dm.spoil_struct(subject.path, file, 0, struct_name)
    expect(judge(spawn, subject, damages), {dm.REFUSED})


@pytest.mark.parametrize("which", ["newest", "older"])
def test_mark_fields(subject: Subject, spawn: Spawn, which: str) -> None:
    """A bad bit in one checkpoint mark is refused, or the spare one leads to the same state."""
    marks = dm.marks_of(subject.path)
    newest = max((0, 1), key=lambda slot: int(marks[slot].sequence))
    slot = newest if which == "newest" else 1 - newest
    base = lib.PML_MARK_OFFSET + slot * lib.PML_MARK_STRIDE
    damages = dm.spoil_struct(subject.path, "image", base, "pml_mark")
    allowed = {dm.EXACT} if which == "older" else {dm.EXACT, dm.REFUSED}
    expect(judge(spawn, subject, damages), allowed)


def test_both_marks(subject: Subject, spawn: Spawn) -> None:
    """With both checkpoint marks bad the pool is refused."""
    size = ffi.sizeof("struct pml_mark")
    bad = b"\xa5" * size
    gap = bytes(lib.PML_MARK_STRIDE - size)
    damages = [dm.Damage("both marks", "image", lib.PML_MARK_OFFSET, bad + gap + bad)]
    expect(judge(spawn, subject, damages), {dm.REFUSED})


@pytest.mark.parametrize("which", ["first", "middle", "last"])
def test_record_fields(subjects: dict[str, Subject], spawn: Spawn, which: str) -> None:
    """A bad bit in any field of a record that is needed is refused: no crash explains it."""
    subject = subjects["killed"]
    records = dm.records_of(subject.path)
    at, _ = {"first": records[0], "middle": records[len(records) // 2], "last": records[-1]}[which]
    damages = dm.spoil_struct(subject.path, "log", at, "pml_record")
    expect(judge(spawn, subject, damages), {dm.REFUSED})


def test_record_bodies(subjects: dict[str, Subject], spawn: Spawn, rng: random.Random) -> None:
    """A bad bit anywhere in the records that are needed is refused."""
    subject = subjects["killed"]
    damages = []
    for at, length in dm.records_of(subject.path):
        damages += [
            dm.flip_bit(subject.path, "log", at + rng.randrange(length), rng.randrange(8))
            for _ in range(5)
        ]
    expect(judge(spawn, subject, damages), {dm.REFUSED})


def test_log_that_is_not_needed(
    subjects: dict[str, Subject], spawn: Spawn, rng: random.Random
) -> None:
    """After a clean close the ring's bytes are not needed: damage there changes nothing."""
    subject = subjects["closed"]
    size = (subject.path / "log").stat().st_size
    damages = [
        dm.flip_bit(subject.path, "log", rng.randrange(lib.PML_RING_OFFSET, size), rng.randrange(8))
        for _ in range(40)
    ]
    expect(judge(spawn, subject, damages), {dm.EXACT}, is_reported=False)


def test_ranges_of_a_record(subjects: dict[str, Subject], spawn: Spawn) -> None:
    """A bad bit in any range header of a needed record is refused."""
    subject = subjects["killed"]
    at, _ = dm.records_of(subject.path)[3]
    base = at + ffi.sizeof("struct pml_record")
    damages = dm.spoil_struct(subject.path, "log", base, "pml_range")
    expect(judge(spawn, subject, damages), {dm.REFUSED})


def test_record_without_control(
    subjects: dict[str, Subject], spawn: Spawn, memory_dir: Path
) -> None:
    """Without control words a bad record before others is refused still: its successors vouch for it."""
    subject = Subject.__new__(Subject)
    subject.kind, subject.expected = "killed", subjects["killed"].expected
    subject.path = memory_dir / "template"
    shutil.copytree(subjects["killed"].path, subject.path)
    (subject.path / "control").unlink()
    assert dm.look(subject.path, subject.expected, readonly=True) == dm.EXACT
    damages = []
    for at, length in dm.records_of(subject.path)[:-1]:
        damages.append(dm.flip_bit(subject.path, "log", at + length // 2, 3))
        damages.append(dm.flip_bit(subject.path, "log", at + 9, 0))
    expect(judge(spawn, subject, damages), {dm.REFUSED})


def test_sums_entries(subject: Subject, spawn: Spawn, rng: random.Random) -> None:
    """A bad checksum of a page in use is refused or detected: the page is not trusted."""
    damages = [
        dm.flip_bit(subject.path, "sums", lib.PML_SUMS_OFFSET + 4 * page + rng.randrange(4), 2)
        for page in dm.used_pages(subject.path)
    ]
    verdicts = judge(spawn, subject, damages)
    # Where a record that is replayed covers the page, it gets a new checksum.
    expect(
        verdicts,
        {dm.EXACT, dm.REFUSED, dm.DETECTED},
        is_reported=subject.kind == "closed",
    )
    served = [name for name, (_, outcomes) in verdicts.items() if set(outcomes) == {dm.EXACT}]
    if subject.kind == "closed":
        # Free blocks are all that the judge does not read.
        assert len(served) < len(verdicts) / 2


def test_image_body(subject: Subject, spawn: Spawn, rng: random.Random) -> None:
    """A bad bit in the image's body is refused, detected, or lies where nothing is read: never served."""
    damages = []
    for page in dm.used_pages(subject.path):
        for _ in range(3):
            offset = page * dm.PAGE + rng.randrange(dm.PAGE)
            damages.append(dm.flip_bit(subject.path, "image", offset, rng.randrange(8)))
    expect(
        judge(spawn, subject, damages),
        {dm.EXACT, dm.REFUSED, dm.DETECTED},
        is_reported=subject.kind == "closed",
    )


def test_heap_header(subject: Subject, spawn: Spawn) -> None:
    """A bad bit in the heap's header is refused at open."""
    damages = [
        damage
        for damage in dm.spoil_struct(subject.path, "image", lib.PML_BODY_OFFSET, "pml_heap")
        if not damage.name.startswith(("bins: zeros", "bins: ones"))
    ]
    allowed = {dm.REFUSED} if subject.kind == "closed" else {dm.REFUSED, dm.DETECTED, dm.EXACT}
    expect(judge(spawn, subject, damages), allowed, is_reported=subject.kind == "closed")


CONTAINER_STRUCTS = ["pml_dict_root", "pml_deque_root", "pml_bytes_root"]


def test_control_fields(subject: Subject, spawn: Spawn) -> None:
    """Control words are no ground to serve wrong data: bad ones are refused or do no harm."""
    damages = [
        damage
        for damage in dm.spoil_struct(subject.path, "control", 0, "pml_control")
        if not damage.name.startswith("slots")
    ]
    expect(
        judge(spawn, subject, damages),
        {dm.EXACT, dm.REFUSED, dm.DETECTED, dm.STOPPED},
        is_reported=False,
    )


# ---- whole stretches -------------------------------------------------------------------------


@pytest.mark.parametrize("file", dm.FILES)
def test_truncated(subject: Subject, spawn: Spawn, file: str) -> None:
    """A file that is cut anywhere is refused by name at open; it is never taken for a new pool."""
    size = (subject.path / file).stat().st_size
    cuts = {
        0,
        1,
        63,
        64,
        119,
        120,
        4095,
        4096,
        8192,
        16_384,
        65_536,
        size // 2,
        size - 4096,
        size - 1,
    }
    damages = [
        dm.Damage(f"cut at {cut}", file, cut, None) for cut in sorted(cuts) if 0 <= cut < size
    ]
    if file == "sums":
        # Room for pages that the image may yet grow is no loss.
        used = lib.PML_SUMS_OFFSET + 4 * ((subject.path / "image").stat().st_size // dm.PAGE)
        damages = [damage for damage in damages if damage.offset < used]
    expect(judge(spawn, subject, damages), {dm.REFUSED})


@pytest.mark.parametrize("file", dm.FILES)
def test_zero_filled(subject: Subject, spawn: Spawn, file: str) -> None:
    """A file or a part of it that turned to zeros is refused or detected, and reported."""
    size = (subject.path / file).stat().st_size
    damages = [
        dm.Damage("all", file, 0, bytes(size)),
        dm.Damage("first page", file, 0, bytes(dm.PAGE)),
        dm.Damage("first 64 KiB", file, 0, bytes(min(size, 65_536))),
        dm.Damage("all behind the first page", file, dm.PAGE, bytes(size - dm.PAGE)),
    ]
    if file == "log" and subject.kind == "closed":
        damages = damages[:3]  # the ring is not needed
    expect(judge(spawn, subject, damages), {dm.REFUSED, dm.DETECTED})


def test_zeroed_pages(subject: Subject, spawn: Spawn) -> None:
    """Each page of the image that turned to zeros is noticed wherever it is read."""
    damages = [
        dm.Damage(f"page {page}", "image", page * dm.PAGE, bytes(dm.PAGE))
        for page in dm.used_pages(subject.path)
    ]
    expect(
        judge(spawn, subject, damages),
        {dm.EXACT, dm.REFUSED, dm.DETECTED},
        is_reported=subject.kind == "closed",
    )


@pytest.mark.parametrize("file", dm.FILES)
def test_missing_file(subject: Subject, file: str) -> None:
    """A pool that lost one of its files is refused, naming it, and is not made anew."""
    (subject.path / file).unlink()
    left = {entry.name: entry.stat().st_size for entry in subject.path.iterdir()}
    for options in ({}, {"create": False}, {"readonly": True}):
        with pytest.raises((pmlog.CorruptionError, pmlog.FormatError)) as raised:
            pmlog.open(subject.path, **options)  # type: ignore[arg-type]
        assert file in str(raised.value)
    assert not (subject.path / file).exists()
    assert {name for name in left if name in dm.FILES} == {
        entry.name for entry in subject.path.iterdir() if entry.name in dm.FILES
    }
    assert faults_of(subject.path)


def test_missing_control(subject: Subject) -> None:
    """Control words are not needed: a pool without them opens at the same state."""
    (subject.path / "control").unlink()
    assert dm.look(subject.path, subject.expected, readonly=True) == dm.EXACT
    assert dm.look(subject.path, subject.expected, readonly=False) == dm.EXACT


# ---- files of others -------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "struct_name"), HEADERS)
def test_newer_format(subject: Subject, file: str, struct_name: str) -> None:
    """A file of a newer format version, sound in itself, is FormatError with both versions named."""
    offset = {name: at for name, at, _ in dm.fields_of(struct_name)}["version"]
    data = bytearray((subject.path / file).read_bytes())
    struct.pack_into("<I", data, offset, lib.PML_FORMAT_VERSION + 1)
    dm.checksum(struct_name, data)
    (subject.path / file).write_bytes(data)
    for readonly in (False, True):
        with pytest.raises(pmlog.FormatError) as raised:
            pmlog.open(subject.path, readonly=readonly)
        assert str(lib.PML_FORMAT_VERSION + 1) in str(raised.value)
        assert file in str(raised.value)
        assert raised.value.changed is False
    assert (subject.path / file).read_bytes() == data


def test_checksum_helper(subject: Subject) -> None:
    """What `dm.checksum` computes is what the library wrote: the test above changes the version only."""
    for file, struct_name in HEADERS:
        data = bytearray((subject.path / file).read_bytes())
        before = bytes(data)
        dm.checksum(struct_name, data)
        assert bytes(data) == before


@pytest.mark.parametrize("file", ["log", "sums"])
def test_file_of_another_pool(subject: Subject, memory_dir: Path, file: str) -> None:
    """A file that belongs to another pool is refused, naming it."""
    other = memory_dir / "other"
    dm.make_closed(other)
    shutil.copyfile(other / file, subject.path / file)
    for readonly in (True, False):
        with pytest.raises((pmlog.CorruptionError, pmlog.FormatError)) as raised:
            pmlog.open(subject.path, readonly=readonly)
        assert file in str(raised.value)
    assert faults_of(subject.path)


def test_older_image_beside_newer_log(memory_dir: Path) -> None:
    """An image put back from an old copy, beside a log that went on, is refused: it would lose commits."""
    path = memory_dir / "pool"
    dm.make_closed(path)
    old = (path / "image").read_bytes()
    with pmlog.open(path) as pool:
        region = pool.region("lap", 60_000)
        for n in range(40):  # several laps of the ring
            region.write(0, bytes([n]) * 60_000)
        expected = dm.state_of(pool)
    (path / "image").write_bytes(old + bytes((path / "image").stat().st_size - len(old)))
    outcomes = {dm.look(path, expected, readonly=readonly) for readonly in (True, False)}
    assert outcomes <= {dm.REFUSED, dm.DETECTED}


# ---- a live writer ---------------------------------------------------------------------------


def test_poisoned_after_rot_in_the_log(memory_dir: Path) -> None:
    """A record that rots before its checkpoint poisons the handle: every call raises until reopen."""
    path = memory_dir / "pool"
    pool = pmlog.open(path, size="1MiB", log_size="1MiB")
    dm.fill(pool, 1)
    pool.checkpoint()
    dm.fill(pool, 2)
    records = dm.records_of(path)
    at, length = records[len(records) // 2]
    assert dm.flip_bit(path, "log", at + length // 2, 1).inflict(path)
    calls: list[Callable[[], Any]] = [
        pool.checkpoint,
        lambda: pool.dict("d").update(x=1),
        lambda: pool.dict("d")["step"],
        lambda: pool.transaction().__enter__(),
        pool.checkpoint,
    ]
    for call in calls:
        with pytest.raises(pmlog.CorruptionError):
            call()
    assert pool.status().poisoned
    pool.close()
    with pytest.raises(pmlog.CorruptionError):
        pmlog.open(path)
