"""Small durable files: each says one thing, and says it only after what it vouches for.

A file is whole or not there: it is written under another name, synced, then renamed.
"""

import contextlib
import os
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from pmlog.errors import CorruptionError, IncompleteError, MediumError
from pmlog.history import History

_T = TypeVar("_T", bound=msgspec.Struct)


def store(path: Path, mark: msgspec.Struct) -> None:
    """Write a mark; it is durable on return.

    Args:
        path: Its file.
        mark: What it says.

    Raises:
        MediumError: Writing failed; the old mark, if there was one, still stands.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        with open(beside, "wb") as file:
            file.write(msgspec.json.encode(mark))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise MediumError(f"cannot write {path}: {error}", os_errno=error.errno) from error


def load(path: Path, kind: type[_T]) -> _T | None:
    """Read a mark.

    Args:
        path: Its file.
        kind: What it says.

    Returns:
        The mark; None: there is none.

    Raises:
        CorruptionError: The file holds something else.
        MediumError: Reading failed.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise CorruptionError(f"{path}: {error}", hint="remove it if you know better") from error
    except OSError as error:
        raise MediumError(f"cannot read {path}: {error}", os_errno=error.errno) from error


def remove(path: Path) -> None:
    """Remove a mark; that is durable on return. None there is fine.

    Args:
        path: Its file.

    Raises:
        MediumError: It could not be removed.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            _sync_folder(path.parent)
    except OSError as error:
        raise MediumError(f"cannot remove {path}: {error}", os_errno=error.errno) from error


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# ---- the mark that stops writers ---------------------------------------------------------------

STOP_NAME: Final = "stop"


class Stop(msgspec.Struct, frozen=True):
    """In a pool's folder: nobody may write it. Stored before the first effect of the reason."""

    why: str
    """power: its log was, or is just being, handed over; fenced: another pool has taken over;
    replica: its log comes from another pool."""
    epoch: int
    """power, replica: the pool's, as it was then; fenced: that of the other pool."""
    told: tuple[str, ...] = ()
    """Receivers that the seal was, or is just being, sent to: before the pool may be written again
    each has to give it back. Stored before the seal is sent. A vault counts as one of them."""
    source: str = ""
    """power: where it was heard of first."""

    def holds(self, epoch: int) -> bool:
        """Tell whether a pool whose log has reached an epoch is stopped by this.

        A promotion begins the next epoch, and needs no further store to be free of what had stopped
        the log before; a fenced pool that has followed its successor is no longer behind it.

        Args:
            epoch: The pool's.

        Returns:
            Whether it is.
        """
        return self.epoch > epoch if self.why == "fenced" else self.epoch >= epoch


def stop_of(path: str | os.PathLike[str]) -> Stop | None:
    """Tell whether a pool was stopped.

    Args:
        path: The pool's folder.

    Returns:
        Why; None: it was not.

    Raises:
        CorruptionError: The mark is damaged.
        MediumError: It cannot be read.
    """
    return load(Path(path, STOP_NAME), Stop)


def set_stop(path: str | os.PathLike[str], stop: Stop | None) -> None:
    """Stop a pool, or let it be written again; durable on return.

    Args:
        path: The pool's folder.
        stop: Why; None: it may be written.

    Raises:
        MediumError: Writing failed.
    """
    where = Path(path, STOP_NAME)
    if stop is None:
        remove(where)
    else:
        store(where, stop)


def release(path: str | os.PathLike[str], epoch: int) -> None:
    """Let a pool be written that was promoted; what stopped it later stays.

    Args:
        path: The pool's folder.
        epoch: The one that began with the promotion.

    Raises:
        MediumError: Writing failed.
    """
    stop = stop_of(path)
    if stop is not None and stop.epoch < epoch + (stop.why == "fenced"):
        set_stop(path, None)


def become_replica(path: str | os.PathLike[str], epoch: int) -> bool:
    """Note that a pool's log comes from another one; durable on return.

    Args:
        path: The pool's folder.
        epoch: That its log ends in.

    Returns:
        Whether it was something else before.

    Raises:
        MediumError: Writing failed.
    """
    stop = stop_of(path)
    if stop is not None and stop.why == "replica":
        return False
    set_history(path, history_of(path))  # what the fence said is kept
    set_stop(path, Stop("replica", epoch))
    return True


# ---- the mark of a copy that is not whole ------------------------------------------------------

INCOMPLETE_NAME: Final = "incomplete"


class Incomplete(msgspec.Struct, frozen=True):
    """In a pool's folder: nobody may look at it. Stored before the first effect of a baseline."""

    why: str
    """baseline: of a receiver; repair; damage: one is to begin."""


def incomplete_of(path: str | os.PathLike[str]) -> Incomplete | None:
    """Tell whether a pool is incomplete.

    Args:
        path: The pool's folder.

    Returns:
        Why; None: it is whole.

    Raises:
        MediumError: The mark cannot be read.
    """
    try:
        return load(Path(path, INCOMPLETE_NAME), Incomplete)
    except CorruptionError:
        return Incomplete("damage")  # whatever it holds, somebody has put it there


def set_incomplete(path: str | os.PathLike[str], incomplete: Incomplete | None) -> None:
    """Note that a pool is incomplete, or that it is whole again; durable on return.

    Args:
        path: The pool's folder.
        incomplete: Why; None: it is whole.

    Raises:
        MediumError: Writing failed.
    """
    where = Path(path, INCOMPLETE_NAME)
    if incomplete is None:
        remove(where)
    else:
        store(where, incomplete)


def must_be_whole(path: str | os.PathLike[str]) -> None:
    """Refuse an incomplete pool.

    Args:
        path: The pool's folder.

    Raises:
        IncompleteError: It is.
        MediumError: The mark cannot be read.
    """
    if not os.path.exists(os.path.join(path, INCOMPLETE_NAME)):
        return
    mark = incomplete_of(path)
    if mark is None:  # it became whole just now
        return
    place = os.fsdecode(path)
    what = {"repair": "a repair", "damage": "the repair of damage"}.get(mark.why, "a baseline")
    raise IncompleteError(f"{place}: the copy is incomplete: {what} is under way", path=place)


# ---- what a copy knows of promotions -----------------------------------------------------------

HISTORY_NAME: Final = "history"


def history_of(path: str | os.PathLike[str]) -> History:
    """Tell what a copy knows of promotions.

    Args:
        path: The pool's folder.

    Returns:
        That; nothing, if there were none.

    Raises:
        CorruptionError: The file is damaged.
        MediumError: It cannot be read.
    """
    known = load(Path(path, HISTORY_NAME), History) or History()
    stop = stop_of(path)
    if stop is None or stop.why != "fenced" or stop.epoch <= known.heard:
        return known
    return History(known.beginnings, stop.epoch)  # its shipper has heard of that


def set_history(path: str | os.PathLike[str], history: History) -> None:
    """Note what is known of promotions; durable on return.

    Args:
        path: The pool's folder.
        history: That.

    Raises:
        MediumError: Writing failed.
    """
    if load(Path(path, HISTORY_NAME), History) != history:
        store(Path(path, HISTORY_NAME), history)
