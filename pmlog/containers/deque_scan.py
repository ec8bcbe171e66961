"""Iterators over a deque in a pool.

Values come from the engine in batches.  A value that was replaced in place is fetched again;
any other change ends the iteration by RuntimeError, as in `collections.deque`.

Beside a writer an index says nothing about the next instant, so in a read-only pool the iterator
fetches everything first, in one look.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Any, Final

from pmlog import limits
from pmlog._engine import E_BUFFER, answer, ffi, lib, scratch_buffer, settle
from pmlog._handle import Handle
from pmlog.containers.codec import ValueDecoder

_word: Final = Struct("<Q").unpack_from
_ATTEMPTS_MAX: Final = 100_000


def walk(
    handle: Handle, decoder: ValueDecoder, reverse: bool = False, start: int = 0
) -> Iterator[Any]:
    """Iterate over a deque.

    Args:
        handle: The deque.
        decoder: Of its values.
        reverse: From the right end.
        start: Index of the first; 0: from the end where the iteration begins.

    Returns:
        An iterator of the values.
    """
    count = settle(lib.pml_deque_count(handle.c), handle, lib.pml_deque_count, handle.c)
    if handle.core.readonly:
        return _walk_snapshot(handle, decoder, reverse, start)
    # Here and not in the generator, which starts with the first item only.
    return _walk_live(handle, decoder, reverse, (start, count), handle.version)


def _walk_live(
    handle: Handle, decoder: ValueDecoder, reverse: bool, span: tuple[int, int], version: int
) -> Iterator[Any]:
    decode = decoder.decode
    batches = _Batches(handle, reverse)
    done, count = span
    while done < count:
        if handle.version != version:
            raise RuntimeError("deque mutated during iteration")
        edits = handle.edits
        data, fetched = batches.fetch(count - 1 - done if reverse else done)
        at = 0
        for _ in range(fetched):
            (word,) = _word(data, at)
            at += 8
            value = decode(data[at : at + (word >> 8)], word)
            at += word >> 8
            done += 1
            yield value
            if handle.version != version or handle.edits != edits:
                break
        if not fetched:
            # Another thread took what was there.
            raise RuntimeError("deque mutated during iteration")
    if handle.version != version:
        raise RuntimeError("deque mutated during iteration")


def _walk_snapshot(
    handle: Handle, decoder: ValueDecoder, reverse: bool, start: int
) -> Iterator[Any]:
    pieces = _snapshot(handle, reverse, start)
    for data, fetched in pieces:
        at = 0
        for _ in range(fetched):
            (word,) = _word(data, at)
            at += 8
            yield decoder.decode(data[at : at + (word >> 8)], word)
            at += word >> 8


def _snapshot(handle: Handle, reverse: bool, start: int) -> list[tuple[bytes, int]]:
    pool = handle.core.pool
    for _ in range(_ATTEMPTS_MAX):
        batches = _Batches(handle, reverse)
        pieces: list[tuple[bytes, int]] = []
        settle(lib.pml_read_begin(pool), handle, lib.pml_read_begin, pool)
        try:
            count = answer(lib.pml_deque_count(handle.c), handle, lib.pml_deque_count, handle.c)
            done = start
            while 0 <= done < count:
                data, fetched = batches.fetch(count - 1 - done if reverse else done)
                if not fetched:
                    break
                pieces.append((data, fetched))
                done += fetched
        finally:
            stable = lib.pml_read_end(pool) == 0
        if stable:
            return pieces
    raise RuntimeError("deque mutated during iteration")


class _Batches:
    """Fetch values from the engine.

    Args:
        handle: The deque.
        reverse: Towards the left end.
    """

    __slots__ = ("_buffer", "_capacity", "_fetched", "_handle", "_reverse", "_view")

    def __init__(self, handle: Handle, reverse: bool) -> None:
        self._handle = handle
        self._reverse = reverse
        self._fetched = ffi.new("uint64_t *")
        self._capacity = 0

    def fetch(self, index: int) -> tuple[bytes, int]:
        """Fetch values from an index on.

        Args:
            index: Of the first of them.

        Returns:
            Words and bytes as the engine wrote them, and how many values they are.
        """
        handle = self._handle
        # The first batch is small: many loops end early.
        if self._capacity < limits.SCAN_BYTES:
            self._grow(limits.SCAN_BYTES if self._capacity else limits.SCRATCH_BYTES)
        while True:  # ends: the value has a size
            arguments = (
                handle.c,
                index,
                self._reverse,
                self._buffer,
                self._capacity,
                self._fetched,
            )
            used = lib.pml_deque_scan(*arguments)
            if used < 0:
                used = answer(used, handle, lib.pml_deque_scan, *arguments)
            if used >= 0:
                return self._view[:used], self._fetched[0]
            if used != E_BUFFER:
                return b"", 0
            self._grow(max(self._fetched[0], 2 * self._capacity))  # what the first value takes

    def _grow(self, capacity: int) -> None:
        self._capacity = capacity
        self._buffer, self._view = scratch_buffer(capacity)
