"""Pools to be damaged, the damage, and the judge that looks at what the library makes of it.

The judge runs in a child process, because a crash is one of the outcomes that are looked for.
"""

from __future__ import annotations

import faulthandler
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pmlog
from pmlog._engine import ffi, lib
from tests.support import SMALL, abandon, faults_of

Connection = Any  # multiprocessing's class takes type parameters in some versions only

FILES = ("image", "log", "sums")
PAGE = 4096


# ---- pools -----------------------------------------------------------------------------------


def fill(pool: pmlog.Pool, generation: int) -> None:
    """Change all kinds of containers in several transactions."""
    d, q = pool.dict("d"), pool.deque("q")
    a = pool.array("a", shape=(40, 40), dtype="i4")
    r = pool.region("r", 20_000)
    for n in range(12):
        with pool.transaction():
            for key in range(n * 10, n * 10 + 10):
                d[key] = f"{generation}.{key}" * (key % 17)
            d["step"] = [generation, n]
            q.extend([generation, n, "x" * (n * 30)])
            a[n % 40] = generation * 100 + n
            r.write(n * 1_500, bytes([generation * 16 + n]) * 900)


def state_of(pool: pmlog.Pool) -> dict[str, Any]:
    """Read everything that `fill` wrote, as plain values."""
    return {
        "names": sorted(pool.names()),
        "d": list(pool.dict("d").items()),
        "q": list(pool.deque("q")),
        "a": pool.array("a", shape=(40, 40), dtype="i4")[...].tolist(),
        "r": pool.region("r", 20_000).read(0, 20_000),
    }


def make_closed(path: Path, **options: Any) -> dict[str, Any]:
    """Make a pool that was closed cleanly; return its state."""
    with pmlog.open(path, **{**SMALL, **options}) as pool:
        fill(pool, 1)
        pool.checkpoint()
        fill(pool, 2)
        return state_of(pool)


def make_killed(path: Path, **options: Any) -> dict[str, Any]:
    """Make a pool whose writer died with a dozen records behind the checkpoint; return its state."""
    pool = pmlog.open(path, **{**SMALL, **options})
    fill(pool, 1)
    pool.checkpoint()
    fill(pool, 2)
    state = state_of(pool)
    abandon(pool)
    assert len(records_of(path)) >= 12, "a checkpoint came between: there is no log to damage"
    return state


# ---- where things stand ----------------------------------------------------------------------


def fields_of(struct_name: str) -> list[tuple[str, int, int]]:
    """Return name, offset and size of each field of a struct, as compiled."""
    return [
        (name, field.offset, ffi.sizeof(field.type))
        for name, field in ffi.typeof(f"struct {struct_name}").fields
    ]


def read_struct(struct_name: str, data: bytes, offset: int = 0) -> Any:
    """Return a struct that stands in bytes, as a cdata value that owns its memory."""
    value = ffi.new(f"struct {struct_name} *")
    size = ffi.sizeof(f"struct {struct_name}")
    ffi.memmove(value, data[offset : offset + size], size)
    return value


def marks_of(path: Path) -> list[Any]:
    """Return both checkpoint marks."""
    with (path / "image").open("rb") as image:
        head = image.read(lib.PML_BODY_OFFSET)
    return [
        read_struct("pml_mark", head, lib.PML_MARK_OFFSET + slot * lib.PML_MARK_STRIDE)
        for slot in (0, 1)
    ]


def records_of(path: Path) -> list[tuple[int, int]]:
    """Return the place in the log file, and the length, of each record behind the newest mark."""
    mark = max(marks_of(path), key=lambda mark: int(mark.sequence))
    log = (path / "log").read_bytes()
    ring_bytes = read_struct("pml_log_header", log).ring_bytes
    places = []
    lsn, txn = mark.lsn_checkpoint, mark.txn
    for _ in range(10_000):
        at = lib.PML_RING_OFFSET + lsn % ring_bytes
        record = read_struct("pml_record", log, at)
        if record.lsn != lsn or record.txn != txn + 1:
            break
        places.append((at, record.length))
        lsn, txn = lsn + record.length, record.txn
    return places


# ---- damage ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """One way to spoil one file: bytes `new` at `offset`; `new` None: the file ends there."""

    name: str
    file: str
    offset: int
    new: bytes | None

    def inflict(self, path: Path) -> bool:
        """Spoil the pool; return whether that changed a byte."""
        target = path / self.file
        before = target.read_bytes()
        if self.new is None:
            after = before[: self.offset]
        else:
            after = before[: self.offset] + self.new + before[self.offset + len(self.new) :]
        if after == before:
            return False
        with target.open("r+b") as file:
            file.truncate(len(after))
            file.write(after)
        return True


def spoil_field(file: str, base: int, field: tuple[str, int, int], data: bytes) -> Iterator[Damage]:
    """Give the ways to spoil one field: its first and last bit, all zeros, all ones."""
    name, offset, size = field
    at = base + offset
    old = data[at : at + size]
    if len(old) < size:
        return
    yield Damage(f"{name}: first bit", file, at, bytes([old[0] ^ 1]) + old[1:])
    yield Damage(f"{name}: last bit", file, at, old[:-1] + bytes([old[-1] ^ 0x80]))
    yield Damage(f"{name}: zeros", file, at, bytes(size))
    yield Damage(f"{name}: ones", file, at, b"\xff" * size)


def spoil_struct(path: Path, file: str, base: int, struct_name: str) -> list[Damage]:
    """Return the ways to spoil every field of a struct that stands in a file."""
    data = (path / file).read_bytes()
    return [
        damage
        for field in fields_of(struct_name)
        for damage in spoil_field(file, base, field, data)
    ]


def flip_bit(path: Path, file: str, offset: int, bit: int, name: str = "") -> Damage:
    """Return the damage of one bit."""
    with (path / file).open("rb") as source:
        source.seek(offset)
        (old,) = source.read(1)
    return Damage(name or f"{file} byte {offset} bit {bit}", file, offset, bytes([old ^ 1 << bit]))


def used_pages(path: Path) -> list[int]:
    """Return the numbers of the image's pages that hold anything."""
    image = (path / "image").read_bytes()
    first = lib.PML_BODY_OFFSET // PAGE
    return [
        page
        for page in range(first, len(image) // PAGE)
        if image[page * PAGE : (page + 1) * PAGE].strip(b"\0")
    ]


# ---- judging ---------------------------------------------------------------------------------

RAISED = "CHECK RAISED"
EXACT = "exact"
REFUSED = "refused at open"
STOPPED = "refused at open as frozen or fenced"
DETECTED = "refused at read"
WRONG_ENOUGH = 8


def look(path: Path, expected: dict[str, Any], *, readonly: bool) -> str:
    """Open and read a damaged pool: EXACT, REFUSED, DETECTED, or what is wrong with what happened."""
    try:
        pool = pmlog.open(path, readonly=readonly, **SMALL)
    except (pmlog.CorruptionError, pmlog.FormatError) as error:
        return _named(error) or REFUSED
    except (pmlog.PoolFrozenError, pmlog.FencedError):
        return STOPPED
    except Exception as error:
        return f"WRONG ERROR at open: {error!r}"
    outcome = EXACT
    try:
        for part in ("names", "d", "q", "a", "r"):
            try:
                found = _read_part(pool, part)
            except pmlog.CorruptionError as error:
                outcome = _named(error) or DETECTED
            except Exception as error:
                return f"WRONG ERROR at read of {part}: {error!r}"
            else:
                if found != expected[part]:
                    return f"WRONG DATA served: {part}"
    finally:
        abandon(pool)
    return outcome


def _read_part(pool: pmlog.Pool, part: str) -> Any:
    readers: dict[str, Callable[[], Any]] = {
        "names": lambda: sorted(pool.names()),
        "d": lambda: list(pool.dict("d").items()),
        "q": lambda: list(pool.deque("q")),
        "a": lambda: list(pool.array("a", shape=(40, 40), dtype="i4")[...].tolist()),
        "r": lambda: pool.region("r", 20_000).read(0, 20_000),
    }
    return readers[part]()


def _check(path: Path) -> list[str]:
    try:
        return faults_of(path)
    except Exception as error:
        return [f"{RAISED}: {error!r}"]


def _named(error: pmlog.PmlogError) -> str:
    named = [name for name in (*FILES, "control") if name in str(error)]
    return "" if named else f"ERROR NAMES NO FILE: {error}"


def judge_all(
    connection: Connection, template: str, expected: dict[str, Any], damages: list[Damage]
) -> None:
    """Inflict each damage on a fresh copy of a pool and send (name, faults, outcomes) of each.

    "begin" goes before each one, so that the parent knows which of them killed this process.
    """
    faulthandler.enable()
    work = Path(template).with_name("work")
    wrong = 0
    for damage in damages:
        if wrong > WRONG_ENOUGH:
            break  # what fails may be slow, and this is enough to see how
        connection.send(("begin", damage.name))
        outcomes: list[str] = []
        faults: list[str] = []
        changed = True
        for readonly in (True, False):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(template, work)
            changed = damage.inflict(work)
            if not changed:
                break
            if not outcomes:
                faults = _check(work)
                if faults and faults[0].startswith(RAISED):
                    outcomes.append(faults[0])
            outcomes.append(look(work, expected, readonly=readonly))
        if changed:
            connection.send((damage.name, faults, outcomes))
            wrong += not set(outcomes) <= {EXACT, REFUSED, DETECTED}
    connection.send(("end", "", []))


def checksum(struct_name: str, data: bytearray, base: int = 0) -> None:
    """Put the right checksum into a header that a test has changed."""
    size = ffi.sizeof(f"struct {struct_name}")
    offset = base + {name: at for name, at, _ in fields_of(struct_name)}["checksum"]
    struct.pack_into("<I", data, offset, 0)
    struct.pack_into("<I", data, offset, lib.pml_crc32c(0, bytes(data[base : base + size]), size))
