"""What an application has told the outside world, kept outside of its pool.

One file for each life of the application, of a few words in shared memory: a word is one aligned
store, so a kill leaves the old one or the new one, and the file outlives the process.
"""

import mmap
import os
import time
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self


class _Word(IntEnum):
    OPENED = 0
    RESUMED = 1
    OPEN_NS = 2
    COMMITTED = 3
    FIRST_NS = 4


_FILE_BYTES = 8 * len(_Word)


class Acknowledgements:
    """The words of one life of the application; either side may look.

    Args:
        path: The file; it is made if there is none.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _FILE_BYTES)
            self._map = mmap.mmap(descriptor, _FILE_BYTES)
        finally:
            os.close(descriptor)
        self._words = memoryview(self._map).cast("Q")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._words.release()
        self._map.close()

    # ---- what the application says -------------------------------------------------------------

    def opened(self, resumed: int, seconds: float) -> None:
        """Say that the pool is open.

        Args:
            resumed: Flights that it holds.
            seconds: How long the open took.
        """
        self._words[_Word.RESUMED] = self._words[_Word.COMMITTED] = resumed
        self._words[_Word.OPEN_NS] = int(seconds * 1e9)
        self._words[_Word.OPENED] = 1

    def committed(self, count: int) -> None:
        """Say that a transaction was committed.

        Args:
            count: Flights that the pool holds now.
        """
        self._words[_Word.COMMITTED] = count
        if not self._words[_Word.FIRST_NS]:
            self._words[_Word.FIRST_NS] = time.monotonic_ns()

    # ---- what the stage hears ------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the application has opened its pool."""
        return bool(self._words[_Word.OPENED])

    @property
    def resumed_count(self) -> int:
        """Flights that the pool held when it was opened."""
        return self._words[_Word.RESUMED]

    @property
    def committed_count(self) -> int:
        """Flights whose transactions were acknowledged."""
        return self._words[_Word.COMMITTED]

    @property
    def open_s(self) -> float:
        """How long the open took, recovery included."""
        return self._words[_Word.OPEN_NS] / 1e9

    @property
    def first_s(self) -> float | None:
        """When the first transaction of this life was acknowledged, by the monotonic clock."""
        return self._words[_Word.FIRST_NS] / 1e9 or None
