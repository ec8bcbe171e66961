"""The repair of one copy: a connection that compares blocks, takes the log, and ends.

It is for copies that a receiver would not touch: damaged ones that are no replica's, and diverged
ones. Nothing of the copy is changed, not even the words by which a writer is known, before the
shipper has answered and its pool is this one. Until then the copy is only read, and what is found
is judged by the copy's own checksums.

Order of stores: the copy's lock is taken; a receiver's seal beside it is forgotten; then as
`baseline.py` has it. Cut short anywhere, the copy is as it was, or refused as incomplete and
repaired by the same command again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from pmlog import marks, saved, wire
from pmlog.check import Fault, check
from pmlog.errors import PeerUnavailableError, PmlogError, ProtocolError
from pmlog.headers import identity_of
from pmlog.history import before
from pmlog.identity import Identity
from pmlog.log import LogReader
from pmlog.position import Position
from pmlog.replica import Replica
from pmlog.threads import to_end
from receiver.baseline import accept
from receiver.config import Config
from receiver.link import Link
from receiver.receiver import dialled
from receiver.state import State

AGAIN: Final = "the copy is incomplete now: run the same command again, it goes on by digests"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a repair is."""

    compared: int
    """Blocks."""
    total: int
    """Blocks; 0: it has not begun."""
    fetched: int
    """Blocks."""
    log_bytes: int


@dataclass(frozen=True, slots=True)
class Repaired:
    """What came of a repair."""

    path: Path
    position: Position
    """The end of its log."""
    blocks_compared: int
    blocks_fetched: int
    block_bytes: int
    """Of those that were fetched."""
    log_bytes: int
    saved: saved.Saved | None
    """What its own log had that the primary lacks, or may lack."""
    faults: tuple[Fault, ...]
    """What the checker finds now."""


Note = Callable[[Progress], None]
"""Told how far a repair is."""


def repair(config: Config, lsn_end: int, note: Note) -> Repaired:
    """Make a copy that nobody has open the same as its primary, and check it.

    It is a replica afterwards, up to the end of the primary's log as it was when the repair began,
    or later; durable on return.

    Args:
        config: The one shipper, the pool's number, and as `replica` the copy's folder.
        lsn_end: The end of the primary's log now.
        note: Told how far it is.

    Returns:
        What came of it.

    Raises:
        PoolNotFoundError: There is no pool.
        PoolLockedError: Another process has it open.
        PeerUnavailableError: The shipper cannot be reached, refuses, or fell silent.
        FencedError: The shipper's epoch is over.
        ProtocolError: It ships another pool, or said what it must not.
        PmlogError: The copy cannot be read or written.
    """
    link = RepairLink(config, lsn_end, note)
    try:
        asyncio.run(_connect(config, link))
    finally:
        link.close()
    return Repaired(
        config.pool_path,
        link.position,
        link.compared,
        link.blocks,
        link.block_bytes,
        link.raw_bytes,
        link.saved,
        tuple(check(config.pool_path)),
    )


async def _connect(config: Config, link: "RepairLink") -> None:
    (source,) = config.sources
    try:
        async with dialled(config) as dial, dial(source) as socket:
            await link.run(socket)
    except PmlogError as error:
        if link.has_begun and isinstance(error, PeerUnavailableError):
            raise PeerUnavailableError(f"{source}: {error.message}", hint=AGAIN) from error
        raise
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise PeerUnavailableError(
            f"{source}: {reason}", hint=AGAIN if link.has_begun else None
        ) from error


class RepairLink(Link):
    """The connection of a repair.

    Args:
        config: As for `repair`.
        lsn_end: Where it may end.
        note: Told how far it is.

    Raises:
        PmlogError: The copy's header or a mark beside it cannot be read.
    """

    def __init__(self, config: Config, lsn_end: int, note: Note) -> None:
        path = config.pool_path
        self._own = identity_of(path)
        super().__init__(config, State(_folder_of(path)), None, self._adopt_one)
        self._lsn_end = lsn_end
        self._tell = note
        self._copy: _Copy | None = None
        self.position = Position(0, 0, 0, 0)
        """Where the copy's log ends, once it was closed."""
        self.block_bytes = 0

    @property
    def has_begun(self) -> bool:
        """Whether the copy may have been changed."""
        return self._copy is not None

    def _adopt_one(self, replica: Replica) -> None:
        del replica  # `_match` keeps it

    def _hello(self) -> wire.Hello:
        history = marks.history_of(self._config.pool_path)
        place = place_of(self._config.pool_path, self._own)
        epoch = place.epoch if place is not None else history.heard
        return wire.Hello(
            wire.VERSION,
            self._config.pool,
            self._config.name,
            place,
            rebuild=True,
            heard=max(history.heard, epoch),
            history=before(history.beginnings, epoch),
        )

    async def _match(self, identity: Identity) -> Replica:
        own = self._own
        same = (identity.created_ns, identity.ring_bytes, identity.hash_seed) == (
            own.created_ns, own.ring_bytes, own.hash_seed,
        )  # fmt: skip
        if identity.pool_id != own.pool_id or not same:
            raise ProtocolError(
                f"the shipper serves pool {identity.pool_id}, this is {own.pool_id}"
            )
        self._copy = await to_end(_Copy, self._config.pool_path, rebuild=True)
        return self._copy

    def _accept(self, replica: Replica, answer: wire.Stream | wire.Baseline) -> saved.Saved | None:
        return accept(replica, answer, repair=True)

    async def _seal(self, place: wire.Place) -> None:
        # Power fails there: what the copy has, it has, but no receiver runs on it that could give
        # a seal back.
        del place

    def _note(self, blocks: int, compared: int, total: int) -> None:
        super()._note(blocks, compared, total)
        self._tell(Progress(compared, total, blocks, 0))

    def _is_done(self) -> bool:
        copy = self._copy
        assert copy is not None
        self._tell(Progress(self.compared, self.total, self.blocks, self.raw_bytes))
        return not copy.is_rebuilding and copy.position.lsn >= self._lsn_end

    def close(self) -> None:
        """Close the copy, whole or not. Again is fine.

        Raises:
            MediumError: Writing failed.
        """
        if self._copy is not None:
            self.position = self._copy.position
            self.block_bytes = self._copy.block_bytes
            self._copy.close()


class _Copy(Replica):
    """Counts what it is given."""

    block_bytes = 0

    def store_block(self, offset: int, data: bytes | memoryview) -> None:
        super().store_block(offset, data)
        self.block_bytes += len(data)


def _folder_of(path: Path) -> Path:
    """Find the folder with a receiver's marks: a seal there is no longer true of a repaired copy.

    A pool of an application has no such folder; its own takes the place, and no mark is there.

    Args:
        path: The copy's folder.

    Returns:
        The folder.
    """
    beside = path.absolute().parent
    is_receivers = path.name == "pool" and any(
        (beside / name).exists() for name in ("seal", "promotion")
    )
    return beside if is_receivers else path


def place_of(path: Path, identity: Identity) -> wire.Place | None:
    """Find out where the log of a copy ends, damaged as it may be; nothing is changed.

    A place vouches for all that lies before it, because the checksums of records are a chain. So
    the last sound record tells a shipper how much of a damaged log it has too, and need not be
    saved.

    Args:
        path: The copy's folder.
        identity: What its header says.

    Returns:
        The place; None: there is not a record.

    Raises:
        MediumError: The log's file cannot be read.
    """
    try:
        with LogReader(path) as reader:
            while reader.run() is not None:
                pass
            at = reader.position
    except PmlogError:  # damaged, or a copy without marks
        last = None
        for record in saved.sound_records(path, identity, 0):
            last = record
        if last is None:
            return None
        at = last.position
    return wire.Place(at.epoch, at.lsn, at.chain, at.txn)
