"""One receiver's connection: hello, then the log from where the receiver's ends.

Two tasks: one sends, one listens to acknowledgements.
Between them stands only what was acknowledged; the log itself is the queue, so a slow receiver
costs no memory here.
"""

import asyncio
import contextlib
import logging
from itertools import islice

import xxhash
from aiohttp import WSMsgType, web

from pmlog import limits, marks, wire
from pmlog.errors import GapError, PeerUnavailableError, PmlogError, ProtocolError
from pmlog.history import Beginnings, History, before, must_make_sense, parting
from pmlog.image import ImageReader, blocks_of
from pmlog.log import Consumer, LogReader
from pmlog.logs import note
from shipper import batcher
from shipper.config import HELLO_TIMEOUT_S, IN_FLIGHT_BYTES_MAX, SEND_TIMEOUT_S
from shipper.levels import Progress
from shipper.shared import SessionFigures, SharedPool

_log = logging.getLogger("shipper")

LSN_FIRST = 4096
LSN_NEVER = (1 << 64) - 1
PIN_ATTEMPTS = 100
PARK_STEP_S = 0.1
FIND_ATTEMPTS = 3
"""A writer that laps the ring while a place is looked for does not do so time and again."""
LOOKS = 12
"""After an acknowledgement, some ten microseconds each: as long as a writer takes to wake up."""
GATHER_S = 0.0005
STALL_S = 10.0
"""A receiver that lacks something and acknowledges nothing for so long is disconnected."""


class Session:
    """A connection to one receiver.

    Args:
        pool: What it gets.
        socket: The connection.
        hello: What the receiver said first.
    """

    def __init__(self, pool: SharedPool, socket: web.WebSocketResponse, hello: wire.Hello) -> None:
        self.pool = pool
        self.name = hello.name
        self.figures = SessionFigures()
        self.sealed = False
        """The receiver has the seal."""
        self.lsn_next = 0
        """Of the next byte to send."""
        self.lsn_pinned = 0
        """From here on the log is kept for the receiver; below it may be overwritten."""
        self._socket = socket
        self._hello = hello
        self._reader: LogReader | None = None
        self._consumer: Consumer | None = None
        self._changed = asyncio.Event()
        self._reason: str | None = None
        self._seal_sent = False
        self._unseal_sent = False
        """A seal that the receiver had was taken back, and it has not answered yet."""
        self._save_told = False
        self._rates = batcher.Rates()
        self._acked_at = pool.clock()
        self._beat_due = False
        self._looks = 0
        """How often the log is looked at before anybody is asked to tell of more."""
        self._has_gathered = False
        """Since the last frame an acknowledgement was waited for."""
        self.whole_lsn = hello.whole
        """From where on what the receiver has is of use; until then no level counts it."""
        self.may_hold_seal = False
        """It was sent the seal and has not yet said that it has it."""
        self.has_spoken = False
        """It has acknowledged something on this connection."""
        self.is_answering = False
        """It does what a receiver does: asks for blocks, or acknowledges what it was sent."""
        self._epoch = 0
        self._session = 0
        """Of the control words, as a baseline began."""
        self._history: Beginnings = ()
        self._common: int | None = None
        self._baseline_bytes = 0
        """Size of the image that is to be compared first; 0: none is."""

    @property
    def is_whole(self) -> bool:
        """Whether the receiver's copy is whole, by its own word: no baseline is under way."""
        return self.pool.is_whole(self.name)

    @property
    def has_all(self) -> bool:
        """Whether the receiver has all of the frozen log, and this seal, not that of an earlier freeze."""
        is_sealed = self._seal_sent and self.sealed and not self.may_hold_seal
        return is_sealed and not self.lacks_bytes and self.is_whole

    @property
    def is_free(self) -> bool:
        """Whether the receiver holds no seal, and none is on its way there."""
        return self.has_spoken and not self.sealed and not self.may_hold_seal

    @property
    def lacks_bytes(self) -> int:
        """What of the frozen log is not durable at the receiver."""
        return max(0, (self.pool.seal_lsn or 0) - self.progress.durable)

    @property
    def progress(self) -> Progress:
        """What the receiver has."""
        return self.pool.progress.get(self.name, Progress())

    def wake(self) -> None:
        """Let the sender look again at what there is to do."""
        self._changed.set()

    def beat(self) -> None:
        """Have a sign of life sent; end a connection on which nothing moves."""
        behind = self.lsn_next > self.progress.received or self.may_hold_seal or self._unseal_sent
        if behind and self.pool.clock() - self._acked_at > STALL_S:
            self.end(f"no acknowledgement for {STALL_S:.0f} s")
        self._beat_due = True
        self.wake()

    def end(self, reason: str) -> None:
        """End the connection soon.

        Args:
            reason: Why; the receiver is told.
        """
        self._reason = self._reason or reason
        self.wake()

    # ---- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the receiver until either side ends the connection."""
        farewell: wire.Refuse | None = None
        gone = "the receiver has closed it"
        try:
            history = await asyncio.to_thread(_history_of, self.pool.path)
            answer = self._begin(history)
            if isinstance(answer, wire.Refuse):
                farewell = answer
            else:
                note(_log, "receiver connected", receiver=self.name, lsn=self.lsn_next)
                await self._say(answer)
                await self._serve()
        except PmlogError as error:
            farewell = wire.Refuse("ended", str(error))
        except (ConnectionError, TimeoutError) as error:
            gone = str(error) or type(error).__name__  # it dials again
        finally:
            self.pool.leave(self)
            self._close_reader()
        if farewell is None and self._reason is not None:
            farewell = wire.Refuse("ended", self._reason)
        note(
            _log, "receiver disconnected", receiver=self.name, lsn=self.progress.durable,
            reason=gone if farewell is None else farewell.reason,
        )  # fmt: skip
        if farewell is not None:
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._say(farewell)

    async def _serve(self) -> None:
        if self._baseline_bytes:
            note(_log, "baseline started", receiver=self.name, lsn=self.lsn_next)
            await self._send_baseline()
            note(
                _log, "baseline finished", receiver=self.name, blocks=self.figures.blocks,
                whole_lsn=self.whole_lsn,
            )  # fmt: skip
        listener = asyncio.create_task(self._listen(), name=f"listen to {self.name}")
        sender = asyncio.create_task(self._send(), name=f"send to {self.name}")
        tasks = (listener, sender)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()

    async def _say(self, message: wire.Message) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await self._socket.send_str(wire.encode_message(message))

    # ---- hello ---------------------------------------------------------------------------------

    def _begin(self, history: History) -> wire.Message:
        pool, hello = self.pool, self._hello
        reader = self._reader = LogReader(pool.path)
        epoch = self._epoch = reader.epoch
        place = hello.place
        later = max(place.epoch if place else 0, hello.heard, pool.fenced_epoch or 0)
        self._history = before(history.beginnings, epoch)
        parted = parting(self._history, hello.history)
        found = find(reader, place, parted)
        answer = wire.answer_hello(
            version=hello.version == wire.VERSION,
            pool=hello.pool in ("any", pool.id),
            later_epoch=later > epoch,
            earlier_epoch=place is not None and place.epoch < epoch,
            found=wire.Found.BROKEN if hello.rebuild else found,
        )
        if answer is wire.Answer.REFUSE_FENCED:
            pool.fence(later)
            return wire.Refuse("fenced", f"epoch {epoch} is over: epoch {later} has taken over")
        if answer is wire.Answer.REFUSE_VERSION:
            return wire.Refuse("version", f"this shipper speaks version {wire.VERSION}")
        if answer is wire.Answer.REFUSE_POOL:
            return wire.Refuse("pool", f"this is pool {pool.id}")
        if answer is wire.Answer.REFUSE_DIVERGED:
            return wire.Refuse(
                "diverged",
                "the receiver's log is not the beginning of this one, and no promotion says why",
            )
        self._common = common_lsn(found, place, parted, is_trusted=not hello.rebuild)
        if answer is wire.Answer.BASELINE:
            return self._begin_baseline(reader, epoch)
        self.lsn_next = reader.position.lsn
        try:
            self._claim(reader)
        except GapError:
            if not self._claim_ahead(reader):
                return self._begin_baseline(reader, epoch)
        pool.join(self, self.lsn_next)
        return wire.Stream(self.lsn_next, epoch, reader.identity(), self._history)

    def _begin_baseline(self, reader: LogReader, epoch: int) -> wire.Message:
        """Pin the log from the checkpoint on: from there it is applied to the blocks."""
        self._session = reader.session
        for _ in range(PIN_ATTEMPTS):
            reader.seek(None)
            self.lsn_next = reader.position.lsn
            self._claim(reader)
            mark = reader.mark()
            # The pin counts from the writer's next look at it; if no checkpoint has come since,
            # nothing above the mark has been reused.
            if mark.lsn == self.lsn_next:
                self.whole_lsn = LSN_NEVER  # until the baseline's end is known
                self.pool.join(self, self.lsn_next)
                self._baseline_bytes = mark.image_bytes
                return wire.Baseline(mark, epoch, reader.identity(), self._history, self._common)
        return wire.Refuse("busy", "checkpoints come faster than the log can be pinned")

    def _claim_ahead(self, reader: LogReader) -> bool:
        """Pin the log from the checkpoint on, and hope for what lies between here and there.

        Below the checkpoint only a slot that was there before keeps the log, but it often stands
        for long. Every record is verified after it was copied; once it is overwritten the connection
        ends, and the next hello is answered by a baseline.

        Args:
            reader: The log.

        Returns:
            Whether it is still there.
        """
        start = self.lsn_next
        for _ in range(PIN_ATTEMPTS):
            reader.seek(None)
            self.lsn_next = reader.position.lsn
            try:
                self._claim(reader)
                reader.seek(start)
            except GapError:
                continue  # a checkpoint, or the ring's end, has come by
            self.lsn_pinned, self.lsn_next = self.lsn_next, start
            return True
        return False

    def _claim(self, reader: LogReader) -> None:
        """Pin the log from here on; a slot that claims more than the receiver has is begun anew."""
        required = self.name in self.pool.config.required
        if not self.pool.admit(self.name):
            raise PeerUnavailableError("all places for receivers are taken")
        try:
            consumer = reader.claim(self.name, required=required)
            if consumer.lsn_acked > self.lsn_next:
                consumer.release()
                consumer = reader.claim(self.name, required=required)
            consumer.ack(self.lsn_next)
        except PmlogError as error:
            if reader.status() is not None:
                raise
            # Nobody has opened this copy for writing: nothing is overwritten, no pin is needed.
            del error
            return
        self._consumer = consumer

    # ---- baseline ------------------------------------------------------------------------------

    async def _send_baseline(self) -> None:
        """Send the blocks that differ from the receiver's, window by window, as it asks."""
        reader = self._reader
        assert reader is not None
        epoch, session = self._epoch, self._session
        with await asyncio.to_thread(ImageReader, self.pool.path) as image:
            blocks = blocks_of(self._baseline_bytes)
            while window := list(islice(blocks, limits.BLOCKS_PER_MESSAGE_MAX)):
                await self._wait_while_parked()
                message = await self._socket.receive(timeout=SEND_TIMEOUT_S)
                if message.type is not WSMsgType.BINARY or len(message.data) != 16 * len(window):
                    raise ProtocolError("no digests of blocks")
                # It forgot its seal and noted that it is incomplete before it sent these: however
                # long the rest takes, writers need not wait for it when power returns.
                self.has_spoken = True
                self.is_answering = True
                differing = await asyncio.to_thread(self._differing, image, window, message.data)
                for offset, data in differing:
                    frame = wire.encode_frame(
                        self.pool.identity.pool_id, epoch, offset, data, wire.Codec.LZ4
                    )
                    async with asyncio.timeout(SEND_TIMEOUT_S):
                        await self._socket.send_bytes(frame)
                    for figures in (self.figures, self.pool.totals):
                        figures.blocks += 1
                        figures.wire_bytes += len(frame)
                await self._say(wire.BlocksDone(len(differing)))
        # A replica that was itself begun anew meanwhile: its blocks were of two histories.
        await asyncio.to_thread(marks.must_be_whole, self.pool.path)
        if reader.session != session:
            raise ProtocolError("the pool was opened anew meanwhile")
        # The image holds nothing of records that are not durable: what was read is no newer.
        self.whole_lsn = max(reader.lsn_durable, self.lsn_next)
        await self._say(wire.BaselineEnd(self.whole_lsn))

    def _differing(
        self, image: ImageReader, window: list[tuple[int, int]], digests: bytes
    ) -> list[tuple[int, bytes]]:
        found = []
        for number, (offset, size) in enumerate(window):
            data = image.read_sound(offset, size)
            if xxhash.xxh3_128_digest(data) != digests[16 * number : 16 * number + 16]:
                found.append((offset, data))
        return found

    # ---- sending -------------------------------------------------------------------------------

    async def _send(self) -> None:
        reader = self._reader
        assert reader is not None
        epoch = self._epoch
        while not self._is_ending():
            await self._wait_while_parked()
            self._changed.clear()
            data = reader.run()
            if reader.position.epoch > epoch:
                # The receiver learns of the epoch, by a new hello, before it has a byte of it.
                self.end("the pool was promoted meanwhile")
                return
            if data is None:
                await self._at_end(reader)
                continue
            for piece in batcher.pieces(data):
                await self._send_piece(epoch, piece)
                if self._is_ending():
                    return

    def _is_ending(self) -> bool:
        return self._reason is not None

    def _in_flight_bytes(self) -> int:
        return self.lsn_next - self.progress.received

    async def _send_piece(self, epoch: int, piece: memoryview) -> None:
        while not self._is_ending() and self._in_flight_bytes() > IN_FLIGHT_BYTES_MAX:
            self._changed.clear()
            await self._changed.wait()
        if self._is_ending():
            return  # the slot may be gone, and the ring reused: `piece` must not be read
        size = len(piece)
        # On battery nothing is spent on finding out whether the other way has become faster.
        codec = batcher.choose(self._rates, size, may_probe=not self.pool.is_stopping)
        begun = self.pool.clock()
        frame = wire.encode_frame(self.pool.identity.pool_id, epoch, self.lsn_next, piece, codec)
        if not self.figures.frames:
            self.figures.lsn_first = self.lsn_next
        if not self._in_flight_bytes():
            self._acked_at = begun  # so far there was nothing to acknowledge
        self.lsn_next += size
        self._has_gathered = False
        self.pool.note_sent(self)
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await self._socket.send_bytes(frame)
        self._rates = batcher.learn(self._rates, codec, size, self.pool.clock() - begun)
        for figures in (self.figures, self.pool.totals):
            figures.frames += 1
            figures.raw_bytes += size
            figures.wire_bytes += len(frame)
        if self.pool.seal_lsn is not None:
            self.figures.bytes_after_freeze += size

    async def _wait_while_parked(self) -> None:
        """Let those go first who are to have the rest of the log first, while power fails."""
        while not self._is_ending() and self.pool.is_parked(self):
            if self._beat_due:
                self._beat_due = False
                await self._say(wire.Heartbeat(self.lsn_next))
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                # The time to be parked ends by the clock, too.
                await asyncio.wait_for(self._changed.wait(), PARK_STEP_S)

    async def _at_end(self, reader: LogReader) -> None:
        pool = self.pool
        if pool.seal_lsn is not None and not self._seal_sent:
            pool.drop_seal()
        # Only a seal that is known to have arrived can be taken back so that the answer is clear:
        # acknowledgements are coalesced, and one that says "not sealed" may be older than the seal.
        has_told = self._seal_sent or self._save_told or self.sealed
        is_due = has_told and not self.may_hold_seal and not self._unseal_sent
        if not pool.is_sealing and is_due:
            self._seal_sent = self._save_told = False
            self._unseal_sent = self.sealed
            self._acked_at = pool.clock()
            await self._say(wire.Unsealed())
        if pool.is_sealing and not self._save_told:
            self._save_told = True
            await self._say(wire.SaveStarted())
        # Power that fails again waits for the answer to `unsealed`: the next seal's is then clear.
        can_seal = not self._seal_sent and not self._unseal_sent and not self._is_ending()
        if pool.is_sealing and can_seal:
            position = reader.position
            if position.lsn >= (pool.seal_lsn or 0):
                pool.note_told(self.name)
                self._seal_sent = self.may_hold_seal = True
                self._acked_at = pool.clock()
                place = wire.Place(position.epoch, position.lsn, position.chain, position.txn)
                await self._say(wire.Sealed(place))
        if self._beat_due:
            self._beat_due = False
            await self._say(wire.Heartbeat(self.lsn_next))
        if self._reason is not None or self._changed.is_set():
            return
        await self._wait_for_more()

    async def _wait_for_more(self) -> None:
        """Wait until there may be more to send, in the cheapest way that is still quick.

        To be woken by the tailer's thread costs this process two changes of threads, and the writer
        a system call. So after an acknowledgement, which lets a waiting writer go on, the log is
        looked at a few times more; and while one is due the log is left alone until it is here:
        what is committed meanwhile goes into one frame. A receiver that is far away is not waited
        for, but for `GATHER_S`.
        """
        if self._looks > 0:
            self._looks -= 1
            await asyncio.sleep(0)
        elif self._in_flight_bytes() and not self._has_gathered:
            self._has_gathered = True
            timer = asyncio.get_running_loop().call_later(GATHER_S, self.wake)
            try:
                await self._changed.wait()
            finally:
                timer.cancel()
        else:
            self.pool.arm(self.lsn_next)
            await self._changed.wait()

    # ---- listening -----------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                raise ProtocolError("a receiver sends messages, no frames")
            said = wire.decode_from_receiver(message.data)
            if not isinstance(said, wire.Ack):
                raise ProtocolError(f"a {type(said).__name__} in the middle of a stream")
            self._heed(said)

    def _heed(self, ack: wire.Ack) -> None:
        if self.pool.sessions.get(self.name) is not self:
            return  # the receiver has connected again, perhaps with less: this is of the past
        if self._is_ending():
            return  # the slot may be another's by now
        now = self.progress
        if not (
            now.durable <= ack.durable <= ack.received <= self.lsn_next
            and now.received <= ack.received
            and now.applied <= ack.applied <= ack.durable
        ):
            raise ProtocolError(f"an acknowledgement of {ack} after {now}")
        if ack.received > now.received or ack.sealed != self.sealed:
            self._acked_at = self.pool.clock()
        if self._consumer is not None and ack.durable > max(now.durable, self.lsn_pinned):
            self._consumer.ack(ack.durable)
        self.sealed = ack.sealed
        self.has_spoken = True
        self.is_answering = self.is_answering or ack.durable > now.durable
        if ack.sealed:
            self.may_hold_seal = False
        else:
            self._unseal_sent = False
        self.pool.advance(self, Progress(ack.received, ack.durable, ack.applied))
        if ack.durable > now.durable:
            self._looks = LOOKS
        self.wake()


def _history_of(path: str) -> History:
    """Read what a pool that is served knows of promotions; an incomplete one is not served."""
    marks.must_be_whole(path)
    return marks.history_of(path)


def common_lsn(
    found: wire.Found, place: wire.Place | None, parted: int | None, *, is_trusted: bool
) -> int | None:
    """Say up to where a receiver's log is known to be the beginning of this one. Pure.

    Args:
        found: What this log holds where the receiver's ends.
        place: The end of the receiver's; None: it has not said.
        parted: Where promotions part the two histories; None: they do not.
        is_trusted: Whether a log of this epoch that cannot be compared any more is taken for common.

    Returns:
        The LSN; None: it is not known.
    """
    if found is wire.Found.GONE and not is_trusted:
        return parted
    if place is None or found is wire.Found.OTHER:
        # Where they differ before any promotion nothing is known.
        return parted if place is None or (parted or 0) < place.lsn else None
    return place.lsn if parted is None else min(place.lsn, parted)


def find(reader: LogReader, place: wire.Place | None, parted: int | None = None) -> wire.Found:
    """Look at what the log holds where a receiver's ends; the reader is there afterwards.

    Args:
        reader: The log.
        place: The end of the receiver's; None: it has nothing.
        parted: Where promotions part the two histories; None: they do not.

    Returns:
        What was found.
    """
    if place is not None and parted is not None and parted < place.lsn:
        return wire.Found.OTHER
    for _ in range(FIND_ATTEMPTS):
        try:
            reader.seek(LSN_FIRST if place is None else place.lsn)
            break
        except GapError:
            # Above the checkpoint the ring holds everything; below it may have been reused. The
            # checkpoint is read after the look: one that came between them took the bytes away.
            if place is None or place.lsn < reader.mark().lsn:
                return wire.Found.GONE
    else:
        return wire.Found.OTHER
    if place is None:
        return wire.Found.START
    position = reader.position
    same = (position.chain, position.txn) == (place.chain, place.txn)
    return wire.Found.SAME if same else wire.Found.OTHER


async def attend(pool: SharedPool, socket: web.WebSocketResponse) -> None:
    """Serve one connection, from the first message to the last.

    Args:
        pool: What the receiver gets.
        socket: The connection; the caller closes it.
    """
    try:
        hello = await hear_hello(socket)
        await Session(pool, socket, hello).run()
    except ProtocolError as error:
        with contextlib.suppress(ConnectionError):
            await socket.send_str(wire.encode_message(wire.Refuse("protocol", str(error))))


async def hear_hello(socket: web.WebSocketResponse) -> wire.Hello:
    """Wait for a receiver's first message.

    Args:
        socket: The connection.

    Returns:
        The message.

    Raises:
        ProtocolError: It said something else, or nothing.
    """
    try:
        message = await socket.receive(timeout=HELLO_TIMEOUT_S)
    except TimeoutError:
        raise ProtocolError("no hello") from None
    if message.type is not WSMsgType.TEXT:
        raise ProtocolError("no hello")
    said = wire.decode_from_receiver(message.data)
    if not isinstance(said, wire.Hello):
        raise ProtocolError("no hello")
    if not 0 <= said.heard < 1 << 32:
        raise ProtocolError(f"a receiver that has heard of epoch {said.heard}")
    must_make_sense(said.history, (1 << 32) - 1)
    if not 0 <= said.whole < 1 << 63:
        raise ProtocolError(f"a copy that is whole from LSN {said.whole} on")
    if not 0 < len(said.name.encode()) <= limits.RECEIVER_NAME_BYTES_MAX or "\0" in said.name:
        raise ProtocolError("a receiver's name that cannot be used")
    place = said.place
    if place is not None and not (
        0 < place.epoch < 1 << 32
        and LSN_FIRST <= place.lsn < 1 << 63
        and 0 <= place.chain < 1 << 32
        and 0 <= place.txn < 1 << 63
    ):
        raise ProtocolError(f"a place that cannot be: {place}")
    return said
