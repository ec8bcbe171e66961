"""A replica: a pool whose log another pool writes; and promotion, which makes it a primary.

Its format is a pool's, so that readers follow it and a shipper serves it.
"""

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from pmlog import marks
from pmlog._engine import failure, ffi, lib, settle
from pmlog.errors import ClosedError, ConfigError, PmlogError
from pmlog.history import Place, begin, promoted
from pmlog.identity import Identity, Mark
from pmlog.log import take_mark
from pmlog.medium import Domain, Medium, parse_domain
from pmlog.pool import Pool, open_options
from pmlog.position import Position
from pmlog.sizes import parse_size

_DAMAGE: Final = frozenset({lib.PML_E_CORRUPT, lib.PML_E_FORMAT, lib.PML_E_INVARIANT})


class Replica:
    """A pool that takes its log from another one.

    For one thread at a time.

    Args:
        path: Its folder.
        identity: What it is a copy of; it is made if there is none. None: it must be there.
        max_size: Up to which its image grows.
        domain: As for `pmlog.open`.
        background: Whether a thread brings the image up to date; otherwise that happens when the
            ring is short, and at the end.
        rebuild: Believe nothing of it but its headers: it is of use only for a baseline.

    Raises:
        PoolNotFoundError: There is none, and no identity was given.
        PoolLockedError: Another process has it open.
        ConfigError: It is a copy of another pool.
        PmlogError: As `pmlog.open`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        identity: Identity | None = None,
        *,
        max_size: int | str = "64GiB",
        domain: str = "auto",
        background: bool = True,
        rebuild: bool = False,
    ) -> None:
        self.path = os.fsdecode(path)
        self._pool: Any = None
        options = _options(self.path, max_size, domain)
        options.flags = lib.PML_OPEN_REPLICA | (0 if background else lib.PML_OPEN_NO_THREAD)
        options.flags |= lib.PML_OPEN_REBUILD if rebuild else 0
        self.is_rebuilding = rebuild
        """A baseline is to come, or under way."""
        if identity is not None:
            number = ffi.new("struct pml_identity *")
            number.pool_id = identity.pool_id.bytes
            number.created_ns = identity.created_ns
            number.ring_bytes = identity.ring_bytes
            number.hash_seed = identity.hash_seed
            options.identity = number
            options.log_size = identity.ring_bytes
            options.size = identity.image_bytes
            options.flags |= lib.PML_OPEN_CREATE
        out = ffi.new("struct pml_pool **")
        status = lib.pml_open(os.fsencode(self.path), options, out)
        if status:
            error = failure(status, self.path)
            raise error
        self._pool = out[0]
        self._out = ffi.new("struct pml_position *")
        info = ffi.new("struct pml_info *")
        self._call(lib.pml_info, info)
        self.pool_id = bytes(ffi.buffer(info.pool_id))
        self.ring_bytes = int(info.ring_bytes)
        self.append_bytes_max = min(self.ring_bytes // 2, 1 << 30)
        """What `append` takes at a time."""
        self.is_durable_at_append = Domain(info.domain) is not Domain.PAGE
        """Whether an append waits for no disk."""
        if identity is not None and self.pool_id != identity.pool_id.bytes:
            self.close()
            raise ConfigError(
                f"{self.path} is a copy of another pool", hint="give another directory"
            )
        self.position = self._position()
        """The end of the last whole record, which is durable."""
        self.lsn_next = self.position.lsn
        """Of the byte that `append` takes next; bytes of an unfinished record lie before it."""

    def append(self, lsn: int, data: bytes | memoryview) -> Position:
        """Append log bytes.

        What is whole is durable on return; the rest of a record waits for its end.

        Args:
            lsn: Of the first byte: `lsn_next`.
            data: The bytes, up to `append_bytes_max`.

        Returns:
            What is durable now.

        Raises:
            GapError: They are not what comes next.
            CorruptionError: They do not continue this log; nothing of the bad record counts, and
                `lsn_next` is the end of the last good one.
            MediumError: Writing failed; the replica is poisoned.
            PoolFullError: The image would grow beyond max_size.
            PmlogError: Anything else that the engine refuses.
        """
        out = self._out
        try:
            self._call(lib.pml_replica_append, lsn, ffi.from_buffer(data), len(data), out)
        except PmlogError:
            self.position = self.position if self._pool is None else self._position()
            self.lsn_next = self.position.lsn
            raise
        self.lsn_next = lsn + len(data)
        self.position = Position(out.epoch, out.lsn, out.chain, out.txn)
        return self.position

    def restart(self) -> None:
        """Forget the bytes behind the last whole record: the stream begins again there."""
        self._call(lib.pml_replica_restart)
        self.lsn_next = self.position.lsn

    @property
    def is_poisoned(self) -> bool:
        """Whether every call raises until the replica is opened again."""
        return self._poison() != 0

    @property
    def is_damaged(self) -> bool:
        """Whether that is because bytes have rotted: only a baseline helps."""
        return self._poison() in _DAMAGE

    def _poison(self) -> int:
        info = ffi.new("struct pml_info *")
        if self._pool is None or lib.pml_info(self._pool, info):
            return 0
        return int(info.poisoned)

    def prepare_baseline(self) -> None:
        """Make the replica of no use to anybody until `finish_baseline`.

        Before this, `marks.set_incomplete` has said so. What the log holds is applied first, so
        that fewer blocks differ.
        """
        if not self.is_rebuilding:
            self._call(lib.pml_checkpoint)
        self._call(lib.pml_replica_begin)
        self.is_rebuilding = True

    def store_block(self, offset: int, data: bytes | memoryview) -> None:
        """Store whole pages of the image, between `prepare_baseline` and `begin_baseline`.

        Args:
            offset: In the image: a multiple of a page, not before the image's body.
            data: Whole pages.
        """
        self._call(lib.pml_replica_block, offset, ffi.from_buffer(data), len(data))

    def begin_baseline(self, mark: Mark) -> None:
        """Make the stored blocks durable, and go to the mark: from there the log is applied.

        Args:
            mark: The primary's checkpoint.
        """
        self._call(lib.pml_replica_baseline, take_mark(mark))
        self.position = self._position()
        self.lsn_next = self.position.lsn

    def finish_baseline(self) -> None:
        """Take the replica for whole: what the baseline needs of the log was appended.

        On return it is durable, and `marks.set_incomplete` may take back what was said.
        """
        self._call(lib.pml_replica_whole)
        self.is_rebuilding = False

    @property
    def place(self) -> Place:
        """The end of the durable log, for the wire."""
        at = self.position
        return Place(at.epoch, at.lsn, at.chain, at.txn)

    def _position(self) -> Position:
        out = ffi.new("struct pml_position *")
        self._call(lib.pml_position, out)
        return Position(out.epoch, out.lsn, out.chain, out.txn)

    def _call(self, function: Callable[..., int], *arguments: Any) -> int:
        if self._pool is None:
            raise ClosedError(f"{self.path}: the replica is closed", path=self.path)
        status = function(self._pool, *arguments)
        if status >= 0:
            return status
        return settle(status, self, function, self._pool, *arguments)

    def failure(self, status: int) -> PmlogError:
        """Make the error for the calling thread's last failed call.

        Args:
            status: What the call answered.

        Returns:
            The error, to be raised.
        """
        return failure(status, self.path)

    def close(self) -> None:
        """Close the replica. Again is fine.

        Raises:
            MediumError: Writing failed; the next open recovers it.
        """
        pool, self._pool = self._pool, None
        if pool is None:
            return
        status = lib.pml_close(pool)
        error = failure(status, self.path) if status else None
        lib.pml_free(pool)
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_pool", None) is not None:
            self.close()


def promote(
    path: str | os.PathLike[str],
    *,
    epoch: int | None = None,
    max_size: int | str = "64GiB",
    domain: str = "auto",
) -> Pool:
    """Make a replica a primary: its log goes on under an epoch above all that it has heard of.

    Whether it is complete the caller has to know.
    On return the epoch's first record is durable.
    Order of stores: the history of promotions, the epoch's record, then the mark that kept writers
    out is removed. A promotion that was cut short is finished by another one to the same epoch.

    Args:
        path: Its folder; nobody has it open.
        epoch: The one that begins; None: the next one.
        max_size: As for `pmlog.open`.
        domain: As for `pmlog.open`.

    Returns:
        The pool, open for writing.

    Raises:
        IncompleteError: A baseline has begun on it and is not finished.
        ConfigError: It is of that epoch or a later one already.
        PmlogError: As `pmlog.open`.
    """
    place = os.fsdecode(path)
    marks.must_be_whole(place)
    history = marks.history_of(place)
    with Replica(place, max_size=max_size, domain=domain) as replica:
        end = replica.place
    if epoch is not None and end.epoch >= epoch:
        raise ConfigError(f"{place}: epoch {epoch} is over or has begun already", path=place)
    after = promoted(history, end) if epoch is None else begin(history, end, epoch)
    marks.set_history(place, after)
    options = _options(place, max_size, domain)
    options.flags = lib.PML_OPEN_PROMOTE
    options.epoch = after.beginnings[-1].epoch
    pool = open_options(place, options, Medium.FILE)
    try:
        marks.release(place, options.epoch)
    except PmlogError:
        pool.close()
        raise
    return pool


def _options(path: str, max_size: int | str, domain: str) -> Any:
    if not path or "\0" in path:
        raise ConfigError(f"{path!r} is not a path")
    options = ffi.new("struct pml_options *")
    options.size = options.log_size = 1 << 20
    options.max_size = parse_size(max_size, "max_size")
    options.domain = parse_domain(domain)
    options.medium = Medium.FILE
    return options
