"""Reading a pool's log, from this or another process: records, raw runs, waiting, consumer slots.

What a reader has not pinned by a required consumer slot the writer may overwrite while it is read.
So every record is verified after it was copied; one that is gone raises `GapError`.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from pmlog import limits
from pmlog._engine import E_MISSING, E_TIMEOUT, failure, ffi, lib
from pmlog.errors import ClosedError, ConfigError, GapError, PmlogError, UsageError
from pmlog.identity import Identity, Mark
from pmlog.position import Position
from pmlog.record import Range, Record, parse_record

__all__ = [
    "Bound",
    "Consumer",
    "ConsumerStatus",
    "LogReader",
    "LogStatus",
    "Range",
    "Record",
    "Run",
]

_WAIT_SLICE_MS: Final = 500


@dataclass(frozen=True, slots=True)
class Run:
    """Whole records, one after the other, as raw bytes."""

    lsn: int
    """Of the first byte."""
    data: bytes
    records: int
    """How many they are."""
    end: Position
    """The place behind the last one."""


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """A consumer slot: what one reader of the log has, and still needs."""

    name: str
    lsn_acked: int
    """The log from here on is not overwritten; if it is not required, as long as there is room."""
    lsn_received: int
    lsn_applied: int
    required: bool
    pid: int | None
    """Process that holds it."""


@dataclass(frozen=True, slots=True)
class LogStatus:
    """What the writer tells its readers."""

    live: bool
    """Whether the words below are of this boot; otherwise they say nothing."""
    writer_pid: int | None
    epoch: int
    session: int
    frozen: bool
    """Power is failing: no transaction commits."""
    fenced_epoch: int | None
    """The epoch that has taken over, if one has."""
    lsn_durable: int
    lsn_checkpoint: int
    lsn_closed: int | None
    """Where the log ends, if it was closed cleanly."""
    consumers: tuple[ConsumerStatus, ...]
    lsn_received: int
    """What the receivers that count have in memory, as the shipper said last; 0: none has."""
    lsn_replicated: int
    lsn_applied: int
    bound: "Bound"
    """How far the writer may run ahead of its receivers."""
    shipper_age_s: float | None
    """Since the shipper's last sign of life; None: there was none under this boot."""


@dataclass(frozen=True, slots=True)
class Bound:
    """How far a writer may run ahead of its receivers."""

    delay_ns: int = 0
    """What each transaction waits before it begins."""
    lsn_limit: int = 0
    """No transaction begins once the log ends here or beyond; 0: no limit."""
    limit_bytes: int = 0
    """What receivers may lack, of which the limit came: for messages; 0: no bound."""


class LogReader:
    """A reader of one pool's log, beside its writer or without one.

    It sees durable records only, in order, each once.
    For one thread at a time.

    Args:
        path: The pool's folder.
        lsn: Where to begin, the first byte of a record; None: at the checkpoint.

    Raises:
        PoolNotFoundError: There is no pool.
        GapError: The log no longer holds that LSN.
        FormatError: It is not a pool, or of a later version.
        CorruptionError: It holds bytes that no crash explains.
    """

    def __init__(self, path: str | os.PathLike[str], lsn: int | None = None) -> None:
        self.path = os.fsdecode(path)
        self._tail: Any = None
        self._pid = os.getpid()
        out = ffi.new("struct pml_tail **")
        if status := lib.pml_tail_open(os.fsencode(self.path), out):
            error = failure(status, self.path)
            raise error
        self._tail = out[0]
        self._out = ffi.new("struct pml_tail_record *")
        self._run_out = ffi.new("const char **"), ffi.new("uint64_t *")
        # Read from the ring, but not handed out yet: `read` stops before it.
        self._kept: Record | None = None
        if lsn is not None:
            try:
                self.seek(lsn)
            except PmlogError:
                self.close()
                raise

    # ---- records -------------------------------------------------------------------------------

    def next(self) -> Record | None:
        """Read the next record.

        Returns:
            The record; None: the end of the log, for now.

        Raises:
            GapError: The writer has overwritten it; a consumer slot would have kept it.
            CorruptionError: The log breaks before its end.
        """
        if (kept := self._kept) is not None:
            self._kept = None
            return kept
        out = self._out
        status = lib.pml_tail_next(self._open(), out)
        if status == E_MISSING:
            return None
        if status:
            error = failure(status, self.path, "log")
            raise error
        length = out.lsn_next - out.record.lsn
        raw = bytes(ffi.buffer(out.record, length)) if 0 < length < 1 << 48 else b""
        return self._parse(raw, out.lsn_next)

    def records(self) -> Iterator[Record]:
        """Read on to the end of the log; what is committed meanwhile comes too.

        Yields:
            The records, in order.
        """
        while (record := self.next()) is not None:
            yield record

    def read(self, limit_bytes: int = limits.LOG_READ_BYTES) -> Run | None:
        """Read a run of whole records as raw bytes.

        Args:
            limit_bytes: Where to stop; a single longer record comes whole.

        Returns:
            The run; None: the end of the log, for now.
        """
        pieces: list[Record] = []
        size = 0
        while (record := self.next()) is not None:
            if pieces and size + record.length > limit_bytes:
                self._kept = record
                break
            pieces.append(record)
            size += record.length
        if not pieces:
            return None
        data = b"".join(record.raw for record in pieces)
        return Run(pieces[0].lsn, data, len(pieces), pieces[-1].position)

    def run(self, limit_bytes: int = limits.LOG_READ_BYTES) -> memoryview | None:
        """Read a run of whole records; the reader goes behind it.

        Args:
            limit_bytes: Where to stop; a single longer record comes whole.

        Returns:
            The bytes: a verified copy, in the reader's buffer until it is used again or closed.
            None: the end of the log, for now.

        Raises:
            GapError: The writer has overwritten what comes next.
            CorruptionError: The log breaks before its end.
        """
        data, size = self._run_out
        status = lib.pml_tail_run(self._open(), limit_bytes, data, size)
        if status == E_MISSING:
            return None
        if status:
            error = failure(status, self.path, "log")
            raise error
        return memoryview(ffi.buffer(data[0], size[0])).toreadonly()

    def _parse(self, raw: bytes, lsn_next: int) -> Record:
        record = parse_record(raw)
        if record is None or record.checksum != lib.pml_tail_record_sum(self._tail, raw, len(raw)):
            raise GapError(
                f"{self.path}: the writer has overwritten the record before LSN {lsn_next}",
                path=self.path,
                lsn=lsn_next - len(raw),
            )
        return record

    # ---- place ---------------------------------------------------------------------------------

    def seek(self, lsn: int | None) -> None:
        """Go to a record.

        Args:
            lsn: Of its first byte, or of the end of the log; None: the checkpoint.

        Raises:
            GapError: The log does not hold that LSN.
        """
        if lsn is not None and not 0 < lsn < 1 << 64:
            raise GapError(f"{self.path}: {lsn} is no LSN", path=self.path)
        self._kept = None
        if status := lib.pml_tail_seek(self._open(), lsn or 0):
            error = failure(status, self.path, "log")
            raise error

    @property
    def position(self) -> Position:
        """The place of the next record."""
        if self._kept is not None:
            kept = self._kept
            return Position(kept.epoch, kept.lsn, kept.checksum_prev, kept.txn - 1)
        out = ffi.new("struct pml_position *")
        lib.pml_tail_position(self._open(), out)
        return Position(out.epoch, out.lsn, out.chain, out.txn)

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until there is a record to read.

        Args:
            timeout: How long, in seconds; None: no limit.

        Returns:
            Whether there is one; False: the time is up.

        Raises:
            ClosedError: The reader is closed.
        """
        if self._kept is not None:
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left_ms = _WAIT_SLICE_MS
            if deadline is not None:
                left_ms = min(left_ms, max(0, int((deadline - time.monotonic()) * 1000)))
            # In slices, so that signals are seen.
            status = lib.pml_tail_wait(self._open(), left_ms)
            if status == 0:
                return True
            if status != E_TIMEOUT:
                error = failure(status, self.path, "log")
                raise error
            if lib.pml_tail_control(self._tail) == ffi.NULL:
                time.sleep(min(left_ms / 1000, limits.WAIT_SLICE_S))
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def wait_beyond(self, lsn: int, timeout: float) -> bool:
        """Sleep until the log reaches beyond an LSN; other threads may use the reader meanwhile.

        Args:
            lsn: The LSN.
            timeout: How long, in seconds, up to half a second.

        Returns:
            Whether it does; False: the time is up.

        Raises:
            ClosedError: The reader is closed.
        """
        milliseconds = min(_WAIT_SLICE_MS, max(0, int(timeout * 1000)))
        status = lib.pml_tail_wait_beyond(self._open(), lsn, milliseconds)
        if status not in (0, E_TIMEOUT):
            error = failure(status, self.path, "log")
            raise error
        if status == E_TIMEOUT and lib.pml_tail_control(self._open()) == ffi.NULL:
            time.sleep(milliseconds / 1000)
        return bool(status == 0)

    # ---- what a shipper needs ------------------------------------------------------------------

    def identity(self) -> Identity:
        """Tell what a new copy of the pool needs to know.

        Returns:
            That.
        """
        out = ffi.new("struct pml_identity *")
        lib.pml_tail_identity(self._open(), out)
        return Identity(
            pool_id=UUID(bytes=bytes(ffi.buffer(out.pool_id))),
            created_ns=out.created_ns,
            ring_bytes=out.ring_bytes,
            hash_seed=(out.hash_seed[0], out.hash_seed[1]),
            image_bytes=self.mark().image_bytes,
        )

    def mark(self) -> Mark:
        """Read the checkpoint.

        Returns:
            That, as it is now.

        Raises:
            CorruptionError: Both of its copies are damaged.
        """
        out = ffi.new("struct pml_mark *")
        self._do(lib.pml_tail_mark(self._open(), out))
        return Mark(
            epoch=out.epoch,
            lsn=out.lsn_checkpoint,
            chain=out.chain,
            txn=out.txn,
            session=out.session,
            image_bytes=out.image_bytes,
        )

    @property
    def lsn_durable(self) -> int:
        """End of the durable log, as the writer has published it; 0: nobody has."""
        control = lib.pml_tail_control(self._open())
        return 0 if control == ffi.NULL else int(control.lsn_durable)

    @property
    def epoch(self) -> int:
        """Number of the present primaryship."""
        control = lib.pml_tail_control(self._open())
        return self.mark().epoch if control == ffi.NULL else int(control.epoch)

    @property
    def session(self) -> int:
        """Number of the writer's open; 0: one is about to recover the pool."""
        control = lib.pml_tail_control(self._open())
        return 0 if control == ffi.NULL else int(control.session)

    def publish(
        self, received: int, replicated: int, applied: int, bound: "Bound | None" = None
    ) -> None:
        """Tell the writer what its receivers have; a sign of life too.

        Args:
            received: What K receivers have in memory.
            replicated: What is durable at K receivers.
            applied: What is readable at K receivers.
            bound: How far the writer may run ahead of them; None: as far as it likes.

        Raises:
            ReadOnlyError: The pool's control file may not be written.
        """
        levels = ffi.new("uint64_t[3]", [received, replicated, applied])
        words = ffi.new("struct pml_bound *")
        if bound is not None:
            words.delay_ns = bound.delay_ns
            words.lsn_limit = bound.lsn_limit
            words.backlog_limit_bytes = bound.limit_bytes
        self._do(lib.pml_tail_publish(self._open(), levels, words))

    def freeze(self) -> None:
        """Let no transaction commit any more; on return the log's end is final.

        Raises:
            ReadOnlyError: The pool's control file may not be written.
            WaitTimeoutError: A commit that had begun does not end.
        """
        status = lib.pml_tail_freeze(self._open(), lib.PML_FROZEN_POWER, 0)
        self._do(status)

    def unfreeze(self) -> None:
        """Let transactions commit again."""
        self._do(lib.pml_tail_freeze(self._open(), lib.PML_FROZEN_NO, 0))

    def fence(self, epoch: int) -> None:
        """Let no transaction commit any more: another pool has taken over.

        Args:
            epoch: That pool's.
        """
        self._do(lib.pml_tail_freeze(self._open(), lib.PML_FROZEN_FENCED, epoch))

    def _do(self, status: int) -> None:
        if status:
            error = failure(status, self.path, "log")
            raise error

    # ---- who else ------------------------------------------------------------------------------

    @property
    def pool_id(self) -> UUID:
        """The pool's number, the same in every copy of it."""
        return self._header()[0]

    @property
    def ring_bytes(self) -> int:
        """Size of the log."""
        return self._header()[1]

    def _header(self) -> tuple[UUID, int]:
        number, ring = ffi.new("uint8_t[16]"), ffi.new("uint64_t *")
        lib.pml_tail_header(self._open(), number, ring)
        return UUID(bytes=bytes(ffi.buffer(number))), ring[0]

    def status(self) -> LogStatus | None:
        """Tell what the writer and other readers have said.

        Returns:
            That; None: nobody has written this copy yet.
        """
        control = lib.pml_tail_control(self._open())
        if control == ffi.NULL:
            return None
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = UUID(file.read().strip()).bytes
        return LogStatus(
            live=bytes(ffi.buffer(control.boot_id)) == boot,
            writer_pid=control.writer_pid or None,
            epoch=control.epoch,
            session=control.session >> lib.PML_SESSION_SHIFT,
            frozen=control.frozen == lib.PML_FROZEN_POWER,
            fenced_epoch=control.fenced_epoch if control.frozen == lib.PML_FROZEN_FENCED else None,
            lsn_durable=control.lsn_durable,
            lsn_checkpoint=control.lsn_checkpoint,
            lsn_closed=control.lsn_closed or None,
            consumers=tuple(_consumer(slot) for slot in control.slots if slot.name[0] != b"\0"),
            lsn_received=control.lsn_level[0],
            lsn_replicated=control.lsn_level[1],
            lsn_applied=control.lsn_level[2],
            bound=Bound(control.delay_ns, control.lsn_limit, control.backlog_limit_bytes),
            shipper_age_s=_age_s(control.shipper_beat_ns),
        )

    def claim(self, name: str, *, required: bool = False) -> "Consumer":
        """Take a consumer slot: the log from there on is kept until it is acknowledged.

        Unless it is required, it loses its place when the writer has no other room left: reading
        then raises `GapError`.

        A slot outlives its holder: claimed again by its name, it goes on where it was.
        A new one begins at this reader's position.

        Args:
            name: Its name, up to 31 bytes in UTF-8.
            required: Whether writers wait for it rather than overwrite what it needs.

        Returns:
            The slot.

        Raises:
            ConfigError: The name cannot be used, or all slots are taken.
            ReadOnlyError: The pool's control file may not be written.
        """
        data = name.encode()
        if not 0 < len(data) <= limits.CONSUMER_NAME_BYTES_MAX or b"\0" in data:
            raise ConfigError(
                f"{name!r} cannot be a consumer's name",
                hint=f"names have 1 to {limits.CONSUMER_NAME_BYTES_MAX} bytes",
            )
        number = lib.pml_slot_claim(self._open(), data, lib.PML_SLOT_REQUIRED if required else 0)
        if number < 0:
            error = failure(number, self.path, f"consumer {name!r}")
            raise error
        return Consumer(self, number, name)

    # ---- life ----------------------------------------------------------------------------------

    def _open(self) -> Any:
        if self._tail is None:
            raise ClosedError(f"{self.path}: the log reader is closed", path=self.path)
        return self._tail

    def close(self) -> None:
        """Close the reader; its consumer slots stay. Again is fine."""
        tail, self._tail = self._tail, None
        if tail is not None and os.getpid() == self._pid:
            lib.pml_tail_close(tail)

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
        self.close()


def take_mark(mark: Mark) -> Any:
    """Give the engine a mark.

    Args:
        mark: The mark.

    Returns:
        `struct pml_mark *`.
    """
    out = ffi.new("struct pml_mark *")
    out.epoch = mark.epoch
    out.lsn_checkpoint = mark.lsn
    out.chain = mark.chain
    out.txn = mark.txn
    out.session = mark.session
    out.image_bytes = mark.image_bytes
    return out


class Consumer:
    """A slot that keeps the log for one reader; made by `LogReader.claim`."""

    def __init__(self, reader: LogReader, number: int, name: str) -> None:
        self._reader = reader
        self._number = number
        self.name = name

    @property
    def lsn_acked(self) -> int:
        """What was acknowledged last: the log is kept from here on."""
        return int(lib.pml_tail_control(self._reader._open()).slots[self._number].lsn_acked)

    def ack(self, lsn: int) -> None:
        """Acknowledge: everything below is no longer needed.

        Args:
            lsn: Not below what was acknowledged before, nor beyond the log's end.

        Raises:
            UsageError: It is.
        """
        try:
            status = lib.pml_slot_ack(self._reader._open(), self._number, lsn)
        except OverflowError as error:
            raise UsageError(f"{self._reader.path}: {lsn} is no LSN") from error
        self._settle(status)

    def release(self) -> None:
        """Give the slot up: it keeps nothing any more.

        Raises:
            UsageError: It is given up already.
        """
        self._settle(lib.pml_slot_release(self._reader._open(), self._number))

    def _settle(self, status: int) -> None:
        if status:
            error = failure(status, self._reader.path, f"consumer {self.name!r}")
            raise error


def _age_s(beat_ns: int) -> float | None:
    age_ns = time.monotonic_ns() - beat_ns
    return age_ns / 1e9 if beat_ns and age_ns >= 0 else None  # one of an earlier boot may be later


def _consumer(slot: Any) -> ConsumerStatus:
    return ConsumerStatus(
        name=ffi.string(slot.name).decode(errors="replace"),
        lsn_acked=slot.lsn_acked,
        lsn_received=slot.lsn_received,
        lsn_applied=slot.lsn_applied,
        required=bool(slot.flags & lib.PML_SLOT_REQUIRED),
        pid=slot.pid or None,
    )
