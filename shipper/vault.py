"""Filling a vault: choosing what it has to hold, and writing that.

The pool is frozen: no byte of the ring is overwritten while it is read, whoever has pinned what.
Checkpoints may go on, so that blocks of the image are of different moments, at or after the mark;
as in a baseline, the log from the mark on makes them one.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pmlog import vault, wire
from pmlog.errors import GapError, PeerUnavailableError, PmlogError
from pmlog.identity import Mark
from pmlog.image import ImageReader, blocks_of
from pmlog.log import LogReader
from shipper import batcher
from shipper.power.decide import VAULT_BYTES_PER_S, VAULT_FIXED_S, VAULT_SHARE_MAX

PREFIX: Final = "vault:"
"""A vault's name among those that may hold the seal begins so."""
MARK_ATTEMPTS: Final = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What a vault is to hold."""

    lsn: int | None
    """The log from there on; None: the image too, and the log from the checkpoint on."""
    size_bytes: int
    """At most, before compression."""


def plans(
    whole: Iterable[int],
    partial: Iterable[int],
    *,
    end: int,
    checkpoint: int,
    image_bytes: int,
    seconds_left: float | None,
) -> list[Plan]:
    """Choose what the vault is to hold: the best first, then what to do if that cannot be read.

    Args:
        whole: Ends of the receivers' logs whose copies are known to be whole.
        partial: Those of the others.
        end: End of the log.
        checkpoint: The checkpoint's LSN.
        image_bytes: Size of the image.
        seconds_left: How long there is power; None: nobody knows.

    Returns:
        The log from the end of the receiver that is the farthest behind, as far as the time allows,
        so that any of them can go on from the vault. If none is known to be whole, everything.
    """

    def fits(plan: Plan) -> bool:
        if seconds_left is None:
            return True
        needed_s = VAULT_FIXED_S + plan.size_bytes / VAULT_BYTES_PER_S
        return needed_s <= seconds_left * VAULT_SHARE_MAX

    complete = Plan(None, image_bytes + max(0, end - checkpoint))
    tails = [Plan(lsn, end - lsn) for lsn in sorted(set(whole)) if lsn <= end]
    rests = [Plan(lsn, end - lsn) for lsn in sorted(set(partial), reverse=True) if lsn <= end]
    good = [plan for plan in tails if fits(plan)]
    # The shortest tail comes next, too long as it may be; beginning is better than doing nothing.
    late = [plan for plan in reversed(tails) if plan not in good]
    if fits(complete):
        return [*good, *late, complete, *rests]
    return [*good, *late, *rests, complete]


@dataclass(frozen=True, slots=True)
class Filled:
    """A vault that was written."""

    path: Path
    size_bytes: int
    """Of its files of frames."""
    lsn_first: int
    lsn_end: int
    has_image: bool


def fill(
    pool_path: str,
    parent: Path,
    choices: list[Plan],
    lsn_end: int,
    stop: threading.Event,
) -> Filled:
    """Write a vault, but for its seal.

    Args:
        pool_path: The pool, which is frozen.
        parent: Folder of the vaults.
        choices: What it may hold, the best first.
        lsn_end: Where the log ends at least.
        stop: Set when power is back: it is given up.

    Returns:
        What was written; it is no vault before `vault.seal`.

    Raises:
        PmlogError: The last of the choices failed too; nothing is left behind.
    """
    with LogReader(pool_path) as reader:
        identity = reader.identity()
        error: PmlogError = GapError(
            f"{pool_path}: the ring holds nothing that a vault may begin at"
        )
        for plan in choices:
            try:
                mark = _go_to(reader, plan)
                break
            except GapError as gap:
                error = gap  # a receiver that is not required and fell out of the ring
        else:
            raise error
        name = f"{identity.pool_id}-{reader.epoch}-{lsn_end}"
        if vault.is_sealed(parent / name):  # never replaced: it may be the only copy
            there = vault.VaultReader(parent / name).manifest
            has_image = there.mark is not None
            return Filled(parent / name, 0, there.first.lsn, there.end.lsn, has_image)
        writer = vault.VaultWriter(parent, name)
        try:
            return _write(writer, reader, mark, lsn_end, stop)
        except BaseException:
            writer.discard()
            raise


def _go_to(reader: LogReader, plan: Plan) -> Mark | None:
    if plan.lsn is not None:
        reader.seek(plan.lsn)
        return None
    for _ in range(MARK_ATTEMPTS):
        reader.seek(None)
        mark = reader.mark()
        if mark.lsn == reader.position.lsn:
            return mark
    raise GapError(f"{reader.path}: checkpoints come faster than the log can be read")


def _write(
    writer: vault.VaultWriter,
    reader: LogReader,
    mark: Mark | None,
    lsn_end: int,
    stop: threading.Event,
) -> Filled:
    identity, epoch, first = reader.identity(), reader.epoch, reader.position

    def pack(lsn: int, data: bytes | memoryview) -> bytes:
        if stop.is_set():
            raise PeerUnavailableError("power is back: the vault is not needed")
        return wire.encode_frame(identity.pool_id, epoch, lsn, data, wire.Codec.LZ4)

    def log() -> Iterator[bytes]:
        lsn = first.lsn
        while (run := reader.run()) is not None:
            for piece in batcher.pieces(run):
                yield pack(lsn, piece)
                lsn += len(piece)

    def image(size: int) -> Iterator[bytes]:
        with ImageReader(reader.path) as blocks:
            for offset, length in blocks_of(size):
                yield pack(offset, blocks.read_sound(offset, length))

    log_frames, size = writer.write("log", log())
    end = reader.position
    if end.lsn < lsn_end:
        raise GapError(f"{reader.path}: the log breaks at LSN {end.lsn}, before {lsn_end}")
    image_frames = 0
    if mark is not None:
        image_frames, image_size = writer.write("image", image(mark.image_bytes))
        size += image_size
    writer.finish(
        vault.Manifest(
            version=vault.VERSION,
            identity=identity,
            first=wire.Place(first.epoch, first.lsn, first.chain, first.txn),
            end=wire.Place(end.epoch, end.lsn, end.chain, end.txn),
            log_frames=log_frames,
            log_bytes=end.lsn - first.lsn,
            image_frames=image_frames,
            mark=mark,
        )
    )
    return Filled(writer.path, size, first.lsn, end.lsn, mark is not None)
