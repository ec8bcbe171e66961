"""One connection to a shipper: hello, then the log, verified, appended, acknowledged.

What is acknowledged as durable was durable before; a connection that breaks at any point leaves
the replica at the end of its last whole record, and the next one begins exactly there.
"""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import ClientWebSocketResponse, WSMsgType

from pmlog import wire
from pmlog.errors import FencedError, PeerUnavailableError, ProtocolError
from pmlog.identity import Identity
from pmlog.replica import Replica
from receiver.config import SILENCE_S, Config
from receiver.promote import Sealing, sealing_of
from receiver.state import Seal, State

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
    """

    def __init__(
        self,
        config: Config,
        state: State,
        replica: Replica | None,
        adopt: Callable[[Replica], None],
    ) -> None:
        self.frames = 0
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
        hello = wire.Hello(wire.VERSION, config.pool, config.name, place)
        await socket.send_str(wire.encode_message(hello))
        answer = await hear(socket)
        if not isinstance(answer, wire.Stream):
            raise ProtocolError(f"hello was answered by {type(answer).__name__}")
        if replica is not None and answer.epoch < replica.position.epoch:
            raise FencedError(
                f"the shipper's epoch {answer.epoch} is over: this replica is of epoch "
                f"{replica.position.epoch}"
            )
        replica = await self._match(answer.identity)
        if answer.lsn != replica.position.lsn:
            raise ProtocolError(
                f"the stream begins at LSN {answer.lsn}, the replica ends at "
                f"{replica.position.lsn}"
            )
        self._replica = replica
        self._epoch = answer.epoch
        self.established = True

    async def _match(self, identity: Identity) -> Replica:
        """Get the replica of that pool; make it if there is none."""
        if self._replica is None:
            made = await asyncio.to_thread(Replica, self._config.pool_path, identity)
            self._adopt(made)
            return made
        if self._replica.pool_id != identity.pool_id.bytes:
            raise ProtocolError(f"the shipper serves pool {identity.pool_id}, not this one")
        return self._replica

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
        raise refused(answer)
    return answer


async def _text(socket: ClientWebSocketResponse) -> str:
    try:
        message = await socket.receive(timeout=SILENCE_S)
    except TimeoutError:
        raise PeerUnavailableError("no answer to hello") from None
    if message.type is not WSMsgType.TEXT:
        raise PeerUnavailableError("the connection has ended")
    return str(message.data)
