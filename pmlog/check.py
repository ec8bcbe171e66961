"""Every fault in a pool."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pmlog import limits
from pmlog._engine import ffi, lib, settle
from pmlog.errors import (
    CorruptionError,
    FormatError,
    InvariantViolationError,
    MediumError,
    PmlogError,
)
from pmlog.medium import Medium
from pmlog.pool import Pool, open_options
from pmlog.sizes import parse_size

_CODES: Final = {
    lib.PML_FAULT_PAGE: "page",
    lib.PML_FAULT_HEAP: "heap",
    lib.PML_FAULT_STRUCTURE: "structure",
    lib.PML_FAULT_LEAK: "leak",
}

# What an open says of a damaged pool.
_DAMAGE: Final = (CorruptionError, FormatError, InvariantViolationError, MediumError)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a pool."""

    code: str
    """page, heap, structure or leak; open: the pool cannot be opened because of it."""
    file: str
    """image, log, sums or control; empty: not in one of them."""
    offset: int | None
    """Byte in the file; in the log an LSN."""
    expected: int | None
    found: int | None
    text: str
    """One sentence."""

    def __str__(self) -> str:
        place = f"{self.file} at {self.offset}: " if self.file and self.offset is not None else ""
        return f"{self.code}: {place}{self.text}"


def check(path: str | os.PathLike[str]) -> list[Fault]:
    """Find every fault in a pool: format, log chain, page checksums, heap, containers, leaks.

    It changes nothing, and a writer may be at work meanwhile.
    A pool that cannot be opened has one fault, which says why.

    Args:
        path: The pool's folder.

    Returns:
        The faults; none: the pool is sound.

    Raises:
        PmlogError: The pool could not be looked at: PoolNotFoundError; FormatError, if the path is
            something else than a pool; PoolPermissionError; BusyError, if a writer's checkpoints
            overtook the check again and again.

    Cost: reads the whole pool.
    """
    place = os.fsdecode(path)
    try:
        pool = _open_unverified(place)
    except PmlogError as error:
        if not isinstance(error, _DAMAGE) or not looks_like_a_pool(place):
            raise
        return [_fault_of(error)]
    with pool:
        return list(_faults(pool))


def _open_unverified(path: str) -> Pool:
    options = ffi.new("struct pml_options *")
    options.size = options.log_size = limits.MIB
    options.max_size = max(parse_size("64GiB"), 2 * _image_bytes(path))
    options.flags = lib.PML_OPEN_READ_ONLY | lib.PML_OPEN_NO_VERIFY
    options.medium = Medium.FILE
    return open_options(path, options, Medium.FILE)


def _image_bytes(path: str) -> int:
    for name in ("image", "image.pmemobj"):
        try:
            return os.stat(os.path.join(path, name)).st_size
        except OSError:
            continue
    return 0


def looks_like_a_pool(path: str) -> bool:
    """Tell whether a folder holds one of a pool's files, whatever is in them.

    Args:
        path: The folder.

    Returns:
        Whether it does.
    """
    return any(
        os.path.exists(os.path.join(path, name)) for name in ("log", "image", "image.pmemobj")
    )


def _fault_of(error: Exception) -> Fault:
    lsn = getattr(error, "lsn", None)
    return Fault(
        code="open",
        file=getattr(error, "file", None) or "",
        offset=lsn if lsn is not None else getattr(error, "offset", None),
        expected=getattr(error, "expected", None),
        found=getattr(error, "found", None),
        text=getattr(error, "message", str(error)),
    )


def _faults(pool: Pool) -> Iterator[Fault]:
    core = pool._core
    capacity = limits.FAULTS_FIRST
    while True:  # ends: a second round has room for what the first one counted, or nearly so
        faults = ffi.new("struct pml_fault[]", capacity)
        arguments = (core.pool, faults, capacity)
        count = settle(lib.pml_check(*arguments), core, lib.pml_check, *arguments)
        if count <= capacity:
            break
        capacity = 2 * count
    for number in range(count):
        yield _fault(faults[number])


def _fault(fault: Any) -> Fault:
    return Fault(
        code=_CODES.get(fault.code, str(fault.code)),
        file=ffi.string(fault.file).decode(errors="replace"),
        offset=fault.offset,
        expected=fault.expected,
        found=fault.found,
        text=ffi.string(fault.text).decode(errors="replace"),
    )
