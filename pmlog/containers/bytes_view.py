"""Where an array's or region's bytes are, and views of them without a copy."""

from typing import Final

from pmlog import limits
from pmlog._engine import ffi, lib, scratch_buffer, settle
from pmlog._handle import Handle
from pmlog.errors import ReadOnlyError

_where: Final = lib.pml_bytes_where


def locate(handle: Handle) -> tuple[int, int]:
    """Find a container's bytes in the working image; they stay there until it is dropped.

    Args:
        handle: The container.

    Returns:
        Offset of the first byte, and how many they are.
    """
    offset, size = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    settle(_where(handle.c, offset, size), handle, _where, handle.c, offset, size)
    return offset[0], size[0]


def map_bytes(handle: Handle, writable: bool = False) -> memoryview:
    """Look at a container's bytes in place, in a pool that is open for writing.

    Args:
        handle: The container.
        writable: Whether the view may be written through: inside a transaction that has noted
            the range, never by users.

    Returns:
        A view; it keeps the working image mapped, also after the pool is closed.

    Raises:
        ReadOnlyError: The pool is open for reading only: the writer would move the bytes under
            the view.
        CorruptionError: A page's checksum is wrong.
    """
    core = handle.core
    core.live()
    if core.readonly:
        raise ReadOnlyError(
            f"{core.path}: {handle.label}: views need a pool that is open for writing",
            hint="read copies instead",
            path=core.path,
        )
    offset, size = locate(handle)
    if size and handle.view is None:
        # Once: from then on the engine itself knows the pages.
        settle(
            lib.pml_verify(core.pool, offset, size), handle, lib.pml_verify, core.pool, offset, size
        )
    return (core.writable if writable else core.image)[offset : offset + size]


def read_descr(handle: Handle) -> bytes:
    """Read the description that an array was made with.

    Args:
        handle: The array.

    Returns:
        JSON.
    """
    for capacity in (limits.SCRATCH_BYTES, limits.DESCR_BYTES_MAX):
        buffer, view = scratch_buffer(capacity)
        arguments = (handle.c, buffer, capacity)
        size = settle(lib.pml_bytes_descr(*arguments), handle, lib.pml_bytes_descr, *arguments)
        if size <= capacity:
            break
    return bytes(view[: max(0, min(size, capacity))])
