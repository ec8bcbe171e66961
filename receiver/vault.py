"""Taking in a vault: the end of a log that no receiver got in time, or a whole pool.

Nothing of the replica is changed before the whole vault has been read and verified, and found to
continue it.  Then, in this order: the old seal is forgotten, the bytes are appended, each record
verified by its chain and durable, and the vault's seal is stored.  Killed in between, it is taken in
again from where the replica then ends.
"""

import contextlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pmlog import marks, vault, wire
from pmlog.errors import (
    ConfigError,
    FencedError,
    ForkError,
    GapError,
    NotPromotableError,
    PoolNotFoundError,
)
from pmlog.position import Position
from pmlog.replica import Replica
from receiver.baseline import finish
from receiver.promote import Sealing, sealing_of
from receiver.receiver import opened
from receiver.state import Seal, State


class Fit(Enum):
    """How a vault stands to a replica."""

    APPEND = "append"
    """The log goes on from where the replica's ends."""
    REBUILD = "rebuild"
    """The vault has all of the pool; the replica is made from it."""
    REFUSE_EMPTY = "refuse empty"
    """There is no replica, and the vault has the end of the log only."""
    REFUSE_GAP = "refuse gap"
    """The replica ends before the vault begins."""
    REFUSE_AHEAD = "refuse ahead"
    """The replica has more than the vault."""
    REFUSE_EPOCH = "refuse epoch"
    """The replica is of a later epoch."""
    REFUSE_INCOMPLETE = "refuse incomplete"
    """Blocks are missing in the replica, and the vault has none."""


def judge(place: Position | None, incomplete: bool, manifest: vault.Manifest) -> Fit:
    """Decide what becomes of a vault. Pure.

    Args:
        place: The end of the replica's log; None: there is no replica.
        incomplete: A baseline of it is under way.
        manifest: What the vault holds.

    Returns:
        That.
    """
    has_image = manifest.mark is not None
    if place is None:
        return Fit.REBUILD if has_image else Fit.REFUSE_EMPTY
    if place.epoch > manifest.end.epoch:
        return Fit.REFUSE_EPOCH
    if incomplete:
        return Fit.REBUILD if has_image else Fit.REFUSE_INCOMPLETE
    if place.lsn > manifest.end.lsn:
        return Fit.REFUSE_AHEAD
    if place.lsn >= manifest.first.lsn:
        return Fit.APPEND
    return Fit.REBUILD if has_image else Fit.REFUSE_GAP


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a vault."""

    place: wire.Place
    """The end of the replica's log, which is sealed there."""
    lsn_before: int
    """Where it ended before; 0: there was none."""
    log_bytes: int
    """That were appended."""
    blocks: int
    """That were stored."""


def take(folder: Path, pool_path: Path, source: Path) -> Taken:
    """Take in a vault.

    Args:
        folder: The receiver's; no receiver runs on it.
        pool_path: Its replica.
        source: The vault, or a folder with exactly one in it.

    Returns:
        What came of it: the replica is complete and sealed.

    Raises:
        ConfigError: It is of another pool.
        NotPromotableError: The replica was promoted already.
        PmlogError: It does not fit, or is damaged; nothing changed but whole records that were
            appended before a record that does not continue them was found.
    """
    reader = vault.VaultReader(vault.find(source))
    state = State(folder)
    if state.promotion is not None:
        raise NotPromotableError(f"{folder}: this replica was promoted already")
    replica: Replica | None = None
    with contextlib.suppress(PoolNotFoundError):
        replica = opened(pool_path, Replica)
    try:
        place = None if replica is None else replica.position
        if replica is not None and replica.pool_id != reader.manifest.identity.pool_id.bytes:
            raise ConfigError(
                f"{reader.path} is of pool {reader.manifest.identity.pool_id}, "
                f"{pool_path} is a copy of another one"
            )
        incomplete = replica is not None and replica.is_rebuilding
        fit = judge(place, incomplete, reader.manifest)
        if fit not in (Fit.APPEND, Fit.REBUILD):
            error = _refusal(fit, place, reader)
            raise error
        if place is not None and fit is Fit.APPEND:
            _must_be_same(place, reader.manifest)
        if replica is None:
            replica = Replica(pool_path, reader.manifest.identity)
        # Before the first byte: an application that opens it would go on in its primary's epoch.
        marks.become_replica(pool_path, replica.position.epoch)
        blocks = _rebuild(replica, state, reader) if fit is Fit.REBUILD else 0
        size = _append(replica, state, reader)
        return Taken(reader.manifest.end, 0 if place is None else place.lsn, size, blocks)
    finally:
        if replica is not None:
            replica.close()


def _must_be_same(place: Position, manifest: vault.Manifest) -> None:
    """Compare where both know the place; elsewhere the chain of the next record tells."""
    for other in (manifest.first, manifest.end):
        if place.lsn == other.lsn and (place.chain, place.txn) != (other.chain, other.txn):
            raise ForkError(f"the replica's log and the vault's differ before LSN {place.lsn}")


def _rebuild(replica: Replica, state: State, reader: vault.VaultReader) -> int:
    mark = reader.manifest.mark
    assert mark is not None
    # As a baseline: incomplete before the first block, whole once the log is applied.
    state.set_seal(None)
    marks.set_incomplete(replica.path, marks.Incomplete("baseline"))
    replica.prepare_baseline()
    blocks = 0
    for frame in reader.image():
        replica.store_block(frame.lsn, frame.data)
        blocks += 1
    replica.begin_baseline(mark)
    return blocks


def _append(replica: Replica, state: State, reader: vault.VaultReader) -> int:
    manifest = reader.manifest
    replica.restart()
    size = 0
    for frame in reader.log():
        skip = replica.lsn_next - frame.lsn
        if skip >= len(frame.data):
            continue
        if state.seal is not None:
            state.set_seal(None)  # before a byte beyond it
        data = memoryview(frame.data)[max(0, skip) :]
        for at in range(0, len(data), replica.append_bytes_max):
            piece = data[at : at + replica.append_bytes_max]
            replica.append(replica.lsn_next, piece)
        size += len(data)
    if sealing_of(manifest.end, replica.position) is not Sealing.COMPLETE:
        raise ForkError(
            f"the replica ends at {replica.position} and not where the vault does, LSN "
            f"{manifest.end.lsn}: it is not sealed"
        )
    if replica.is_rebuilding:
        finish(replica)
    state.set_seal(Seal(manifest.end))
    return size


def _refusal(fit: Fit, place: Position | None, reader: vault.VaultReader) -> Exception:
    first, end = reader.manifest.first.lsn, reader.manifest.end.lsn
    at = 0 if place is None else place.lsn
    if fit is Fit.REFUSE_EMPTY:
        return GapError(
            f"{reader.path} holds the log from LSN {first} on, and there is no replica here",
            hint="give the directory of a receiver whose log ends there or later",
        )
    if fit is Fit.REFUSE_INCOMPLETE:
        return GapError(
            f"the replica's baseline was cut short, and {reader.path} holds no image",
            hint="give the directory of another receiver",
        )
    if fit is Fit.REFUSE_GAP:
        return GapError(
            f"the replica ends at LSN {at}, {reader.path} begins at {first}",
            hint="give the directory of a receiver that is farther",
        )
    if fit is Fit.REFUSE_AHEAD:
        return ForkError(f"the replica ends at LSN {at}, beyond the vault's end {end}")
    epoch = 0 if place is None else place.epoch
    return FencedError(
        f"the replica is of epoch {epoch}, the vault of epoch {reader.manifest.end.epoch}: that is over"
    )
