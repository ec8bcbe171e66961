"""A receiver on virtual time, of the real classes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmlog import marks
from pmlog._engine import lib
from pmlog.position import Position
from pmlog.replica import Replica
from receiver.config import Config
from receiver.link import Link
from receiver.promote import Sealing, sealing_of
from receiver.receiver import Receiver
from tests.sim.history import BrokenError, demand
from tests.sim.primary import LISTEN, Host
from tests.support import faults_of

if TYPE_CHECKING:
    from tests.sim.world import World


class Node:
    """A receiver."""

    def __init__(self, world: World, name: str, host: Host) -> None:
        self.world, self.name = world, name
        self.folder = world.folder / name
        self.host = host
        self.receiver: Receiver | None = None
        self.lsn_durable = self.lsn_received = 0
        """What a whole copy has had."""
        self._checked: tuple[Any, ...] = (None,)
        self._link: Link | None = None
        self._began_at: Position | None = None
        """What it had when that connection began."""
        self._was_complete = False
        """When it was killed."""

    @property
    def replica(self) -> Replica | None:
        """What it holds, while it lives."""
        return None if self.receiver is None else self.receiver.replica

    async def start(self) -> None:
        """Start it."""
        config = Config((self.host.name,), self.folder, self.name, "any", LISTEN)
        self.receiver = Receiver(config, self._dialling, partial(Replica, background=False))
        await self.receiver.start()
        demand(
            not self._was_complete or self.is_complete(),
            f"{self.name} had the seal, and lost it when it was killed",
        )

    @contextlib.asynccontextmanager
    async def _dialling(self, config: Config) -> AsyncIterator[Any]:
        del config
        yield partial(self.world.network.dial, self.name)

    async def kill(self) -> None:
        """SIGKILL."""
        if self.receiver is None:
            return
        self._was_complete = self.is_complete()
        receiver, self.receiver = self.receiver, None
        self.world.network.drop(self.name)
        await receiver._stop_dialling()
        replica = receiver.replica
        if replica is not None:
            core, replica._pool = replica._pool, None
            lib.pml_abandon(core)
            lib.pml_free(core)

    async def end(self) -> None:
        """End it in order, and let the checker look at the replica."""
        if self.receiver is not None:
            is_whole = not self.receiver.is_incomplete
            await self.receiver.stop()
            self.receiver = None
            if is_whole and self.path.exists():
                demand(faults_of(self.path) == [], f"faults at {self.name}")

    @property
    def path(self) -> Path:
        """Where the replica is."""
        return self.folder / "pool"

    def is_complete(self) -> bool:
        """Whether it would be promoted without loss."""
        receiver, replica = self.receiver, self.replica
        if receiver is None or replica is None or receiver.is_incomplete:
            return False
        seal = receiver.state.seal
        return seal is not None and (sealing_of(seal.place, replica.position) is Sealing.COMPLETE)

    def check(self) -> None:
        """Check invariants 1 and 4; note what it has."""
        receiver, replica = self.receiver, self.replica
        if receiver is None:
            return
        task = receiver._dialling
        if task is not None and task.done() and not task.cancelled() and task.exception():
            raise BrokenError(f"{self.name} has stopped dialling: {task.exception()!r}")
        if replica is None or receiver.state.promotion is not None or replica._pool is None:
            return
        at, history = replica.position, self.host.history
        link = receiver.link
        if link is not self._link:
            self._link, self._began_at = link, at
        # Until the mark is set, and the position with it, blocks are a mixture of two histories.
        demand(
            link is None or not link.blocks or self._began_at is not at
            or marks.incomplete_of(self.path) is not None,
            f"{self.name} has blocks of a baseline, and does not say that it is incomplete",
        )  # fmt: skip
        now = (at, receiver.state.seal, receiver.is_incomplete, history, history.lsn_end)
        if all(one is other for one, other in zip(now, self._checked, strict=False)):
            return  # nothing of this has changed
        if len(self._checked) > 2 and self._checked[2] is not now[2]:
            self.world.trace("incomplete" if now[2] else "whole", self.name)
        self._checked = now
        if not receiver.is_incomplete and at.txn:
            demand(history.has(at), f"{self.name} ends at {at}, where {self.host.name} never was")
            self.lsn_durable = max(self.lsn_durable, at.lsn)
            self.lsn_received = max(self.lsn_received, replica.lsn_next)
        seal = receiver.state.seal
        # Another replica may have taken over from the seal's epoch: that the operator must know.
        if (
            seal is not None
            and seal.place.epoch == history.points[history.lsn_end].epoch
            and self.is_complete()
        ):
            demand(
                at.lsn == history.lsn_end,
                f"{self.name} would be promoted as complete at {at.lsn}, but {self.host.name} "
                f"has committed up to {history.lsn_end}",
            )
