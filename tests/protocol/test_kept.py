"""What a shipper keeps to, step by step: the log of whom it requires, its bound, its vault.

As in `test_interleavings.py` the shipper is real, and the receivers are played by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

import pmlog
from pmlog import marks, vault, wire
from pmlog.image import blocks_of
from pmlog.log import LogReader
from pmlog.position import Position
from shipper.backlog import HIGH, MaxLag
from tests.protocol.test_interleavings import Shipper, Stage, lap
from tests.support import PATIENCE_S


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Give a stage, cleared afterwards."""
    async with aiohttp.ClientSession() as client:
        made = Stage(client)
        yield made
        await made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocked writers give up soon."""
    monkeypatch.setattr("pmlog.limits.LOCK_TIMEOUT_S", 0.1)


async def gone(shipper: Shipper, name: str) -> None:
    """Wait until the shipper knows that a receiver has gone."""
    async with asyncio.timeout(PATIENCE_S):
        while name in shipper.pool.sessions:  # noqa: ASYNC110 - of another task
            await asyncio.sleep(0.001)


@pytest.mark.usefixtures("impatient")
async def test_log_is_kept_for_a_required_receiver(stage: Stage, pool: pmlog.Pool) -> None:
    """Writers stop rather than overwrite what a required receiver lacks, whoever is away.

    1. A required receiver has everything, and goes; so does the shipper.
    2. The application writes more than the ring holds.
    3. Were its slot not required, the receiver would have to take all blocks when it comes back.
    """
    blob = pool.region("blob", 30_000)
    path, required = Path(pool.path), frozenset({"one"})
    end = pool.position
    shipper = await stage.shipper(path, required=required)
    peer = await stage.peer(shipper, "one", end)
    await peer.hear(wire.Stream)
    await peer.socket.close()
    await gone(shipper, "one")
    await shipper.runner.cleanup()
    with pytest.raises(pmlog.LogFullError):  # noqa: PT012 - some write of many
        for number in range(60):
            blob.write(0, bytes([number]) * 30_000)
    shipper = await stage.shipper(path, required=required)
    peer = await stage.peer(shipper, "one", end)
    assert await peer.hear(wire.Stream, wire.Baseline, wire.Refuse) == wire.Stream(
        end.lsn, 1, shipper.pool.identity
    )


async def test_fenced_while_nobody_holds_the_seal(stage: Stage, pool: pmlog.Pool) -> None:
    """A pool that was fenced while it was frozen stays so when power returns.

    1. Frozen, and no receiver is there to be given the seal.
    2. One that was promoted elsewhere says hello from the next epoch: the pool is fenced.
    3. Power returns, nobody holds a seal, so nobody is waited for: the mark went, and the pool
       could be opened again.
    """
    pool.dict("words")["a"] = 1
    end = pool.position
    shipper = await stage.shipper(Path(pool.path))
    saving = asyncio.create_task(shipper.save())
    async with asyncio.timeout(PATIENCE_S):
        while shipper.pool.seal_lsn is None:  # noqa: ASYNC110 - of another task
            await asyncio.sleep(0.001)
    later = await stage.peer(shipper, "two", Position(2, end.lsn, end.chain, end.txn))
    assert (await later.hear(wire.Refuse)).code == "fenced"
    await saving
    assert not (await shipper.restore())["restored"]
    await asyncio.sleep(0.1)  # the saver has had some turns
    stop = marks.stop_of(pool.path)
    assert stop is not None
    assert (stop.why, stop.epoch) == ("fenced", 2)
    with pytest.raises(pmlog.FencedError):
        pool.dict("words")["b"] = 2


async def test_late_word_of_an_old_connection(stage: Stage, pool: pmlog.Pool) -> None:
    """An acknowledgement that was on its way when the receiver came again changes nothing.

    1. A receiver has acknowledged nothing; it comes again, with less than it was sent.
    2. Before the old connection's task has had a turn to end, it hears what was on its way.
    3. Levels and slot moved to where nobody is.
    """
    pool.dict("words")["a"] = 1
    end = pool.position.lsn
    shipper = await stage.shipper(Path(pool.path))
    old = await stage.peer(shipper, "one", None)
    await old.hear(wire.Heartbeat)  # everything was sent to it
    session = shipper.pool.sessions["one"]
    with LogReader(pool.path, 4096) as reader:
        begin = reader.position
    new = await stage.peer(shipper, "one", begin)
    await new.hear(wire.Stream)
    assert shipper.pool.sessions["one"] is not session
    session._heed(wire.Ack(end, end, end))
    assert shipper.pool.progress["one"].durable == begin.lsn
    assert shipper.pool.level.durable == begin.lsn
    with LogReader(pool.path) as reader:
        status = reader.status()
        assert status is not None
        assert [(one.name, one.lsn_acked) for one in status.consumers] == [("one", begin.lsn)]


async def test_baseline_ends_behind_its_newest_block(stage: Stage, pool: pmlog.Pool) -> None:
    """A copy is whole only where the log has reached the newest of its blocks.

    1. A baseline begins at the checkpoint.
    2. The writer goes on, and a later checkpoint brings the image, which is being sent, up to date.
    3. Were the copy called whole at the first checkpoint, it would hold half of a transaction.
    """
    lap(pool)
    shipper = await stage.shipper(Path(pool.path))
    peer = await stage.peer(shipper, "one", None)
    mark = (await peer.hear(wire.Baseline)).mark
    pool.region("blob", 65536).write(0, b"newer" * 1000)
    pool.checkpoint()
    end = pool.position.lsn
    assert mark.lsn < end
    await peer.socket.send_bytes(bytes(16 * len(list(blocks_of(mark.image_bytes)))))
    assert (await peer.hear(wire.BaselineEnd)).lsn == end
    await peer.ack(mark.lsn)
    assert not shipper.pool.is_whole("one")


async def test_vault_is_void_before_the_writer_goes_on(
    stage: Stage, pool: pmlog.Pool, disk_dir: Path
) -> None:
    """A vault that could still be taken in as complete must not outlive the writer's next commit."""
    pool.dict("words")["a"] = 1
    parent = disk_dir / "vaults"
    shipper = await stage.shipper(Path(pool.path), vault=parent)
    answer = await shipper.save()
    assert (answer["saved"], answer["state"]) == (True, "vaulted")
    (path,) = parent.iterdir()
    assert vault.is_sealed(path)
    stop = marks.stop_of(pool.path)
    assert stop is not None
    assert stop.told == (f"vault:{path}",)
    assert (await shipper.restore())["restored"]
    assert not vault.is_sealed(path)
    pool.dict("words")["b"] = 2


@pytest.mark.usefixtures("impatient")
async def test_bound_reaches_the_writer(stage: Stage, pool: pmlog.Pool) -> None:
    """Near the bound each transaction is delayed, at the bound none begins, and the risk is shown."""
    blob = pool.region("blob", 5000)
    bound = 100_000
    shipper = await stage.shipper(Path(pool.path), max_lag=MaxLag(bytes=bound))
    end = pool.position
    peer = await stage.peer(shipper, "one", end)
    await peer.hear(wire.Stream)
    await peer.ack(end.lsn)
    await pool.wait_async(pmlog.Level.REPLICATED, timeout=PATIENCE_S)
    status = pool.status()
    assert (status.backlog_limit_bytes, status.delay_ns) == (int(bound * HIGH), 0)
    while pool.position.lsn - end.lsn < 0.8 * bound * HIGH:
        blob.write(0, b"x" * 5000)
    shipper.pool.publish()
    assert pool.status().delay_ns > 0
    before = shipper.pool.verdict
    assert not before.at_risk
    with pytest.raises(pmlog.BacklogError):  # noqa: PT012 - some write of a few
        for _ in range(20):
            blob.write(0, b"x" * 5000)
    assert pool.position.lsn - end.lsn <= bound
    await peer.socket.close()
    await gone(shipper, "one")
    shipper.pool.publish()
    assert shipper.pool.verdict.at_risk
    assert shipper.pool.verdict.is_blocked
