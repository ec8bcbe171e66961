"""A deque in a pool."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from operator import index as as_index
from typing import Any, Final, Self

from pmlog import limits
from pmlog._engine import (
    E_MISSING,
    KIND_BYTES,
    Scratch,
    answer,
    fast,
    lib,
    scratch_buffer,
    settle,
)
from pmlog._handle import Handle
from pmlog.containers.codec import ValueDecoder, encode_value
from pmlog.containers.deque_scan import walk
from pmlog.errors import PmlogError
from pmlog.transaction import Transaction

_deque_push: Final = lib.pml_deque_push
_deque_pop: Final = lib.pml_deque_pop
_deque_get: Final = lib.pml_deque_get
_deque_count: Final = lib.pml_deque_count

_SCRATCH_BYTES: Final = limits.SCRATCH_BYTES
_INDEX_MAX: Final = (1 << 63) - 1


class PoolDeque(fast.Deque, MutableSequence[Any]):
    """A deque in a pool, with the behaviour of `collections.deque` without `maxlen`.

    Made by `Pool.deque`.

    Values are as in `PoolDict`: copies, of what MessagePack holds.

    Durability: outside of a transaction each change is a transaction of its own, committed on
    return; inside, the transaction decides.  A change that raises has changed nothing.

    Threads: any; changes and reads wait while another thread's transaction is open.

    Cost: one call into the engine for each operation at an end, on an index, and for each bulk
    form.  As in `collections.deque`, work in the middle takes time in proportion to the distance
    from the nearer end.  In a read-only pool an iteration copies all values first, so that they
    are of one instant.
    """

    __slots__ = ("_core", "_decoder", "_plain_kind", "_scratch")

    _handle: Handle

    maxlen: Final = None
    """As `collections.deque.maxlen`: there is no bound."""

    def __init__(self, handle: Handle, type: Any = None) -> None:
        self._core = handle.core
        self._decoder = decoder = ValueDecoder(type)
        self._bind(handle, decoder.decode_msgpack, decoder.plain_bytes, type is None)
        self._scratch: Scratch | None = None
        # What needs no decoding.
        self._plain_kind = KIND_BYTES if self._decoder.plain_bytes else -1

    @property
    def name(self) -> str:
        """The deque's name in its pool."""
        return self._handle.name

    # ---- the ends ------------------------------------------------------------------------------

    # `append`, `appendleft`, `pop` and `popleft` do the plain cases in C, and leave the others to
    # these.

    def _push(self, left: int, value: Any) -> None:
        arguments = (self._handle.c, left, *encode_value(value))
        settle(_deque_push(*arguments), self._handle, _deque_push, *arguments)
        self._handle.version += 1

    def _pop(self, left: int) -> Any:
        with Transaction(self._core):  # a value that cannot be decoded stays where it is
            return self._pop_inside(left)

    def _pop_inside(self, left: int) -> Any:
        buffer, view = scratch_buffer()
        word = _deque_pop(self._handle.c, left, buffer, _SCRATCH_BYTES)
        if word > 0 and (size := word >> 8) <= _SCRATCH_BYTES:
            data = view[:size]
        else:
            data, word = self._fetch(word, _deque_pop, left)
        if not word:
            raise IndexError("pop from an empty deque")
        self._handle.version += 1
        return self._decoder.decode(data, word)

    def _decode(self, data: bytes, word: int) -> Any:
        return self._decoder.decode(data, word)

    def extend(self, values: Iterable[Any]) -> None:
        """Add values at the right end, by one call into the engine: all or none of them.

        Args:
            values: The values.
        """
        self._extend(0, values)

    def extendleft(self, values: Iterable[Any]) -> None:
        """Add values at the left end, one after the other, so that their order is reversed.

        Args:
            values: The values.
        """
        self._extend(1, values)

    def _extend(self, left: int, values: Iterable[Any]) -> None:
        pieces, words = [], []
        for value in self.copy() if values is self else values:
            data, word = encode_value(value)
            pieces.append(data)
            words.append(word)
        if not pieces:
            return
        handle = self._handle
        arguments = (handle.c, left, len(pieces), b"".join(pieces), words)
        status = lib.pml_deque_extend(*arguments)
        if status:
            settle(status, handle, lib.pml_deque_extend, *arguments)
        handle.version += 1

    # ---- by index ------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        if type(index) is not int:
            index = self._index(index)
        scratch, self._scratch = self._scratch or scratch_buffer(), None
        try:
            word = _deque_get(self._handle.c, index, scratch[0], _SCRATCH_BYTES)
        except OverflowError:
            raise IndexError("deque index out of range") from None
        if word > 0 and (size := word >> 8) <= _SCRATCH_BYTES:
            data = scratch[1][:size]
            self._scratch = scratch
        else:
            self._scratch = scratch
            data, word = self._fetch(word, _deque_get, index)
            if not word:
                raise IndexError("deque index out of range")
        return self._decoder.decode(data, word)

    def __setitem__(self, index: Any, value: Any) -> None:
        index = self._index(index)
        data, word = encode_value(value)
        handle = self._handle
        arguments = (handle.c, index, data, word)
        status = answer(lib.pml_deque_set(*arguments), handle, lib.pml_deque_set, *arguments)
        if status == E_MISSING:
            raise IndexError("deque index out of range")
        handle.edits += 1

    def __delitem__(self, index: Any) -> None:
        index = self._index(index)
        handle = self._handle
        status = lib.pml_deque_erase(handle.c, index)
        if status:
            status = answer(status, handle, lib.pml_deque_erase, handle.c, index)
            if status == E_MISSING:
                raise IndexError("deque index out of range")
        handle.version += 1

    def _index(self, index: Any) -> int:
        try:
            number = as_index(index)
        except TypeError:
            raise TypeError(
                f"sequence index must be integer, not {type(index).__name__!r}"
            ) from None
        if not -_INDEX_MAX <= number <= _INDEX_MAX:
            raise IndexError("deque index out of range")
        return number

    def insert(self, index: int, value: Any) -> None:
        """Put a value in before an index.

        Args:
            index: Where; beyond an end: at that end.
            value: The value.
        """
        number = max(-_INDEX_MAX, min(as_index(index), _INDEX_MAX))
        data, word = encode_value(value)
        handle = self._handle
        arguments = (handle.c, number, data, word)
        status = lib.pml_deque_insert(*arguments)
        if status:
            settle(status, handle, lib.pml_deque_insert, *arguments)
        handle.version += 1

    # ---- by value ------------------------------------------------------------------------------

    def index(self, value: Any, start: int = 0, stop: int = _INDEX_MAX) -> int:
        """Find a value.

        Args:
            value: The value.
            start: Where to begin; negative: from the right end.
            stop: Where to stop; negative: from the right end.

        Returns:
            The index of the first that is equal.

        Raises:
            ValueError: There is none.
        """
        count = len(self)
        start = max(0, start + count) if start < 0 else start
        stop = stop + count if stop < 0 else min(stop, count)
        if start < stop:
            for at, other in enumerate(walk(self._handle, self._decoder, start=start), start):
                if at >= stop:
                    break
                if other is value or other == value:
                    return at
        raise ValueError(f"{value!r} is not in deque")

    def remove(self, value: Any) -> None:
        """Remove the first value that is equal.

        Args:
            value: The value.

        Raises:
            ValueError: There is none.
        """
        with Transaction(self._core):
            del self[self.index(value)]

    def count(self, value: Any) -> int:
        """Count the values that are equal.

        Args:
            value: The value.

        Returns:
            How many there are.
        """
        return sum(1 for other in self if other is value or other == value)

    def __contains__(self, value: object) -> bool:
        return any(other is value or other == value for other in self)

    # ---- the whole -----------------------------------------------------------------------------

    def rotate(self, steps: int = 1) -> None:
        """Move values from one end to the other.

        Args:
            steps: How many, to the right; negative: to the left.
        """
        steps = as_index(steps)
        count = len(self)
        if count < 2 or steps % count == 0:
            return
        # The shorter way round.
        steps = (steps + count // 2) % count - count // 2
        handle = self._handle
        status = lib.pml_deque_rotate(handle.c, steps)
        if status:
            settle(status, handle, lib.pml_deque_rotate, handle.c, steps)
        handle.version += 1

    def reverse(self) -> None:
        """Reverse the order of the values."""
        handle = self._handle
        status = lib.pml_deque_reverse(handle.c)
        if status:
            settle(status, handle, lib.pml_deque_reverse, handle.c)
        handle.version += 1

    def clear(self) -> None:
        """Remove all values."""
        handle = self._handle
        status = lib.pml_deque_clear(handle.c)
        if status:
            settle(status, handle, lib.pml_deque_clear, handle.c)
        handle.version += 1

    def copy(self) -> deque[Any]:
        """Copy all values.

        Returns:
            An ordinary deque.
        """
        return deque(self)

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> deque[Any]:
        return self.copy()  # values are copies already

    def __len__(self) -> int:
        handle = self._handle
        count: int = _deque_count(handle.c)
        return count if count >= 0 else settle(count, handle, _deque_count, handle.c)

    def __iter__(self) -> Iterator[Any]:
        return walk(self._handle, self._decoder)

    def __reversed__(self) -> Iterator[Any]:
        return walk(self._handle, self._decoder, reverse=True)

    def __iadd__(self, values: Iterable[Any]) -> Self:  # type: ignore[misc]  # as for dict's |=
        self._extend(0, values)
        return self

    def __add__(self, other: Any) -> deque[Any]:
        if not isinstance(other, (deque, PoolDeque)):
            return NotImplemented
        return deque([*self, *other])

    def __radd__(self, other: Any) -> deque[Any]:
        if not isinstance(other, deque):
            return NotImplemented
        return deque([*other, *self])

    def __mul__(self, times: int) -> deque[Any]:
        return self.copy() * times

    __rmul__ = __mul__

    def __imul__(self, times: int) -> Self:
        times = as_index(times)
        with Transaction(self._core):
            if times <= 0:
                self.clear()
            else:
                self._extend(0, list(self) * (times - 1))
        return self

    def _compare(self, other: Any, decide: Callable[[list[Any], list[Any]], bool]) -> Any:
        if not isinstance(other, (deque, PoolDeque)):
            return NotImplemented
        return decide(list(self), list(other))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (deque, PoolDeque)):
            return NotImplemented
        return self is other or (len(self) == len(other) and list(self) == list(other))

    __hash__ = None  # type: ignore[assignment]

    def __lt__(self, other: Any) -> Any:
        return self._compare(other, list.__lt__)

    def __le__(self, other: Any) -> Any:
        return self._compare(other, list.__le__)

    def __gt__(self, other: Any) -> Any:
        return self._compare(other, list.__gt__)

    def __ge__(self, other: Any) -> Any:
        return self._compare(other, list.__ge__)

    def __repr__(self) -> str:
        try:
            content = f"{len(self)} items"
        except PmlogError as error:
            content = type(error).__name__
        return f"pmlog.deque({self.name!r}, {content})"

    # ---- what the fast paths leave -------------------------------------------------------------

    def _fetch(self, status: int, call: Callable[..., int], where: int) -> tuple[bytes, int]:
        """Finish a get or pop that was not done at the first call.

        Args:
            status: What the first call answered.
            call: The engine's function.
            where: Its second argument: the index, or the end.

        Returns:
            The value's bytes and word; word 0: there is none.
        """
        handle = self._handle
        capacity = _SCRATCH_BYTES
        buffer, view = None, b""
        while True:  # ends: the value has a size
            if status in (0, E_MISSING):
                return b"", 0
            if status > 0:
                if buffer is not None and status >> 8 <= capacity:
                    return view[: status >> 8], status
                capacity = max(capacity, status >> 8)
            buffer, view = scratch_buffer(capacity)
            arguments = (handle.c, where, buffer, capacity)
            status = answer(status, handle, call, *arguments) if status < 0 else call(*arguments)
