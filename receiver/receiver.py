"""The receiver: dials shippers, holds the replica, is promoted.

Invariants:

1. After the promotion mark is stored no byte of the old history is taken.
2. The replica is open, or promoted, never both.
3. A promoted receiver goes on dialling until every source has heard of its epoch.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp

from pmlog import http, marks, wire
from pmlog.errors import (
    CapacityError,
    CorruptionError,
    FencedError,
    InvariantViolationError,
    MediumError,
    PmlogError,
    PoolLockedError,
    PoolNotFoundError,
)
from pmlog.history import History, promoted
from pmlog.log import LogReader
from pmlog.logs import note
from pmlog.replica import Replica, promote
from pmlog.saved import Saved
from pmlog.threads import to_end
from receiver.application import Application
from receiver.config import (
    CLOSE_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    MESSAGE_BYTES_MAX,
    Config,
    backoff_s,
)
from receiver.hear import hear
from receiver.link import Link
from receiver.promote import Verdict, judge, refusal, sealing_of
from receiver.state import Promotion, State

_log = logging.getLogger("receiver")

Dial = Callable[[str], AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]]
"""Opens a connection to a source."""


class Receiver:
    """A receiver. For the event loop's thread.

    Args:
        config: What it was told.
        dialling: Makes what opens connections.
        open_replica: Opens or makes the replica.

    Raises:
        PmlogError: The replica or a mark cannot be read.
    """

    def __init__(
        self,
        config: Config,
        dialling: Callable[[Config], AbstractAsyncContextManager[Dial]] | None = None,
        open_replica: Callable[..., Replica] = Replica,
    ) -> None:
        self.config = config
        self._dialled = dialling or dialled
        self._open_replica = open_replica
        self.state = State(config.folder)
        self.replica: Replica | None = None
        self.link: Link | None = None
        self.application = Application(config.on_promote)
        self.last_error: str | None = None
        self._failure: str | None = None
        self._logged: str | None = None
        """What was logged of the last attempt to connect."""
        self.connections = 0
        self._dialling: asyncio.Task[None] | None = None
        self._promoting = asyncio.Lock()
        self.reopened = 0
        """How often the replica has failed and was opened again."""
        self.saved: Saved | None = None
        """What the replica's log had that the primary lacks."""
        self._reopening: asyncio.Task[None] | None = None
        self._ready = False
        """The promotion is finished."""

    @property
    def failure(self) -> str | None:
        """What is wrong with the replica itself, or its medium; None: nothing is known to be."""
        # A connection that was made since has opened the replica anew.
        return None if self.link is not None and self.link.established else self._failure

    @property
    def is_incomplete(self) -> bool:
        """Whether the replica is of no use until a baseline is finished."""
        return self.replica is not None and self.replica.is_rebuilding

    async def start(self) -> None:
        """Open the replica and dial; finish a promotion that was cut short.

        Raises:
            PmlogError: The replica cannot be opened.
        """
        promotion = self.state.promotion
        if promotion is not None and await asyncio.to_thread(self._is_over, promotion):
            _log.warning("epoch %d is over: this is a replica again", promotion.epoch)
            await asyncio.to_thread(self.state.set_seal, None)
            await asyncio.to_thread(self.state.set_promotion, None)
            promotion = None
        if promotion is not None:
            await self._finish_promotion(promotion)
            return
        with contextlib.suppress(PoolNotFoundError):
            self.replica = await asyncio.to_thread(
                opened, self.config.pool_path, self._open_replica
            )
        self._dialling = asyncio.create_task(self._dial(), name="dial")

    def _is_over(self, promotion: Promotion) -> bool:
        """Whether another pool has taken over from this one since its promotion."""
        stop = marks.stop_of(self.config.pool_path)
        if stop is None:
            return False
        # A promotion that was cut short is still marked as the replica of an earlier epoch.
        return (stop.why == "fenced" and stop.epoch > promotion.epoch) or (
            stop.why == "replica" and stop.epoch >= promotion.epoch
        )

    async def stop(self) -> None:
        """End everything; the replica is closed."""
        await self._stop_dialling()
        await self.application.stop()
        if self.replica is not None:
            await asyncio.to_thread(self.replica.close)

    async def _stop_dialling(self) -> None:
        task, self._dialling = self._dialling, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._reopening is not None:
            await asyncio.gather(self._reopening, return_exceptions=True)

    # ---- dialling ------------------------------------------------------------------------------

    async def _dial(self) -> None:
        attempt = number = 0
        async with self._dialled(self.config) as dial:
            while True:  # until it is cancelled, at the end or for promotion
                source = self.config.sources[number % len(self.config.sources)]
                number += 1
                try:
                    if await self._connect(dial, source):
                        attempt = 0
                except Exception as error:  # a defect, here or there, must not end the dialling
                    self.last_error = f"{source}: {type(error).__name__}: {error}"
                    _log.exception("a connection has failed: %s", source)
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1

    async def _connect(self, dial: Dial, source: str) -> bool:
        """Receive from one source until that ends; answer whether it ever began."""
        link = Link(self.config, self.state, self.replica, self._adopt, self._open_replica)
        try:
            async with dial(source) as socket:
                self.link = link
                self.connections += 1
                await link.run(socket)
        except (PmlogError, aiohttp.ClientError, OSError, TimeoutError) as error:
            self.last_error = f"{source}: {error}"
            is_broken = isinstance(error, MediumError | CapacityError | InvariantViolationError)
            self._failure = str(error) if is_broken else None
            self._note_end(source, error, link)
        finally:
            self.link = None
            self.saved = link.saved or self.saved
        if self.replica is not None and await to_end(is_poisoned, self.replica):
            # To its end, whoever cancels this task: the replica's lock must not be lost.
            self._reopening = asyncio.create_task(self._reopen(self.replica), name="reopen")
            await asyncio.shield(self._reopening)
            return False
        return link.established

    def _note_end(self, source: str, error: Exception, link: Link) -> None:
        """Log the end of a connection; of attempts that fail alike only the first."""
        if link.established or str(error) != self._logged:
            self._logged = str(error)
            level = logging.ERROR if self._failure is not None else logging.WARNING
            event = "disconnected" if link.established else "cannot connect"
            lsn = self.replica.position.lsn if self.replica is not None else None
            note(_log, event, level=level, source=source, reason=error, lsn=lsn)

    async def _reopen(self, failed: Replica) -> None:
        """Open a replica again that has failed; a damaged one is marked for a baseline."""
        self.replica = None
        self.reopened += 1
        try:
            self.replica = await asyncio.to_thread(
                reopened, failed, self.config.pool_path, self._open_replica
            )
        except PmlogError as error:
            self.last_error = f"{self.config.pool_path}: {error}"
            _log.error("%s", error)

    def _adopt(self, replica: Replica) -> None:
        self.replica = replica

    # ---- promotion -----------------------------------------------------------------------------

    async def promote(self, accept_loss: bool) -> Promotion:
        """Make the replica a primary, and start the application.

        Args:
            accept_loss: Take what is here, though the source's tail is unknown.

        Returns:
            What is known of it.

        Raises:
            NotPromotableError: It is refused; nothing changed.
            PmlogError: The promotion mark cannot be stored, and nothing changed; or it is, and the
                promotion has to be finished: by calling again, or by the next start.
        """
        async with self._promoting:
            path = self.config.pool_path
            if self.state.promotion is not None and not self._ready:
                return await self._promoted(self.state.promotion)
            self._judge(accept_loss, await asyncio.to_thread(marks.history_of, path))
            # A frame may be on its way in: it is taken whole before the task ends, or not at all.
            await self._stop_dialling()
            try:
                known = await asyncio.to_thread(marks.history_of, path)
                verdict = self._judge(accept_loss, known)
                assert self.replica is not None
                place = self.replica.place
                epoch = promoted(known, place).beginnings[-1].epoch
                promotion = Promotion(place, epoch, verdict is Verdict.PROMOTE)
                await asyncio.to_thread(self.state.set_promotion, promotion)
            except PmlogError:
                # Its name may be there though it could not be synced: no byte may follow it.
                with contextlib.suppress(PmlogError):
                    await asyncio.to_thread(self.state.set_promotion, None)
                self._dialling = asyncio.create_task(self._dial(), name="dial")
                raise
            return await self._promoted(promotion)

    async def _promoted(self, promotion: Promotion) -> Promotion:
        """Finish a promotion whose mark is stored; say so, or why it cannot be."""
        try:
            await self._finish_promotion(promotion)
        except PmlogError as error:
            self._failure = self.last_error = str(error)
            note(_log, "promotion not finished", level=logging.ERROR, reason=error)
            raise
        self._failure = None
        note(
            _log, "promoted", epoch=promotion.epoch, complete=promotion.complete,
            lsn=promotion.place.lsn, txn=promotion.place.txn,
        )  # fmt: skip
        return promotion

    def _judge(self, accept_loss: bool, known: History) -> Verdict:
        position = None if self.replica is None else self.replica.position
        seal = None if self.state.seal is None else self.state.seal.place
        if seal is not None and known.heard > seal.epoch:
            seal = None  # a later primary may have committed more
        verdict = judge(
            promoted=self.state.promotion is not None,
            # One that was made and never got a record holds no pool yet; in its first baseline it is
            # on its way to one.
            empty=position is None or (not position.txn and not self.is_incomplete),
            incomplete=self.is_incomplete,
            sealing=sealing_of(seal, position),
            accept_loss=accept_loss,
        )
        if verdict not in (Verdict.PROMOTE, Verdict.PROMOTE_WITH_LOSS):
            raise refusal(verdict, position)
        return verdict

    async def _finish_promotion(self, promotion: Promotion) -> None:
        path = self.config.pool_path
        replica, self.replica = self.replica, None
        if replica is not None:
            await asyncio.to_thread(replica.close)
        pool = await asyncio.to_thread(_pool_id, path)
        if await asyncio.to_thread(_promote, path, promotion.epoch):
            await self.application.start(str(path), promotion.epoch)
        else:
            self.application.failure = "not started again: one that has the pool open lives on"
        self._ready = True
        self._dialling = asyncio.create_task(self._tell(promotion, pool), name="tell sources")

    async def _tell(self, promotion: Promotion, pool: str) -> None:
        """Tell every source of this pool that its epoch is over."""
        place = wire.Place(
            promotion.epoch, promotion.place.lsn, promotion.place.chain, promotion.place.txn
        )
        untold = list(self.config.sources)
        attempt = 0
        async with self._dialled(self.config) as dial:
            while untold:
                for source in list(untold):
                    try:
                        async with dial(source) as socket:
                            hello = wire.Hello(
                                wire.VERSION,
                                pool,
                                self.config.name,
                                place,
                                heard=promotion.epoch,
                            )
                            await socket.send_str(wire.encode_message(hello))
                            await hear(socket)
                        untold.remove(source)  # it is of this epoch, or a later one
                    except FencedError:
                        untold.remove(source)
                    except (PmlogError, aiohttp.ClientError, OSError, TimeoutError) as error:
                        self.last_error = f"{source}: {error}"
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1

    # ---- what a person sees --------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Tell how it is.

        Returns:
            Its figures, ready for JSON.
        """
        replica, link, promotion = self.replica, self.link, self.state.promotion
        kept = (link.saved if link else None) or self.saved
        if promotion is not None:
            state = "promoted" if self._ready else "promoting"
        elif link is not None and link.established:
            state = "saving" if link.saving else "receiving"
        else:
            state = "connecting"
        return {
            "name": self.config.name,
            "path": str(self.config.pool_path),
            "pool": str(UUID(bytes=replica.pool_id)) if replica else None,
            "state": state,
            "connections": self.connections,
            "last_error": self.last_error,
            "failure": self.failure,
            "epoch": promotion.epoch if promotion else replica.position.epoch if replica else None,
            "lsn_received": replica.lsn_next if replica else None,
            "lsn_durable": replica.position.lsn if replica else None,
            "txn_durable": replica.position.txn if replica else None,
            "lsn_primary": link.lsn_primary if link else None,
            "lsn_first": link.lsn_first if link else None,
            "frames": link.frames if link else 0,
            "raw_bytes": link.raw_bytes if link else 0,
            "wire_bytes": link.wire_bytes if link else 0,
            "incomplete": self.is_incomplete,
            "blocks": link.blocks if link else 0,
            "compared": link.compared if link else 0,
            "total": link.total if link else 0,
            "saved_tail": str(kept.path) if kept else None,
            "reopened": self.reopened,
            "sealed": self.state.seal is not None,
            "complete": promotion.complete if promotion else None,
            "application": self.application.describe(),
        }


@contextlib.asynccontextmanager
async def dialled(config: Config) -> AsyncIterator[Dial]:
    """Get ready to open connections to shippers.

    Args:
        config: What the receiver was told.

    Yields:
        What opens a connection to a source.
    """
    async with http.dialling(config.security, CONNECT_TIMEOUT_S) as session:

        @contextlib.asynccontextmanager
        async def dial(source: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
            # A network that swallows everything lets a connection begin and never answers.
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                socket = await session.ws_connect(
                    f"{source}/v1/pools/{config.pool}/stream",
                    max_msg_size=MESSAGE_BYTES_MAX,
                    compress=0,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                )
            async with socket:
                yield socket

        yield dial


def is_poisoned(replica: Replica) -> bool:
    """Tell whether a replica has failed; may wait for the disk.

    Args:
        replica: The replica.

    Returns:
        Whether it has to be opened again.
    """
    return replica.is_poisoned


def opened(path: Path, open_replica: Callable[..., Replica]) -> Replica:
    """Open a replica as it is: whole, or for a baseline.

    Args:
        path: Its folder.
        open_replica: Opens it.

    Returns:
        The replica.

    Raises:
        PoolNotFoundError: There is none.
        PmlogError: It cannot be opened even for a baseline.
    """
    mark = marks.incomplete_of(path)
    if mark is not None and mark.why != "baseline":
        return open_replica(path, rebuild=True)
    try:
        replica = open_replica(path)
    except CorruptionError as error:
        _log.warning("%s: damaged, to be rebuilt: %s", path, error)
        if mark is None:
            marks.set_incomplete(path, marks.Incomplete("damage"))
        return open_replica(path, rebuild=True)
    if mark is not None:
        # A baseline wipes the marks first and writes them last: it was not begun, or is finished.
        marks.set_incomplete(path, None)
    return replica


def reopened(failed: Replica, path: Path, open_replica: Callable[..., Replica]) -> Replica:
    """Open a replica again that has failed.

    Args:
        failed: It, still open.
        path: Its folder.
        open_replica: Opens it.

    Returns:
        The replica; a damaged one only for a baseline.

    Raises:
        PmlogError: It cannot be opened.
    """
    is_damaged = failed.is_damaged
    failed.close()
    if is_damaged:
        marks.set_incomplete(path, marks.Incomplete("damage"))
    return opened(path, open_replica)


def _pool_id(path: Path) -> str:
    with LogReader(path) as reader:
        return str(reader.pool_id)


def _promote(path: Path, epoch: int) -> bool:
    """Promote, or finish it; answer whether an application may be started."""
    try:
        with Replica(path) as replica:
            now = replica.position.epoch
    except PoolLockedError:
        return False  # the application runs, which it could not before this was finished
    if now < epoch:
        promote(path, epoch=epoch).close()
    else:
        marks.release(path, epoch)
    return True
