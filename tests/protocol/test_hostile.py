"""A peer that breaks the protocol: the connection ends, and nothing has changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

import pmlog
from pmlog import limits, wire
from pmlog.addresses import Address
from pmlog.identity import Identity, Mark
from pmlog.log import LogReader
from receiver.config import Config as ReceiverConfig
from receiver.receiver import Receiver
from shipper.config import Config as ShipperConfig
from shipper.service import make_app
from tests.support import SMALL

LOOPBACK = Address("127.0.0.1", 0)
Message = wire.Message | bytes | str


async def eventually(what: Callable[[], Any]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110 - what others do cannot set an event here
            await asyncio.sleep(0.005)


async def serve(app: web.Application) -> tuple[web.AppRunner, str]:
    """Start a service on a free port."""
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


# ---- a hostile shipper -------------------------------------------------------------------------


@dataclass
class Script:
    """What a fake shipper says to whoever connects."""

    messages: list[Message]
    hellos: int = 0


@pytest.fixture
async def script() -> AsyncIterator[tuple[Script, str]]:
    """Run a fake shipper."""
    spoken = Script([])

    async def stream(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        spoken.hellos += 1
        for message in spoken.messages:
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            elif isinstance(message, str):
                await socket.send_str(message)
            else:
                await socket.send_str(wire.encode_message(message))
        async for _ in socket:  # until the receiver ends the connection
            pass
        return socket

    app = web.Application()
    app.router.add_get("/v1/pools/{id}/stream", stream)
    runner, url = await serve(app)
    yield spoken, url
    await runner.cleanup()


@dataclass(frozen=True)
class Source:
    """A real log, to tell lies about."""

    identity: Identity
    data: bytes
    cut: int
    """A first part that the receiver gets in good faith: the end of a record."""


@pytest.fixture
def source(pool_path: Path) -> Source:
    """Make a log."""
    with pmlog.open(pool_path, **SMALL) as pool:
        words = pool.dict("words")
        words["a"] = 1
        cut = pool.position.lsn - 4096
        words["b"] = bytes(3000)
    with LogReader(pool_path, 4096) as reader:
        run = reader.read()
        assert run is not None
        return Source(reader.identity(), run.data, cut)


def frame(source: Source, start: int, end: int, **changes: Any) -> bytes:
    """Return a frame of the log, or of what the changes make of it."""
    fields: dict[str, Any] = {
        "pool_id": source.identity.pool_id, "epoch": 1, "lsn": 4096 + start,
        "data": source.data[start:end],
    } | changes  # fmt: skip
    return wire.encode_frame(**({"codec": wire.Codec.NONE} | fields))


def patched(message: bytes, offset: int, value: int) -> bytes:
    """Return a frame with another number in its header."""
    return message[:offset] + value.to_bytes(4, "little") + message[offset + 4 :]


def lies(source: Source) -> dict[str, list[Message]]:
    """Return what a receiver that has the first part must not take."""
    cut, end = source.cut, len(source.data)
    stream = wire.Stream(4096 + cut, 1, source.identity)
    good = frame(source, cut, end)
    packed = frame(source, cut, end, codec=wire.Codec.LZ4)
    flipped = bytearray(source.data[cut:end])
    flipped[-100] ^= 1
    place = wire.Place(1, 4096 + cut, 12345, 1)
    mark = Mark(1, 4096, 0, 0, 1, 1 << 60)
    return {
        "replay": [stream, frame(source, 0, cut)],
        "gap": [stream, frame(source, cut + 64, end)],
        "other pool": [stream, frame(source, cut, end, pool_id=UUID(int=1))],
        "later epoch": [stream, frame(source, cut, end, epoch=2)],
        "damaged record": [stream, frame(source, cut, end, data=bytes(flipped))],
        "rubbish record": [stream, frame(source, cut, end, data=b"\xff" * 4096)],
        "truncated frame": [stream, good[:-1]],
        "bomb": [stream, patched(packed, 40, limits.FRAME_RAW_BYTES_MAX)],
        "larger bomb": [stream, patched(packed, 40, 0xFFFFFFFF)],
        "lie about the wire": [stream, patched(packed, 44, 1)],
        "other codec": [stream, good[:6] + b"\x07\x00" + good[8:]],
        "later version": [stream, good[:4] + b"\x02\x00" + good[6:]],
        "only a header": [stream, good[: wire.HEADER_BYTES]],
        "too long": [stream, good + bytes(wire.FRAME_BYTES_MAX)],
        "no stream": [good],
        "stream from elsewhere": [replace_stream(stream, lsn=4096), good],
        "lower epoch": [replace_stream(stream, epoch=0), good],
        "another pool": [
            replace_stream(stream, identity=replace(source.identity, pool_id=UUID(int=1)))
        ],
        "seal that is not true": [stream, wire.Sealed(place)],
        "unknown message": [stream, '{"type":"format"}'],
        "long message": [stream, " " * (limits.MESSAGE_BYTES_MAX + 1)],
        "hello": [wire.Hello(1, "any", "x")],
        "blocks without baseline": [stream, wire.BlocksDone(1)],
        "endless image": [wire.Baseline(mark, 1, source.identity)],
    }


def replace_stream(stream: wire.Stream, **changes: Any) -> wire.Stream:
    """Return a Stream with other fields."""
    fields: dict[str, Any] = {
        "lsn": stream.lsn,
        "epoch": stream.epoch,
        "identity": stream.identity,
    } | changes
    return wire.Stream(**fields)


NAMES = list(lies(Source(Identity(UUID(int=2), 0, 1 << 18, (0, 0), 1 << 20), bytes(8192), 4096)))


@pytest.mark.parametrize("name", NAMES)
async def test_hostile_shipper(
    name: str, script: tuple[Script, str], source: Source, memory_dir: Path
) -> None:
    """A receiver ends the connection, keeps what it had, and takes the truth afterwards."""
    spoken, url = script
    spoken.messages = [wire.Stream(4096, 1, source.identity), frame(source, 0, source.cut)]
    config = ReceiverConfig((url,), memory_dir / "r", "r", "any", LOOPBACK)
    receiver = Receiver(config)
    await receiver.start()
    try:
        await eventually(lambda: receiver.describe()["lsn_durable"] == 4096 + source.cut)
        assert receiver.replica is not None
        before = receiver.replica.position
        spoken.messages = lies(source)[name]
        heard = spoken.hellos
        await receiver._stop_dialling()
        receiver._dialling = asyncio.create_task(receiver._dial())
        await eventually(lambda: spoken.hellos >= heard + 2)
        assert receiver.last_error is not None
        assert receiver.replica.position == before
        assert receiver.state.seal is None
        assert receiver.replica is not None
        assert not receiver.replica.is_rebuilding
        spoken.messages = [
            wire.Stream(4096 + source.cut, 1, source.identity),
            frame(source, source.cut, len(source.data)),
        ]
        await eventually(lambda: receiver.describe()["lsn_durable"] == 4096 + len(source.data))
    finally:
        await receiver.stop()


# ---- a hostile receiver ------------------------------------------------------------------------

HELLO = '{"type":"hello","version":1,"pool":"any","name":"x"}'


@pytest.mark.parametrize(
    "messages",
    [
        ["rubbish"],
        [b"rubbish"],
        ['{"type":"ack","received":1,"durable":1,"applied":1}'],
        [HELLO.replace('"x"', '"' + "x" * 40 + '"')],
        [HELLO.replace('"x"', '""')],
        [HELLO.replace(":1,", ":2,")],
        [HELLO.replace("any", str(UUID(int=1)))],
        [HELLO, HELLO],
        [HELLO, b"frame"],
        [HELLO, "x" * (limits.MESSAGE_BYTES_MAX + 1)],
        [HELLO, '{"type":"ack","received":1,"durable":1,"applied":1}'],
        [HELLO, '{"type":"ack","received":1000000000,"durable":4096,"applied":4096}'],
        [HELLO, '{"type":"ack","received":4096,"durable":5000,"applied":4096}'],
        [HELLO, '{"type":"ack","received":4096,"durable":4096,"applied":-1}'],
        [HELLO[:-1] + ',"place":{"epoch":1,"lsn":4160,"chain":1,"txn":9}}'],
        [HELLO[:-1] + ',"place":{"epoch":1,"lsn":99999999,"chain":1,"txn":9}}'],
        [HELLO[:-1] + ',"place":{"epoch":1,"lsn":-1,"chain":1,"txn":9}}'],
    ],
    ids=lambda messages: str(messages)[:60],
)
async def test_hostile_receiver(messages: list[str | bytes], pool_path: Path) -> None:
    """A shipper ends the connection; levels have not moved, and others are served."""
    with pmlog.open(pool_path, **SMALL) as pool:
        pool.dict("words")["a"] = 1
        app = make_app(ShipperConfig((str(pool_path),), LOOPBACK))
        runner, url = await serve(app)
        try:
            async with aiohttp.ClientSession() as session:
                async with session.ws_connect(f"{url}/v1/pools/any/stream") as socket:
                    for message in messages:
                        if isinstance(message, bytes):
                            await socket.send_bytes(message)
                        else:
                            await socket.send_str(message)
                    async with asyncio.timeout(10):
                        async for _ in socket:  # ends when the shipper closes it
                            pass
                async with session.get(f"{url}/v1/pools") as answer:
                    known = json.loads(await answer.text())["pools"][0]
                assert known["levels"]["received"] <= 4096
                assert known["frozen"] is False
                assert known["fenced_epoch"] is None
                async with session.ws_connect(f"{url}/v1/pools/any/stream") as socket:
                    await socket.send_str(HELLO)
                    said = wire.decode_from_shipper(await socket.receive_str())
                    assert isinstance(said, wire.Stream | wire.Baseline)
        finally:
            await runner.cleanup()
        pool.dict("words")["b"] = 1
