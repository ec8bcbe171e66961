"""One pool when power fails: freeze, drain, seal, or fill the vault; and when it returns.

Order of what is stored, and what is true after a crash behind each line:

1. The pool's stop mark: no program opens the pool for writing any more.
2. The word in the pool's control file: the next commit raises, the log's end is final.
3. For each receiver, its name in the stop mark; only then is it given the seal.
4. The receiver's seal, after the bytes that it vouches for; then its acknowledgement.

And back: every holder named in the mark has given its seal back, the vault is void, the word is
taken back, the mark is removed.  Whoever dies in between leaves a pool that is stopped.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from pmlog import logs, vault
from pmlog.errors import PmlogError
from shipper.config import POWER_LOSS_TIMEOUT_S
from shipper.power.decide import Rank, State, is_parked, state_of, vault_s
from shipper.shared import SharedPool
from shipper.vault import PREFIX, Filled, Plan, fill, plans

if TYPE_CHECKING:
    from shipper.session import Session

_log = logging.getLogger("shipper")

STEP_S: Final = 0.02
RETRY_S: Final = 1.0

VAULT_GRACE_S: Final = 2.0
"""So long a receiver that is away may take to dial again before the vault is begun."""
VAULT_GRACE_SHARE: Final = 0.1
"""But no longer than this part of the time."""


class Power(Protocol):
    """What a saver wants to know of the power."""

    @property
    def is_failing(self) -> bool:
        """Whether power fails."""

    @property
    def source(self) -> str | None:
        """Who said so first."""

    def seconds_left(self) -> float | None:
        """Tell how long there is power; None: nobody knows."""


class Saver:
    """Saves one pool whenever power fails, and lets its writer go on when power is back.

    Args:
        pool: The pool.
        power: How it is.
    """

    def __init__(self, pool: SharedPool, power: Power) -> None:
        self.pool = pool
        self.last_error: str | None = None
        """Of stopping the writer."""
        self.waiting_for: frozenset[str] = frozenset()
        """Power is back, and these may hold a seal and cannot be reached."""
        self._power = power
        self._changed = asyncio.Event()
        self._is_busy = False
        self._is_asked = False
        self._until_s = 0.0
        """A round that was asked for lasts until then."""
        self._begun_s = 0.0
        self._time_s = 0.0
        """How much time there was when the round began."""
        self._ended: list[asyncio.Future[None]] = []
        self._seconds = 0.0
        self._vault: Path | None = None
        self._filled: Filled | None = None
        self._vault_error: str | None = None
        for name in pool.told:  # a shipper that was killed since
            path = Path(name.removeprefix(PREFIX))
            if name.startswith(PREFIX) and vault.is_sealed(path):
                self._vault = path
        pool.is_parked = self._is_parked

    # ---- life ----------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look again at how the power is."""
        self._changed.set()

    async def run(self) -> None:
        """Follow the power until cancelled."""
        was_failing = False
        while True:  # until it is cancelled, at the end
            self._changed.clear()
            is_failing = self._power.is_failing
            if is_failing and (self._is_asked or not was_failing):
                await self._guarded(self._save)
            elif is_failing and self._must_freeze():
                await self._guarded(self._save_late)
            elif not is_failing and self.pool.is_stopping:
                await self._guarded(self._restore)
            if not self._power.is_failing:
                # Whoever asked for a round before power came back gets his answer: there is none.
                self._end_round()
            was_failing = is_failing
            is_due = is_failing and (self._is_asked or self._must_freeze())
            if self._power.is_failing == is_failing and not is_due:
                await self._changed.wait()

    async def _guarded(self, act: Callable[[], Any]) -> None:
        try:
            await act()
        except (PmlogError, OSError) as error:
            self._note_error(error)
            await asyncio.sleep(RETRY_S)
            self.wake()

    def _note_error(self, error: Exception) -> None:
        self.last_error = f"{type(error).__name__}: {error}"
        logs.note(
            _log, "saving failed", level=logging.ERROR, pool=self.pool.path, error=self.last_error
        )

    async def save(self, timeout_s: float) -> dict[str, Any]:
        """Wait for receivers, for longer than so far if need be; the power must be failing.

        Args:
            timeout_s: How long.

        Returns:
            What came of it.
        """
        self._until_s = max(self._until_s, self.pool.clock() + timeout_s)
        self._is_asked = True
        await self.round_ended(self.wake)
        return self.result()

    async def round_ended(self, act: Callable[[], None] = lambda: None) -> None:
        """Wait until receivers and vault are no longer waited for.

        Args:
            act: What makes a round begin, if none is under way.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.append(ended)
        act()
        await ended

    # ---- saving --------------------------------------------------------------------------------

    async def _save(self) -> None:
        pool = self.pool
        self._is_busy, self._begun_s = True, pool.clock()
        self._time_s = self._left_s()
        try:
            if pool.is_replica():  # only its primary knows where the log ends
                return
            while self._power.is_failing and self._must_freeze():
                await self._freeze()
                if pool.seal_lsn is None and self._left_s() <= 0:
                    return  # whoever waits for this round is told; `run` goes on trying
            pool.is_unsealing = False
            pool.wake_all()
            await self._drain()
        finally:
            self._is_busy = False
            self._seconds = pool.clock() - self._begun_s
            self._end_round()
            pool.wake_all()
        state = self.state()
        is_bad = state in (State.UNSAVED, State.SAVING)
        logs.note(
            _log, "saved" if not is_bad else "not saved",
            level=logging.WARNING if is_bad else logging.INFO,
            pool=pool.path, state=state.value, lsn=pool.seal_lsn, seconds=self._seconds,
        )  # fmt: skip

    def _must_freeze(self) -> bool:
        """Whether power fails and the writer has yet to be stopped."""
        pool = self.pool
        # A replica's end only its primary knows.
        return pool.seal_lsn is None and not pool.fenced_epoch and not pool.is_replica()

    async def _save_late(self) -> None:
        """Go on trying to stop the writer: the time is over, and there still is power."""
        await self._freeze()
        if self.pool.seal_lsn is not None and self._power.is_failing:
            await self._save()

    def _end_round(self) -> None:
        self._is_asked = False
        for ended in self._ended:
            if not ended.done():
                ended.set_result(None)
        self._ended.clear()

    async def _freeze(self) -> None:
        pool = self.pool
        try:
            await pool.freeze(self._power.source or "")
            self.last_error = None
        except PmlogError as error:
            self._note_error(error)
            await asyncio.sleep(RETRY_S)
            return
        logs.note(
            _log, "writers are stopped", level=logging.WARNING,
            pool=pool.path, lsn=pool.seal_lsn, source=self._power.source,
        )  # fmt: skip

    async def _drain(self) -> None:
        while self._power.is_failing and self.pool.fenced_epoch is None:
            if self._is_done() or self._vault is not None:
                return
            left_s = self._left_s()
            if self.pool.config.vault is not None and self._is_vault_due(left_s):
                await self._fill_vault(self.pool.config.vault)
                left_s = self._left_s()
            if left_s <= 0:
                return
            await asyncio.sleep(STEP_S)

    # ---- the vault -----------------------------------------------------------------------------

    def _is_vault_due(self, left_s: float) -> bool:
        pool = self.pool
        if pool.seal_lsn is None or self.is_sealed():
            return False
        passed_s = pool.clock() - self._begun_s
        here = set(pool.sessions)
        is_enough = len(here) >= pool.config.require and pool.config.required <= here
        if not is_enough and passed_s >= min(VAULT_GRACE_S, self._time_s * VAULT_GRACE_SHARE):
            return True
        return left_s <= vault_s(self._plans()[0].size_bytes, self._time_s)

    def _plans(self) -> list[Plan]:
        pool = self.pool
        mark = pool.reader.mark()
        return plans(
            pool.ends(whole=True),
            pool.ends(whole=False),
            end=max(pool.seal_lsn or 0, mark.lsn),
            checkpoint=mark.lsn,
            image_bytes=mark.image_bytes,
            seconds_left=self._power.seconds_left(),
        )

    async def _fill_vault(self, parent: Path) -> None:
        pool = self.pool
        stop = threading.Event()
        work = asyncio.create_task(
            asyncio.to_thread(fill, pool.path, parent, self._plans(), pool.seal_lsn or 0, stop)
        )
        try:
            while not work.done():
                if not self._power.is_failing or pool.fenced_epoch is not None:
                    stop.set()
                await asyncio.wait([work], timeout=STEP_S)
            filled = await work
            if not self._power.is_failing or pool.fenced_epoch is not None:
                return  # without a seal it is no vault; the next one takes its place
            # Noted before there is a seal: before writers go on the vault has to be voided.
            pool.note_told(PREFIX + str(filled.path))
            await asyncio.to_thread(vault.seal, filled.path)
        except PmlogError as error:
            self._vault_error = f"{type(error).__name__}: {error}"
            logs.note(
                _log, "no vault", level=logging.ERROR, pool=pool.path, error=self._vault_error
            )
            await asyncio.sleep(min(RETRY_S, max(0.0, self._left_s())))
            return
        finally:
            stop.set()
        self._vault, self._filled, self._vault_error = filled.path, filled, None
        logs.note(
            _log, "the rest of the log is in a vault", level=logging.WARNING,
            pool=pool.path, vault=str(filled.path), bytes=filled.size_bytes,
        )  # fmt: skip

    async def _void_vaults(self) -> None:
        """Make vaults of this seal worthless, before writers go on."""
        pool = self.pool
        for name in [one for one in pool.told if one.startswith(PREFIX)]:
            await asyncio.to_thread(vault.void, Path(name.removeprefix(PREFIX)))
            if pool.fenced_epoch is None:
                pool.forget_told([name])
        self._vault = self._filled = None

    def _left_s(self) -> float:
        """How long this round still lasts."""
        now, left = self.pool.clock(), self._power.seconds_left()
        if self._is_asked:
            asked = self._until_s - now
            return asked if left is None else min(asked, left)
        return self._begun_s + POWER_LOSS_TIMEOUT_S - now if left is None else left

    def _is_done(self) -> bool:
        """Whether enough receivers are sealed, and so is everyone here."""
        return self.is_sealed() and all(one.has_all for one in self.pool.sessions.values())

    def is_sealed(self) -> bool:
        """Tell whether as many receivers as are required have everything and know it.

        Returns:
            Whether they do.
        """
        pool = self.pool
        sealed = {name for name, session in pool.sessions.items() if session.has_all}
        enough = len(sealed) >= pool.config.require and pool.config.required <= sealed
        return pool.is_sealing and enough

    def _is_parked(self, session: "Session") -> bool:
        pool = self.pool
        if not pool.is_sealing or not self._is_busy:
            return False
        lacking = frozenset(_rank(other) for other in pool.sessions.values() if not other.has_all)
        passed_s = pool.clock() - self._begun_s
        return is_parked(_rank(session), lacking, passed_s, self._time_s)

    # ---- power is back -------------------------------------------------------------------------

    async def _restore(self) -> None:
        """Let the writer go on once nobody holds a seal.

        Receivers that cannot be reached are waited for as long as it takes: one that kept its seal
        could be promoted as complete while the writer goes on.
        """
        pool, noted = self.pool, frozenset[str]()
        try:
            while not self._power.is_failing and pool.is_stopping and not pool.fenced_epoch:
                missing = frozenset(filter(self._is_missing, pool.told))
                if missing and missing != noted:
                    logs.note(
                        _log, "holders of the seal cannot be reached", level=logging.WARNING,
                        pool=pool.path, waiting_for=", ".join(sorted(missing)),
                    )  # fmt: skip
                noted = missing
                held = frozenset(filter(self._is_held, pool.told))
                self.waiting_for = missing | held
                if pool.is_unsealing != (not missing):
                    pool.is_unsealing = not missing
                    pool.wake_all()
                # Only of those that were told: who was never given the seal, or is no longer
                # counted by the operator's word, holds up nobody, whatever he says or does not say.
                is_free = not missing and not held
                if is_free and any(name.startswith(PREFIX) for name in pool.told):
                    await self._void_vaults()
                    continue  # and look at everything again
                if is_free:
                    # Between this look and the end of `unfreeze` nothing else runs.
                    pool.unfreeze()
                    logs.note(_log, "writers go on", pool=pool.path)
                    return
                await asyncio.sleep(STEP_S)
        finally:
            self.waiting_for = frozenset()
            pool.is_unsealing = False
            pool.wake_all()

    def _is_missing(self, name: str) -> bool:
        """Whether one that may hold the seal cannot be asked."""
        if name.startswith(PREFIX):
            return not Path(name.removeprefix(PREFIX)).is_dir()
        return name not in self.pool.sessions

    def _is_held(self, name: str) -> bool:
        """Whether one that is here has not given the seal back."""
        session = self.pool.sessions.get(name)
        return session is not None and not session.is_free

    async def restored(self, timeout_s: float, forget: Iterable[str]) -> dict[str, Any]:
        """Wait until the writer may go on; power must be back.

        Args:
            timeout_s: How long.
            forget: Holders of a seal that will never be promoted, by the operator's word.

        Returns:
            What came of it.
        """
        pool = self.pool
        pool.forget_told(forget)
        self.wake()
        begun = pool.clock()
        while pool.is_stopping and not pool.fenced_epoch:
            if self._power.is_failing or pool.clock() - begun >= timeout_s:
                break
            await asyncio.sleep(STEP_S)
        answer: dict[str, Any] = {"pool": pool.path, "id": pool.id}
        if pool.fenced_epoch is not None:
            return answer | {"restored": False, "reason": "another pool has taken over"}
        if not pool.is_stopping:
            return answer | {"restored": True}
        if self._power.is_failing:  # again, while we waited
            return answer | {"restored": False, "reason": "power fails again"}
        missing = ", ".join(sorted(self.waiting_for)) or "nobody"
        reason = (
            f"waiting for {missing} to give the seal back; writers go on as soon as that is done. "
            "What will never be promoted: pmlog power-loss URL --restored --forget NAME"
        )
        return answer | {"restored": False, "reason": reason}

    # ---- what a person sees --------------------------------------------------------------------

    def state(self) -> State:
        """Name the state of the pool.

        Returns:
            The state.
        """
        return state_of(
            is_frozen=self.pool.seal_lsn is not None,
            is_busy=self._is_busy,
            is_sealed=self.is_sealed(),
            is_vaulted=self._vault is not None,
            is_running=self._power.is_failing and self._must_freeze(),
        )

    def result(self) -> dict[str, Any]:
        """Tell what came of saving.

        Returns:
            That, ready for JSON.
        """
        pool, state = self.pool, self.state()
        answer: dict[str, Any] = {"pool": pool.path, "id": pool.id}
        if pool.fenced_epoch is not None or pool.is_replica():
            reason = "a replica: only its primary knows where the log ends"
            if pool.fenced_epoch is not None:
                reason = "another pool has taken over"
            return answer | {
                "state": state.value,
                "sealed": False,
                "saved": False,
                "reason": reason,
            }
        if self.last_error is not None:
            answer["reason"] = self.last_error
        return answer | {
            "state": state.value,
            "sealed": state is State.SEALED,
            "saved": state in (State.SEALED, State.VAULTED),
            "lsn": pool.seal_lsn,
            "receivers": {
                name: {
                    "sealed": session.has_all,
                    "lacks_bytes": session.lacks_bytes,
                    "flushed_bytes": session.figures.bytes_after_freeze,
                }
                for name, session in pool.sessions.items()
            },
            "vault": self._describe_vault(),
            "seconds": self._seconds,
        }

    def _describe_vault(self) -> dict[str, Any] | None:
        if self._vault is None:
            return None if self._vault_error is None else {"error": self._vault_error}
        answer: dict[str, Any] = {"path": str(self._vault)}
        if self._filled is not None:
            answer |= {
                "bytes": self._filled.size_bytes,
                "lsn_first": self._filled.lsn_first,
                "lsn_end": self._filled.lsn_end,
                "has_image": self._filled.has_image,
            }
        return answer


def _rank(session: "Session") -> Rank:
    if not session.is_whole:
        return Rank.BASELINE
    is_required = session.name in session.pool.config.required
    return Rank.REQUIRED if is_required else Rank.OTHER
