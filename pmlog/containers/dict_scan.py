"""Iterators over a dict in a pool.

Entries come from the engine in batches.  A batch is used as long as nothing changed; after any
change the iterator looks for its place anew, behind the last key that it gave out:

| what changed meanwhile | what the iterator does |
| --- | --- |
| values only | goes on, with the new values |
| the number of entries | RuntimeError, as dict |
| entries came and went, the last key is still there | goes on behind it |
| the last key is gone | RuntimeError, as dict |
| anything, in a read-only pool, and the last key is still there | goes on behind it |
"""

from collections.abc import Iterator
from struct import Struct
from typing import Any, Final

from pmlog import limits
from pmlog._engine import (
    E_AGAIN,
    E_BUFFER,
    E_MISSING,
    answer,
    ffi,
    lib,
    scratch_buffer,
    settle,
)
from pmlog._handle import Handle
from pmlog.containers.codec import ValueDecoder, decode_key

KEYS: Final = 1
VALUES: Final = 2
ITEMS: Final = 3

_SCAN_BOTH: Final = lib.PML_SCAN_KEYS | lib.PML_SCAN_VALUES
# Keys are fetched in any case: they are how the iterator finds its place again.
_SCAN: Final = {KEYS: lib.PML_SCAN_KEYS, VALUES: _SCAN_BOTH, ITEMS: _SCAN_BOTH}
_words: Final = Struct("<QQ").unpack_from
_word: Final = Struct("<Q").unpack_from
_ATTEMPTS_MAX: Final = 1000


def walk(handle: Handle, decoder: ValueDecoder, want: int, reverse: bool = False) -> Iterator[Any]:
    """Iterate over a dict.

    Args:
        handle: The dict.
        decoder: Of its values.
        want: KEYS, VALUES or ITEMS.
        reverse: Newest first.

    Returns:
        An iterator of keys, values, or pairs of both.
    """
    # Here and not in the generator, which starts with the first item only: what changes between
    # iter() and next() counts.
    batches = _Batches(handle, _SCAN[want], reverse)
    if want == KEYS:
        return _walk_keys(batches)
    return _walk_values(batches, decoder, want == ITEMS)


def _walk_keys(batches: "_Batches") -> Iterator[Any]:
    handle = batches.handle
    while batches.fetch():
        data = batches.data
        at = 0
        for _ in range(batches.count):
            (word,) = _word(data, at)
            at += 8
            key = data[at : at + (word >> 8)]
            at += word >> 8
            batches.last = key, word
            yield decode_key(key, word)
            if handle.version != batches.version:
                break


def _walk_values(batches: "_Batches", decoder: ValueDecoder, with_keys: bool) -> Iterator[Any]:
    handle = batches.handle
    decode = decoder.decode
    while batches.fetch():
        data = batches.data
        at = 0
        for _ in range(batches.count):
            key_word, word = _words(data, at)
            at += 16
            middle = at + (key_word >> 8)
            key = data[at:middle]
            at = middle + (word >> 8)
            value = decode(data[middle:at], word)
            batches.last = key, key_word
            yield (decode_key(key, key_word), value) if with_keys else value
            if handle.version != batches.version:
                break


class _Batches:
    """Where an iterator stands.

    Args:
        handle: The dict.
        what: What to fetch of each entry.
        reverse: Newest first.
    """

    __slots__ = (
        "_buffer",
        "_capacity",
        "_cursor",
        "_entries",
        "_fetched",
        "_view",
        "_what",
        "count",
        "data",
        "handle",
        "last",
        "version",
    )

    def __init__(self, handle: Handle, what: int, reverse: bool) -> None:
        self.handle = handle
        self._what = what
        self._cursor = ffi.new("struct pml_cursor *")
        self._cursor.reverse = reverse
        self._fetched = ffi.new("uint64_t *")
        self._capacity = 0
        self.version = handle.version
        self._entries = self._count()
        self.last: tuple[bytes, int] | None = None
        self.data = b""
        self.count = 0

    def _count(self) -> int:
        handle = self.handle
        return settle(lib.pml_dict_count(handle.c), handle, lib.pml_dict_count, handle.c)

    def fetch(self) -> bool:
        """Fetch the next batch into `data` and `count`.

        Returns:
            Whether there is one.

        Raises:
            RuntimeError: The dict changed, and the iterator's place is lost.
        """
        handle = self.handle
        found = handle.version == self.version
        # The first batch is small: many loops end early.
        if self._capacity < limits.SCAN_BYTES:
            self._grow(limits.SCAN_BYTES if self._capacity else limits.SCRATCH_BYTES)
        for _ in range(_ATTEMPTS_MAX):
            used = self._step(found)
            found = False
            if used == E_BUFFER:
                found = True
                self._grow(max(self._cursor.need, 2 * self._capacity))
            elif used >= 0:
                self.count = self._fetched[0]
                self.data = self._view[:used]
                return self.count > 0
        raise RuntimeError("dictionary changed during iteration")

    def _grow(self, capacity: int) -> None:
        self._capacity = capacity
        self._buffer, self._view = scratch_buffer(capacity)

    def _step(self, found: bool) -> int:
        """Find the place again, if that is needed, and scan on.

        Args:
            found: Whether the cursor stands where the iterator is.

        Returns:
            Bytes that were fetched; E_BUFFER: the buffer is too small; E_STALE, E_AGAIN: the
            place was lost again.

        Raises:
            RuntimeError: The dict changed, and the place is lost for good.
        """
        handle = self.handle
        if found:
            return self._scan()
        if not handle.core.readonly:
            status = self._seek()
        else:
            # Beside a writer: one look for both, or the place is lost again in between.
            pool = handle.core.pool
            settle(lib.pml_read_begin(pool), handle, lib.pml_read_begin, pool)
            try:
                status = self._seek() or self._scan()
            finally:
                stable = lib.pml_read_end(pool) == 0
            if not stable:
                return E_AGAIN
            if status != E_MISSING:
                return status
        if status == E_MISSING:
            raise RuntimeError("dictionary keys changed during iteration")
        return status or self._scan()

    def _seek(self) -> int:
        handle = self.handle
        self.version = handle.version
        if not handle.core.readonly and self._count() != self._entries:
            raise RuntimeError("dictionary changed size during iteration")
        cursor = self._cursor
        if self.last is None:
            cursor.at = cursor.started = 0
            return 0
        arguments = (handle.c, cursor, *self.last)
        return answer(lib.pml_dict_seek(*arguments), handle, lib.pml_dict_seek, *arguments)

    def _scan(self) -> int:
        handle = self.handle
        arguments = (
            handle.c,
            self._cursor,
            self._what,
            self._buffer,
            self._capacity,
            self._fetched,
        )
        used: int = lib.pml_dict_scan(*arguments)
        return used if used >= 0 else answer(used, handle, lib.pml_dict_scan, *arguments)
