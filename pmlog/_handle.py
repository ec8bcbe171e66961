"""What is open: a pool and its containers, below the objects that users hold.

- `Core`: an open pool, shared by its `Pool`, transactions and containers.
- `Handle`: an open container, shared by the Python objects of its name.

Invariants:

1. The working image stays mapped until the last view of it is gone, also after `close`.
2. After a fork nothing here touches the parent's pool.
3. `Core.owner` is the thread that has a transaction open, 0 if there is none. Only that thread
   sets it, and it lets go before the engine does, so that it never overwrites its successor.
4. `Handle.version` changes with every change of the container that this process makes, rollbacks
   included, so that iterators know when what they fetched is out of date.
"""

import gc
import os
import sys
import time
import weakref
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any, Final

from pmlog._engine import E_CLOSED, E_DROPPED, E_FORKED, failure, fast, ffi, lib, settle
from pmlog.errors import ClosedError, ForkedError, PmlogError

_PACKAGE: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep


class _Reaper:
    """Frees pools that nobody can use any more.

    The garbage collector may run the finalizer of a working image before those of objects that
    still use its pool (an application's own `__del__`), so while it is at work, what is to be
    freed waits for its end.
    """

    def __init__(self) -> None:
        self._collecting = False
        self._waiting: list[Callable[[], None]] = []
        gc.callbacks.append(self._collector_says)

    def _collector_says(self, phase: str, info: dict[str, int]) -> None:
        self._collecting = phase == "start"
        while phase == "stop" and self._waiting:
            self._waiting.pop()()

    def free(self, release: Callable[[], None]) -> None:
        """Free a pool as soon as that is safe.

        Args:
            release: What frees it.
        """
        if self._collecting:
            self._waiting.append(release)
        else:
            release()


_reaper: Final = _Reaper()


def _address(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))


class Core(fast.Core):
    """An open pool.

    Args:
        pool: The engine's pool.
        path: Where it is.
        readonly: Whether it is open for reading only.
        max_bytes: Address space that the working image may come to fill.
        detach: Called after the engine has let go of the pool: lets go of its medium.
    """

    __slots__ = (
        "__weakref__",
        "_detach",
        "containers",
        "gone",
        "handles",
        "image",
        "path",
        "pid",
        "pool",
        "readonly",
        "tx_id",
        "writable",
    )

    def __init__(
        self,
        pool: Any,
        path: str,
        readonly: bool,
        max_bytes: int,
        detach: Callable[[], None] | None,
    ) -> None:
        self.pool = pool
        self.path = path
        self.readonly = readonly
        self.pid = os.getpid()
        self._detach = detach
        # Where the engine writes a new transaction's id: it does so only when the caller has
        # become the pool's owner, so one place serves all threads.
        self.tx_id = ffi.new("uint64_t *")
        self._bind(_address(pool), _address(self.tx_id))
        self.owner = 0
        self.depth = 0
        self.doomed = ""
        """Why the open transaction cannot be committed any more; empty: it can."""
        self.gone: str | None = None
        """Why the pool is not to be had any more; None: it is open."""
        self.handles: dict[str, Handle] = {}
        self.events: list[tuple[Handle, bool]] = []
        """What the open transaction did to the catalog: opened (False) or dropped (True)."""
        self.containers: list[Any] = []
        """The engine's containers; they are freed with the pool, never before."""
        release = partial(_release, pool, self.pid, self.containers, detach)
        # numpy view → memoryview → buffer → this base, whose end is the working image's.
        base = ffi.gc(lib.pml_base(pool), lambda _: _reaper.free(release))
        self.writable = memoryview(ffi.buffer(base, max_bytes))
        self.image = self.writable.toreadonly()
        _cores.add(self)

    def failure(self, status: int, label: str = "") -> PmlogError:
        """Make the error for the calling thread's last failed call.

        Args:
            status: What the call answered.
            label: What it was about, as "dict 'orders'"; empty: the pool itself.

        Returns:
            The error, to be raised.
        """
        subject = f"{self.path}: {label}" if label else self.path
        if status == E_FORKED:
            return ForkedError(
                f"{subject}: opened by process {self.pid}, this is its child {os.getpid()}",
                path=self.path,
            )
        if status == E_CLOSED:
            return ClosedError(f"{subject}: {self.gone or 'the pool is closed'}", path=self.path)
        return failure(status, self.path, label)

    def live(self) -> None:
        """Make sure that the pool is open.

        Raises:
            ClosedError: It was closed.
            ForkedError: It belongs to the parent process.
        """
        if self.gone is not None:
            raise self.failure(E_CLOSED if os.getpid() == self.pid else E_FORKED)

    def close(self) -> None:
        """Let the engine close the pool: checkpoint, mark it clean, unlock.

        An open transaction of the calling thread is rolled back; another thread's is waited for.

        Raises:
            MediumError: Writing failed; the pool is closed all the same, and the next open
                recovers it from the log.
        """
        if self.gone is not None:
            return
        if self.owner == get_ident():
            self.owner = self.depth = 0
            lib.pml_tx_abort(self.pool, self.tx_id[0])
        status = settle(lib.pml_close(self.pool), self, lib.pml_close, self.pool)
        self._let_go(_closed_here())
        if status < 0:
            raise self.failure(status)

    @property
    def is_usable(self) -> bool:
        """Whether the engine may be called at all, by a finalizer too."""
        return self.gone is None and os.getpid() == self.pid

    def abandon(self) -> None:
        """Let go of the pool as a killed process would: for tests of recovery."""
        if self.gone is None:
            lib.pml_abandon(self.pool)
            self._let_go("the pool was abandoned")

    def _let_go(self, reason: str) -> None:
        self.gone = reason
        self._forget()
        if self._detach is not None:
            self._detach()
            self._detach = None

    def _forget(self) -> None:
        for handle in self.handles.values():
            handle.unmap()
            handle.objects.clear()
        self.handles.clear()
        self.events.clear()

    def rolled_back(self, mark: int = 0) -> None:
        """Note that changes were undone: what was read may be out of date, or never have been.

        Args:
            mark: How many events were there at the point that was gone back to.
        """
        events = self.events
        while len(events) > mark:
            handle, dropped = events.pop()
            if dropped:
                if (successor := self.handles.get(handle.name)) is not None:
                    successor.drop()
                handle.dropped = False
                self.handles[handle.name] = handle
            elif not handle.exists():
                handle.drop()
        for handle in self.handles.values():
            handle.version += 1
            handle.edits += 1

    def forked(self) -> None:
        """Note, in the child, that the pool is the parent's."""
        self.gone = f"opened by process {self.pid}"
        self._forget()


def _release(pool: Any, pid: int, containers: list[Any], detach: Callable[[], None] | None) -> None:
    """Free the engine's pool; nothing can use it any more.

    Args:
        pool: The engine's pool.
        pid: Of the process that opened it.
        containers: The engine's containers.
        detach: Lets go of the medium, if nobody has yet.
    """
    if os.getpid() != pid:
        return
    if lib.pml_close(pool) < 0:
        lib.pml_abandon(pool)
    if detach is not None:
        detach()
    lib.pml_free(pool)
    for container in containers:
        lib.pml_container_free(container)


_cores: Final[weakref.WeakSet[Core]] = weakref.WeakSet()


def _after_fork() -> None:
    for core in list(_cores):
        core.forked()


os.register_at_fork(after_in_child=_after_fork)


def _closed_here() -> str:
    """Say who closes the pool, for those who use it later.

    Returns:
        When and where, as the first frame outside of this package knows it.
    """
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return f"the pool was closed at {time.strftime('%H:%M:%S')} by {place}"


class Handle(fast.Handle):
    """An open container.

    Args:
        core: Its pool.
        container: The engine's container.
        kind: dict, deque, array or region.
        name: Its name in the pool.
    """

    __slots__ = (
        "c",
        "core",
        "dropped",
        "kind",
        "name",
        "objects",
        "target",
        "view",
    )

    def __init__(self, core: Core, container: Any, kind: str, name: str) -> None:
        core.containers.append(container)
        self.core = core
        self.c = container
        self._bind(_address(container), _address(core.pool))
        self.kind = kind
        self.name = name
        self.version = 0
        """Of the container's structure; of everything, where nothing else counts."""
        self.edits = 0
        """Of items that were replaced in place."""
        self.view: Any = None
        """Of the container's bytes, where it has such; None: to be made, if that is allowed."""
        self.target: Any = None
        """The same, for writing."""
        self.dropped = False
        self.objects: list[tuple[Any, Any]] = []
        """What users hold: (`type=`, container)."""

    @property
    def label(self) -> str:
        """The container, for messages."""
        return f"{self.kind} {self.name!r}"

    def failure(self, status: int) -> PmlogError:
        """Make the error for the calling thread's last failed call.

        Args:
            status: What the call answered.

        Returns:
            The error, to be raised.
        """
        return self.core.failure(status, self.label)

    def drop(self) -> None:
        """Note that the container is gone: dropped, or never made."""
        self.dropped = True
        self.unmap()
        self.version += 1
        if self.core.handles.get(self.name) is self:
            del self.core.handles[self.name]

    def unmap(self) -> None:
        """Forget the views of the container's bytes: whoever wants one has to ask anew."""
        self.view = self.target = None

    def exists(self) -> bool:
        """Ask the engine whether there is a container of this name and type.

        Returns:
            Its answer.
        """
        if self.kind in ("array", "region"):
            offset, size = ffi.new("uint64_t *"), ffi.new("uint64_t *")
            status = lib.pml_bytes_where(self.c, offset, size)
        elif self.kind == "dict":
            status = lib.pml_dict_count(self.c)
        else:
            status = lib.pml_deque_count(self.c)
        return bool(status != E_DROPPED)
