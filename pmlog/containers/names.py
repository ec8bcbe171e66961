"""The names of a pool's containers."""

from struct import Struct
from typing import Final

from pmlog import limits
from pmlog._engine import E_BUFFER, E_STALE, answer, ffi, lib, scratch_buffer
from pmlog._handle import Core
from pmlog.errors import CorruptionError

_words: Final = Struct("<QQ").unpack_from
_type_of: Final = Struct("<I").unpack_from
_ATTEMPTS_MAX: Final = 1000

_TYPE_NAMES: Final = {
    lib.PML_TYPE_DICT: "dict",
    lib.PML_TYPE_DEQUE: "deque",
    lib.PML_TYPE_ARRAY: "array",
    lib.PML_TYPE_REGION: "region",
}


def read_names(core: Core) -> dict[str, str]:
    """List a pool's containers.

    Args:
        core: The pool.

    Returns:
        dict, deque, array or region, by name, oldest first.

    Raises:
        CorruptionError: The catalog cannot be read.
        RuntimeError: It changed faster than it could be read.
    """
    for _ in range(_ATTEMPTS_MAX):
        names = _read(core)
        if names is not None:
            return names
    raise RuntimeError(f"{core.path}: the catalog changes too fast to be read")


def _read(core: Core) -> dict[str, str] | None:
    cursor = ffi.new("struct pml_cursor *")
    count = ffi.new("uint64_t *")
    capacity = limits.SCAN_BYTES
    buffer, view = scratch_buffer(capacity)
    names: dict[str, str] = {}
    while True:  # ends: the catalog does
        arguments = (core.pool, cursor, buffer, capacity, count)
        used = lib.pml_container_names(*arguments)
        if used < 0:
            used = answer(used, core, lib.pml_container_names, *arguments)
        if used == E_STALE:
            return None
        if used == E_BUFFER:
            capacity = max(cursor.need, 2 * capacity)
            buffer, view = scratch_buffer(capacity)
            continue
        if not count[0]:
            return names
        data: bytes = view[:used]
        at = 0
        for _ in range(count[0]):
            name_word, value_word = _words(data, at)
            start = at + 16
            middle = start + (name_word >> 8)
            at = middle + (value_word >> 8)
            (number,) = _type_of(data, middle)
            kind = _TYPE_NAMES.get(number)
            if kind is None:
                raise CorruptionError(
                    f"{core.path}: the catalog holds a container of unknown type {number}",
                    path=core.path,
                    file="image",
                    found=number,
                )
            names[data[start:middle].decode(errors="replace")] = kind
