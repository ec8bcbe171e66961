"""A baseline as the receiver takes it: digests out, blocks in, and what is noted before and after.

Order of stores, and what a crash after each of them leaves:

    1  the pool is marked as a replica         nobody writes it but a receiver
    2  what the primary lacks is saved          the same, and a file beside the pool
    3  the pool is marked as incomplete         a pool that is refused; the next receiver or repair
                                                begins here, and compares blocks anew
    4  the primary's history of promotions      the same
    5  blocks, then log, as replica.c has it    the same
    6  the mark of 3 is removed                 a whole replica
"""

import logging
from collections.abc import Callable
from itertools import islice
from typing import Any

from aiohttp import ClientWebSocketResponse, WSMsgType

from pmlog import limits, marks, saved, wire
from pmlog.errors import PmlogError, ProtocolError
from pmlog.history import History, before
from pmlog.identity import Identity
from pmlog.image import ImageReader, blocks_of
from pmlog.log import LogReader
from pmlog.replica import Replica
from pmlog.threads import to_end
from receiver.config import IMAGE_BYTES_MAX
from receiver.hear import hear_any, hear_text, refused

_log = logging.getLogger("receiver")

Note = Callable[[int, int, int], None]
"""Told how far a baseline is: blocks that came, blocks compared, blocks in all."""


def accept(
    replica: Replica, answer: wire.Stream | wire.Baseline, *, repair: bool = False
) -> saved.Saved | None:
    """Note what a shipper's answer makes of the replica, before a byte is taken.

    Args:
        replica: The replica.
        answer: The answer.
        repair: A person has asked for it, and every record that is not known to be common is
            saved, also of a damaged log.

    Returns:
        What was saved of the log that is given up; None: nothing.

    Raises:
        PmlogError: A mark cannot be written, or the log that is given up not saved.
    """
    path = replica.path
    known = marks.history_of(path)
    if marks.become_replica(path, replica.position.epoch):
        _release_slots(path)
    kept = None
    if isinstance(answer, wire.Baseline):
        # What a baseline was begun on has been saved before; damage alone parts no history.
        if repair or answer.common is not None or not replica.is_rebuilding:
            ours = before(known.beginnings, replica.position.epoch)
            kept = saved.save(path, answer.identity, ours, answer.common)
        if kept is not None:
            _log.warning("%s: %d records that the primary lacks", kept.path, kept.records)
        marks.set_incomplete(path, marks.Incomplete("repair" if repair else "baseline"))
    marks.set_history(path, History(answer.history, max(known.heard, answer.epoch)))
    return kept


def _release_slots(path: str) -> None:
    """Let go of what the receivers of a former primary still hold of its log."""
    try:
        with LogReader(path) as reader:
            status = reader.status()
            for consumer in status.consumers if status is not None else ():
                reader.claim(consumer.name).release()
    except PmlogError as error:
        # A slot that stays may make the log seem full later; it is listed by `pmlog status`.
        _log.warning("%s: consumer slots stay: %s", path, error)


async def take_blocks(
    socket: ClientWebSocketResponse, replica: Replica, answer: wire.Baseline, note: Note
) -> int:
    """Make the replica's image that of the primary, as far as blocks can.

    Args:
        socket: The connection.
        replica: The replica; `accept` has noted what comes.
        answer: What the shipper said.
        note: Told how far it is.

    Returns:
        The LSN up to which the log has to be appended for the replica to be whole.

    Raises:
        ProtocolError: The shipper said or sent what it must not.
        PeerUnavailableError: It refused, or fell silent.
        PmlogError: The replica cannot be written.
    """
    await to_end(replica.prepare_baseline)
    with await to_end(ImageReader, replica.path) as image:
        blocks = blocks_of(answer.mark.image_bytes)
        total = -(-answer.mark.image_bytes // limits.BLOCK_BYTES)
        came = compared = 0
        while window := list(islice(blocks, limits.BLOCKS_PER_MESSAGE_MAX)):
            digests = await to_end(image.digests, window)
            await socket.send_bytes(digests)
            left = dict(window)
            while not await _take_one(socket, replica, answer.epoch, left, len(window)):
                came += 1
                note(came, compared, total)
            compared += len(window)
            note(came, compared, total)
    end = wire.decode_from_shipper(await hear_text(socket))
    if isinstance(end, wire.Refuse):
        error = refused(end)
        raise error
    if not isinstance(end, wire.BaselineEnd) or end.lsn < answer.mark.lsn:
        raise ProtocolError("a baseline without an end")
    await to_end(replica.begin_baseline, answer.mark)
    return end.lsn


async def _take_one(
    socket: ClientWebSocketResponse,
    replica: Replica,
    epoch: int,
    left: dict[int, int],
    window: int,
) -> bool:
    """Store the next block that differs; answer whether these were all."""
    message = await hear_any(socket)
    if message.type is WSMsgType.TEXT:
        said = wire.decode_from_shipper(message.data)
        if isinstance(said, wire.Refuse):
            error = refused(said)
            raise error
        if not isinstance(said, wire.BlocksDone) or said.blocks != window - len(left):
            raise ProtocolError("a baseline with something else in it")
        return True
    frame = wire.decode_frame(message.data)
    size: Any = left.pop(frame.lsn, None)
    if (frame.pool_id.bytes, frame.epoch, size) != (replica.pool_id, epoch, len(frame.data)):
        raise ProtocolError(f"a block at {frame.lsn} that was not asked for")
    await to_end(replica.store_block, frame.lsn, frame.data)
    return False


def check_mark(answer: wire.Baseline) -> None:
    """Refuse a baseline that cannot be, before anything is noted.

    Args:
        answer: What the shipper said.

    Raises:
        ProtocolError: Its figures make no sense.
    """
    mark = answer.mark
    if not 0 < mark.image_bytes <= IMAGE_BYTES_MAX or mark.lsn <= 0:
        raise ProtocolError(f"an image of {mark.image_bytes} bytes")
    if not (
        0 < mark.epoch <= answer.epoch
        and mark.lsn < 1 << 63
        and 0 <= mark.txn < 1 << 63
        and 0 <= mark.session < 1 << 63
        and 0 <= mark.chain < 1 << 32
    ):
        raise ProtocolError(f"a checkpoint that cannot be: {mark}")


def check_identity(identity: Identity) -> None:
    """Refuse a pool that cannot be, before a replica of it is made.

    Args:
        identity: What the shipper said.

    Raises:
        ProtocolError: Its figures make no sense.
    """
    if not (
        0 < identity.ring_bytes <= IMAGE_BYTES_MAX
        and 0 < identity.image_bytes <= IMAGE_BYTES_MAX
        and 0 <= identity.created_ns < 1 << 64
        and all(0 <= half < 1 << 64 for half in identity.hash_seed)
    ):
        raise ProtocolError(f"a pool that cannot be: {identity}")


def finish(replica: Replica) -> None:
    """Take the replica for whole, and note that; durable on return.

    Args:
        replica: The replica; its log was appended as far as the baseline asks.

    Raises:
        PmlogError: The log cannot be applied, or the mark not removed.
    """
    replica.finish_baseline()
    marks.set_incomplete(replica.path, None)
