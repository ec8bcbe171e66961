"""Every error that pmlog raises, in one tree.

Each class answers three questions without a look at the message:

- `changed`: did anything change before the error was raised? None: it cannot be known.
- `retryable`: may the same call succeed later without another fix?
- `hint`: what a person can do about it; None where the message says it all.

Class attributes hold the answer of the class; an instance may give its own hint.
What else is known stands in attributes that the class declares, None where it is not known.
Where a builtin exception says the same thing, the class derives from it too, so that
`except KeyError`, `except FileNotFoundError` or `except TimeoutError` work as expected.
"""

import errno
from typing import Any, ClassVar


class PmlogError(Exception):
    """Root of all errors of pmlog.

    Args:
        message: One sentence that names what failed.
        hint: What to do about it; the class's own hint if not given.
        fields: Values of the attributes that the class declares.
    """

    changed: ClassVar[bool | None] = None
    retryable: ClassVar[bool] = False
    hint: str | None = None

    path: str | None = None
    """The pool, where one is concerned."""

    def __init__(self, message: str = "", *, hint: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.message = message or (self.__doc__ or "").partition("\n")[0]
        if hint is not None:
            self.hint = hint
        for name, value in fields.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
            setattr(self, name, value)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class _SystemError(OSError):
    """Mixin for errors that are also a builtin kind of OSError: its attributes say the same."""

    path: str | None
    _errno: ClassVar[int]

    @property
    def errno(self) -> int:  # type: ignore[override]
        """The operating system's number for this kind of error."""
        return self._errno

    @property
    def filename(self) -> str | None:
        """The pool."""
        return self.path


# ---- the caller's mistakes ---------------------------------------------------------------------


class UsageError(PmlogError):
    """The call cannot be carried out as it stands; nothing changed."""

    changed = False


class ClosedError(UsageError):
    """The pool, transaction or log reader was closed before this call."""


class DroppedError(ClosedError):
    """The container was dropped, or the transaction that made it was undone."""

    hint = "ask the pool for it again to make a new one"


class TransactionEndedError(ClosedError):
    """The transaction has ended: it was committed, rolled back or abandoned."""

    hint = "begin a new one: with pool.transaction(): …"


class ForkedError(UsageError):
    """The pool was opened by the parent process and is of no use in a child."""

    hint = "open it in the process that uses it, after the fork"


class ReadOnlyError(UsageError):
    """The pool is open for reading only."""

    hint = "open it without readonly=True to change it"


class PoolLockedError(UsageError):
    """Another process, or another handle of this one, has the pool open for writing."""

    retryable = True
    hint = "close it there first, or open it with readonly=True"

    pid: int | None = None
    """Process that holds it; None where that is not known."""


class PoolNotFoundError(UsageError, _SystemError, FileNotFoundError):
    """There is no pool at that path."""

    hint = "check the path, or let pmlog.open make one with create=True"

    _errno = errno.ENOENT


class PoolExistsError(UsageError, _SystemError, FileExistsError):
    """There is a pool at that path already."""

    _errno = errno.EEXIST


class PoolPermissionError(UsageError, _SystemError, PermissionError):
    """The file system refuses access to the pool's files."""

    hint = "check owner and mode of the folder and its files; readonly=True needs less"

    _errno = errno.EACCES


class ContainerNotFoundError(UsageError, KeyError):
    """The pool has no container of that name."""


class ContainerTypeError(UsageError, TypeError):
    """The name belongs to a container of another type, shape, dtype or size."""

    hint = "use another name, or drop the old container with pool.drop(name)"


class BoundsError(UsageError, IndexError):
    """An offset or a size reaches beyond the container."""


class TransactionTooLargeError(UsageError):
    """The transaction does not fit the log; all of it was undone."""

    hint = "split it, or make the pool with a larger log_size"


class BusyError(UsageError):
    """A transaction of another thread stayed open for longer than `limits.LOCK_TIMEOUT_S`."""

    retryable = True
    hint = "end that transaction: threads wait for each other's transactions"


class LevelUnavailableError(UsageError):
    """This pool cannot give that level of safety; the transaction was not begun."""


class EncodeError(UsageError, TypeError):
    """A key or value cannot be stored; nothing changed."""


class DecodeError(UsageError, ValueError):
    """What is stored does not have the type that `type=` names; nothing changed."""

    hint = "open the container with the type that it was written with, or without type="


class ConfigError(UsageError, ValueError):
    """An option has a value that cannot be used."""


# ---- no room -----------------------------------------------------------------------------------


class CapacityError(PmlogError):
    """There is no room; nothing changed."""

    changed = False
    retryable = True


class LogFullError(CapacityError):
    """The log has no room, because a required consumer has not acknowledged what it holds."""

    hint = "`pmlog info` lists the consumers; start the slow one again or release its slot"


class BacklogError(LogFullError):
    """Receivers lack as much of the log as the shipper's bound allows; nothing was begun."""

    hint = (
        "the same call succeeds once receivers have caught up: `pmlog status SHIPPER` tells how far "
        "they are; --max-lag and --battery of `pmlog ship` set the bound"
    )


class PoolFullError(CapacityError):
    """The pool has reached max_size, or its file system is full."""

    hint = "make room, or open the pool with a larger max_size"


class MemoryExhaustedError(CapacityError):
    """The process has no memory left."""


# ---- the medium and the bytes ------------------------------------------------------------------


class MediumError(PmlogError):
    """Reading or writing failed in the operating system or a library; the handle is poisoned.

    Every later call on the handle raises until the pool is opened again.
    """

    hint = "check the device, then open the pool again: recovery finds what is durable"

    os_errno: int | None = None
    """The operating system's error number."""


class CorruptionError(PmlogError):
    """Bytes that no crash explains."""

    hint = (
        "`pmlog check` lists every fault; `pmlog repair POOL --from URL` takes what is damaged from "
        "a shipper of another copy"
    )

    file: str | None = None
    """Which file of the pool: image, log, sums or control."""
    lsn: int | None = None
    """Where in the log, if there."""
    offset: int | None = None
    """Byte in the file."""
    expected: int | None = None
    found: int | None = None


class FormatError(PmlogError):
    """Not a pool, or one of a version that this release cannot read."""

    changed = False

    file: str | None = None
    """Which file of the pool: image, log, sums or control."""
    offset: int | None = None
    """Byte in the file."""
    expected: int | None = None
    found: int | None = None


# ---- replication -------------------------------------------------------------------------------


class ReplicationError(PmlogError):
    """The log's way to its receivers is interrupted."""


class WaitTimeoutError(ReplicationError, _SystemError, TimeoutError):
    """The transaction is committed, but did not reach the level in time."""

    _errno = errno.ETIMEDOUT

    changed = True
    retryable = True
    hint = "wait again: pool.wait(level, lsn)"

    lsn: int | None = None
    """What was waited for."""


class PoolFrozenError(ReplicationError):
    """Power is failing: the log is being saved, and no transaction commits any more."""

    changed = False
    retryable = True
    hint = "go on at the promoted receiver, or here once power is back"


class GapError(ReplicationError):
    """The log no longer holds that position."""

    changed = False
    hint = "start from a baseline, or from the checkpoint"

    lsn: int | None = None
    """What was asked for."""


class ForkError(ReplicationError):
    """Two histories diverged: same epoch and LSN, different bytes."""

    changed = False


class FencedError(ReplicationError):
    """Another pool was promoted: this one's epoch is over."""

    changed = False


class IncompleteError(ReplicationError):
    """The copy is incomplete: a baseline or a repair has begun on it and is not finished."""

    changed = False
    retryable = True
    hint = (
        "wait until its receiver has finished; if none runs, start it again, or complete the copy "
        "with `pmlog repair POOL --from URL`"
    )


class ProtocolError(ReplicationError):
    """The peer said what the protocol does not allow."""


class PeerUnavailableError(ReplicationError):
    """The peer cannot be reached."""

    retryable = True


class NotPromotableError(ReplicationError):
    """The replica is incomplete, damaged or of a diverged history."""

    changed = False


# ---- our own bugs ------------------------------------------------------------------------------


class InvariantViolationError(PmlogError):
    """A promise of the engine is broken: a bug of pmlog; the handle is poisoned."""

    hint = "please report it with the output of `pmlog check`"
