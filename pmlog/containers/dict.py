"""A dict in a pool."""

import time
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from typing import Any, Final, Self

from pmlog import limits
from pmlog._engine import (
    E_BUSY,
    E_MISSING,
    Scratch,
    answer,
    fast,
    ffi,
    lib,
    scratch_buffer,
    settle,
)
from pmlog._handle import Handle
from pmlog.containers.codec import ValueDecoder, encode_key, encode_value
from pmlog.containers.dict_scan import ITEMS, KEYS, walk
from pmlog.containers.dict_views import DictItems, DictKeys, DictValues
from pmlog.errors import EncodeError, PmlogError
from pmlog.transaction import Transaction

_dict_get: Final = lib.pml_dict_get
_dict_set: Final = lib.pml_dict_set
_dict_has: Final = lib.pml_dict_has
_dict_pop: Final = lib.pml_dict_pop
_dict_delete: Final = lib.pml_dict_delete
_dict_count: Final = lib.pml_dict_count

_SCRATCH_BYTES: Final = limits.SCRATCH_BYTES
_NO_DEFAULT: Final = object()


class PoolDict(fast.Dict, MutableMapping[Any, Any]):
    """A dict in a pool: a `MutableMapping` with `dict`'s behaviour, insertion order included.

    Made by `Pool.dict`.

    Keys are str, bytes, int, float, bool, None and tuples of them, up to 64 KiB encoded; keys
    that are equal in Python (1, 1.0 and True) are one key.  All NaNs are one key.
    Values are what MessagePack holds, up to the greatest transaction.  They are copies: to change
    a list within a value, store the value again.  Tuples within values come back as lists, unless
    `type=` says otherwise; `type=` is used to decode, what is stored is not checked against it.

    Durability: outside of a transaction each change is a transaction of its own, committed on
    return; inside, the transaction decides.  A change that raises has changed nothing.

    Threads: any; changes and reads wait while another thread's transaction is open.

    Cost: one call into the engine for each operation on a key, and for each bulk form.
    """

    __slots__ = ("_core", "_decoder", "_scratch")

    _handle: Handle

    def __init__(self, handle: Handle, type: Any = None) -> None:
        self._core = handle.core
        self._decoder = decoder = ValueDecoder(type)
        self._bind(handle, decoder.decode_msgpack, decoder.plain_bytes, type is None)
        self._scratch: Scratch | None = None

    @property
    def name(self) -> str:
        """The dict's name in its pool."""
        return self._handle.name

    # ---- one key -------------------------------------------------------------------------------

    # `__getitem__`, `get`, `__setitem__`, `__delitem__` and `__contains__` do the plain cases in C,
    # and leave the others to these.

    def _look_up(self, key: Any) -> Any:
        value = self._get(key, _NO_DEFAULT)
        if value is _NO_DEFAULT:
            raise KeyError(key)
        return value

    def _get(self, key: Any, default: Any = None) -> Any:
        try:
            data, word = encode_key(key)
        except EncodeError:
            return default
        value, found = self._fetch(_dict_get, data, word)
        return self._decoder.decode(value, found) if found else default

    def _set(self, key: Any, value: Any) -> None:
        arguments = (self._handle.c, *encode_key(key), *encode_value(value))
        settle(_dict_set(*arguments), self._handle, _dict_set, *arguments)
        self._handle.version += 1

    def _delete(self, key: Any) -> None:
        try:
            data, word = encode_key(key)
        except EncodeError:
            raise KeyError(key) from None
        handle = self._handle
        status = _dict_delete(handle.c, data, word)
        if status:
            status = answer(status, handle, _dict_delete, handle.c, data, word)
            if status == E_MISSING:
                raise KeyError(key)
        handle.version += 1

    def _has(self, key: object) -> bool:
        try:
            data, word = encode_key(key)
        except EncodeError:
            return False
        handle = self._handle
        return bool(
            settle(_dict_has(handle.c, data, word), handle, _dict_has, handle.c, data, word)
        )

    def pop(self, key: Any, default: Any = _NO_DEFAULT) -> Any:
        """Remove a key and return its value.

        Args:
            key: The key.
            default: What to answer if it is not there.

        Returns:
            The value, or the default.

        Raises:
            KeyError: It is not there, and no default was given.
        """
        with Transaction(self._core):  # a value that cannot be decoded stays where it is
            return self._pop(key, default)

    def _pop(self, key: Any, default: Any) -> Any:
        try:
            data, word = encode_key(key)
        except EncodeError:
            found = 0
        else:
            value, found = self._fetch(_dict_pop, data, word)
        if not found:
            if default is _NO_DEFAULT:
                raise KeyError(key)
            return default
        self._handle.version += 1
        return self._decoder.decode(value, found)

    def popitem(self) -> tuple[Any, Any]:
        """Remove the newest entry.

        Returns:
            Its key and value.

        Raises:
            KeyError: The dict is empty.
        """
        with Transaction(self._core):
            for key, value in walk(self._handle, self._decoder, ITEMS, reverse=True):
                del self[key]
                return key, value
        raise KeyError("popitem(): dictionary is empty")

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Look a key up; put it in if it is not there.

        Args:
            key: The key.
            default: Its value, if it is not there.

        Returns:
            The value that is there, or the default itself.
        """
        value = self.get(key, _NO_DEFAULT)
        if value is not _NO_DEFAULT:
            return value
        with Transaction(self._core):
            # Another thread may have put it in.
            value = self.get(key, _NO_DEFAULT)
            if value is _NO_DEFAULT:
                self[key] = value = default
        return value

    # ---- many keys -----------------------------------------------------------------------------

    def get_many(self, keys: Iterable[Any], default: Any = None) -> list[Any]:
        """Look many keys up, by one call into the engine: all at one instant.

        Args:
            keys: The keys.
            default: What to answer for those that are not there.

        Returns:
            Values and defaults, in the order of the keys.
        """
        keys = list(keys)
        deadline = time.monotonic() + limits.LOCK_TIMEOUT_S
        while True:  # until another thread's transaction ends, or the time is up
            values = self._get_many(keys, default, encode_key)
            if values is not None:
                return values
            if time.monotonic() >= deadline:
                raise self._handle.failure(E_BUSY)

    def _decode(self, data: bytes, word: int) -> Any:
        return self._decoder.decode(data, word)

    def update(self, other: Any = (), /, **named: Any) -> None:
        """Put many entries in, by one call into the engine: all or none of them.

        Args:
            other: A mapping, or pairs of key and value.
            named: Further entries.
        """
        pairs: Iterable[tuple[Any, Any]]
        if isinstance(other, Mapping):
            pairs = other.items()
        elif hasattr(other, "keys"):
            pairs = [(key, other[key]) for key in other.keys()]  # noqa: SIM118 - may not iterate
        else:
            pairs = other
        if named:
            pairs = (*pairs, *named.items())
        count, keys, key_words, values, value_words = fast.pack(pairs, encode_key, encode_value)
        if not count:
            return
        handle = self._handle
        arguments = (
            handle.c,
            count,
            keys,
            ffi.from_buffer("uint64_t[]", key_words),
            values,
            ffi.from_buffer("uint64_t[]", value_words),
        )
        status = lib.pml_dict_update(*arguments)
        if status:
            settle(status, handle, lib.pml_dict_update, *arguments)
        handle.version += 1

    def clear(self) -> None:
        """Remove all entries."""
        handle = self._handle
        status = lib.pml_dict_clear(handle.c)
        if status:
            settle(status, handle, lib.pml_dict_clear, handle.c)
        handle.version += 1

    def copy(self) -> dict[Any, Any]:
        """Copy all entries.

        Returns:
            An ordinary dict.
        """
        return dict(self.items())

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> dict[Any, Any]:
        return self.copy()  # values are copies already

    # ---- the whole -----------------------------------------------------------------------------

    def __len__(self) -> int:
        handle = self._handle
        count: int = _dict_count(handle.c)
        return count if count >= 0 else settle(count, handle, _dict_count, handle.c)

    def __iter__(self) -> Iterator[Any]:
        return walk(self._handle, self._decoder, KEYS)

    def __reversed__(self) -> Iterator[Any]:
        return walk(self._handle, self._decoder, KEYS, reverse=True)

    def keys(self) -> KeysView[Any]:
        """Look at the keys.

        Returns:
            A set-like view, in order of insertion.
        """
        return DictKeys(self, self._handle, self._decoder)

    def values(self) -> ValuesView[Any]:
        """Look at the values.

        Returns:
            A view, in order of insertion.
        """
        return DictValues(self, self._handle, self._decoder)

    def items(self) -> ItemsView[Any, Any]:
        """Look at the entries.

        Returns:
            A set-like view, in order of insertion.
        """
        return DictItems(self, self._handle, self._decoder)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self is other or (len(self) == len(other) and self.copy() == dict(other.items()))

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Any) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.copy() | dict(other.items())

    def __ror__(self, other: Any) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(other.items()) | self.copy()

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def __repr__(self) -> str:
        try:
            content = f"{len(self)} entries"
        except PmlogError as error:
            content = type(error).__name__
        return f"pmlog.dict({self.name!r}, {content})"

    def _fetch(self, call: Callable[..., int], data: bytes, word: int) -> tuple[bytes, int]:
        """Get or pop a value of whatever size.

        Args:
            call: The engine's function.
            data: The key's bytes.
            word: Their word.

        Returns:
            The value's bytes and word; word 0: the key is not there.
        """
        handle = self._handle
        scratch, self._scratch = self._scratch or scratch_buffer(), None
        buffer, view = scratch
        capacity = _SCRATCH_BYTES
        while True:  # ends: the value has a size
            arguments = (handle.c, data, word, buffer, capacity)
            status = call(*arguments)
            if status < 0:
                status = answer(status, handle, call, *arguments)
            if status in (0, E_MISSING):
                found = (b"", 0)
                break
            if status > 0 and status >> 8 <= capacity:
                found = (view[: status >> 8], status)
                break
            # A pop whose value did not fit has changed nothing.
            capacity = max(capacity, status >> 8)
            buffer, view = scratch_buffer(capacity)
        self._scratch = scratch
        return found
