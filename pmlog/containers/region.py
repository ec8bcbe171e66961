"""Raw bytes in a pool."""

from typing import Final

from pmlog import limits
from pmlog._engine import (
    E_ARGUMENT,
    Scratch,
    fast,
    ffi,
    lib,
    scratch_buffer,
    settle,
)
from pmlog._handle import Handle
from pmlog.containers.bytes_view import locate, map_bytes
from pmlog.errors import BoundsError, PmlogError

_bytes_write: Final = lib.pml_bytes_write
_bytes_read: Final = lib.pml_bytes_read

_SCRATCH_BYTES: Final = limits.SCRATCH_BYTES


class PoolRegion(fast.Region):
    """A run of raw bytes in a pool, of a fixed size, zeros at first.

    Made by `Pool.region`.

    Durability: outside of a transaction each write is a transaction of its own, committed on
    return; inside, the transaction decides.  A write that raises has changed nothing.

    Threads: any; writes and reads wait while another thread's transaction is open.

    Cost: one call into the engine for each write and read.
    """

    __slots__ = ("_core", "_scratch", "_size")

    _handle: Handle

    def __init__(self, handle: Handle) -> None:
        self._bind(handle, None, True, True)
        self._core = handle.core
        self._scratch: Scratch | None = None
        self._size = locate(handle)[1]

    @property
    def name(self) -> str:
        """The region's name in its pool."""
        return self._handle.name

    def __len__(self) -> int:
        return self._size

    # `write` and `read` do the plain cases in C, and leave the others to these two.

    def _write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes.

        Args:
            offset: Of the first byte, in the region; ≥ 0.
            data: The bytes.

        Raises:
            BoundsError: They do not fit at that offset.
        """
        handle = self._handle
        if type(data) is bytes:
            size = len(data)
        else:
            data = ffi.from_buffer(data)
            size = len(data)
        try:
            status = _bytes_write(handle.c, offset, data, size)
        except OverflowError:
            status = E_ARGUMENT
        if status:
            if status == E_ARGUMENT:
                raise self._outside(offset, size)
            settle(status, handle, _bytes_write, handle.c, offset, data, size)

    def _read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Read bytes, all of one instant.

        Args:
            offset: Of the first byte, in the region; ≥ 0.
            size: How many; None: all from the offset on.

        Returns:
            A copy of them.

        Raises:
            BoundsError: They are not all in the region.
        """
        if size is None:
            size = max(0, self._size - offset)
        if not (0 <= offset <= self._size and 0 <= size <= self._size - offset):
            raise self._outside(offset, size)
        handle = self._handle
        if size > _SCRATCH_BYTES:
            scratch = scratch_buffer(size)
        else:
            scratch, self._scratch = self._scratch or scratch_buffer(), None
        status = _bytes_read(handle.c, offset, scratch[0], size)
        if status:
            if status == E_ARGUMENT:
                raise self._outside(offset, size)  # made anew, smaller, by another process
            settle(status, handle, _bytes_read, handle.c, offset, scratch[0], size)
        data: bytes = scratch[1][:size]
        if size <= _SCRATCH_BYTES:
            self._scratch = scratch
        return data

    @property
    def view(self) -> memoryview:
        """The bytes in place, without a copy, read-only; in a pool that is open for writing.

        It shows every change at once, those of open transactions too.  It outlives the pool's
        close, but not the region's drop: then it shows whatever takes its place.

        Raises:
            ReadOnlyError: The pool is open for reading only: use `read`.
        """
        handle = self._handle
        view: memoryview | None = handle.view
        if view is None:
            handle.view = view = map_bytes(handle)
        return view

    def _outside(self, offset: object, size: int) -> BoundsError:
        return BoundsError(
            f"{self._core.path}: {self._handle.label}: {size} bytes at offset {offset} reach "
            f"outside of its {self._size} bytes",
            path=self._core.path,
        )

    def __repr__(self) -> str:
        try:
            self._core.live()
            content = f"{self._size} bytes"
        except PmlogError as error:
            content = type(error).__name__
        return f"pmlog.region({self.name!r}, {content})"
