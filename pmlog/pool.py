"""Pools: open (create or recover), containers by name, waiting, status, close."""

import os
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from pmlog import limits, marks
from pmlog._engine import E_BUSY, E_MISSING, E_TIMEOUT, answer, failure, ffi, lib, settle
from pmlog._handle import Core, Handle
from pmlog.containers.bytes_view import locate, read_descr
from pmlog.containers.deque import PoolDeque
from pmlog.containers.dict import PoolDict
from pmlog.containers.names import read_names
from pmlog.containers.region import PoolRegion
from pmlog.errors import (
    ConfigError,
    ContainerNotFoundError,
    ContainerTypeError,
    FencedError,
    LevelUnavailableError,
    PmlogError,
    PoolFrozenError,
    ReadOnlyError,
    UsageError,
    WaitTimeoutError,
)
from pmlog.levels import Level
from pmlog.log import LogReader
from pmlog.medium import Domain, Medium, parse_domain, parse_medium
from pmlog.position import Position
from pmlog.sizes import parse_size
from pmlog.status import PoolStatus, status_of
from pmlog.transaction import LevelTransaction, Transaction

if TYPE_CHECKING:
    from pmlog.containers.array import PoolArray

_Container = TypeVar("_Container")

_WAIT_SLICE_MS: Final = int(limits.WAIT_SLICE_S * 1000)

_REPLICATED_LEVELS: Final = {Level.RECEIVED: 0, Level.REPLICATED: 1, Level.APPLIED: 2}

_TYPES: Final = {
    "dict": lib.PML_TYPE_DICT,
    "deque": lib.PML_TYPE_DEQUE,
    "array": lib.PML_TYPE_ARRAY,
    "region": lib.PML_TYPE_REGION,
}


def open(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    readonly: bool = False,
    size: int | str = "64MiB",
    max_size: int | str = "64GiB",
    log_size: int | str = "64MiB",
    medium: str = "file",
    domain: str = "auto",
) -> "Pool":
    """Open a pool; make it if there is none, recover it if its writer was killed.

    On return the pool is at the last committed transaction.
    One handle of one process writes a pool at a time; beside it any number of processes read it
    with `readonly=True`.

    Args:
        path: The pool's folder; its parent must exist.
        create: Whether to make a pool if there is none.
        readonly: Whether to look only: committed state, each read of one instant.
        size: First size of a new pool's image. It grows by itself.
        max_size: Up to which the image grows. Address space only, no memory.
        log_size: Size of a new pool's log; a transaction takes at most half of it.
        medium: "file", or "pmemobj" for an image in a libpmemobj pool.
        domain: "auto", or the persistence domain to use in place of the one that is detected:
            "emulated", "eadr", "adr", "page".

    Returns:
        The pool, also a context manager that closes it.

    Raises:
        ConfigError: An option cannot be used.
        PoolNotFoundError: There is no pool, and it is not to be made.
        PoolLockedError: It is open for writing; `pid` says by whom.
        PoolPermissionError: The file system refuses.
        PoolFullError: The file system has no room for a new pool.
        FormatError: It is not a pool, or one of a later version.
        CorruptionError: It holds bytes that no crash explains.
        PoolFrozenError: Its log was handed over at a power loss.
        FencedError: Another pool was promoted in its place.
        IncompleteError: It is a copy, and not all of it is there.

    Cost: a cleanly closed pool opens in the same time whatever its size; otherwise recovery takes
    time in proportion to the log since the last checkpoint.
    """
    place = os.fsdecode(path)
    raw = os.fsencode(place)
    if not raw or b"\0" in raw:
        raise ConfigError(f"{place!r} is not a path")
    marks.must_be_whole(place)
    if not readonly:
        _must_not_be_stopped(place)
    options = ffi.new("struct pml_options *")
    options.size = parse_size(size, "size")
    options.max_size = parse_size(max_size, "max_size")
    options.log_size = parse_size(log_size, "log_size")
    options.domain = parse_domain(domain)
    options.medium = chosen = parse_medium(medium)
    options.flags = (lib.PML_OPEN_CREATE if create and not readonly else 0) | (
        lib.PML_OPEN_READ_ONLY if readonly else 0
    )
    pool = open_options(place, options, chosen)
    if not readonly:
        # Again: between the first look and the opening a shipper may have stored the mark, frozen
        # the pool and said that its log has ended; the opening has begun the control words anew.
        # From here on a shipper that stores the mark freezes this very session.
        try:
            _must_not_be_stopped(place)
        except BaseException:
            pool.close()
            raise
    return pool


def _epoch_of(path: str) -> int:
    try:
        with LogReader(path) as reader:
            return reader.epoch
    except PmlogError:
        return 0  # it cannot be told: then the stop holds


def _must_not_be_stopped(path: str) -> None:
    if not os.path.exists(os.path.join(path, marks.STOP_NAME)):
        return
    stop = marks.stop_of(path)
    if stop is None:
        return  # it was let go just now
    if stop.why == "replica":
        raise ReadOnlyError(
            f"{path}: the pool is a replica: its log comes from another pool",
            hint="open it with readonly=True, or make it a primary: pmlog promote",
            path=path,
        )
    if not stop.holds(_epoch_of(path)):
        return
    if stop.why == "fenced":
        raise FencedError(
            f"{path}: the pool of epoch {stop.epoch} has taken over: this one is no longer the "
            "primary",
            path=path,
        )
    raise PoolFrozenError(
        f"{path}: a power loss was announced, and the log was handed over to receivers",
        hint="go on at the promoted receiver; if none was promoted: pmlog power-loss --restored",
        path=path,
    )


def open_options(path: str, options: Any, medium: Medium) -> "Pool":
    """Open a pool with the engine's own options: what `open` and the checker share.

    Args:
        path: The pool's folder.
        options: `struct pml_options *`.
        medium: What holds the image.

    Returns:
        The pool.

    Raises:
        ConfigError: An option cannot be used.
        PmlogError: As `open`.
    """
    readonly = bool(options.flags & lib.PML_OPEN_READ_ONLY)
    detach: Callable[[], None] | None = None
    # A reader reads the file itself: libpmemobj lets one process in, the writer.
    if medium is Medium.PMEMOBJ and not readonly:
        from pmlog.medium import pmemobj

        attachment = pmemobj.attach(
            Path(path),
            max_size=options.max_size,
            create=bool(options.flags & lib.PML_OPEN_CREATE),
        )
        options.pmemobj = attachment.api
        detach = attachment.close
    out = ffi.new("struct pml_pool **")
    try:
        deadline = time.monotonic() + limits.OPEN_TIMEOUT_S
        status = lib.pml_open(os.fsencode(path), options, out)
        while status == E_BUSY and time.monotonic() < deadline:  # its writer recovers it just now
            time.sleep(limits.WAIT_SLICE_S)
            status = lib.pml_open(os.fsencode(path), options, out)
        if status == lib.PML_E_ARGUMENT:
            detail = ffi.string(lib.pml_error().text).decode(errors="replace")
            raise ConfigError(f"{path}: {detail}", path=path)
        if status:
            error = failure(status, path)
            raise error
    except BaseException:
        if detach is not None:
            detach()
        raise
    info = ffi.new("struct pml_info *")
    if status := lib.pml_info(out[0], info):
        error = failure(status, path)
        lib.pml_close(out[0])
        lib.pml_free(out[0])
        raise error
    return Pool(Core(out[0], path, readonly, info.max_bytes, detach), Domain(info.domain))


class Pool:
    """An open pool: containers by name, transactions over all of them.

    Made by `pmlog.open`.
    Threads may share it: one transaction is open at a time, others wait for it.
    A child that was forked must not use it, and is told so.
    """

    __slots__ = ("__weakref__", "_core", "_domain")

    def __init__(self, core: Core, domain: Domain) -> None:
        self._core = core
        self._domain = domain

    # ---- containers ----------------------------------------------------------------------------

    def dict(self, name: str, *, type: Any = None) -> PoolDict:
        """Get a dict by its name; make it if there is none.

        Args:
            name: Its name, up to 255 bytes in UTF-8.
            type: What its values are decoded to, for msgspec: a Struct, a dataclass, `tuple[…]`
                and so on; None: what MessagePack says.

        Returns:
            The dict; the same object for the same name and type.

        Raises:
            ContainerTypeError: The name belongs to a container of another type.
            ContainerNotFoundError: There is none, and the pool is read-only.
        """
        handle = self._cached("dict", name) or self._open("dict", name)
        return self._object(handle, "dict", PoolDict, type)

    def deque(self, name: str, *, type: Any = None) -> PoolDeque:
        """Get a deque by its name; make it if there is none.

        Args:
            name: Its name, up to 255 bytes in UTF-8.
            type: What its values are decoded to, as for `dict`.

        Returns:
            The deque; the same object for the same name and type.

        Raises:
            ContainerTypeError: The name belongs to a container of another type.
            ContainerNotFoundError: There is none, and the pool is read-only.
        """
        handle = self._cached("deque", name) or self._open("deque", name)
        return self._object(handle, "deque", PoolDeque, type)

    def array(self, name: str, shape: Any = None, dtype: Any = None) -> "PoolArray":
        """Get an array by its name; make it, filled with zeros, if there is none.

        Args:
            name: Its name, up to 255 bytes in UTF-8.
            shape: An int or a sequence of ints; None: that of the array that is there.
            dtype: Anything that numpy takes, without Python objects; None: as it is there.

        Returns:
            The array; the same object for the same name.

        Raises:
            ContainerTypeError: The name belongs to a container of another type, or to an array of
                another shape or dtype.
            ContainerNotFoundError: There is none, and the pool is read-only, or shape or dtype is
                not given.
            EncodeError: Arrays of this dtype cannot be stored.
        """
        from pmlog.containers import array_ranges as descriptions
        from pmlog.containers.array import PoolArray  # numpy takes 0.1 s to import

        wanted_shape = None if shape is None else descriptions.parse_shape(shape)
        wanted_dtype = None if dtype is None else descriptions.parse_dtype(dtype)
        handle = self._cached("array", name)
        if handle is not None and handle.kind == "array" and handle.objects:
            known: PoolArray = handle.objects[0][1]
            if known.descr != read_descr(handle):
                # Dropped and made anew, by the writer beside which this pool reads.
                handle.drop()
                handle = None
        if handle is None:
            if wanted_shape is None or wanted_dtype is None:
                self._must_exist(name, "shape and dtype")
                handle = self._open("array", name)
            else:
                text = descriptions.describe(wanted_shape, wanted_dtype)
                size = descriptions.nbytes_of(wanted_shape, wanted_dtype)
                handle = self._open("array", name, size, text)
        self._must_be(handle, "array")
        descr = read_descr(handle)
        there_shape, there_dtype = descriptions.undescribe(descr)
        if wanted_shape not in (None, there_shape) or wanted_dtype not in (None, there_dtype):
            raise ContainerTypeError(
                f"{self._core.path}: {handle.label} has shape {there_shape} and dtype "
                f"{there_dtype}, asked for was shape {shape} and dtype {dtype}",
                path=self._core.path,
            )
        return self._object(handle, "array", partial(PoolArray, descr=descr))

    def region(self, name: str, size: int | str | None = None) -> PoolRegion:
        """Get a region of raw bytes by its name; make it, filled with zeros, if there is none.

        Args:
            name: Its name, up to 255 bytes in UTF-8.
            size: Its size; None: that of the region that is there.

        Returns:
            The region; the same object for the same name.

        Raises:
            ContainerTypeError: The name belongs to a container of another type, or to a region of
                another size.
            ContainerNotFoundError: There is none, and the pool is read-only, or no size is given.
        """
        wanted = None if size is None else parse_size(size)
        handle = self._cached("region", name)
        if handle is None:
            if wanted is None:
                self._must_exist(name, "size")
            handle = self._open("region", name, wanted or 0)
        self._must_be(handle, "region")
        there = locate(handle)[1]
        if wanted not in (None, there):
            raise ContainerTypeError(
                f"{self._core.path}: {handle.label} has {there} bytes, asked for were {wanted}",
                path=self._core.path,
            )
        return self._object(handle, "region", PoolRegion)

    def names(self) -> list[str]:
        """List the containers.

        Returns:
            Their names, oldest first.
        """
        return list(read_names(self._core))

    def types(self) -> Mapping[str, str]:
        """List the containers with their types.

        Returns:
            dict, deque, array or region, by name, oldest first.
        """
        return read_names(self._core)

    def drop(self, name: str) -> None:
        """Remove a container and all that it holds.

        What users still hold of it raises `DroppedError`; views of its bytes show whatever takes
        its place.

        Args:
            name: Its name.

        Raises:
            ContainerNotFoundError: There is none.
        """
        core = self._core
        data = self._name(name)
        arguments = (core.pool, data, len(data))
        status = lib.pml_container_drop(*arguments)
        if status and answer(status, core, lib.pml_container_drop, *arguments) == E_MISSING:
            raise self._not_found(name)
        handle = core.handles.get(name)
        if handle is not None:
            handle.drop()
            if core.owner == get_ident():
                core.events.append((handle, True))

    # ---- transactions --------------------------------------------------------------------------

    def transaction(self, level: Level | None = None, timeout: float | None = None) -> Transaction:
        """Make a transaction, to be entered by `with`.

        Args:
            level: What the transaction must survive before the block returns;
                None: `Level.COMMITTED`.
            timeout: How long to wait for the level after the commit, in seconds; None: no limit.

        Returns:
            The transaction; inside another one of the same thread it is a savepoint.

        Raises:
            LevelUnavailableError: The pool cannot give that level; nothing was begun.
            UsageError: A level was asked for inside another transaction, or a timeout without a
                level.
        """
        if level is None:
            if timeout is not None:
                raise UsageError("timeout= is for the level that level= names")
            return Transaction(self._core)
        level = self._available(level)
        if self._core.owner == get_ident():
            raise UsageError(
                f"{self._core.path}: level= is for the outermost transaction, which is what "
                "commits",
                path=self._core.path,
            )
        return LevelTransaction(self._core, self, level, timeout)

    def wait(self, level: Level, lsn: int | None = None, timeout: float | None = None) -> None:
        """Wait until the log has reached a level.

        Args:
            level: The level.
            lsn: Up to where; None: everything that is committed now.
            timeout: How long, in seconds; None: no limit. The wait for the disk, for
                `Level.LOCAL`, cannot be cut short.

        Raises:
            LevelUnavailableError: The pool cannot give that level: `Level.LOCAL` where nothing
                survives a power loss, a higher one while no shipper serves the pool.
            WaitTimeoutError: What is committed has not reached the level in time.
            MediumError: Writing failed.
        """
        level = self._available(level)
        if self._has_reached(level, lsn):
            return
        core = self._core
        if level is Level.LOCAL:
            settle(lib.pml_sync(core.pool), core, lib.pml_sync, core.pool)
            return
        wanted = self.position.lsn if lsn is None else lsn
        deadline = None if timeout is None else time.monotonic() + timeout
        number = _REPLICATED_LEVELS[level]
        while True:  # in slices of the engine's, so that signals are seen
            left_ms = _WAIT_SLICE_MS
            if deadline is not None:
                left_ms = min(left_ms, max(0, int((deadline - time.monotonic()) * 1000)))
            status = lib.pml_wait_level(core.pool, number, wanted, left_ms)
            if status == 0:
                return
            if status != E_TIMEOUT:
                raise core.failure(status)
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(
                    f"{core.path}: LSN {wanted} has not reached Level.{level.name} in {timeout} s",
                    path=core.path,
                    lsn=wanted,
                )

    async def wait_async(
        self,
        level: Level,
        lsn: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as `wait`, whose work it does
    ) -> None:
        """Wait as `wait`, without blocking the event loop.

        Args:
            level: The level.
            lsn: Up to where; None: everything that is committed now.
            timeout: How long, in seconds; None: no limit.

        Raises:
            LevelUnavailableError: The pool cannot give that level: `Level.LOCAL` where nothing
                survives a power loss, a higher one while no shipper serves the pool.
            WaitTimeoutError: What is committed has not reached the level in time.
            MediumError: Writing failed.
        """
        if not self._has_reached(self._available(level), lsn):
            import asyncio

            await asyncio.to_thread(self.wait, level, lsn, timeout)

    def _available(self, level: Level) -> Level:
        level = Level(level)
        self._core.live()
        if level > Level.LOCAL and not self._is_served():
            raise LevelUnavailableError(
                f"{self._core.path}: Level.{level.name} needs receivers, and no shipper serves "
                "this pool",
                hint="start one: pmlog ship POOL",
                path=self._core.path,
            )
        if level is Level.LOCAL and not self._domain.survives_power_loss:
            raise LevelUnavailableError(
                f"{self._core.path}: in persistence domain {self._domain.label} nothing survives "
                "a power loss of this host alone, which Level.LOCAL stands for",
                hint="put the pool on an ordinary disk or a DAX mount, or ask for Level.COMMITTED",
                path=self._core.path,
            )
        return level

    def _is_served(self) -> bool:
        core = self._core
        age_ns = ffi.new("uint64_t *")
        settle(lib.pml_shipper_age(core.pool, age_ns), core, lib.pml_shipper_age, core.pool, age_ns)
        return bool(age_ns[0] < limits.SHIPPER_SILENCE_S * 1e9)

    def _has_reached(self, level: Level, lsn: int | None) -> bool:
        if level > Level.LOCAL:
            return False
        if level is Level.COMMITTED or self._domain.is_durable_at_commit:
            return True
        return lsn is not None and bool(self._info().lsn_durable >= lsn)

    # ---- state ---------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The pool's folder, as it was given to `open`."""
        return self._core.path

    @property
    def readonly(self) -> bool:
        """Whether the pool is open for reading only."""
        return self._core.readonly

    @property
    def position(self) -> Position:
        """The end of the log: epoch, LSN and chain checksum of the last committed transaction."""
        core = self._core
        out = ffi.new("struct pml_position *")
        settle(lib.pml_position(core.pool, out), core, lib.pml_position, core.pool, out)
        return Position(out.epoch, out.lsn, out.chain, out.txn)

    def status(self) -> PoolStatus:
        """Tell the pool's figures.

        Returns:
            They, of one moment.
        """
        return status_of(self._core.path, self._info())

    def _info(self) -> Any:
        core = self._core
        info = ffi.new("struct pml_info *")
        settle(lib.pml_info(core.pool, info), core, lib.pml_info, core.pool, info)
        return info

    def checkpoint(self) -> None:
        """Bring the image up to date with the log, now; it happens by itself too.

        Raises:
            ReadOnlyError: The pool is open for reading only.
            MediumError: Writing failed.
        """
        core = self._core
        settle(lib.pml_checkpoint(core.pool), core, lib.pml_checkpoint, core.pool)

    def close(self) -> None:
        """Close the pool: the next open has nothing to recover. Again is fine.

        An open transaction of the calling thread is rolled back; another thread's is waited for.
        Views of arrays and regions stay valid, and are of the state at the close.

        Raises:
            MediumError: Writing failed; the pool is closed all the same, and the next open
                recovers it.
        """
        self._core.close()

    @property
    def closed(self) -> bool:
        """Whether the pool is closed."""
        return self._core.gone is not None

    def __enter__(self) -> Self:
        self._core.live()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._core.is_usable:
            try:
                warnings.warn(
                    f"pool {self._core.path} was not closed",
                    ResourceWarning,
                    stacklevel=1,
                    source=self,
                )
            finally:
                self.close()

    def __repr__(self) -> str:
        state = self._core.gone or ("read-only" if self._core.readonly else "open")
        return f"<pmlog.Pool {self._core.path!r}: {state}>"

    # ---- opening containers --------------------------------------------------------------------

    def _name(self, name: str) -> bytes:
        if not isinstance(name, str):
            raise UsageError(f"names of containers are str, not {type(name).__name__}")
        try:
            data = name.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{name!r} is not a name: {error}") from error
        if not 0 < len(data) <= limits.NAME_BYTES_MAX:
            raise UsageError(
                f"names of containers have 1 to {limits.NAME_BYTES_MAX} bytes in UTF-8, this one "
                f"has {len(data)}"
            )
        return data

    def _cached(self, kind: str, name: str) -> Handle | None:
        handle = self._core.handles.get(name)
        if handle is not None and handle.kind != kind and not handle.exists():
            handle.drop()  # by the writer, beside which this pool reads
            handle = None
        return handle

    def _open(self, kind: str, name: str, size: int = 0, descr: bytes = b"") -> Handle:
        core = self._core
        data = self._name(name)
        out = ffi.new("struct pml_container **")
        call = lib.pml_container_open
        arguments = (core.pool, data, len(data), _TYPES[kind], size, descr, len(descr), out)
        status = call(*arguments)
        if status:
            probe = Handle.__new__(Handle)
            probe.core, probe.kind, probe.name = core, kind, name
            if answer(status, probe, call, *arguments) == E_MISSING:
                raise self._not_found(name)
        # Another thread may have been first: all share one handle.
        handle = core.handles.setdefault(name, Handle(core, out[0], kind, name))
        if core.owner == get_ident():
            core.events.append((handle, False))
        return handle

    def _object(
        self, handle: Handle, kind: str, make: Callable[..., _Container], type: Any = None
    ) -> _Container:
        self._must_be(handle, kind)
        while True:  # ends: what was appended is found, or what another thread appended before it
            for other, container in handle.objects:
                if other is type or other == type:
                    return container  # type: ignore[no-any-return]  # of its kind, by _must_be
            made = make(handle) if type is None else make(handle, type)
            handle.objects.append((type, made))

    def _must_be(self, handle: Handle, kind: str) -> None:
        if handle.kind != kind:
            raise ContainerTypeError(
                f"{self._core.path}: the name {handle.name!r} belongs to a container of type "
                f"{handle.kind}, asked for was a {kind}",
                path=self._core.path,
            )

    def _must_exist(self, name: str, missing: str) -> None:
        if name not in read_names(self._core):
            raise self._not_found(name, hint=f"give {missing} to make it")

    def _not_found(self, name: str, hint: str | None = None) -> ContainerNotFoundError:
        return ContainerNotFoundError(
            f"{self._core.path}: there is no container {name!r}", hint=hint, path=self._core.path
        )
