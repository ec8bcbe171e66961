"""One connection to a shipper: hello, then the log, verified, appended, acknowledged.

What is acknowledged as durable was durable before; a connection that breaks at any point leaves
the replica at the end of its last whole record, and the next one begins exactly there.
"""

import asyncio
import logging
from collections.abc import Callable
from itertools import islice

from aiohttp import ClientWebSocketResponse, WSMessage, WSMsgType

from pmlog import limits, wire
from pmlog.errors import FencedError, PeerUnavailableError, ProtocolError
from pmlog.identity import Identity, Mark
from pmlog.image import ImageReader, blocks_of
from pmlog.logs import note
from pmlog.replica import Replica
from receiver.config import ANSWER_TIMEOUT_S, IMAGE_BYTES_MAX, SILENCE_S, Config
from receiver.promote import Sealing, sealing_of
from receiver.state import Incomplete, Seal, State

_log = logging.getLogger("receiver")


def place_of(replica: Replica) -> wire.Place:
    """Say where a replica's log ends.

    Args:
        replica: The replica.

    Returns:
        Its position, for the wire.
    """
    at = replica.position
    return wire.Place(at.epoch, at.lsn, at.chain, at.txn)


class Link:
    """A connection.

    Args:
        config: What the receiver was told.
        state: What it remembers.
        replica: Its replica; None: there is none yet.
        adopt: Takes a replica that this connection has made.
        open_replica: Makes it.
    """

    def __init__(
        self,
        config: Config,
        state: State,
        replica: Replica | None,
        adopt: Callable[[Replica], None],
        open_replica: Callable[..., Replica] = Replica,
    ) -> None:
        self.frames = 0
        self.blocks = 0
        """Of a baseline."""
        self.wire_bytes = 0
        self.raw_bytes = 0
        self.lsn_first = 0
        """Of the first byte that came."""
        self.lsn_primary = 0
        """End of the primary's log, as far as it has said."""
        self.saving = False
        """The primary has said that power is failing."""
        self.established = False
        self._config = config
        self._state = state
        self._replica = replica
        self._adopt = adopt
        self._open_replica = open_replica
        self._epoch = 0
        self._ack = asyncio.Event()

    async def run(self, socket: ClientWebSocketResponse) -> None:
        """Receive until the connection ends.

        Args:
            socket: The connection.

        Raises:
            ProtocolError: The shipper said or sent what it must not; nothing of that was taken.
            PeerUnavailableError: It refused, or fell silent.
            FencedError: It refused because its epoch is over.
        """
        await self._greet(socket)
        acks = asyncio.create_task(self._send_acks(socket), name="acknowledge")
        try:
            await self._receive(socket)
        finally:
            acks.cancel()
            await asyncio.gather(acks, return_exceptions=True)

    async def _greet(self, socket: ClientWebSocketResponse) -> None:
        config, replica = self._config, self._replica
        if replica is not None:
            replica.restart()
        place = None if replica is None else place_of(replica)
        incomplete = self._state.incomplete
        rebuild = incomplete is not None and not incomplete.lsn
        whole = incomplete.lsn if incomplete is not None else 0
        hello = wire.Hello(wire.VERSION, config.pool, config.name, place, rebuild, whole)
        await socket.send_str(wire.encode_message(hello))
        answer = await hear(socket)
        if not isinstance(answer, wire.Stream | wire.Baseline):
            raise ProtocolError(f"hello was answered by {type(answer).__name__}")
        if replica is not None and answer.epoch < replica.position.epoch:
            raise FencedError(
                f"the shipper's epoch {answer.epoch} is over: this replica is of epoch "
                f"{replica.position.epoch}"
            )
        replica = self._replica = await self._match(answer.identity)
        self._epoch = answer.epoch
        if isinstance(answer, wire.Baseline):
            self.established = True
            await self._rebuild(socket, replica, answer.mark)
            return
        if answer.lsn != replica.position.lsn:
            raise ProtocolError(
                f"the stream begins at LSN {answer.lsn}, the replica ends at {replica.position.lsn}"
            )
        self.established = True
        note(_log, "connected", epoch=self._epoch, lsn=answer.lsn)

    async def _match(self, identity: Identity) -> Replica:
        """Get the replica of that pool; make it if there is none."""
        if self._replica is None:
            made = await asyncio.to_thread(self._open_replica, self._config.pool_path, identity)
            self._adopt(made)
            return made
        if self._replica.pool_id != identity.pool_id.bytes:
            raise ProtocolError(f"the shipper serves pool {identity.pool_id}, not this one")
        return self._replica

    # ---- baseline ------------------------------------------------------------------------------

    async def _rebuild(self, socket: ClientWebSocketResponse, replica: Replica, mark: Mark) -> None:
        """Make the replica's image that of the primary, as far as blocks can."""
        if not 0 < mark.image_bytes <= IMAGE_BYTES_MAX:
            raise ProtocolError(f"an image of {mark.image_bytes} bytes")
        note(
            _log, "baseline started", epoch=self._epoch, lsn=mark.lsn, image_bytes=mark.image_bytes
        )
        await asyncio.to_thread(self._state.set_seal, None)
        await asyncio.to_thread(self._state.set_incomplete, Incomplete(0))
        await asyncio.to_thread(replica.prepare_baseline)
        with await asyncio.to_thread(ImageReader, replica.path) as image:
            blocks = blocks_of(mark.image_bytes)
            while window := list(islice(blocks, limits.BLOCKS_PER_MESSAGE_MAX)):
                digests = await asyncio.to_thread(image.digests, window)
                await socket.send_bytes(digests)
                await self._take_blocks(socket, replica, window)
        end = wire.decode_from_shipper(await _text(socket))
        if not isinstance(end, wire.BaselineEnd) or end.lsn < mark.lsn:
            raise ProtocolError("a baseline without an end")
        await asyncio.to_thread(replica.begin_baseline, mark)
        whole = None if end.lsn <= mark.lsn else Incomplete(end.lsn)
        await asyncio.to_thread(self._state.set_incomplete, whole)
        note(_log, "baseline finished", blocks=self.blocks, lsn=mark.lsn, whole_lsn=end.lsn)

    async def _take_blocks(
        self, socket: ClientWebSocketResponse, replica: Replica, window: list[tuple[int, int]]
    ) -> None:
        """Store the blocks that differ, until the shipper says that these were all."""
        left = dict(window)
        while True:
            message = await _message(socket)
            if message.type is WSMsgType.TEXT:
                said = wire.decode_from_shipper(message.data)
                if isinstance(said, wire.Refuse):
                    raise refused(said)
                if not isinstance(said, wire.BlocksDone) or said.blocks != len(window) - len(left):
                    raise ProtocolError("a baseline with something else in it")
                return
            frame = wire.decode_frame(message.data)
            if (
                frame.pool_id.bytes != replica.pool_id
                or frame.epoch != self._epoch
                or left.pop(frame.lsn, None) != len(frame.data)
            ):
                raise ProtocolError(f"a block at {frame.lsn} that was not asked for")
            await asyncio.to_thread(replica.store_block, frame.lsn, frame.data)
            self.blocks += 1

    # ---- receiving -----------------------------------------------------------------------------

    async def _receive(self, socket: ClientWebSocketResponse) -> None:
        while True:  # until the connection ends
            try:
                message = await socket.receive(timeout=SILENCE_S)
            except TimeoutError:
                raise PeerUnavailableError(f"silence for {SILENCE_S:.0f} s") from None
            if message.type is WSMsgType.BINARY:
                await self._take(message.data)
            elif message.type is WSMsgType.TEXT:
                await self._heed(wire.decode_from_shipper(message.data))
            elif message.type is WSMsgType.ERROR:
                raise ProtocolError(f"what came is no message: {message.data}")
            else:
                raise PeerUnavailableError("the connection has ended")

    async def _take(self, message: bytes) -> None:
        replica = self._replica
        assert replica is not None
        frame = wire.decode_frame(message)
        if frame.pool_id.bytes != replica.pool_id or frame.epoch != self._epoch:
            raise ProtocolError("a frame of another pool or epoch")
        if frame.lsn != replica.lsn_next:
            raise ProtocolError(f"a frame at LSN {frame.lsn}, not {replica.lsn_next}")
        if self._state.seal is not None:
            # The primary goes on, so the seal is not true any more.
            await asyncio.to_thread(self._state.set_seal, None)
        if replica.is_durable_at_append:
            self._append(replica, frame)
        else:
            await asyncio.to_thread(self._append, replica, frame)
        incomplete = self._state.incomplete
        if incomplete is not None and replica.position.lsn >= incomplete.lsn:
            await asyncio.to_thread(self._state.set_incomplete, None)
        if not self.frames:
            self.lsn_first = frame.lsn
        self.frames += 1
        self.wire_bytes += len(message)
        self.raw_bytes += len(frame.data)
        self.lsn_primary = max(self.lsn_primary, replica.lsn_next)
        self._ack.set()

    def _append(self, replica: Replica, frame: wire.Frame) -> None:
        data = memoryview(frame.data)
        for at in range(0, len(data), replica.append_bytes_max):
            replica.append(frame.lsn + at, data[at : at + replica.append_bytes_max])

    async def _heed(self, message: wire.FromShipper) -> None:
        if isinstance(message, wire.Heartbeat):
            self.lsn_primary = max(self.lsn_primary, message.lsn)
        elif isinstance(message, wire.SaveStarted):
            self.saving = True
            note(_log, "primary saves its log", level=logging.WARNING)
        elif isinstance(message, wire.Sealed):
            await self._seal(message.place)
        elif isinstance(message, wire.Unsealed):
            self.saving = False
            await asyncio.to_thread(self._state.set_seal, None)
            self._ack.set()
        elif isinstance(message, wire.Refuse):
            raise refused(message)
        else:
            raise ProtocolError(f"a {type(message).__name__} in the middle of a stream")

    async def _seal(self, place: wire.Place) -> None:
        replica = self._replica
        assert replica is not None
        if sealing_of(place, replica.position) is not Sealing.COMPLETE:
            raise ProtocolError(f"sealed at LSN {place.lsn}, but the log ends elsewhere here")
        await asyncio.to_thread(self._state.set_seal, Seal(place))
        note(_log, "sealed", epoch=place.epoch, lsn=place.lsn, txn=place.txn)
        self._ack.set()

    async def _send_acks(self, socket: ClientWebSocketResponse) -> None:
        replica = self._replica
        assert replica is not None
        self._ack.set()
        while True:  # until it is cancelled, with the connection
            await self._ack.wait()
            self._ack.clear()
            durable = replica.position.lsn
            # Appending publishes the log to readers, and the replica's records are in order: what
            # is durable is readable.
            ack = wire.Ack(
                received=max(replica.lsn_next, durable),
                durable=durable,
                applied=durable,
                sealed=self._state.seal is not None,
            )
            await socket.send_str(wire.encode_message(ack))


def refused(message: wire.Refuse) -> Exception:
    """Make the error for a refusal.

    Args:
        message: The refusal.

    Returns:
        The error, to be raised.
    """
    text = f"the shipper refused: {message.reason} ({message.code})"
    return FencedError(text) if message.code == "fenced" else PeerUnavailableError(text)


async def hear(socket: ClientWebSocketResponse) -> wire.FromShipper:
    """Wait for a shipper's answer to hello.

    Args:
        socket: The connection.

    Returns:
        The answer.

    Raises:
        FencedError: It refuses because its epoch is over.
        PeerUnavailableError: It refuses, or says nothing.
        ProtocolError: It says what is no message.
    """
    answer = wire.decode_from_shipper(await _text(socket))
    if isinstance(answer, wire.Refuse):
        error = refused(answer)
        raise error
    return answer


async def _text(socket: ClientWebSocketResponse) -> str:
    message = await _message(socket)
    if message.type is not WSMsgType.TEXT:
        raise ProtocolError("bytes in place of a message")
    return str(message.data)


async def _message(socket: ClientWebSocketResponse) -> WSMessage:
    try:
        message = await socket.receive(timeout=ANSWER_TIMEOUT_S)
    except TimeoutError:
        raise PeerUnavailableError("no answer") from None
    if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
        raise PeerUnavailableError("the connection has ended")
    return message
