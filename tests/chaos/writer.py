"""A writer whose every value is unique, and who notes outside of the pool what it was promised.

The notes are eight-byte words in a mapped file: each is one aligned store, so that a SIGKILL at any
moment leaves either the old or the new number, and the kernel keeps it.
The order of stores makes them safe to judge by:

1. `begun` before the commit: what the pool holds beyond it nobody has written.
2. `committed` after the commit has returned: what the pool lacks below it is lost.
3. `replicated` after the wait for that level has returned.
"""

from __future__ import annotations

import contextlib
import random
import time
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import numpy as np

import pmlog
from tests.chaos.model import ITEMS, KEYS, SLOTS, blob_at, value_of

_SHAPE: Final = 8
_PACE: Final = 16
"""Transactions between two looks at the orders, with a short rest: others need the processor."""


class Word(IntEnum):
    """What stands where in the notes."""

    BEGUN = 0
    COMMITTED = 1
    REPLICATED = 2
    FIRST = 3
    EPOCH = 4
    ENDED = 5


class Ended(IntEnum):
    """Why a writer has ended, as far as it could tell."""

    NO = 0
    TOLD = 1
    FROZEN = 2
    """The pool could not be opened: its log was handed over."""
    FENCED = 3
    BROKEN = 4


class Notes:
    """The notes of one writer.

    Args:
        path: Their file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(8 * _SHAPE))
        self._words: Any = np.memmap(path, dtype="<u8", mode="r+", shape=(_SHAPE,))

    def __getitem__(self, word: Word) -> int:
        return int(self._words[word])

    def __setitem__(self, word: Word, number: int) -> None:
        self._words[word] = number  # one aligned store of eight bytes


def write(  # noqa: PLR0917 - what a process is started with
    connection: Any, path: str, notes_path: str, seed: int, session: int, log: str, load: int
) -> None:
    """Write until killed, told to end, or fenced; while the pool is frozen, try again.

    Args:
        connection: Anything that comes from there ends it.
        path: The pool.
        notes_path: The notes.
        seed: The run's.
        session: The writer's own number, higher than that of any before.
        log: Size of the log, if the pool is to be made.
        load: Bytes that each transaction writes beside, without a rest; 0: at leisure.
    """
    notes = Notes(Path(notes_path))
    try:
        pool = pmlog.open(path, size="1MiB", log_size=log)
    except pmlog.PoolFrozenError:
        notes[Word.ENDED] = Ended.FROZEN
        return
    except pmlog.FencedError:
        notes[Word.ENDED] = Ended.FENCED
        return
    try:
        _write(connection, pool, notes, seed, session, load)
    except pmlog.FencedError:
        notes[Word.ENDED] = Ended.FENCED
    except EOFError:
        pass
    except BaseException:
        notes[Word.ENDED] = Ended.BROKEN
        raise
    finally:
        pool.close()


def _write(  # noqa: PLR0917 - the same
    connection: Any, pool: pmlog.Pool, notes: Notes, seed: int, session: int, load: int
) -> None:
    rng = random.Random(f"{seed}/{session}")
    values = pool.dict("values")
    sessions = pool.dict("sessions")
    items = pool.deque("items")
    last = pool.array("last", shape=(2,), dtype="i8")
    blob = pool.region("blob", SLOTS * 64)
    ballast = pool.region("ballast", load) if load else None
    first = number = int(last[0]) + 1
    epoch = pool.position.epoch
    notes[Word.EPOCH] = epoch
    notes[Word.FIRST] = first
    while True:  # until killed, told to end, or fenced
        notes[Word.BEGUN] = number
        try:
            with pool.transaction():
                if number == first:
                    sessions[session] = [first, epoch]
                values[number % KEYS] = value_of(seed, session, number)
                items.append(number)
                if len(items) > ITEMS:
                    items.popleft()
                blob.write(*blob_at(session, number))
                if ballast is not None:
                    ballast.write(0, rng.randbytes(load))
                last[:] = [number, session]
        except (pmlog.CapacityError, pmlog.PoolFrozenError):
            if connection.poll(0.002):  # a receiver is behind, or power is away: nothing changed
                notes[Word.ENDED] = Ended.TOLD
                return
            continue
        notes[Word.COMMITTED] = number
        if rng.random() < 0.03:
            with contextlib.suppress(pmlog.LevelUnavailableError, pmlog.WaitTimeoutError):
                pool.wait(pmlog.Level.REPLICATED, timeout=rng.choice((0.002, 0.05)))
                notes[Word.REPLICATED] = number
        if number % _PACE == 0:
            if connection.poll():
                notes[Word.ENDED] = Ended.TOLD
                return
            if not load:
                time.sleep(0.001)
        number += 1
