"""Orders of events in which a promise is broken where one step is left out, played one by one.

Each is against a real shipper or receiver; the other side is played by hand, so that what is said
and what is held back is up to the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import pmlog
from pmlog import marks, wire
from pmlog._engine import ffi, lib
from pmlog.addresses import Address
from pmlog.history import History
from pmlog.identity import Identity
from pmlog.image import blocks_of
from pmlog.log import LogReader
from pmlog.position import Position
from pmlog.replica import Replica, promote
from receiver.config import Config as ReceiverConfig
from receiver.receiver import Receiver
from receiver.state import Seal
from shipper.config import Config
from shipper.power.supply import Supply
from shipper.service import _pools, _supplies, make_app
from shipper.session import STALL_S
from shipper.shared import SharedPool
from tests.support import PATIENCE_S, SMALL, faults_of

LOOPBACK = Address("127.0.0.1", 0)


class Shipper:
    """A real shipper in this process."""

    def __init__(self, path: Path, require: int = 1, **options: Any) -> None:
        self.app = make_app(Config((str(path),), LOOPBACK, require, **options))
        self.runner = web.AppRunner(self.app, shutdown_timeout=1.0)
        self.url = ""

    async def start(self) -> Shipper:
        """Start it."""
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    @property
    def pool(self) -> SharedPool:
        """The only one."""
        return next(iter(self.app[_pools].values()))

    @property
    def supply(self) -> Supply:
        """The power."""
        return self.app[_supplies][0]

    async def save(self) -> dict[str, Any]:
        """Save the pool, as `pmlog power-loss` does."""
        return (await self.supply.power_loss(PATIENCE_S))[0]

    async def restore(self, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Let the writer go on, as `pmlog power-loss --restored` does."""
        return (await self.supply.restored(timeout_s, ()))[0]


class Peer:
    """A receiver that is played by hand."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, message: wire.Message) -> None:
        """Send a message."""
        await self.socket.send_str(wire.encode_message(message))

    async def ack(self, lsn: int, *, sealed: bool = False) -> None:
        """Acknowledge everything below an LSN."""
        await self.say(wire.Ack(lsn, lsn, lsn, sealed))

    async def hear(self, *wanted: type) -> Any:
        """Return the next message of these types; frames and others are passed over."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await self.socket.receive()
                assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
                if message.type is aiohttp.WSMsgType.TEXT:
                    said = wire.decode_from_shipper(message.data)
                    if isinstance(said, wanted):
                        return said


class Stage:
    """Starts and ends the players."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self.client = client
        self.shippers: list[Shipper] = []

    async def shipper(self, path: Path, require: int = 1, **options: Any) -> Shipper:
        """Start a shipper."""
        made = Shipper(path, require, **options)
        self.shippers.append(made)
        return await made.start()

    async def peer(self, shipper: Shipper, name: str, place: Position | None, **more: Any) -> Peer:
        """Connect a receiver that has the log up to there."""
        peer = Peer(await self.client.ws_connect(f"{shipper.url}/v1/pools/any/stream"))
        where = (
            None if place is None else wire.Place(place.epoch, place.lsn, place.chain, place.txn)
        )
        await peer.say(wire.Hello(wire.VERSION, "any", name, where, **more))
        return peer

    async def close(self) -> None:
        """End everything."""
        for shipper in self.shippers:
            await shipper.runner.cleanup()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Give a stage, cleared afterwards."""
    async with aiohttp.ClientSession() as client:
        made = Stage(client)
        yield made
        await made.close()


def lap(pool: pmlog.Pool) -> None:
    """Write so much that the ring no longer holds the log's beginning."""
    blob = pool.region("blob", 65536)
    for number in range(40):
        blob.write(0, bytes([number]) * 65536)
    pool.checkpoint()


async def times_out(pool: pmlog.Pool, level: pmlog.Level) -> bool:
    """Whether what is committed now does not reach a level."""
    try:
        await pool.wait_async(level, timeout=0.1)
    except pmlog.WaitTimeoutError:
        return True
    return False


async def test_baseline_vouches_for_nothing(stage: Stage, pool: pmlog.Pool) -> None:
    """A receiver in the middle of its first copy has not replicated what lies below the mark.

    1. The log has lapped; a new receiver is answered by a baseline from the checkpoint.
    2. The shipper counted it at once as having everything below the checkpoint.
    3. A wait for REPLICATED returned; the host was lost; the copy was incomplete, not promotable.
    """
    lap(pool)
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", None)
    await peer.hear(wire.Baseline)
    assert await times_out(pool, pmlog.Level.RECEIVED)
    # The slot that keeps the log for it is no word of the receiver's either.
    await shipper.runner.cleanup()
    shipper = await stage.shipper(Path(pool.path))
    assert await times_out(pool, pmlog.Level.RECEIVED)
    # Connected again it has the blocks, and lacks the log behind them.
    half = pool.position
    pool.dict("words")["a"] = 1
    end = pool.position
    peer = await stage.peer(shipper, "one", half, whole=end.lsn)
    await peer.hear(wire.Stream)
    assert shipper.pool.level.durable == 0
    await peer.ack(end.lsn)
    await pool.wait_async(pmlog.Level.REPLICATED, timeout=PATIENCE_S)


async def test_old_connection_is_not_believed(stage: Stage, pool: pmlog.Pool) -> None:
    """What a receiver said before it came again counts no more.

    1. A receiver's acknowledgement is on its way; it loses its directory and dials again.
    2. The shipper lets the new connection begin at nothing.
    3. The old one's acknowledgement arrives: it raised the level for bytes that are nowhere.
    """
    pool.dict("words")["a"] = 1
    shipper = await stage.shipper(Path(pool.path))
    old = await stage.peer(shipper, "one", None)
    await old.hear(wire.Heartbeat)  # everything was sent to it
    with LogReader(pool.path, 4096) as reader:
        begin = reader.position
    new = await stage.peer(shipper, "one", begin)
    await new.hear(wire.Stream)
    with contextlib.suppress(ConnectionError):
        await old.ack(pool.position.lsn)
    assert await times_out(pool, pmlog.Level.RECEIVED)
    await new.ack(pool.position.lsn)
    await pool.wait_async(pmlog.Level.REPLICATED, timeout=PATIENCE_S)


async def test_power_returns_while_the_seal_is_on_its_way(stage: Stage, pool: pmlog.Pool) -> None:
    """The writer goes on only once the receiver has had the seal and has given it back.

    1. Frozen; the seal is sent, and is being stored.
    2. Power returns. Nobody had acknowledged the seal, so the writer went on at once.
    3. The host is lost before the receiver heard of it: it promoted as complete, and lacked
       what was committed since.
    """
    pool.dict("words")["a"] = 1
    end = pool.position
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", end)
    await peer.ack(end.lsn)
    saving = asyncio.create_task(shipper.save())
    await peer.hear(wire.Sealed)
    await peer.ack(end.lsn)  # coalesced: said before the seal was stored
    saving.cancel()
    restoring = asyncio.create_task(shipper.restore())
    assert isinstance(await peer.hear(wire.Heartbeat, wire.Unsealed), wire.Heartbeat)
    with pytest.raises(pmlog.PoolFrozenError):
        pool.dict("words")["b"] = 2
    await peer.ack(end.lsn, sealed=True)
    await peer.hear(wire.Unsealed)
    assert not restoring.done()
    await peer.ack(end.lsn)
    assert (await restoring)["restored"]
    pool.dict("words")["b"] = 2


async def test_answer_to_the_seal_is_lost(stage: Stage, pool: pmlog.Pool) -> None:
    """A receiver that was sent the seal holds it, whatever it had acknowledged before.

    1. The receiver takes the rest of the log and the seal; the shipper is killed before it hears.
    2. The next shipper finds a slot that has acknowledged less than everything.
    3. Power returned and it let the writer go on; the receiver still had its seal.
    """
    pool.dict("words")["a"] = 1
    before = pool.position
    pool.dict("words")["b"] = 2
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", before)
    saving = asyncio.create_task(shipper.save())
    await peer.hear(wire.Sealed)
    saving.cancel()
    await shipper.runner.cleanup()
    shipper = await stage.shipper(Path(pool.path))
    answer = await shipper.restore(0.1)
    assert not answer["restored"]
    assert "one" in str(answer["reason"])
    # It comes back, is heard, and gives the seal back.
    peer = await stage.peer(shipper, "one", pool.position)
    await peer.hear(wire.Stream)
    await peer.ack(pool.position.lsn, sealed=True)
    restoring = asyncio.create_task(shipper.restore())
    await peer.hear(wire.Unsealed)
    await peer.ack(pool.position.lsn)
    assert (await restoring)["restored"]


async def test_fenced_while_power_returns(stage: Stage, pool: pmlog.Pool) -> None:
    """A pool that was fenced while power came back stays fenced.

    1. Sealed at two receivers; a third one, behind, is promoted with loss accepted.
    2. Power returns: the shipper waits for the two to give back their seals.
    3. The promoted one says hello from the next epoch: the pool is fenced.
    4. The seals are back, and the writer was let go on: two primaries.
    """
    pool.dict("words")["a"] = 1
    end = pool.position
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", end)
    await peer.ack(end.lsn)
    saving = asyncio.create_task(shipper.save())
    await peer.hear(wire.Sealed)
    await peer.ack(end.lsn, sealed=True)
    assert (await saving)["sealed"]
    restoring = asyncio.create_task(shipper.restore())
    await peer.hear(wire.Unsealed)
    later = await stage.peer(shipper, "two", Position(2, end.lsn, end.chain, end.txn))
    assert (await later.hear(wire.Refuse)).code == "fenced"
    with contextlib.suppress(ConnectionError):
        await peer.ack(end.lsn)
    assert not (await restoring)["restored"]
    stop = marks.stop_of(pool.path)
    assert stop is not None
    assert stop.why == "fenced"
    with pytest.raises(pmlog.FencedError):
        pool.dict("words")["b"] = 2


async def test_power_is_back_at_once(stage: Stage, pool: pmlog.Pool) -> None:
    """Whoever announces a power loss is answered, also if power is back before anything was done.

    1. A power loss is announced, and its end right behind.
    2. Who saves the pool looks for the first time: power is there, nothing is to be done.
    3. The announcement was never answered.
    """
    supply = (await stage.shipper(Path(pool.path))).supply
    async with asyncio.timeout(PATIENCE_S):
        saved, restored = await asyncio.gather(
            supply.power_loss(PATIENCE_S), supply.restored(PATIENCE_S, ())
        )
    assert restored[0]["restored"]
    assert not saved[0]["sealed"]
    pool.dict("words")["a"] = 1


async def test_power_fails_again(stage: Stage, pool: pmlog.Pool) -> None:
    """Whoever waits for the writer to go on is answered when power fails once more.

    1. Sealed; power is back, and the receiver keeps its seal to itself.
    2. Power fails again: nobody waits for that seal any more.
    3. Who had said that power was back waited on, for as long as he had been ready to.
    """
    end = pool.position
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", end)
    saving = asyncio.create_task(shipper.supply.power_loss(PATIENCE_S))
    await peer.hear(wire.Sealed)
    await peer.ack(end.lsn, sealed=True)
    await saving
    restoring = asyncio.create_task(shipper.supply.restored(1e9, ()))
    await peer.hear(wire.Unsealed)
    again = asyncio.create_task(shipper.supply.power_loss(0.1))
    async with asyncio.timeout(PATIENCE_S):
        answer = (await restoring)[0]
    assert (answer["restored"], answer["reason"]) == (False, "power fails again")
    again.cancel()


def test_frozen_while_it_is_opened(pool_path: Path) -> None:
    """An application that opens the pool in the very moment of a power loss is refused.

    1. `open` finds no mark that stops it.
    2. The shipper stores the mark, freezes, and seals the end of the log.
    3. The engine begins the control words anew, unfrozen: the application committed beyond the seal.
    """
    pmlog.open(pool_path, **SMALL).close()

    def freeze_between(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name == "open_options":
            sys.setprofile(None)
            marks.set_stop(pool_path, marks.Stop("power", 1))
            with LogReader(pool_path) as reader:
                reader.freeze()

    sys.setprofile(freeze_between)
    try:
        with pytest.raises(pmlog.PoolFrozenError):
            pmlog.open(pool_path, **SMALL)
    finally:
        sys.setprofile(None)
    assert marks.stop_of(pool_path) is not None


async def test_whole_but_not_noted(memory_dir: Path, pool: pmlog.Pool) -> None:
    """A copy whose last byte is there is whole, also if the receiver was killed before it noted so.

    1. The last record that a baseline lacked is durable, and so are the checkpoint marks.
    2. SIGKILL, before the mark `incomplete` is removed.
    3. The primary is lost: no frame will come, and the copy was never promotable again.
    """
    with LogReader(pool.path) as reader:
        identity: Identity = reader.identity()
    folder = memory_dir / "one"
    folder.mkdir()
    with Replica(folder / "pool", identity) as replica:
        assert replica.position.lsn == 4096
    marks.set_incomplete(folder / "pool", marks.Incomplete("baseline"))
    config = ReceiverConfig(("http://127.0.0.1:9",), folder, "one", "any", LOOPBACK)
    receiver = Receiver(config)
    await receiver.start()
    try:
        assert not receiver.describe()["incomplete"]
    finally:
        await receiver.stop()


async def test_power_fails_again_before_the_seal_is_back(stage: Stage, pool: pmlog.Pool) -> None:
    """The next seal is sent only after the answer to `unsealed`: so each answer has one meaning.

    1. Sealed; power returns, `unsealed` is sent; power fails again, the next seal is sent at once.
    2. Power returns. The answer to the first `unsealed` arrives: the writer went on.
    3. The connection breaks before the second `unsealed`: the receiver holds the second seal.
    """
    pool.dict("words")["a"] = 1
    end = pool.position
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", end)
    await peer.ack(end.lsn)
    saving = asyncio.create_task(shipper.save())
    await peer.hear(wire.Sealed)
    await peer.ack(end.lsn, sealed=True)
    assert (await saving)["sealed"]
    restoring = asyncio.create_task(shipper.restore())
    await peer.hear(wire.Unsealed)
    saving = asyncio.create_task(shipper.save())
    assert isinstance(await peer.hear(wire.Heartbeat, wire.Sealed), wire.Heartbeat)
    assert not saving.done()  # the old seal is not taken for the new one
    await peer.ack(end.lsn)
    await peer.hear(wire.Sealed)
    await peer.ack(end.lsn, sealed=True)
    assert (await saving)["sealed"]
    with pytest.raises(pmlog.PoolFrozenError):
        pool.dict("words")["b"] = 2
    restoring.cancel()


async def test_power_returns_in_a_baseline(stage: Stage, pool: pmlog.Pool) -> None:
    """A receiver in the middle of a long first copy holds no seal, and keeps no writer waiting."""
    lap(pool)
    shipper = await stage.shipper(Path(pool.path))
    saving = asyncio.create_task(shipper.save())
    peer = await stage.peer(shipper, "one", None)
    await peer.hear(wire.Baseline)
    restoring = asyncio.create_task(shipper.restore())
    await asyncio.wait([saving], timeout=PATIENCE_S)
    await peer.socket.send_bytes(
        bytes(16 * len(list(blocks_of(shipper.pool.identity.image_bytes))))
    )
    assert (await restoring)["restored"]
    pool.dict("words")["b"] = 2


async def test_repeating_oneself_is_no_progress(stage: Stage, pool: pmlog.Pool) -> None:
    """A receiver is let go when it acknowledges nothing new, and not because it was idle before.

    1. A receiver has everything; an hour passes without a commit.
    2. A frame is sent; before the answer is there the shipper looks whether the receiver is stuck:
       it took the hour for silence.
    3. The receiver repeats what it has said: that counted as an answer, and it could hold writers
       at their bound for ever.
    """
    pool.dict("words")["a"] = 1
    shipper = await stage.shipper(Path(pool.path))
    hour = 0.0
    clock = shipper.pool.clock
    shipper.pool.clock = lambda: clock() + hour
    with LogReader(pool.path, 4096) as reader:
        begin = reader.position
    peer = await stage.peer(shipper, "one", begin)
    before = pool.position.lsn
    await peer.hear(wire.Heartbeat)
    await peer.ack(before)
    await pool.wait_async(pmlog.Level.REPLICATED, timeout=PATIENCE_S)
    hour = 3600.0
    pool.dict("words")["b"] = 2
    session = shipper.pool.sessions["one"]
    async with asyncio.timeout(PATIENCE_S):
        while session.lsn_next == before:  # noqa: ASYNC110 - of another task
            await asyncio.sleep(0.001)
    session.beat()
    await peer.hear(wire.Heartbeat)
    assert shipper.pool.sessions["one"] is session
    hour += STALL_S + 1
    await peer.ack(before)
    refusal = await peer.hear(wire.Refuse)
    assert "no acknowledgement" in refusal.reason


async def test_forgotten_after_the_promotion(stage: Stage, pool: pmlog.Pool) -> None:
    """A pool that is fenced stays fenced, whatever the operator says of seals afterwards.

    1. Power fails, a receiver has the seal, and is promoted: the pool is fenced.
    2. The operator, who does not know yet: power is back, forget that receiver. The list of the
       seal's holders was stored without it, over the mark that fences.
    3. The shipper is started again, and finds a pool that was stopped for power; power is back:
       the writer went on beside the promoted receiver.
    """
    pool.dict("words")["a"] = 1
    end = pool.position
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", end)
    await peer.ack(end.lsn)
    saving = asyncio.create_task(shipper.save())
    await peer.hear(wire.Sealed)
    await peer.ack(end.lsn, sealed=True)
    assert (await saving)["sealed"]
    later = await stage.peer(shipper, "one", Position(2, end.lsn, end.chain, end.txn))
    assert (await later.hear(wire.Refuse)).code == "fenced"
    answer = (await shipper.supply.restored(0.1, ("one",)))[0]
    assert not answer["restored"]
    assert marks.stop_of(pool.path) == marks.Stop("fenced", 2)
    with pytest.raises(pmlog.FencedError):
        shipper.pool.note_told("two")
    assert marks.stop_of(pool.path) == marks.Stop("fenced", 2)


async def test_becomes_a_replica_while_power_returns(stage: Stage, pool_path: Path) -> None:
    """A folder that a receiver has taken over is not opened to writers because power is back.

    1. An old primary's host starts again: its pool is stopped for power; the shipper takes that up.
    2. The receiver that starts beside it marks the pool as a replica.
    3. Power is back, says the UPS: the shipper removed the mark, and an application could write the
       log that came from the new primary, in the same epoch.
    """
    with pmlog.open(pool_path, **SMALL) as pool:
        pool.dict("words")["a"] = 1
    marks.set_stop(pool_path, marks.Stop("power", 1, (), "command"))
    shipper = await stage.shipper(pool_path)
    assert shipper.pool.is_stopping
    assert marks.become_replica(pool_path, 1)
    shipper.pool.unfreeze()
    stop = marks.stop_of(pool_path)
    assert stop is not None
    assert stop.why == "replica"
    with pytest.raises(pmlog.ReadOnlyError):
        pmlog.open(pool_path, **SMALL)


async def test_holder_that_hangs(stage: Stage, pool: pmlog.Pool) -> None:
    """A receiver that is there and does not give its seal back is named, and can be forgotten.

    1. Sealed; then the receiver's process is stopped, its connection stands.
    2. Power returns; the seal is asked for; no answer. The reason said "waiting for nobody".
    3. The operator names it as lost: the writer was not let go on all the same.
    """
    pool.dict("words")["a"] = 1
    end = pool.position
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", end)
    await peer.ack(end.lsn)
    saving = asyncio.create_task(shipper.save())
    await peer.hear(wire.Sealed)
    await peer.ack(end.lsn, sealed=True)
    assert (await saving)["sealed"]
    restoring = asyncio.create_task(shipper.restore(0.3))
    await peer.hear(wire.Unsealed)
    answer = await restoring
    assert not answer["restored"]
    assert "waiting for one " in str(answer["reason"])
    assert shipper.supply.describe(shipper.pool)["waiting_for"] == ["one"]
    assert (await shipper.supply.restored(PATIENCE_S, ("one",)))[0]["restored"]
    pool.dict("words")["b"] = 2


async def test_mute_peer_holds_up_nobody(stage: Stage, pool: pmlog.Pool) -> None:
    """Whoever was never given the seal cannot keep writers stopped by saying nothing.

    1. Sealed at one receiver; power returns, and it is asked to give the seal back.
    2. Meanwhile a peer says hello, and never acknowledges anything.
    3. The seal is back: the writer waited for the peer's word that it holds none, for ever.
    """
    pool.dict("words")["a"] = 1
    end = pool.position
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", end)
    await peer.ack(end.lsn)
    saving = asyncio.create_task(shipper.save())
    await peer.hear(wire.Sealed)
    await peer.ack(end.lsn, sealed=True)
    assert (await saving)["sealed"]
    restoring = asyncio.create_task(shipper.restore())
    await peer.hear(wire.Unsealed)
    mute = await stage.peer(shipper, "mute", end)
    await mute.hear(wire.Heartbeat)
    assert "mute" in shipper.pool.sessions
    await peer.ack(end.lsn)
    assert (await restoring)["restored"]
    pool.dict("words")["b"] = 2


async def test_mark_cannot_be_stored(stage: Stage, pool: pmlog.Pool) -> None:
    """Whoever announces a power loss is answered in time, also if the writer cannot be stopped.

    1. Power fails; the disk does not take the stop mark.
    2. The shipper tries again and again, and answered nobody: `pmlog power-loss` hung, and a shipper
       with a grace period was killed at its end.
    3. There is room again: the writer is stopped, the log is sealed.
    """
    pool.dict("words")["a"] = 1
    end = pool.position
    (Path(pool.path) / "stop.new").mkdir()  # what is written first cannot be
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", end)
    await peer.ack(end.lsn)
    async with asyncio.timeout(PATIENCE_S):
        answer = (await shipper.supply.power_loss(0.1))[0]
    assert not answer["saved"]
    assert answer["state"] == "unsaved"
    assert "stop.new" in str(answer["reason"])
    assert shipper.supply.describe(shipper.pool)["state"] == "unsaved"
    (Path(pool.path) / "stop.new").rmdir()
    await peer.hear(wire.Sealed)
    await peer.ack(end.lsn, sealed=True)
    assert (await shipper.save())["sealed"]


async def test_stopped_in_a_commit(stage: Stage, pool: pmlog.Pool) -> None:
    """Nothing is sealed while a commit may still end; who asked is told so.

    1. A writer is stopped (SIGSTOP) in the middle of a commit: it has passed its look at the word.
    2. Power fails: the freeze waits for that commit, in vain; nobody was answered any more.
    3. The writer goes on, its commit ends: the seal covers it.
    """
    pool.dict("words")["a"] = 1
    end = pool.position
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", end)
    await peer.ack(end.lsn)
    with LogReader(pool.path) as reader:
        control = lib.pml_tail_control(reader._tail)
        words = ffi.cast("struct pml_control *", control)
        words.committing = 1
        async with asyncio.timeout(PATIENCE_S):
            answer = (await shipper.supply.power_loss(0.1))[0]
        assert not answer["saved"]
        assert answer["state"] == "unsaved"
        assert shipper.pool.seal_lsn is None
        words.committing = 0
        await peer.hear(wire.Sealed)
    await peer.ack(end.lsn, sealed=True)
    assert (await shipper.save())["sealed"]


async def test_another_pools_epoch(stage: Stage, pool: pmlog.Pool, memory_dir: Path) -> None:
    """A receiver that dials the wrong shipper fences nobody.

    1. A receiver holds a replica of one pool, of epoch 2; it takes any pool.
    2. By mistake it is pointed at the shipper of another pool, of epoch 1.
    3. It said that it had heard of epoch 2: the other pool was fenced, for good.
    """
    folder = memory_dir / "one"
    folder.mkdir()
    pmlog.open(folder / "pool", **SMALL).close()
    promote(folder / "pool").close()
    shipper = await stage.shipper(Path(pool.path))
    receiver = Receiver(ReceiverConfig((shipper.url,), folder, "one", "any", LOOPBACK))
    await receiver.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while receiver.last_error is None:  # noqa: ASYNC110 - of another task
                await asyncio.sleep(0.001)
        assert "this is pool" in receiver.last_error
    finally:
        await receiver.stop()
    assert shipper.pool.fenced_epoch is None
    pool.dict("words")["a"] = 1


async def test_seal_of_an_epoch_that_is_over(pool: pmlog.Pool, memory_dir: Path) -> None:
    """A seal is worth nothing once its holder has heard of a later epoch.

    1. A primary seals two receivers; the other one is promoted, and commits more.
    2. This one dials it, hears of epoch 2 and notes that; the connection breaks before a byte came.
    3. It is promoted, and called itself complete: it lacked what the other had committed.
    """
    pool.dict("words")["a"] = 1
    folder = memory_dir / "one"
    folder.mkdir()
    with LogReader(pool.path, 4096) as reader, Replica(folder / "pool", reader.identity()) as copy:
        run = reader.run()
        assert run is not None
        copy.append(4096, bytes(run))
        place = copy.place
    receiver = Receiver(ReceiverConfig(("http://127.0.0.1:9",), folder, "one", "any", LOOPBACK))
    receiver.state.set_seal(Seal(place))
    marks.set_history(folder / "pool", History(heard=2))
    await receiver.start()
    try:
        with pytest.raises(pmlog.NotPromotableError, match="not sealed"):
            await receiver.promote(accept_loss=False)
    finally:
        await receiver.stop()


class SlowReplica(Replica):
    """A replica whose disk takes its time."""

    is_slow = threading.Event()
    may_end = threading.Event()

    def append(self, lsn: int, data: bytes | memoryview) -> Position:
        """Append, once the disk is ready."""
        self.is_slow.set()
        assert self.may_end.wait(PATIENCE_S)
        return super().append(lsn, data)


async def test_promoted_while_a_frame_is_stored(
    stage: Stage, pool: pmlog.Pool, memory_dir: Path
) -> None:
    """A promotion waits for the frame that is being stored, and counts it.

    1. On a disk, a frame is being appended, in a thread.
    2. The receiver is promoted: the connection's task was cancelled, the thread went on.
    3. The place where the epoch begins was read, and the replica closed, while the thread wrote.
    """
    pool.dict("words")["a"] = 1
    end = pool.position
    folder = memory_dir / "one"
    folder.mkdir()
    shipper = await stage.shipper(Path(pool.path))
    SlowReplica.is_slow.clear()
    SlowReplica.may_end.clear()
    receiver = Receiver(
        ReceiverConfig((shipper.url,), folder, "one", "any", LOOPBACK),
        open_replica=partial(SlowReplica, domain="page"),
    )
    await receiver.start()
    try:
        # What was stored before decides that there is something to promote.
        assert await asyncio.to_thread(SlowReplica.is_slow.wait, PATIENCE_S)
        SlowReplica.may_end.set()
        async with asyncio.timeout(PATIENCE_S):
            while (receiver.describe()["lsn_durable"] or 0) < end.lsn:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        SlowReplica.is_slow.clear()
        SlowReplica.may_end.clear()
        pool.dict("words")["b"] = 2
        assert await asyncio.to_thread(SlowReplica.is_slow.wait, PATIENCE_S)
        promoting = asyncio.create_task(receiver.promote(accept_loss=True))
        done, _ = await asyncio.wait([promoting], timeout=0.1)
        assert not done
        SlowReplica.may_end.set()
        promotion = await promoting
    finally:
        SlowReplica.may_end.set()
        await receiver.stop()
    assert promotion.place.lsn == pool.position.lsn
    assert marks.history_of(folder / "pool").beginnings[-1].lsn == promotion.place.lsn
    assert faults_of(folder / "pool") == []


async def test_figures_that_cannot_be(pool: pmlog.Pool, memory_dir: Path) -> None:
    """A shipper that says nonsense does not end a receiver's dialling.

    1. The first source answers hello by a checkpoint whose number no field can hold.
    2. The error was none that the receiver expects: its task ended, and it never dialled again.
    """
    with LogReader(pool.path) as reader:
        identity, mark = reader.identity(), reader.mark()
    answers = [
        wire.Baseline(replace(mark, lsn=1 << 70), 1, identity),
        wire.Baseline(replace(mark, txn=1 << 70), 1, identity),
        wire.Stream(4096, 1, replace(identity, created_ns=1 << 70)),
        wire.Stream(4096, 1 << 40, identity),
    ]
    heard = 0

    async def nonsense(request: web.Request) -> web.WebSocketResponse:
        nonlocal heard
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        await socket.send_str(wire.encode_message(answers[heard % len(answers)]))
        heard += 1
        await socket.receive()
        return socket

    app = web.Application()
    app.router.add_get("/v1/pools/any/stream", nonsense)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    receiver = Receiver(ReceiverConfig((url,), memory_dir / "one", "one", "any", LOOPBACK))
    await receiver.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while heard <= len(answers):  # noqa: ASYNC110 - of another task
                await asyncio.sleep(0.001)
    finally:
        await receiver.stop()
        await runner.cleanup()
    assert not (memory_dir / "one" / "pool").exists()


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """Have a child of this process that does nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # later Pythons warn: other threads are not in the child
        child = os.fork()
    if not child:
        time.sleep(PATIENCE_S)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


async def test_two_shippers(stage: Stage, pool: pmlog.Pool) -> None:
    """A pool has one shipper: two would not know of each other's seals.

    1. A shipper hangs; the operator starts another one of the same pool beside it.
    2. Power fails; each seals its receivers, and notes them in the one mark, over the other's.
    3. Power returns: the one whose seals are back let the writer go on; a receiver of the other was
       promoted as complete.
    """
    first = await stage.shipper(Path(pool.path))
    with pytest.raises(pmlog.PoolLockedError, match="another shipper"):
        await stage.shipper(Path(pool.path))
    with forked():  # a child that lives on does not hold it
        await first.runner.cleanup()
        await stage.shipper(Path(pool.path))


async def test_promotion_that_fails_midway(
    stage: Stage, pool: pmlog.Pool, memory_dir: Path
) -> None:
    """A promotion that could not be finished is shown, and finished by the next request.

    1. The receiver is told to take over, and stores that.
    2. The disk is full: the epoch's beginning cannot be noted.
    3. There is room again. It was called "promoting" for ever, and refused as promoted already.
    """
    pool.dict("words")["a"] = 1
    end = pool.position
    folder = memory_dir / "one"
    folder.mkdir()
    shipper = await stage.shipper(Path(pool.path))
    receiver = Receiver(ReceiverConfig((shipper.url,), folder, "one", "any", LOOPBACK))
    await receiver.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while (receiver.describe()["lsn_durable"] or 0) < end.lsn:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        full = folder / "pool" / "history.new"
        full.mkdir()  # what is written first cannot be
        with pytest.raises(pmlog.MediumError):
            await receiver.promote(accept_loss=True)
        assert receiver.describe()["state"] == "promoting"
        assert receiver.describe()["failure"]
        full.rmdir()
        promotion = await receiver.promote(accept_loss=False)  # loss has been accepted
        assert (promotion.epoch, promotion.complete) == (2, False)
        assert receiver.describe()["state"] == "promoted"
        assert not receiver.describe()["failure"]
    finally:
        await receiver.stop()
    with pmlog.open(folder / "pool", **SMALL) as copy:
        assert copy.position.epoch == 2
        assert copy.dict("words")["a"] == 1
    assert faults_of(folder / "pool") == []
