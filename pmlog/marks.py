"""Small durable files: each says one thing, and says it only after what it vouches for.

A file is whole or not there: it is written under another name, synced, then renamed.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
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


ALONE_TIMEOUT_S: Final = 1.0
"""So long somebody else may look at a stop mark and change it; that takes some syncs of the disk."""

_ALONE_STEP_S: Final = 0.002


@contextlib.contextmanager
def _alone(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep others from changing the stop mark between a look at it and its change.

    A shipper and a receiver may both be at one folder, as of a primary that comes back. Otherwise:

    1. the shipper looks: the mark says power, and power is back;
    2. the receiver stores the mark that this is a replica now;
    3. the shipper removes the mark: an application may write a log that comes from elsewhere.

    Args:
        path: The pool's folder.

    Yields:
        Nothing.

    Raises:
        MediumError: The folder cannot be opened, or somebody else does not come to an end.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise MediumError(f"cannot open {path}: {error}", os_errno=error.errno) from error
    try:
        deadline = time.monotonic() + ALONE_TIMEOUT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise MediumError(f"{path}: somebody else changes its stop mark") from None
                time.sleep(_ALONE_STEP_S)
        yield
    finally:
        os.close(fd)  # and with it the lock


def stop_for_power(path: str | os.PathLike[str], stop: Stop) -> bool:
    """Stop a pool because power fails, or note who has its seal; durable on return.

    What stopped it for good is never replaced: it would be lost when power is back.

    Args:
        path: The pool's folder.
        stop: What the mark is to say.

    Returns:
        Whether it says that; False: it is fenced, or a replica.

    Raises:
        MediumError: Writing failed.
    """
    with _alone(path):
        old = stop_of(path)
        if old is not None and (old.why == "replica" or _is_over(old, stop.epoch)):
            return False
        set_stop(path, stop)
        return True


def _is_over(stop: Stop, epoch: int) -> bool:
    return stop.why == "fenced" and stop.holds(epoch)


def power_is_back(path: str | os.PathLike[str]) -> None:
    """Take back what `stop_for_power` has stored; any other mark stays. Durable on return.

    Args:
        path: The pool's folder.

    Raises:
        MediumError: Writing failed.
    """
    with _alone(path):
        old = stop_of(path)
        if old is not None and old.why == "power":
            set_stop(path, None)


def stop_for_good(path: str | os.PathLike[str], epoch: int) -> None:
    """Stop a pool because another one has taken over; durable on return.

    A replica stays one: nobody writes it anyhow, and it may yet come to that epoch.

    Args:
        path: The pool's folder.
        epoch: The other pool's.

    Raises:
        MediumError: Writing failed.
    """
    with _alone(path):
        old = stop_of(path)
        if old is None or old.why != "replica":
            set_stop(path, Stop("fenced", epoch))


def release(path: str | os.PathLike[str], epoch: int) -> None:
    """Let a pool be written that was promoted; what stopped it later stays.

    Args:
        path: The pool's folder.
        epoch: The one that began with the promotion.

    Raises:
        MediumError: Writing failed.
    """
    with _alone(path):
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
    with _alone(path):
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
