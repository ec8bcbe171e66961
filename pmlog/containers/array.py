"""A numpy array in a pool."""

import math
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from pmlog._engine import ffi, lib, settle
from pmlog._handle import Handle
from pmlog.containers.array_ranges import Range, touched, undescribe
from pmlog.containers.bytes_view import map_bytes, read_descr
from pmlog.errors import DroppedError, PmlogError
from pmlog.transaction import Transaction

_bytes_write: Final = lib.pml_bytes_write
_bytes_where: Final = lib.pml_bytes_where
_ATTEMPTS_MAX: Final = 100_000

# Builtin scalars of these dtypes are packed without numpy; what struct refuses, numpy decides.
_PACKERS: Final[dict[str, Callable[[Any], bytes]]] = {
    char: struct.Struct("<" + char).pack for char in "?bBhHiIqQfd"
}
_CHARS: Final = {"l": "q", "L": "Q"}
_FLOATS: Final = frozenset("fd")


class ArrayView(np.ndarray[Any, Any]):
    """What `array[…]` gives: an ordinary array over the pool's own memory, read-only.

    `array[index] += 1` asks it for the sum and then assigns that to `array[index]`: so as long as
    it is read-only its in-place operators make new arrays, as those of tuples and numbers do.
    """

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        # Results of operations are new arrays and have nothing of this.
        return array[()] if return_scalar else np.asarray(array)


def _in_place(name: str) -> Callable[[ArrayView, Any], Any]:
    operate = getattr(np.ndarray, name)

    def method(self: ArrayView, other: Any) -> Any:
        return operate(self, other) if self.flags.writeable else NotImplemented

    method.__name__ = name
    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"):
    setattr(ArrayView, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in ("lshift", "rshift", "and", "or", "xor"):
    setattr(ArrayView, f"__i{_name}__", _in_place(f"__i{_name}__"))


class PoolArray(NDArrayOperatorsMixin):  # type: ignore[misc,unused-ignore]
    """A numpy array of fixed shape and dtype in a pool, zeros at first.

    Made by `Pool.array`.

    `array[…]` follows numpy's indexing: it gives read-only views of the pool's own memory without
    a copy, or scalars, or copies where numpy makes copies.  Writing through a view is refused by
    numpy; write by `array[…] = …` and in-place operators, which are logged.  Views show every
    change at once, those of open transactions too.  They outlive the pool's close, but not the
    array's drop.  In a read-only pool `array[…]` always gives copies, each of one instant.

    numpy's functions and operators take the array as they take any other; `array += 1` is one
    transaction.

    Durability: outside of a transaction each assignment is a transaction of its own, committed on
    return; inside, the transaction decides.  An assignment that raises, also one that numpy
    refuses half-way, has changed nothing.

    Threads: any; changes wait while another thread's transaction is open, views do not.

    Cost: assigning a builtin or numpy scalar to one element is one call into the engine.  Other
    assignments log the elements that they touch, coalesced where they are close together.
    """

    __slots__ = (
        "_core",
        "_handle",
        "_pack",
        "_packable",
        "_scalar",
        "_strides",
        "descr",
        "dtype",
        "shape",
    )

    # Wins over ndarray's own operators: ndarray + PoolArray comes here.
    __array_priority__ = 1000.0

    def __init__(self, handle: Handle, descr: bytes) -> None:
        self._handle = handle
        self._core = handle.core
        self.descr = descr
        self.shape, self.dtype = shape, dtype = undescribe(descr)
        self._strides = tuple(
            (extent, math.prod(shape[axis + 1 :]) * dtype.itemsize)
            for axis, extent in enumerate(shape)
        )
        char = _CHARS.get(dtype.char, dtype.char) if dtype.isnative else ""
        self._pack = _PACKERS.get(char, bytes)
        self._scalar: type = dtype.type if char in _PACKERS else type(None)
        # Builtin types that `_pack` takes as numpy would.
        self._packable: frozenset[type] = frozenset(
            () if char not in _PACKERS else (int, bool, float) if char in _FLOATS else (int, bool)
        )

    @property
    def name(self) -> str:
        """The array's name in its pool."""
        return self._handle.name

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.size * self.dtype.itemsize

    # ---- reading -------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        view = self._handle.view
        if view is None:
            if self._core.readonly:
                return self._copy(index)
            view = self._attach()
        part = view[index]
        if type(part) is ArrayView and part.flags.writeable:
            return np.asarray(part)  # where numpy makes copies, plain ones
        return part

    def _attach(self) -> np.ndarray[Any, Any]:
        view = self._map(writable=False).view(ArrayView)
        self._handle.view = view
        return view

    def _map(self, writable: bool) -> np.ndarray[Any, Any]:
        self._must_exist()
        return self._over(map_bytes(self._handle, writable))

    def _over(self, data: memoryview) -> np.ndarray[Any, Any]:
        if not data.nbytes:
            empty: np.ndarray[Any, Any] = np.empty(self.shape, self.dtype)
            empty.flags.writeable = not data.readonly
            return empty
        # Not ndarray(buffer=…): that looks through the memory view at what is below, which may be
        # written, and then lets anybody turn the flag.
        return np.frombuffer(data, self.dtype).reshape(self.shape)

    def _copy(self, index: Any) -> Any:
        """Copy a part of the array beside a writer.

        Args:
            index: The part.

        Returns:
            A scalar, or an array of its own, of one instant.

        Raises:
            DroppedError: The writer has dropped the array, or made it anew with another shape.
            RuntimeError: The writer was faster, again and again.
        """
        handle, core = self._handle, self._core
        offset, size = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        for _ in range(_ATTEMPTS_MAX):
            core.live()
            settle(lib.pml_read_begin(core.pool), handle, lib.pml_read_begin, core.pool)
            result = None
            try:
                status = _bytes_where(handle.c, offset, size)
                same = status == 0 and read_descr(handle) == self.descr
                if same and size[0]:
                    status = lib.pml_verify(core.pool, offset[0], size[0])
                if same and status == 0:
                    data = core.image[offset[0] : offset[0] + size[0]]
                    part = self._over(data)[index]
                    result = part.copy() if isinstance(part, np.ndarray) else part
            finally:
                stable = lib.pml_read_end(core.pool) == 0
            if stable:
                settle(status, handle, _bytes_where, handle.c, offset, size)
                if not same:
                    raise self._dropped()
                return result
        raise RuntimeError(f"{core.path}: {handle.label} changed too fast to be copied")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        whole = self[...]
        if copy is None and dtype is None:
            return whole  # type: ignore[no-any-return]
        return np.array(whole, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self[...])

    def __contains__(self, value: object) -> bool:
        return value in self[...]

    # ---- writing -------------------------------------------------------------------------------

    def __setitem__(self, index: Any, value: Any) -> None:
        # One element of a table or a row, by plain indices, and a scalar: the common case.
        strides = self._strides
        offset = -1
        stride = 0
        if type(index) is int:
            if len(strides) == 1:
                extent, stride = strides[0]
                if -extent <= index < extent:
                    offset = (index if index >= 0 else index + extent) * stride
        elif type(index) is tuple and len(index) == 2 == len(strides):
            row, column = index
            (rows, row_stride), (columns, stride) = strides
            if (
                type(row) is int
                and type(column) is int
                and -rows <= row < rows
                and -columns <= column < columns
            ):
                offset = (row if row >= 0 else row + rows) * row_stride
                offset += (column if column >= 0 else column + columns) * stride
        handle = self._handle
        kind = type(value)
        if offset < 0 or handle.dropped or not (kind is self._scalar or kind in self._packable):
            return self._assign_run(index, value)
        try:
            data = value.tobytes() if kind is self._scalar else self._pack(value)
        except (struct.error, OverflowError):
            return self._assign_run(index, value)  # numpy decides
        status = _bytes_write(handle.c, offset, data, stride)
        if status:
            settle(status, handle, _bytes_write, handle.c, offset, data, stride)
        return None

    def _assign_run(self, index: Any, value: Any) -> None:
        """Assign to elements side by side, if plain indices from the first axis on name such.

        Args:
            index: Anything that numpy takes as an index.
            value: Anything that it assigns there.
        """
        indices = index if type(index) is tuple else (index,)
        if not 0 < len(indices) <= len(self._strides):
            return self._assign(index, value, None)
        offset = stride = 0
        for number, (extent, stride) in zip(indices, self._strides, strict=False):
            if type(number) is not int or not -extent <= number < extent:
                return self._assign(index, value, None)
            offset += (number if number >= 0 else number + extent) * stride
        return self._assign(index, value, [(offset, stride, 0, 1)] if stride else [])

    def _must_exist(self) -> None:
        if self._handle.dropped:
            raise self._dropped()

    def _dropped(self) -> DroppedError:
        return DroppedError(
            f"{self._core.path}: {self._handle.label} was dropped, or its creation was undone",
            path=self._core.path,
        )

    def _assign(self, index: Any, value: Any, ranges: list[Range] | None) -> None:
        """Assign as numpy does.

        Args:
            index: Anything that numpy takes as an index.
            value: Anything that it assigns there.
            ranges: Which bytes that are; None: to be found out.
        """
        if isinstance(value, PoolArray):
            value = value[...]
        with Transaction(self._core):
            target = self._writable()
            self._note(touched(target, index) if ranges is None else ranges)
            target[index] = value

    def _writable(self) -> np.ndarray[Any, Any]:
        """Look at the elements in place, to write to ranges that the transaction has noted.

        Returns:
            An array that never leaves this class.
        """
        target = self._handle.target
        if target is None:
            self._handle.target = target = self._map(writable=True)
        return target  # type: ignore[no-any-return]

    def _note(self, ranges: list[Range]) -> None:
        handle = self._handle
        for offset, size, stride, count in ranges:
            if count == 1:
                arguments: tuple[Any, ...] = (handle.c, offset, size)
                status = lib.pml_bytes_add(*arguments)
                if status:
                    settle(status, handle, lib.pml_bytes_add, *arguments)
            else:
                arguments = (handle.c, offset, size, stride, count)
                status = lib.pml_bytes_add_strided(*arguments)
                if status:
                    settle(status, handle, lib.pml_bytes_add_strided, *arguments)

    def fill(self, value: Any) -> None:
        """Set all elements to one value.

        Args:
            value: The value.
        """
        self[...] = value

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        operands = [item[...] if isinstance(item, PoolArray) else item for item in inputs]
        out = options.pop("out", ())
        written = [item for item in out if isinstance(item, PoolArray)]
        if method == "at" and isinstance(inputs[0], PoolArray):
            with Transaction(self._core):
                target = inputs[0]._writable()
                inputs[0]._note([(0, inputs[0].nbytes, 0, 1)] if inputs[0].nbytes else [])
                return ufunc.at(target, *operands[1:], **options)
        if not written:
            if out:
                options["out"] = out
            return getattr(ufunc, method)(*operands, **options)
        with Transaction(written[0]._core):
            targets = []
            for item in out:
                if isinstance(item, PoolArray):
                    item._note([(0, item.nbytes, 0, 1)] if item.nbytes else [])
                    item = item._writable()  # noqa: PLW2901 - what numpy writes to
                targets.append(item)
            getattr(ufunc, method)(*operands, out=tuple(targets), **options)
        return out[0] if len(out) == 1 else out

    def __repr__(self) -> str:
        try:
            self._core.live()
            content = f"shape={self.shape}, dtype={self.dtype}"
        except PmlogError as error:
            content = type(error).__name__
        return f"pmlog.array({self.name!r}, {content})"

    def __copy__(self) -> Self:
        return self
