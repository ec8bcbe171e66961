"""A primary on virtual time: pool, writer and shipper, of the real classes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pmlog
from pmlog._engine import ffi, lib
from pmlog.addresses import parse_listen
from pmlog.errors import CapacityError, FencedError, PoolFrozenError
from pmlog.identity import Identity
from pmlog.log import Bound, LogReader
from pmlog.medium import Medium
from pmlog.pool import open_options
from pmlog.replica import Replica
from shipper.config import Config
from shipper.power_loss import Saver
from shipper.session import attend
from shipper.shared import SharedPool
from tests.sim.history import History, demand
from tests.sim.loop import VirtualLoop
from tests.sim.network import End
from tests.support import faults_of

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World

BLOB_BYTES = 32 * 1024
LISTEN = parse_listen("127.0.0.1:0")


class Tail:
    """In place of the thread that waits on the log: the writer says that it grew."""

    def __init__(self, host: Host, reader: LogReader, wake: Any) -> None:
        self._host, self._reader, self._wake = host, reader, wake
        self._lsn: int | None = None
        host.tail = self

    def arm(self, lsn: int) -> None:
        """Wake when the log reaches beyond that."""
        self._lsn = lsn
        self.look()

    def look(self) -> None:
        """See whether it does."""
        if self._lsn is not None and self._reader.lsn_durable > self._lsn:
            self._lsn = None
            self._host.world.loop.call_later(0.00005, self._wake)

    async def stop(self) -> None:
        """Wake nobody any more."""
        self._lsn = None


class Mains:
    """The power of one host: on or failing, by the world's word."""

    source = "mains"

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.until_s: float | None = None

    @property
    def is_failing(self) -> bool:
        """Whether power fails."""
        return self.until_s is not None

    def seconds_left(self) -> float | None:
        """Tell how long the battery lasts."""
        return None if self.until_s is None else max(0.0, self.until_s - self._loop.now_s)


class Host:
    """A primary: pool, writer and shipper."""

    def __init__(self, world: World, name: str, path: Path, history: History, k: int) -> None:
        self.world, self.name, self.path, self.history = world, name, path, history
        names = sorted(world.nodes)
        required = frozenset(world.rng.sample(names, world.rng.randrange(0, len(names) + 1)))
        self.config = Config((str(path),), LISTEN, require=k, required=required)
        self.tail: Tail | None = None
        self.shared: SharedPool | None = None
        self.saver: Saver | None = None
        self.mains = Mains(world.loop)
        self.number = 0
        self.is_lost = False
        self._tasks: list[asyncio.Task[Any]] = []
        self.pool: pmlog.Pool | None = None
        self._blob = bytearray(BLOB_BYTES)
        self._reader: LogReader | None = None

    # ---- the writer ----------------------------------------------------------------------------

    def open_writer(self) -> bool:
        """Open the pool for writing; it must hold what was committed last."""
        try:
            self.pool = open_writer(self.path)
        except (PoolFrozenError, FencedError):
            return False
        at = self.pool.position
        if not self.history.points:
            self.history.note(at, 0, zlib.crc32(bytes(BLOB_BYTES)))
        if "blob" in self.pool.names():
            self._blob = bytearray(self.pool.region("blob", BLOB_BYTES).read(0, BLOB_BYTES))
        self._follow()
        demand(self.history.has(at), f"{self.name} was opened at {at}, which it never was")
        demand(at.lsn == self.history.lsn_end, f"{self.name} was opened at {at}, not at its end")
        self._numbers = self.pool.dict("numbers")
        self._region = self.pool.region("blob", BLOB_BYTES)
        self._follow()
        return True

    def _follow(self) -> None:
        """Note the ends of all new records."""
        if self._reader is None:
            self._reader = LogReader(self.path)
            with contextlib.suppress(pmlog.GapError):
                self._reader.seek(self.history.lsn_end)
        crc = zlib.crc32(self._blob)
        while (record := self._reader.next()) is not None:
            if record.position.lsn > self.history.lsn_end:
                self.history.note(record.position, self.number, crc)

    def has_writer(self) -> bool:
        """Whether the pool is open for writing."""
        return self.pool is not None

    def kill_writer(self) -> None:
        """SIGKILL."""
        if self.pool is not None:
            self.pool._core.abandon()
            self.pool = None

    def close_writer(self) -> None:
        """End it in order."""
        if self.pool is not None:
            self.pool.close()
            self.pool = None

    async def commit(self, count: int) -> None:
        """Commit some transactions, as slowly as the shipper wants."""
        for _ in range(count):
            if self.pool is None:
                return
            delay_ns = self._delay_ns()
            if delay_ns:
                await asyncio.sleep(min(delay_ns / 1e9, 0.05))
                if not self.has_writer():
                    return
            if self._has_credit():
                self._commit_one()
            else:
                await asyncio.sleep(0.02)  # until receivers have caught up, or this one is lost
            if self.world.rng.random() < 0.05:
                await asyncio.sleep(0.001)

    def _delay_ns(self) -> int:
        """Take the delay from the engine, which would sleep on the real clock."""
        assert self._reader is not None
        control = lib.pml_tail_control(self._reader._tail)
        delay_ns = int(control.delay_ns)
        if delay_ns:
            bound = Bound(0, int(control.lsn_limit), int(control.backlog_limit_bytes))
            self._reader.publish(0, 0, 0, bound)
        return delay_ns

    def _has_credit(self) -> bool:
        """Whether the bound lets a transaction begin; the engine would wait on the real clock."""
        assert self._reader is not None
        limit = int(lib.pml_tail_control(self._reader._tail).lsn_limit)
        return not limit or self.history.lsn_end < limit

    def _commit_one(self) -> None:
        assert self.pool is not None
        rng, number = self.world.rng, self.number + 1
        data = rng.randbytes(rng.choice((8, 100, 1000, 9000)))
        offset = rng.randrange(BLOB_BYTES - len(data))
        try:
            with self.pool.transaction():
                self._numbers[number % 50] = number
                self._region.write(offset, data)
        except CapacityError:
            return
        except (PoolFrozenError, FencedError) as error:
            self.world.trace("refused", self.name, type(error).__name__)
            return
        demand(
            self.shared is None or self.shared.fenced_epoch is None,
            f"{self.name} committed though it knows of epoch {self.shared and self.shared.fenced_epoch}",
        )
        self.number = number
        self._blob[offset : offset + len(data)] = data
        self._follow()
        self.world.trace("commit", self.name, number, self.history.lsn_end)
        if self.tail is not None:
            self.tail.look()

    def checkpoint(self) -> None:
        """Bring the image up to date."""
        if self.pool is not None:
            self.pool.checkpoint()

    # ---- the shipper ---------------------------------------------------------------------------

    async def start_shipper(self) -> None:
        """Start it, as its service does."""
        loop = self.world.loop
        shared = SharedPool(str(self.path), self.config, loop.time, partial(Tail, self))  # type: ignore[arg-type]
        await shared.restore_stop()
        shared.publish()
        self.shared = shared
        self.saver = Saver(shared, self.mains)
        self._start(self._beat(shared))
        self._start(self.saver.run())
        self.world.network.servers[self.name] = self._attend

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks = [one for one in self._tasks if not one.done()] + [task]
        return task

    async def _attend(self, end: End) -> None:
        assert self.shared is not None
        await attend(self.shared, end)  # type: ignore[arg-type]

    async def _beat(self, shared: SharedPool) -> None:
        lsn = 0
        while True:  # until it is cancelled
            await asyncio.sleep(self.world.beat_s)
            await shared.beat()
            # What the engine's own thread does once the writer is quiet.
            if self.history.lsn_end != lsn and self.pool is not None:
                lsn = self.history.lsn_end
                self.pool.checkpoint()

    async def kill_shipper(self) -> None:
        """SIGKILL."""
        shared, self.shared = self.shared, None
        if shared is None:
            return
        self.world.network.shut(self.name)
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.world.network.end_served(self.name)
        shared.sessions.clear()
        shared.reader.close()
        self.tail = None

    def power(self, until_s: float | None) -> None:
        """Power fails, and the battery lasts until then; None: it is back."""
        self.mains.until_s = until_s
        if self.saver is not None:
            self.saver.wake()

    async def lose(self) -> None:
        """The host is gone, its memory too."""
        self.is_lost = True
        self.kill_writer()
        await self.kill_shipper()
        if self._reader is not None:
            self._reader.close()
        shutil.rmtree(self.path)

    async def end(self) -> None:
        """End everything in order, and let the checker look at the pool."""
        await self.kill_shipper()
        self.close_writer()
        if self._reader is not None:
            self._reader.close()
        demand(faults_of(self.path) == [], f"faults in {self.name}")

    # ---- what must hold ------------------------------------------------------------------------

    def check(self, nodes: list[Node]) -> None:
        """Check invariants 2 and 3."""
        shared = self.shared
        if shared is None or self._reader is None:
            return
        for name, session in shared.sessions.items():
            node = self.world.nodes.get(name)
            if node is not None and session.is_whole and session.has_spoken and node.replica:
                got = session.progress.durable
                demand(
                    got <= max(node.lsn_durable, node.replica.position.lsn),
                    f"{name} is taken to have {got} durable, and has {node.replica.position.lsn}",
                )
                pin = session._consumer
                demand(
                    pin is None or pin.lsn_acked <= max(got, session.lsn_pinned),
                    f"the log is kept for {name} from {pin and pin.lsn_acked}, and it has {got}",
                )
                demand(
                    not shared.is_sealing or not session.has_all or node.is_complete(),
                    f"{name} is taken to hold the seal, and does not",
                )
        control = lib.pml_tail_control(self._reader._tail)
        k = self.config.require - 1
        durable = sorted((node.lsn_durable for node in nodes), reverse=True)
        received = sorted((node.lsn_received for node in nodes), reverse=True)
        for index, truth in enumerate((received, durable, durable)):
            known = truth[k] if k < len(truth) else 0
            level = int(control.lsn_level[index])
            known = max(known, 4096)  # below the first LSN there is nothing to have
            demand(level <= known, f"level {index} is published as {level}, but it is {known}")


# ---- pools --------------------------------------------------------------------------------------


def make_pool(path: Path, rng: random.Random) -> None:
    """Make a pool whose every byte depends on the seed."""
    identity = Identity(
        UUID(int=rng.getrandbits(128)), 1, 256 * 1024, (rng.getrandbits(64), rng.getrandbits(64)),
        1 << 20,
    )  # fmt: skip
    Replica(path, identity, background=False).close()
    open_writer(path).close()  # which formats what has no transaction yet


def open_writer(path: Path) -> pmlog.Pool:
    """Open a pool for writing without a thread of its own."""
    from pmlog.pool import _must_not_be_stopped

    _must_not_be_stopped(str(path))
    options = ffi.new("struct pml_options *")
    options.size = options.log_size = 1 << 20
    options.max_size = 64 << 30
    options.flags = lib.PML_OPEN_NO_THREAD
    options.medium = Medium.FILE
    return open_options(str(path), options, Medium.FILE)
