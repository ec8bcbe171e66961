"""Small durable files: each says one thing, and says it only after what it vouches for.

A file is whole or not there: it is written under another name, synced, then renamed.
"""

import contextlib
import os
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from pmlog.errors import CorruptionError, MediumError

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
    """power: its log was, or is just being, handed over; fenced: another pool has taken over."""
    epoch: int
    """power: the pool's; fenced: that of the other pool."""
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
