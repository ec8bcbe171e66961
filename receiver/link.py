"""One connection to a shipper: hello, then the log, verified, appended, acknowledged.

What is acknowledged as durable was durable before; a connection that breaks at any point leaves
the replica at the end of its last whole record, and the next one begins exactly there.
"""

import asyncio
import logging
from collections.abc import Callable
from uuid import UUID

from aiohttp import ClientWebSocketResponse, WSMsgType

from pmlog import marks, wire
from pmlog.errors import CorruptionError, FencedError, PeerUnavailableError, ProtocolError
from pmlog.history import History, before, must_make_sense
from pmlog.identity import Identity
from pmlog.logs import note
from pmlog.replica import Replica
from pmlog.saved import Saved
from pmlog.threads import to_end
from receiver.baseline import accept, check_identity, check_mark, finish, take_blocks
from receiver.config import SILENCE_S, Config
from receiver.hear import hear, refused
from receiver.promote import Sealing, sealing_of
from receiver.state import Seal, State

_log = logging.getLogger("receiver")


def hello_of(
    pool: str, name: str, replica: Replica | None, history: History, *, repair: bool = False
) -> wire.Hello:
    """Say who a receiver is and what it has.

    Args:
        pool: The pool's number, or any.
        name: The receiver's.
        replica: Its replica; None: there is none yet.
        history: What it knows of promotions.
        repair: Whether blocks are to be compared, whatever the log says.

    Returns:
        The first message of a connection.
    """
    if replica is None:
        return wire.Hello(wire.VERSION, pool, name, heard=history.heard)
    # Not "any": whoever serves another pool must not take this one's epochs for those of his own.
    pool = str(UUID(bytes=replica.pool_id))
    rebuild = replica.is_rebuilding
    epoch = history.heard if rebuild else replica.position.epoch
    return wire.Hello(
        wire.VERSION,
        pool,
        name,
        None if rebuild else replica.place,
        rebuild or repair,
        heard=max(history.heard, replica.position.epoch),
        history=before(history.beginnings, epoch),
    )


def check_answer(answer: wire.FromShipper, heard: int) -> wire.Stream | wire.Baseline:
    """Check an answer to hello, before anything of it is noted.

    Args:
        answer: What the shipper said.
        heard: The latest epoch that the receiver has heard of.

    Returns:
        The answer.

    Raises:
        ProtocolError: It is none, or its figures make no sense.
        FencedError: The shipper's epoch is over.
    """
    if not isinstance(answer, wire.Stream | wire.Baseline):
        raise ProtocolError(f"hello was answered by {type(answer).__name__}")
    if answer.epoch < heard:
        raise FencedError(
            f"the shipper's epoch {answer.epoch} is over: this receiver has heard of epoch {heard}"
        )
    if answer.epoch >= 1 << 32:
        raise ProtocolError(f"a shipper of epoch {answer.epoch}")
    must_make_sense(answer.history, answer.epoch)
    check_identity(answer.identity)
    if isinstance(answer, wire.Baseline):
        check_mark(answer)
    return answer


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
        """Of a baseline: so many came."""
        self.compared = 0
        """So many were compared."""
        self.total = 0
        """So many are to be compared."""
        self.saved: Saved | None = None
        """What this replica's log had that the primary lacks."""
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
        self._whole_lsn = 0
        """In a baseline: where the replica is whole."""
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
        if self._replica is not None:
            self._replica.restart()
        hello = await to_end(self._hello)
        await socket.send_str(wire.encode_message(hello))
        answer = check_answer(await hear(socket), hello.heard)
        replica = self._replica = await self._match(answer.identity)
        self._epoch = answer.epoch
        is_stream = isinstance(answer, wire.Stream)
        if isinstance(answer, wire.Stream) and (
            answer.lsn != replica.position.lsn or replica.is_rebuilding
        ):
            raise ProtocolError(
                f"the stream begins at LSN {answer.lsn}, the replica ends at {replica.position.lsn}"
            )
        seal = self._state.seal
        if not is_stream or (seal is not None and seal.place.epoch < answer.epoch):
            # A seal says nothing of a later epoch, which may have committed more.
            await to_end(self._state.set_seal, None)
        self.saved = await to_end(self._accept, replica, answer)
        self.established = True
        if isinstance(answer, wire.Stream):
            note(_log, "connected", epoch=self._epoch, lsn=answer.lsn)
            return
        mark = answer.mark
        note(
            _log, "baseline started", epoch=self._epoch, lsn=mark.lsn, image_bytes=mark.image_bytes
        )
        self._whole_lsn = await take_blocks(socket, replica, answer, self._note)
        note(_log, "baseline finished", blocks=self.blocks, lsn=mark.lsn, whole_lsn=self._whole_lsn)
        await self._finish_if_whole(replica)

    def _hello(self) -> wire.Hello:
        history = marks.history_of(self._config.pool_path)
        return hello_of(self._config.pool, self._config.name, self._replica, history)

    def _accept(self, replica: Replica, answer: wire.Stream | wire.Baseline) -> Saved | None:
        return accept(replica, answer)

    def _is_done(self) -> bool:
        """Whether the connection has served its purpose; a receiver's never has."""
        return False

    def _note(self, blocks: int, compared: int, total: int) -> None:
        self.blocks, self.compared, self.total = blocks, compared, total

    async def _finish_if_whole(self, replica: Replica) -> None:
        if replica.is_rebuilding and replica.position.lsn >= self._whole_lsn:
            await to_end(finish, replica)

    async def _match(self, identity: Identity) -> Replica:
        """Get the replica of that pool; make it if there is none."""
        if self._replica is None:
            made = await to_end(self._open_replica, self._config.pool_path, identity)
            self._adopt(made)
            return made
        if self._replica.pool_id != identity.pool_id.bytes:
            raise ProtocolError(f"the shipper serves pool {identity.pool_id}, not this one")
        return self._replica

    # ---- receiving -----------------------------------------------------------------------------

    async def _receive(self, socket: ClientWebSocketResponse) -> None:
        while not self._is_done():  # or until the connection ends
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
            await to_end(self._state.set_seal, None)
        if replica.is_durable_at_append:
            self._append(replica, frame)
        else:
            await to_end(self._append, replica, frame)
        await self._finish_if_whole(replica)
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
            if self._replica is not None and await to_end(_is_poisoned, self._replica):
                # Nothing comes that would tell: an idle replica looks now and then.
                raise CorruptionError("the replica has failed; it is opened again")
        elif isinstance(message, wire.SaveStarted):
            self.saving = True
            note(_log, "primary saves its log", level=logging.WARNING)
        elif isinstance(message, wire.Sealed):
            await self._seal(message.place)
        elif isinstance(message, wire.Unsealed):
            self.saving = False
            await to_end(self._state.set_seal, None)
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
        await to_end(self._state.set_seal, Seal(place))
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


def _is_poisoned(replica: Replica) -> bool:
    return replica.is_poisoned
