"""A medium that answers with an error, under a receiver and under the writer, while both run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import pmlog
from pmlog.errors import MediumError
from pmlog.replica import Replica
from pmlog.testing import faults
from receiver.config import Config
from receiver.receiver import Receiver
from tests.protocol.test_interleavings import LOOPBACK, Stage
from tests.support import PATIENCE_S, SMALL, OpenPool, faults_of


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Give a stage, cleared afterwards."""
    async with aiohttp.ClientSession() as client:
        made = Stage(client)
        yield made
        await made.close()


class Opener:
    """Opens a replica whose medium fails once; later opens find a sound one."""

    def __init__(self, **failing: int) -> None:
        self._failing = failing
        self.opens = 0

    def __call__(self, *args: Any, **named: Any) -> Replica:
        """Open it."""
        self.opens += 1
        if self.opens > 1:
            return Replica(*args, **named)
        with faults(**self._failing):
            return Replica(*args, **named)


async def has(receiver: Receiver, lsn: int) -> None:
    """Wait until a receiver has everything below an LSN."""
    async with asyncio.timeout(PATIENCE_S):
        while receiver.describe()["lsn_durable"] != lsn:  # noqa: ASYNC110 - of another task
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("drain", [1, 2, 3, 5, 9])
async def test_under_a_receiver(
    stage: Stage, pool: pmlog.Pool, memory_dir: Path, drain: int
) -> None:
    """A replica that could not store bytes acknowledges none of them, opens again and catches up."""
    words = pool.dict("words")
    words["first"] = 1
    shipper = await stage.shipper(Path(pool.path))
    opener = Opener(log_drain=drain)
    config = Config((shipper.url,), memory_dir / "one", "one", "any", LOOPBACK)
    receiver = Receiver(config, open_replica=opener)
    await receiver.start()
    try:
        for number in range(12):
            words[number] = "x" * 1000
            await pool.wait_async(pmlog.Level.REPLICATED, timeout=PATIENCE_S)
            replica = receiver.replica
            assert replica is not None
            assert replica.position.lsn >= pool.position.lsn  # not before it is durable there
        await has(receiver, pool.position.lsn)
        assert opener.opens > 1
    finally:
        await receiver.stop()
    assert faults_of(config.pool_path) == []
    with pmlog.open(config.pool_path, readonly=True) as copy:
        assert dict(copy.dict("words").items()) == dict(words.items())


@pytest.mark.parametrize("drain", [3, 4, 7, 12])
async def test_under_the_writer(
    stage: Stage, open_pool: OpenPool, pool_path: Path, memory_dir: Path, drain: int
) -> None:
    """A commit that could not be stored is told to nobody; those before it are at the receiver."""
    open_pool().close()
    shipper = await stage.shipper(pool_path)
    config = Config((shipper.url,), memory_dir / "one", "one", "any", LOOPBACK)
    receiver = Receiver(config)
    await receiver.start()
    try:
        done: dict[int, int] = {}
        with faults(log_drain=drain):
            pool = pmlog.open(pool_path, **SMALL)
        try:
            with pytest.raises(MediumError):  # noqa: PT012 - some commit of a few
                for number in range(40):
                    pool.dict("words")[number] = number
                    done[number] = number
        finally:
            pool.close()
        again = open_pool()
        found = dict(again.dict("words").items()) if "words" in again.names() else {}
        # The one that failed may be there: its bytes were stored, and only their sync was not.
        assert found in (done, {**done, len(done): len(done)})
        again.dict("words")["last"] = 1
        await has(receiver, again.position.lsn)
    finally:
        await receiver.stop()
    with pmlog.open(config.pool_path, readonly=True) as copy:
        assert dict(copy.dict("words").items()) == {**found, "last": 1}
