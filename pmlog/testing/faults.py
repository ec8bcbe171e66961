"""Disks that fail, or are full, at a chosen moment."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pmlog._engine import ffi, lib
from pmlog.errors import ConfigError, MemoryExhaustedError

# A pool may outlive the block in which it was opened, and refers to its plan as long as it is open.
_kept: Final[list[Any]] = []


def new_tape(*, records: bool) -> Any:
    """Make a tape of the engine's.

    Args:
        records: Whether it records; otherwise it makes faults only.

    Returns:
        The engine's handle; the caller frees it, behind the pools that it was used for.

    Raises:
        MemoryExhaustedError: There is no memory.
    """
    out = ffi.new("struct pml_tape **")
    if lib.pml_tape_new(records, out):
        raise MemoryExhaustedError("no memory for a tape")
    return out[0]


@contextmanager
def faults(
    *, log_drain: int = 0, image_drain: int = 0, growth: int = 0, os_errno: int = errno.EIO
) -> Iterator[None]:
    """Let pools that this thread opens inside the block fail.

    Drains and growths are counted from the open on, its own included, over all these pools.
    A drain that fails makes nothing durable: the pool raises `MediumError` and is poisoned, and
    the next open recovers what is there. A growth that fails raises `PoolFullError`, and changes
    nothing.

    These pools have no background thread. For medium "file".

    Args:
        log_drain: Which drain of the log fails; 0: none.
        image_drain: The same for the image, checksums and marks.
        growth: From which growth of the image on the file system is full; 0: never.
        os_errno: What a failing drain answers.

    Yields:
        Nothing.

    Raises:
        ConfigError: A number is negative, or none is given.
    """
    if min(log_drain, image_drain, growth) < 0 or not (log_drain or image_drain or growth):
        raise ConfigError("give a number from 1 on for at least one kind of fault")
    tape = new_tape(records=False)
    _kept.append(tape)
    if log_drain:
        lib.pml_tape_fail(tape, lib.PML_TAPE_LOG, log_drain, os_errno)
    if image_drain:
        lib.pml_tape_fail(tape, lib.PML_TAPE_IMAGE, image_drain, os_errno)
    if growth:
        lib.pml_tape_no_room(tape, growth)
    lib.pml_tape_use(tape)
    try:
        yield
    finally:
        lib.pml_tape_use(ffi.NULL)
