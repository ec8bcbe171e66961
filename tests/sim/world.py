"""Pools, a writer, a shipper and receivers in one process, on virtual time; seeded disasters.

The classes are the real ones, on real pools in memory: `SharedPool`, `Session`, `Receiver`, `Link`.
Replaced are the clock, the network, and the thread that waits for the log to grow.

Fault model: writer, shipper and receivers are killed between any two turns of the loop, and lose
nothing that they had stored (nothing here loses the memory that pools are in); connections break
in the ways of `network.py`; the primary's host is lost with its pool at once.

Invariants, after every turn of the loop:

1. Every replica ends where the history of its primary has the end of a record, with that checksum.
2. What a shipper takes for acknowledged is durable at the receiver.
3. What the writer is told of a level at least K receivers have.
4. A replica that would be promoted as complete has the primary's last record, and the primary
   commits nothing more while that is so.
5. A pool that knows of a later epoch commits nothing.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import pmlog
from pmlog import limits, marks
from pmlog.errors import NotPromotableError
from shipper.config import BEAT_S
from tests.sim.history import BrokenError, History, Trace, demand
from tests.sim.loop import VirtualLoop
from tests.sim.network import Network
from tests.sim.node import Node
from tests.sim.primary import BLOB_BYTES, Host, make_pool

BEAT_CALM_S = 4.0
"""Within what receivers take for silence; it saves turns while nothing happens."""


class World:
    """One primary after the other, and their receivers.

    Args:
        loop: The loop.
        seed: Decides everything.
        folder: Where the pools are.
    """

    def __init__(self, loop: VirtualLoop, seed: str, folder: Path, trace: Trace) -> None:
        self.loop, self.folder, self.trace = loop, folder, trace
        self.rng = random.Random(seed)
        self.network = Network(loop, self.rng, trace)
        self.nodes: dict[str, Node] = {}
        self.retired: list[Node] = []
        self.host: Host
        self.is_ready = False
        self.beat_s = BEAT_S
        self._nodes_made = self._hosts_made = 0
        self._seen = -1

    def check(self) -> None:
        """Check every invariant; nothing has changed if nothing was noted."""
        if not self.is_ready:
            return
        if self.network.failures:
            raise BrokenError(f"a session failed: {self.network.failures[0]!r}")
        for node in self.nodes.values():
            node.check()
        if self.trace.events != self._seen and not self.host.is_lost:
            self._seen = self.trace.events
            self.host.check([*self.nodes.values(), *self.retired])

    # ---- an episode ----------------------------------------------------------------------------

    async def live(self, hours: float) -> None:
        """Let things happen for some hours."""
        rng = self.rng
        end_s = self.loop.now_s + hours * 3600
        names = [self._new_name() for _ in range(rng.randrange(1, 4))]
        path = self.folder / "pool"
        make_pool(path, rng)
        for name in names:
            self.nodes[name] = Node.__new__(Node)
        self.host = Host(self, self._new_host(), path, History(), rng.randrange(1, len(names) + 1))
        for name in names:
            self.nodes[name] = Node(self, name, self.host)
        self.is_ready = True
        self.host.open_writer()
        await self.host.start_shipper()
        for name in names:
            await self.nodes[name].start()
        while self.loop.now_s < end_s:
            await self._storm()
            self.beat_s = BEAT_CALM_S
            await asyncio.sleep(rng.expovariate(1 / 5400))
            self.beat_s = BEAT_S
        await self._settle()
        for node in self.nodes.values():
            await node.end()
        await self.host.end()

    def _new_name(self) -> str:
        self._nodes_made += 1
        return f"n{self._nodes_made}"

    def _new_host(self) -> str:
        self._hosts_made += 1
        return f"h{self._hosts_made}"

    async def _storm(self) -> None:
        """Many things at short intervals."""
        rng = self.rng
        actions = (
            (self._write, 10), (self._disturb, 6), (self._restart_writer, 1),
            (self._checkpoint, 2), (self._restart_shipper, 1), (self._restart_node, 2),
            (self._partition, 1), (self._power, 1), (self._takeover, 0.3),
        )  # fmt: skip
        weights = [weight for _, weight in actions]
        for _ in range(rng.randrange(5, 40)):
            ((action, _),) = rng.choices(actions, weights)
            self.trace(action.__name__)
            await action()
            await asyncio.sleep(rng.expovariate(1 / rng.choice((0.01, 0.5, 3.0))))

    async def _write(self) -> None:
        count = self.rng.choice((1, 5, 40, 200))
        if self.rng.random() < 0.5:
            await self.host.commit(count)
        else:
            self.host._start(self.host.commit(count))

    async def _disturb(self) -> None:
        self.trace("disturbed", self.network.disturb())

    async def _checkpoint(self) -> None:
        self.host.checkpoint()

    async def _restart_writer(self) -> None:
        if self.rng.random() < 0.8:
            self.host.kill_writer()
        else:
            self.host.close_writer()
        await asyncio.sleep(self.rng.expovariate(1))
        if self.host.pool is None:
            self.host.open_writer()

    async def _restart_shipper(self) -> None:
        await self.host.kill_shipper()
        await asyncio.sleep(self.rng.expovariate(1 / 5))
        await self.host.start_shipper()

    def _any_node(self) -> Node:
        return self.nodes[self.rng.choice(sorted(self.nodes))]

    async def _restart_node(self) -> None:
        node = self._any_node()
        await node.kill()
        if self.rng.random() < 0.3:
            await self.host.commit(300)  # it may fall out of the ring meanwhile
            self.host.checkpoint()
        await asyncio.sleep(self.rng.expovariate(1))
        await node.start()

    async def _partition(self) -> None:
        node = self._any_node()
        self.network.partitioned.add(node.name)
        self.network.drop(node.name)
        self.loop.call_later(
            self.rng.expovariate(1 / 60), self.network.partitioned.discard, node.name
        )

    # ---- power ---------------------------------------------------------------------------------

    async def _power(self) -> None:
        """Power fails; it returns, or the host is lost."""
        rng = self.rng
        self.host._start(self.host.commit(200))
        self.host.power(self.loop.now_s + rng.choice((0.02, 1.0, 10.0, 60.0)))
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(rng.expovariate(1 / rng.choice((0.01, 0.3))))
            action = rng.choice((self._disturb, self._restart_node, self._restart_shipper))
            self.trace(action.__name__)
            await action()
        await asyncio.sleep(rng.choice((0.0, 0.01, 0.05, 1.0, 30.0)))
        if rng.random() < 0.5:
            await self._power_returns()
        else:
            await self._host_lost()

    async def _power_returns(self) -> None:
        rng = self.rng
        self.host.power(None)
        for _ in range(600):
            shared = self.host.shared
            if shared is not None and not shared.is_stopping:
                break
            if rng.random() < 0.05:
                await self._disturb()
            await asyncio.sleep(rng.choice((0.001, 0.05, 2.0)))
        else:
            raise BrokenError("power is back, and writers never go on")
        self.trace("restored")
        if self.host.pool is None:
            demand(self.host.open_writer(), "power is back, and the pool cannot be opened")

    async def _host_lost(self) -> None:
        self.trace("lost", self.host.name)
        old = self.host
        await old.lose()
        await self._succeed(old)

    async def _takeover(self) -> None:
        """A replica is promoted while the old primary lives; it must learn of that, and stop."""
        old = self.host
        node = self._best()
        if node is None:
            return
        assert node.replica is not None
        heard = max(node.replica.position.epoch, marks.history_of(node.path).heard)
        if heard < old.history.points[old.history.lsn_end].epoch:
            # It was never answered by this primary: promoted, it would take the same epoch, and
            # nobody but their operator could tell the two apart.
            return
        self.trace("takeover", node.name)
        for name in [name for name in sorted(self.nodes) if name != node.name]:
            await self.nodes[name].kill()
        await self._promote(node)
        deadline_s = self.loop.now_s + 300
        while old.shared is None or old.shared.fenced_epoch is None:
            demand(self.loop.now_s < deadline_s, "the old primary was never told")
            self.network.partitioned.clear()
            if old.shared is None:
                await old.start_shipper()
            await old.commit(1)
            await asyncio.sleep(0.5)
        committed = old.history.lsn_end
        await old.commit(3)
        old.kill_writer()
        demand(not old.open_writer(), "a fenced pool was opened for writing")
        demand(old.history.lsn_end == committed, "a fenced pool has committed")
        await old.lose()
        await self._continue(node, old)

    async def _succeed(self, old: Host) -> None:
        """Promote the best receiver, and go on there."""
        self.network.partitioned.clear()
        for node in list(self.nodes.values()):
            if node.receiver is None:
                await node.start()
        await asyncio.sleep(10.0)
        best = self._best()
        if best is None:
            # No receiver ever had a whole copy: everything is lost, which is what was promised.
            self.trace("nothing")
            await self._begin_again(old)
            return
        await self._promote(best)
        await self._continue(best, old)

    def _best(self) -> Node | None:
        fit = [
            node
            for _, node in sorted(self.nodes.items())
            if node.receiver is not None
            and node.replica is not None
            and not node.receiver.is_incomplete
            and node.replica.position.txn
        ]
        if not fit:
            return None
        complete = [node for node in fit if node.is_complete()]
        if complete:
            return complete[0]
        return max(fit, key=lambda node: node.replica.position.lsn if node.replica else 0)

    async def _promote(self, node: Node) -> None:
        """Promote it: without loss exactly if it may say so; its state is the one of its place."""
        receiver, replica, history = node.receiver, node.replica, node.host.history
        assert receiver is not None
        assert replica is not None
        at = replica.position
        is_complete = node.is_complete()
        self.trace("promote", node.name, is_complete, at.lsn)
        try:
            promotion = await receiver.promote(accept_loss=False)
        except NotPromotableError:
            demand(not is_complete, "a complete replica was refused")
            promotion = await receiver.promote(accept_loss=True)
            demand(not promotion.complete, "a promotion with loss calls itself complete")
        at_end = promotion.place.lsn == history.lsn_end
        demand(not promotion.complete or at_end, "a promotion calls itself complete, and is not")
        point = history.points.get(promotion.place.lsn)
        demand(point is not None, "a promotion at a place that never was")
        assert point is not None
        await node.kill()
        await node.start()
        receiver = node.receiver
        assert receiver is not None
        demand(receiver.state.promotion == promotion, "a promotion was forgotten")
        with pmlog.open(node.path, readonly=True) as pool:
            demand(pool.position.epoch == promotion.epoch, "the promoted pool's epoch is another")
            numbers = pool.dict("numbers")
            number = max(numbers.values(), default=0)
            crc = zlib.crc32(pool.region("blob", BLOB_BYTES).read(0, BLOB_BYTES))
            found = (number, crc)
        demand(found == (point.number, point.crc), f"promoted {found}, it was {point}")

    async def _continue(self, node: Node, old: Host) -> None:
        """Make the promoted node the primary; the others receive from there, or begin anew."""
        receiver = node.receiver
        assert receiver is not None
        promotion = receiver.state.promotion
        assert promotion is not None
        await receiver.stop()
        del self.nodes[node.name]
        history = old.history.until(promotion.place.lsn)
        for name, other in sorted(self.nodes.items()):
            end = other.replica.position.lsn if other.replica is not None else 0
            if end > promotion.place.lsn or other.replica is None or self.rng.random() < 0.2:
                await other.kill()
                del self.nodes[name]  # it has what the new primary lacks, or has nothing
        while len(self.nodes) < 2:
            name = self._new_name()
            self.nodes[name] = Node(self, name, old)
        self.retired = []
        number = history.points[history.lsn_end].number
        host = Host(self, self._new_host(), node.path, history, 1)
        host.number = number
        self.host = host
        demand(host.open_writer(), "the promoted pool cannot be written")
        await host.start_shipper()
        for _, other in sorted(self.nodes.items()):
            await other.kill()
            other.host = host
            other.lsn_durable = min(other.lsn_durable, promotion.place.lsn)
            other.lsn_received = min(other.lsn_received, promotion.place.lsn)
            await other.start()

    async def _begin_again(self, old: Host) -> None:
        for node in list(self.nodes.values()):
            await node.kill()
        self.nodes = {}
        path = self.folder / self._new_host()
        make_pool(path, self.rng)
        names = [self._new_name() for _ in range(2)]
        for name in names:
            self.nodes[name] = Node(self, name, old)
        self.host = Host(self, path.name, path, History(), 1)
        self.host.open_writer()
        await self.host.start_shipper()
        for name in names:
            self.nodes[name].host = self.host
            await self.nodes[name].start()

    async def _settle(self) -> None:
        """With a whole network everybody arrives at the end."""
        self.network.partitioned.clear()
        host = self.host
        if host.shared is None:
            await host.start_shipper()
        for node in self.nodes.values():
            if node.receiver is None:
                await node.start()
        await asyncio.sleep(60.0)
        for wire in self.network.connections:
            wire.cut(loses_queue=True)
        deadline_s = self.loop.now_s + 1200
        while not all(
            node.replica is not None
            and node.replica.position.lsn == host.history.lsn_end
            and node.receiver is not None
            and not node.receiver.is_incomplete
            for node in self.nodes.values()
        ):
            demand(self.loop.now_s < deadline_s, "a receiver never gets to the end")
            await asyncio.sleep(1.0)


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    hash: str
    events: int
    steps: int
    hours: float
    counts: dict[str, int]


def simulate(seed: int, hours: float, folder: Path, episode_hours: float = 6.0) -> Outcome:
    """Run episodes until so many hours have passed; raise what breaks an invariant."""
    # Frames that end inside a record: of pools as small as these a whole run would fit.
    usual_bytes = limits.FRAME_RAW_BYTES_MAX
    limits.FRAME_RAW_BYTES_MAX = limits.BLOCK_BYTES  # type: ignore[misc]
    worlds: list[World] = []
    loop = VirtualLoop(lambda: worlds[-1].check() if worlds else None)
    trace = Trace(loop)
    asyncio.set_event_loop(loop)
    try:
        number = 0
        while loop.now_s < hours * 3600:
            place = folder / f"{seed}-{number}"
            place.mkdir()
            world = World(loop, f"{seed}:{number}", place, trace)
            loop.run_until_complete(_episode(world, worlds, min(episode_hours, hours)))
            worlds.clear()
            shutil.rmtree(place)
            number += 1
    except Exception as error:
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        worlds.clear()
        print("\n".join(trace.last[-60:]))
        print(f"seed {seed}, episode {number}, at {loop.now_s:.3f} s: {error!r}")
        raise
    finally:
        limits.FRAME_RAW_BYTES_MAX = usual_bytes  # type: ignore[misc]
        asyncio.set_event_loop(None)
    loop.close()
    return Outcome(trace.hash(), trace.events, loop.steps, loop.now_s / 3600, dict(trace.counts))


async def _episode(world: World, worlds: list[World], hours: float) -> None:
    living = asyncio.create_task(world.live(hours))
    await asyncio.sleep(0)
    worlds.append(world)
    await living
