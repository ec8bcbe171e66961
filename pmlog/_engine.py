"""The compiled engine as the rest of the library sees it; the only importer of `pmlog._core` and `pmlog._fast`.

- `lib` and `ffi`: the C API (`_native/pml.h`). Hot paths call `lib`'s functions themselves, once
  an operation; anything but success they hand to `settle`.
- `STATUS_ERRORS`: the one table from status to error class.
- Scratch memory for what the engine hands out.
"""

import os
import sys
import time
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any, Final, Protocol

from pmlog import errors, limits
from pmlog._core import ffi, lib

__all__ = [
    "BYTES_WORDS",
    "MSGPACK_WORDS",
    "STATUS_ERRORS",
    "STR_WORDS",
    "Scratch",
    "answer",
    "failure",
    "fast",
    "ffi",
    "lib",
    "scratch_buffer",
    "settle",
]


def _load_fast() -> Any:
    """Load the second module of the compiled library: both call one and the same engine.

    Returns:
        The module.

    Raises:
        ImportError: This is not the process's main interpreter.
    """
    name, path = "pmlog._fast", str(sys.modules["pmlog._core"].__file__)
    loader = ExtensionFileLoader(name, path)
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    # Types and the encoder are the process's, and they are objects of the interpreter that came first.
    if not module.is_in_main():
        raise ImportError("pmlog runs in a process's main interpreter only, here is another")
    return module


if TYPE_CHECKING:
    from pmlog import _fast as fast
else:
    fast = _load_fast()

E_ARGUMENT: Final[int] = lib.PML_E_ARGUMENT
E_BEHIND: Final[int] = lib.PML_E_BEHIND
E_BUFFER: Final[int] = lib.PML_E_BUFFER
E_BUSY: Final[int] = lib.PML_E_BUSY
E_CLOSED: Final[int] = lib.PML_E_CLOSED
E_DROPPED: Final[int] = lib.PML_E_DROPPED
E_FORKED: Final[int] = lib.PML_E_FORKED
E_MISSING: Final[int] = lib.PML_E_MISSING
E_STALE: Final[int] = lib.PML_E_STALE
E_AGAIN: Final[int] = lib.PML_E_AGAIN
E_TIMEOUT: Final[int] = lib.PML_E_TIMEOUT
E_NO_TRANSACTION: Final[int] = lib.PML_E_NO_TRANSACTION

KIND_BYTES: Final[int] = lib.PML_KIND_BYTES
KIND_STR: Final[int] = lib.PML_KIND_STR
KIND_MSGPACK: Final[int] = lib.PML_KIND_MSGPACK

STATUS_ERRORS: Final[dict[int, type[errors.PmlogError]]] = {
    lib.PML_E_CLOSED: errors.ClosedError,
    lib.PML_E_FORKED: errors.ForkedError,
    lib.PML_E_READ_ONLY: errors.ReadOnlyError,
    lib.PML_E_LOCKED: errors.PoolLockedError,
    lib.PML_E_NOT_FOUND: errors.PoolNotFoundError,
    lib.PML_E_EXISTS: errors.PoolExistsError,
    lib.PML_E_TOO_LARGE: errors.TransactionTooLargeError,
    lib.PML_E_ARGUMENT: errors.UsageError,
    lib.PML_E_LOG_FULL: errors.LogFullError,
    lib.PML_E_POOL_FULL: errors.PoolFullError,
    lib.PML_E_MEDIUM: errors.MediumError,
    lib.PML_E_CORRUPT: errors.CorruptionError,
    lib.PML_E_FORMAT: errors.FormatError,
    lib.PML_E_FROZEN: errors.PoolFrozenError,
    lib.PML_E_INVARIANT: errors.InvariantViolationError,
    lib.PML_E_MISSING: errors.ContainerNotFoundError,
    lib.PML_E_BUSY: errors.BusyError,
    lib.PML_E_TYPE: errors.ContainerTypeError,
    lib.PML_E_DROPPED: errors.DroppedError,
    lib.PML_E_MEMORY: errors.MemoryExhaustedError,
    lib.PML_E_NO_TRANSACTION: errors.TransactionEndedError,
    lib.PML_E_TIMEOUT: errors.WaitTimeoutError,
    lib.PML_E_GAP: errors.GapError,
    lib.PML_E_FENCED: errors.FencedError,
    lib.PML_E_PERMISSION: errors.PoolPermissionError,
    lib.PML_E_BEHIND: errors.BacklogError,
    # Answers that the layers above understand; one that reaches a user is our bug.
    lib.PML_E_STALE: errors.InvariantViolationError,
    lib.PML_E_BUFFER: errors.InvariantViolationError,
    lib.PML_E_AGAIN: errors.InvariantViolationError,
}

# What `answer` waits out, for up to `limits.LOCK_TIMEOUT_S`.
_WAITS: Final = frozenset({E_BUSY, E_BEHIND})

# What `answer` hands back: its callers know what these mean for them.
_ANSWERS: Final = frozenset({E_MISSING, E_BUFFER, E_STALE, E_AGAIN})


def failure(status: int, path: str, label: str = "") -> errors.PmlogError:
    """Make the error for the calling thread's last failed call.

    Args:
        status: What the call answered.
        path: The pool.
        label: What the call was about, as "dict 'orders'"; empty: the pool itself.

    Returns:
        The error, to be raised.
    """
    kind = STATUS_ERRORS.get(status, errors.InvariantViolationError)
    detail = lib.pml_error()
    text = file = ""
    fields: dict[str, Any] = {"path": path}
    if detail.status == status:
        text = ffi.string(detail.text).decode(errors="replace")
        file = ffi.string(detail.file).decode(errors="replace")
        known: dict[str, Any] = {
            "pid": detail.pid or None,
            "os_errno": detail.os_errno or None,
            "file": file or None,
            "lsn": detail.lsn or None,
            "offset": detail.offset,
            "expected": detail.expected,
            "found": detail.found,
        }
        fields |= {name: value for name, value in known.items() if hasattr(kind, name)}
        if detail.os_errno:
            text = (
                f"{text}: {os.strerror(detail.os_errno)}" if text else os.strerror(detail.os_errno)
            )
    if not text:
        text = (kind.__doc__ or "").partition("\n")[0].rstrip(".")
    subject = f"{path}: {label}" if label else path
    return kind(f"{subject}: {text}", **fields)


class Subject(Protocol):
    """What a call into the engine was about: a pool or a container."""

    def failure(self, status: int) -> errors.PmlogError:
        """Make the error for the calling thread's last failed call.

        Args:
            status: What the call answered.

        Returns:
            The error, to be raised.
        """
        ...


def answer(status: int, subject: Subject, call: Callable[..., int], *arguments: object) -> int:
    """Wait out another thread's transaction, and receivers that are behind; raise for an error.

    The engine waits in slices, so that signals are seen between them.

    Args:
        status: What the call answered.
        subject: What it was about.
        call: The function of the engine, to be called again.
        arguments: Its arguments.

    Returns:
        What the call answered in the end: ≥ 0, or E_MISSING, E_BUFFER, E_STALE, E_AGAIN.

    Raises:
        PmlogError: The call failed; the class says how.
    """
    if status in _WAITS:
        deadline = time.monotonic() + limits.LOCK_TIMEOUT_S
        while status in _WAITS and time.monotonic() < deadline:
            status = call(*arguments)
    if status >= 0 or status in _ANSWERS:
        return status
    raise subject.failure(status)


def settle(status: int, subject: Subject, call: Callable[..., int], *arguments: object) -> int:
    """Do as `answer`, for calls to which there is no answer but success.

    Args:
        status: What the call answered.
        subject: What it was about.
        call: The function of the engine, to be called again.
        arguments: Its arguments.

    Returns:
        What the call answered in the end, ≥ 0.

    Raises:
        PmlogError: The call failed; the class says how.
    """
    if status < 0:
        status = answer(status, subject, call, *arguments)
        if status < 0:
            raise subject.failure(status)
    return status


# ---- words ---------------------------------------------------------------------------------------

# length << 8 | kind by table: half the time of computing it.  Longer ones raise IndexError.
_WORDS: Final = limits.SCRATCH_BYTES + 1
BYTES_WORDS: Final = tuple(length << 8 | KIND_BYTES for length in range(_WORDS))
STR_WORDS: Final = tuple(length << 8 | KIND_STR for length in range(_WORDS))
MSGPACK_WORDS: Final = tuple(length << 8 | KIND_MSGPACK for length in range(_WORDS))

# ---- scratch memory ----------------------------------------------------------------------------

# A call into the engine releases the interpreter lock, so no two calls may fill one buffer.
# Each container keeps a scratch buffer for its next call, which takes it away in one statement,
#
#     scratch, self._scratch = self._scratch or scratch_buffer(), None
#
# and puts it back when it has copied the result out.  The interpreter does not change threads
# between the load and the store of an attribute slot, so that no two threads take the same one;
# who finds none makes his own.  This needs the interpreter lock:
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError("pmlog does not run on free-threaded Python: enable the GIL (PYTHON_GIL=1)")

Scratch = tuple[Any, Any]
"""A buffer for the engine, and a view of it, slices of which are bytes."""

_allocate: Final[Callable[[str, int], Any]] = ffi.new_allocator(should_clear_after_alloc=False)


def scratch_buffer(size: int = limits.SCRATCH_BYTES) -> Scratch:
    """Make a buffer.

    Args:
        size: Bytes.

    Returns:
        The buffer for the engine, and a view of it, slices of which are bytes.
    """
    buffer = _allocate("char[]", size)
    return buffer, ffi.buffer(buffer)
