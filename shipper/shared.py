"""One pool that is shipped: its log, its receivers, what they have, whether it is being saved.

Invariants:

1. A receiver's slot never moves past what it said is durable there.
2. What is published for a level at least K receivers have said.
3. `seal_lsn` is set only after the pool was frozen and its stop mark is durable.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlog import marks
from pmlog.errors import FencedError, PmlogError, PoolNotFoundError
from pmlog.identity import Identity
from pmlog.log import Bound, LogReader
from pmlog.logs import note
from pmlog.threads import to_end
from shipper import backlog
from shipper.config import RECEIVERS_MAX, Config
from shipper.levels import Progress, reached
from shipper.rate import Rate, observe, pause
from shipper.tailer import Tailer

if TYPE_CHECKING:
    from shipper.session import Session

_log = logging.getLogger("shipper")


@dataclass(slots=True)
class Totals:
    """What was sent since the start."""

    frames: int = 0
    raw_bytes: int = 0
    wire_bytes: int = 0
    blocks: int = 0


class SharedPool:
    """A pool and its receivers. For the event loop's thread.

    Args:
        path: The pool.
        config: The service's.
        clock: Seconds that only grow.
        tail: Makes what notices that the log has grown.

    Raises:
        PmlogError: The pool cannot be read.
    """

    def __init__(
        self,
        path: str,
        config: Config,
        clock: Callable[[], float] = time.monotonic,
        tail: Callable[[LogReader, Callable[[], None]], Tailer] = Tailer,
    ) -> None:
        marks.must_be_whole(path)
        self.path = path
        self.config = config
        self.clock = clock
        self.reader = LogReader(path)
        self.identity: Identity = self.reader.identity()
        self.id = str(self.identity.pool_id)
        self.sessions: dict[str, Session] = {}
        self.progress: dict[str, Progress] = {}
        self.totals = Totals()
        self._is_partial: set[str] = set()
        """Receivers of which it is not known that what they have is of use: levels ignore them."""
        self._is_unseen: set[str] = set()
        """Of those, the ones of which only a slot tells."""
        self.seal_lsn: int | None = None
        self.told: tuple[str, ...] = ()
        """Receivers and vaults that may hold the seal."""
        self.is_stopping = False
        """The stop mark says power, though the writer may not have been stopped yet."""
        self.is_unsealing = False
        """Power is back, and those that may hold the seal are asked to give it back."""
        self.stop_source = ""
        """Where the failure of power was heard of first, as the stop mark says."""
        self.is_parked: Callable[[Session], bool] = lambda session: False
        """Whether a receiver has to wait for others; told by who saves the pool."""
        self.failure: str | None = None
        """Why the pool cannot be shipped at the moment."""
        self._file = _file_of(path)
        self._fenced_epoch: int | None = None
        self.rates: dict[str, Rate] = {}
        self.policy = backlog.Policy(
            config.require,
            None if config.battery is None else config.battery.seconds,
            config.max_lag,
            len(config.pools),
        )
        self.verdict = backlog.Verdict()
        self.was_at_risk = False
        """What was logged last."""
        """How the backlog stood when it was published last."""
        self.level = Progress()
        """What was published last."""
        self._is_freezing = False
        """A thread uses the reader."""
        self._live = _is_live(self.reader)
        self._tail = tail
        self._tailer = tail(self.reader, self.wake_all)
        status = self.reader.status()
        for consumer in status.consumers if status is not None else ():
            # A slot says what is pinned; a receiver in the middle of a baseline has less.
            lsn = consumer.lsn_acked
            self.progress[consumer.name] = Progress(lsn, lsn, lsn)
            self._is_partial.add(consumer.name)
            self._is_unseen.add(consumer.name)
        begun = self.reader.lsn_durable or self.reader.mark().lsn
        self._lsn_base = reached(self.progress.values(), config.require).durable or begun
        """What K whole copies had, the last time that there were so many, as far as is known."""

    # ---- the log -------------------------------------------------------------------------------

    @property
    def lsn_end(self) -> int:
        """Where the durable log ends, as far as anyone has said."""
        known = [session.lsn_next for session in self.sessions.values()]
        return max([self.reader.lsn_durable, *known])

    def is_whole(self, name: str) -> bool:
        """Tell whether a receiver's copy is known to be whole.

        Args:
            name: The receiver.

        Returns:
            Whether it has said so.
        """
        return name in self.progress and name not in self._is_partial

    def ends(self, *, whole: bool) -> list[int]:
        """Tell where the logs of receivers end, connected or not.

        Args:
            whole: Of those whose copies are known to be whole, or of the others.

        Returns:
            The LSNs.
        """
        return [
            progress.durable
            for name, progress in self.progress.items()
            if self.is_whole(name) == whole
        ]

    def arm(self, lsn: int) -> None:
        """Ask for `wake_all` when the log reaches beyond an LSN.

        Args:
            lsn: The LSN.
        """
        self._tailer.arm(lsn)

    def wake_all(self) -> None:
        """Let every session look again at what there is to do."""
        for session in self.sessions.values():
            session.wake()

    # ---- receivers -----------------------------------------------------------------------------

    def join(self, session: "Session", start: int) -> None:
        """Note a new connection; an older one of the same name ends.

        Args:
            session: The connection.
            start: What its receiver has: everything below.
        """
        old = self.sessions.get(session.name)
        if old is not None:
            old.end("the receiver has connected again")
        self.sessions[session.name] = session
        self._pause(session.name)
        self._note(session, Progress(start, start, start))
        self.publish()

    def admit(self, name: str) -> bool:
        """Make a place for a receiver, of which there are as many as slots.

        Names that are not required, and that nobody uses at the moment, are let go first: made-up
        ones must not keep the others out. For a required name a connected one has to go, too.

        Args:
            name: The receiver.

        Returns:
            Whether there is a place.
        """
        if name in self.progress or len(self.progress) < RECEIVERS_MAX:
            return True
        required = self.config.required
        others = [one for one in self.progress if one not in required]
        idle = [one for one in others if one not in self.sessions]
        going = idle or (others if name in required else [])
        if not going:
            return False
        least = min(going, key=lambda one: self.progress[one].durable)
        self._let_go(least, "a required receiver needs the place")
        return True

    def leave(self, session: "Session") -> None:
        """Note the end of a connection.

        Args:
            session: The connection.
        """
        if self.sessions.get(session.name) is session:
            del self.sessions[session.name]
            self._pause(session.name)
        self.publish()

    def advance(self, session: "Session", progress: Progress) -> None:
        """Note what a receiver has.

        Args:
            session: Its connection.
            progress: What it said.
        """
        self._note(session, progress)
        self.publish()

    def _note(self, session: "Session", progress: Progress) -> None:
        self.progress[session.name] = progress
        self._is_unseen.discard(session.name)
        if progress.durable >= session.whole_lsn:
            self._is_partial.discard(session.name)
        else:
            self._is_partial.add(session.name)
        if session.figures.frames:
            self._observe(session)

    def note_sent(self, session: "Session") -> None:
        """Note that a receiver has something to do.

        Args:
            session: Its connection.
        """
        if self._rate(session.name).begun_s is None:
            self._observe(session)

    def publish(self) -> None:
        """Tell the writer what its receivers have, and how far it may run ahead of them."""
        # A promotion of an incomplete copy is refused: what it has vouches for nothing yet.
        whole = (one for name, one in self.progress.items() if name not in self._is_partial)
        level = reached(whole, self.config.require)
        self._lsn_base = max(self._lsn_base, level.durable)
        verdict = backlog.judge(
            self._copies(),
            self.policy,
            lsn_end=self.lsn_end,
            lsn_base=self._lsn_base,
            ring_bytes=self.identity.ring_bytes,
        )
        self.level, self.verdict = level, verdict
        bound = Bound(verdict.delay_ns, verdict.lsn_limit, verdict.writer_limit_bytes)
        with contextlib.suppress(PmlogError):
            # Refused while nobody has opened this copy for writing: then nobody waits either.
            self.reader.publish(level.received, level.durable, level.applied, bound)

    def _copies(self) -> list[backlog.Copy]:
        required = self.config.required
        known = [
            backlog.Copy(
                durable=progress.durable,
                bytes_per_s=self._rate(name).bytes_per_s,
                is_required=name in required,
                is_connected=name in self.sessions,
                is_answering=name in self.sessions and self.sessions[name].is_answering,
                is_whole=name not in self._is_partial,
                is_seen=name not in self._is_unseen,
            )
            for name, progress in self.progress.items()
        ]
        unseen = required - set(self.progress)
        return known + [
            backlog.Copy(self._lsn_base, is_required=True, is_whole=False) for _ in unseen
        ]

    def _rate(self, name: str) -> Rate:
        return self.rates.get(name, Rate())

    def _observe(self, session: "Session") -> None:
        durable = session.progress.durable
        self.rates[session.name] = observe(
            self._rate(session.name), self.clock(), durable, max(self.lsn_end, session.lsn_next)
        )

    def _pause(self, name: str) -> None:
        self.rates[name] = pause(self._rate(name))

    def forget_lost(self) -> None:
        """Let go of receivers that are away and fell out of the ring: they need a baseline anyway.

        What the best K had is kept in mind: it bounds the backlog.
        """
        end = self.lsn_end
        best = sorted(self.progress, key=lambda name: self.progress[name].durable, reverse=True)
        kept = {*self.sessions, *self.config.required, *best[: self.config.require]}
        for name in [one for one in self.progress if one not in kept]:
            if end - self.progress[name].durable > self.identity.ring_bytes:
                self._let_go(name, "it is away, and the log no longer holds what it lacks")

    def _let_go(self, name: str, reason: str) -> None:
        """End a receiver's connection, and keep no log for it."""
        # At once, not when the connection has ended: until then it would count, with no progress.
        session = self.sessions.pop(name, None)
        if session is not None:
            session.end(reason)
        self.progress.pop(name, None)
        self.rates.pop(name, None)
        self._is_partial.discard(name)
        self._is_unseen.discard(name)
        try:
            self.reader.claim(name).release()
        except PmlogError:
            return  # without a control file there are no slots

    # ---- power and fencing ---------------------------------------------------------------------

    @property
    def is_sealing(self) -> bool:
        """Whether receivers that have everything get the seal."""
        return self.seal_lsn is not None and not self.is_unsealing

    def _has_control(self) -> bool:
        # The words by which a writer is told. A copy that nobody has opened yet has none, as after
        # a restore from a backup: the stop mark alone keeps everybody out, also one who is opening
        # it just now, since he looks again.
        return self.reader.status() is not None

    def _is_fenced(self) -> bool:
        return self.fenced_epoch is not None

    async def freeze(self, source: str = "") -> None:
        """Stop the writer; on return the log's end is final, also if this host restarts.

        Args:
            source: Where the failure of power was heard of.

        Raises:
            PmlogError: The mark cannot be stored, or a commit does not end; nobody gets a seal.
        """
        if self._is_fenced():
            return
        old = marks.stop_of(self.path)
        # The mark first: a host that dies right after the word would come back as if nothing were.
        self.stop_source = source
        self.is_stopping = True
        self._set_stop(old.told if old is not None else ())
        if self._has_control():
            self._is_freezing = True
            try:
                # To its end: the reader is closed when this shipper ends, and must not be in use.
                await to_end(self.reader.freeze)
            finally:
                self._is_freezing = False
        # Nobody has opened this copy under this boot: then the chain itself ends it.
        if self.fenced_epoch is not None:
            # A hello from a later epoch came meanwhile: that is for good, and counts more.
            marks.stop_for_good(self.path, self.fenced_epoch)
            if self._has_control():
                self.reader.fence(self.fenced_epoch)
            return
        self.seal_lsn = self.reader.lsn_durable
        note(
            _log, "frozen", level=logging.WARNING, pool=self.path, source=source,
            lsn=self.seal_lsn,
        )  # fmt: skip

    @property
    def fenced_epoch(self) -> int | None:
        """The epoch that has taken over; None: none has, or the pool has come to it since."""
        epoch = self._fenced_epoch
        return epoch if epoch is not None and epoch > self.reader.epoch else None

    def is_replica(self) -> bool:
        """Tell whether the pool's log comes from another pool.

        Returns:
            Whether it does; then only its primary knows where it ends.
        """
        stop = marks.stop_of(self.path)
        return stop is not None and stop.why == "replica"

    def drop_seal(self) -> None:
        """Forget a seal of when the pool was a primary: as a replica it does not end there."""
        if self.is_stopping and self.is_replica():
            self.seal_lsn = None
            self.told = ()
            self.is_stopping = self.is_unsealing = False

    def unfreeze(self) -> None:
        """Let the writer go on; nobody holds a seal any more."""
        self.seal_lsn = None
        self.is_unsealing = False
        self.told = ()
        # In this order: killed between the two, the next shipper stops the pool again.
        if self._has_control():
            self.reader.unfreeze()
        marks.power_is_back(self.path)
        self.is_stopping = False
        note(_log, "unfrozen", pool=self.path)

    def note_told(self, name: str) -> None:
        """Remember that somebody is about to get the seal; durable on return.

        Args:
            name: The receiver, or the vault.

        Raises:
            MediumError: It cannot be stored; the seal must not be given.
            FencedError: The log ends elsewhere by now; the seal must not be given.
        """
        if name not in self.told:
            self._set_stop((*self.told, name))

    def forget_told(self, names: Iterable[str]) -> None:
        """Forget who may hold the seal: they gave it back, or will never be promoted.

        Args:
            names: Who.

        Raises:
            MediumError: It cannot be stored; they still count.
        """
        gone = frozenset(names)
        if self.is_stopping and not self._is_fenced() and gone & set(self.told):
            self._set_stop(tuple(name for name in self.told if name not in gone))

    def _set_stop(self, told: tuple[str, ...]) -> None:
        stop = marks.Stop("power", self.reader.epoch, told, self.stop_source)
        if not marks.stop_for_power(self.path, stop):
            raise FencedError(
                f"{self.path}: the pool is fenced, or a replica: power does not end its log"
            )
        self.told = told

    def fence(self, epoch: int) -> None:
        """Stop the writer for good: a receiver was promoted.

        Args:
            epoch: Its epoch.
        """
        if self.fenced_epoch is not None and self.fenced_epoch >= epoch:
            return
        try:
            # The word first: it holds, also where the mark cannot be stored. Until it can, whoever
            # brings the epoch is not answered by a refusal, and says it again.
            if self._has_control():
                self.reader.fence(epoch)
        finally:  # also if a commit that had begun does not end
            marks.stop_for_good(self.path, epoch)
            self._fenced_epoch = epoch
            note(_log, "fenced", level=logging.ERROR, pool=self.path, epoch=epoch)
            for session in list(self.sessions.values()):
                session.end(f"epoch {epoch} has taken over")

    async def restore_stop(self) -> None:
        """Take up again what an earlier shipper, or a host before its restart, had stopped."""
        stop = marks.stop_of(self.path)
        if stop is None or not stop.holds(self.reader.epoch):
            return
        if stop.why == "power":
            await self.freeze(stop.source)
        elif stop.why == "fenced" and stop.epoch > self.reader.epoch:
            self.fence(stop.epoch)

    async def beat(self) -> None:
        """Give signs of life to the writer and to every receiver, and look for those of others."""
        await self.notice_writer()
        for session in self.sessions.values():
            if session.figures.frames:
                self._observe(session)
        self.forget_lost()
        self.drop_seal()
        self.publish()
        for session in self.sessions.values():
            session.beat()

    def must_be_there(self) -> None:
        """Look whether the pool's files are those that this shipper reads.

        Raises:
            PoolNotFoundError: They were removed, or replaced by others.
        """
        if _file_of(self.path) != self._file:
            raise PoolNotFoundError(
                f"{self.path}: the log was removed or replaced",
                hint="start the shipper again",
                path=self.path,
            )

    async def notice_writer(self) -> None:
        """Follow a writer that has opened the pool for the first time under this boot.

        Until then the log's end is where its chain ends, and there are no slots and no levels.
        """
        if self._live or self._is_freezing:
            return
        fresh = LogReader(self.path)
        if not _is_live(fresh):
            fresh.close()
            return
        for session in list(self.sessions.values()):
            session.end("a writer has opened the pool")
        await self._tailer.stop()
        self.reader.close()
        self.reader = fresh
        self._live = True
        self._tailer = self._tail(fresh, self.wake_all)

    async def close(self) -> None:
        """End the thread and let go of the log; the sessions have ended."""
        self.sessions.clear()
        if self._live:
            level = self.level
            self.reader.publish(level.received, level.durable, level.applied)
        await self._tailer.stop()
        self.reader.close()


def _file_of(path: str) -> tuple[int, int] | None:
    try:
        known = os.stat(os.path.join(path, "log"))
    except OSError:
        return None
    return known.st_dev, known.st_ino


def _is_live(reader: LogReader) -> bool:
    status = reader.status()
    return status is not None and status.live


@dataclass(slots=True)
class SessionFigures:
    """What was sent on one connection."""

    lsn_first: int = 0
    """Of the first byte sent; 0: none yet."""
    frames: int = 0
    raw_bytes: int = 0
    wire_bytes: int = 0
    blocks: int = 0
    bytes_after_freeze: int = 0
