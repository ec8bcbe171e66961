"""One shipper a pool: a lock that ends with its holder.

Two shippers of one pool would each stop its writers, note who has the seal, and let writers go on,
and neither would know of the seals that the other has given.
"""

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator
from typing import Final

from pmlog.errors import MediumError, PoolLockedError


class _Held:
    """An open file whose lock is held; the lock is that of the file's one opening."""

    def __init__(self, fd: int) -> None:
        self.fd = fd


_held: Final[weakref.WeakSet[_Held]] = weakref.WeakSet()


@contextlib.contextmanager
def only_shipper(path: str) -> Iterator[None]:
    """Be the only shipper of a pool.

    A process that is killed lets go, and so does one whose forked child lives on.

    Args:
        path: The pool's folder; if there is none, whoever opens it says so.

    Yields:
        Nothing.

    Raises:
        PoolLockedError: Another shipper serves it.
        MediumError: It cannot be told.
    """
    try:
        fd = os.open(os.path.join(path, "log"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    mine = _Held(fd)
    _held.add(mine)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _let_go(mine)
        raise PoolLockedError(
            f"{path}: another shipper serves this pool",
            hint="end that one first, also if it hangs; one shipper serves any number of receivers",
            path=path,
        ) from None
    except OSError as error:
        _let_go(mine)
        raise MediumError(f"cannot lock {path}: {error}", os_errno=error.errno) from error
    try:
        yield
    finally:
        _let_go(mine)


def _let_go(one: _Held) -> None:
    _held.discard(one)
    os.close(one.fd)


def _close_all() -> None:
    # In a forked child: the lock is the parent's, and would outlive it here.
    for one in list(_held):
        os.close(one.fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_all)
