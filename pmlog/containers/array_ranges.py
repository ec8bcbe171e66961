"""Which bytes an assignment to an array touches, and how arrays are described. Pure."""

import json
import math
from itertools import product
from operator import index as as_index
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy_format

from pmlog import limits
from pmlog.errors import ConfigError, CorruptionError, EncodeError

Range = tuple[int, int, int, int]
"""(offset, size, stride, count): `count` runs of `size` bytes, `stride` bytes apart."""

_GAP: Final = limits.ADVANCED_GAP_BYTES


def touched(array: np.ndarray[Any, Any], index: Any) -> list[Range]:
    """Find the bytes that `array[index] = …` writes.

    Args:
        array: C-contiguous.
        index: Anything that numpy takes as an index.

    Returns:
        Ranges that cover them, relative to the array's first byte; gaps that cost less to log
        than to leave out are covered too.

    Raises:
        IndexError: numpy refuses the index.
    """
    if not array.size:
        array[index]  # its bounds count all the same
        return []
    part = _basic(array, index)
    return _ranges_of_view(array, part) if part is not None else _ranges_of_copy(array, index)


def _basic(array: np.ndarray[Any, Any], index: Any) -> np.ndarray[Any, Any] | None:
    """Index, if that gives a view.

    Args:
        array: The array.
        index: The index.

    Returns:
        The view, or None if numpy makes a copy.
    """
    parts = index if type(index) is tuple else (index,)
    plain = all(
        part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))
        for part in parts
    ) and not any(isinstance(part, (bool, np.bool_)) for part in parts)
    if plain:
        if not any(part is Ellipsis for part in parts):
            parts = (*parts, Ellipsis)  # a 0-d view in place of a scalar
        return array[parts]
    if isinstance(index, str) or (
        isinstance(index, list) and index and all(isinstance(part, str) for part in index)
    ):
        return array[index]  # fields of a structured dtype
    return None


def _ranges_of_view(whole: np.ndarray[Any, Any], part: np.ndarray[Any, Any]) -> list[Range]:
    if not part.size:
        return []
    offset = part.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    dimensions = []
    for extent, stride in zip(part.shape, part.strides, strict=True):
        if extent == 1:
            continue
        if stride < 0:
            offset += stride * (extent - 1)
        dimensions.append((abs(stride), extent))
    dimensions.sort()
    # From the innermost dimension outwards, what lies side by side is one run.
    size = part.dtype.itemsize
    while dimensions and dimensions[0][0] - size <= _GAP:
        stride, extent = dimensions.pop(0)
        size = stride * (extent - 1) + size
    if not dimensions:
        return [(offset, size, 0, 1)]
    stride, count = dimensions.pop(0)
    outer = [range(0, stride * extent, stride) for stride, extent in dimensions]
    return [(offset + sum(steps), size, stride, count) for steps in product(*outer)]


def _ranges_of_copy(whole: np.ndarray[Any, Any], index: Any) -> list[Range]:
    """Find what an index by arrays or masks selects.

    Args:
        whole: The array.
        index: The index.

    Returns:
        Ranges in rising order.
    """
    # numpy itself finds the elements: each axis's own numbers, seen as an array of the whole
    # shape without taking its memory, are indexed in the array's place.
    positions: Any = 0
    for axis, (extent, stride) in enumerate(zip(whole.shape, whole.strides, strict=True)):
        numbers = np.arange(0, extent * stride, stride, dtype=np.int64)
        line = numbers.reshape([-1 if other == axis else 1 for other in range(whole.ndim)])
        positions = positions + np.broadcast_to(line, whole.shape)[index]
    if not whole.ndim:
        positions = np.zeros((), dtype=np.int64)[index]
    starts = np.unique(positions)
    if not starts.size:
        return []
    size = whole.dtype.itemsize
    breaks = np.flatnonzero(np.diff(starts) > size + _GAP)
    first = np.concatenate(([0], breaks + 1))
    last = np.concatenate((breaks, [starts.size - 1]))
    return [
        (start, end - start + size, 0, 1)
        for start, end in zip(starts[first].tolist(), starts[last].tolist(), strict=True)
    ]


# ---- descriptions ------------------------------------------------------------------------------


def parse_shape(shape: Any) -> tuple[int, ...]:
    """Read a shape as numpy does.

    Args:
        shape: An int, or a sequence of ints.

    Returns:
        The extents.

    Raises:
        ConfigError: It is not a shape.
    """
    try:
        extents = (
            tuple(as_index(extent) for extent in shape)
            if _is_sequence(shape)
            else (as_index(shape),)
        )
    except TypeError as error:
        raise ConfigError(f"shape={shape!r} is not a shape: {error}") from error
    if any(extent < 0 for extent in extents):
        raise ConfigError(f"shape={shape!r} has a negative extent")
    return extents


def _is_sequence(shape: Any) -> bool:
    return hasattr(shape, "__iter__")


def parse_dtype(dtype: Any) -> np.dtype[Any]:
    """Read a dtype as numpy does.

    Args:
        dtype: Anything that numpy takes as one.

    Returns:
        The dtype.

    Raises:
        ConfigError: It is not a dtype.
        EncodeError: Arrays of it cannot be stored.
    """
    try:
        parsed: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"dtype={dtype!r} is not a dtype: {error}") from error
    if parsed.hasobject or parsed.subdtype is not None or not parsed.itemsize:
        raise EncodeError(
            f"arrays of dtype {parsed} cannot be stored",
            hint="elements must have a fixed size and hold no Python objects",
        )
    return parsed


def describe(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Describe an array, for the pool.

    Args:
        shape: Its shape.
        dtype: Its dtype.

    Returns:
        JSON: {"shape": […], "dtype": …}, the dtype as in numpy's .npy files.

    Raises:
        ConfigError: numpy or the pool cannot hold arrays of this shape.
        EncodeError: The description would be too long, or not of the same dtype.
    """
    _check_size(shape, dtype)
    content = {"shape": list(shape), "dtype": npy_format.dtype_to_descr(dtype)}
    text = json.dumps(content, separators=(",", ":")).encode()
    if len(text) > limits.DESCR_BYTES_MAX or undescribe(text) != (shape, dtype):
        raise EncodeError(f"arrays of dtype {dtype} cannot be stored")
    return text


def nbytes_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Multiply out the size of an array.

    Args:
        shape: Its shape.
        dtype: Its dtype.

    Returns:
        Bytes.
    """
    return math.prod(shape) * dtype.itemsize


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    try:
        np.broadcast_to(np.empty((), dtype), shape)  # numpy's own limits
    except ValueError as error:
        raise ConfigError(f"shape={shape!r} cannot be had: {error}") from error
    if nbytes_of(shape, dtype) > limits.ARRAY_BYTES_MAX:
        raise ConfigError(f"shape={shape!r} takes more bytes than a pool can hold")


def undescribe(text: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read what `describe` wrote.

    Args:
        text: The description.

    Returns:
        Shape and dtype.

    Raises:
        CorruptionError: It is not a description.
    """
    try:
        content = json.loads(text)
        dtype: np.dtype[Any] = npy_format.descr_to_dtype(_tuples_of_fields(content["dtype"]))
        return tuple(content["shape"]), dtype
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptionError(f"an array's description is damaged: {error}") from error


def _tuples_of_fields(descr: Any) -> Any:
    """Undo what JSON does to the lists of tuples that describe structured dtypes.

    Args:
        descr: A type string, or a list of fields: [name, descr] or [name, descr, shape], the name
            of a titled field being [title, name].

    Returns:
        The same with tuples where numpy has them.
    """
    if not isinstance(descr, list):
        return descr
    fields = []
    for field in descr:
        name = tuple(field[0]) if isinstance(field[0], list) else field[0]
        shape = [tuple(extent) for extent in field[2:]]
        fields.append((name, _tuples_of_fields(field[1]), *shape))
    return fields
