"""What a link refuses, played step by step against a shipper's side that the test plays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import pmlog
from pmlog import marks, wire
from pmlog.errors import FencedError, PeerUnavailableError, ProtocolError
from pmlog.identity import Identity
from pmlog.log import LogReader
from pmlog.replica import Replica
from receiver.config import Config
from receiver.link import Link
from receiver.state import Seal, State
from tests.sim.loop import VirtualLoop
from tests.sim.network import Connection, End, Network
from tests.sim.primary import LISTEN
from tests.support import OpenPool, faults_of

Play = Callable[[End], Awaitable[None]]


def talk(link: Link, play: Play) -> BaseException | None:
    """Run a link against a shipper that does as the test says; return what the link raised."""
    loop = VirtualLoop(lambda: None)

    async def main() -> BaseException | None:
        network = Network(loop, random.Random(1), lambda *_: None)
        connection = Connection(network, 1, "one")
        running = asyncio.create_task(link.run(connection.client))  # type: ignore[arg-type]
        await connection.server.receive()  # hello
        await play(connection.server)
        await asyncio.wait([running], timeout=60)
        assert running.done()
        return running.exception()

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


async def say(end: End, message: wire.Message) -> None:
    """Send a message."""
    await end.send_str(wire.encode_message(message))


@pytest.fixture
def source(open_pool: OpenPool) -> Any:
    """Give a pool with a few records."""
    pool = open_pool()
    pool.dict("d").update({n: n for n in range(10)})
    return pool


class Copy:
    """A replica of the pool, and what a link needs."""

    def __init__(self, pool: pmlog.Pool, folder: Path) -> None:
        self.reader = LogReader(pool.path, 4096)
        self.identity: Identity = self.reader.identity()
        self.state = State(folder)
        self.replica = Replica(folder / "pool", self.identity)
        config = Config(("http://127.0.0.1:1",), folder, "one", "any", LISTEN)
        self.link = Link(config, self.state, self.replica, lambda replica: None)

    def take(self) -> bytes:
        """Return the records that the copy lacks."""
        data = self.reader.run()
        assert data is not None
        return bytes(data)

    def frame(self, data: bytes, lsn: int, epoch: int = 1) -> bytes:
        """Pack log bytes."""
        return wire.encode_frame(self.identity.pool_id, epoch, lsn, data, wire.Codec.NONE)

    def close(self) -> None:
        """Close all, and let the checker look."""
        self.replica.close()
        self.reader.close()


def test_seal_is_forgotten_with_the_next_byte(source: pmlog.Pool, memory_dir: Path) -> None:
    """A byte beyond the seal says that it is not true: it goes before the byte is taken."""
    copy = Copy(source, memory_dir / "one")
    first = copy.take()
    source.dict("d")["more"] = 1
    second = copy.take()
    seen: list[Seal | None] = []

    async def play(end: End) -> None:
        await say(end, wire.Stream(4096, 1, copy.identity))
        await end.send_bytes(copy.frame(first, 4096))
        await asyncio.sleep(1)
        await say(end, wire.Sealed(copy.replica.place))
        await asyncio.sleep(1)
        seen.append(copy.state.seal)
        await end.send_bytes(copy.frame(second, 4096 + len(first)))
        await asyncio.sleep(1)
        seen.append(State(memory_dir / "one").seal)
        await end.close()

    assert isinstance(talk(copy.link, play), PeerUnavailableError)
    assert seen[0] is not None
    assert seen[1] is None
    assert copy.replica.position == source.position
    copy.close()
    assert faults_of(memory_dir / "one" / "pool") == []


def test_lower_epoch_is_refused(source: pmlog.Pool, memory_dir: Path) -> None:
    """A shipper of an earlier epoch than the replica's is not listened to, though all else fits."""
    from pmlog.replica import promote

    first = Copy(source, memory_dir / "first")
    first.replica.append(4096, first.take())
    first.close()
    with promote(memory_dir / "first" / "pool") as pool:
        assert pool.position.epoch == 2
        copy = Copy(pool, memory_dir / "second")
        copy.replica.append(4096, copy.take())
        at = copy.replica.position
        assert at.epoch == 2

        async def play(end: End) -> None:
            await say(end, wire.Stream(at.lsn, 1, copy.identity))
            await end.close()

        assert isinstance(talk(copy.link, play), FencedError)
        copy.close()


@pytest.mark.parametrize("offset", [0, 8192, 1 << 20, 1 << 40])
def test_blocks_that_were_not_asked_for(source: pmlog.Pool, memory_dir: Path, offset: int) -> None:
    """A block goes only where the receiver asked for one; the copy stays incomplete."""
    copy = Copy(source, memory_dir / "one")
    mark = copy.reader.mark()

    async def play(end: End) -> None:
        await say(end, wire.Baseline(mark, 1, copy.identity))
        await end.receive()  # digests
        lsn = offset or 65536
        size = 4096 if not offset else 65536
        frame = wire.encode_frame(copy.identity.pool_id, 1, lsn, b"x" * size, wire.Codec.NONE)
        await end.send_bytes(frame)
        await end.close()

    assert isinstance(talk(copy.link, play), ProtocolError)
    assert marks.incomplete_of(copy.replica.path) is not None
    assert copy.link.blocks == 0
    copy.close()


def test_whole_only_at_the_end_of_the_baseline(source: pmlog.Pool, memory_dir: Path) -> None:
    """A copy whose blocks are newer than its mark is incomplete until the log has caught up."""
    copy = Copy(source, memory_dir / "one")
    mark = copy.reader.mark()
    end_lsn = source.position.lsn
    assert mark.lsn < end_lsn
    seen: list[bool] = []

    async def play(end: End) -> None:
        await say(end, wire.Baseline(mark, 1, copy.identity))
        await end.receive()  # digests
        await say(end, wire.BlocksDone(0))
        await say(end, wire.BaselineEnd(end_lsn))
        await asyncio.sleep(1)
        seen.append(marks.incomplete_of(copy.replica.path) is None)
        copy.reader.seek(mark.lsn)
        await end.send_bytes(copy.frame(copy.take(), mark.lsn))
        await asyncio.sleep(1)
        seen.append(marks.incomplete_of(copy.replica.path) is None)
        await end.close()

    assert isinstance(talk(copy.link, play), PeerUnavailableError)
    assert seen == [False, True]
    copy.close()
