"""Peers that want too much: what comes in is bounded in size, number and time."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

import pmlog
from pmlog import http, limits, wire
from pmlog.addresses import Address
from pmlog.log import LogReader
from shipper import session as session_module
from shipper.config import RECEIVERS_MAX, Config
from shipper.service import make_app
from tests.support import SMALL, faults_of

LOOPBACK = Address("127.0.0.1", 0)
SHORT_S = 0.3


@contextlib.asynccontextmanager
async def shipping(path: Path, required: frozenset[str] = frozenset()) -> AsyncIterator[str]:
    """Run a shipper of a pool, as the command does; give its URL."""
    config = Config((str(path),), LOOPBACK, required=required)
    stop = asyncio.Event()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    service = asyncio.create_task(
        http.serve(
            make_app(config),
            LOOPBACK,
            config.security,
            stop,
            lambda at: listening.set_result(at.url),
        )
    )
    try:
        async with asyncio.timeout(30):
            yield await listening
    finally:
        stop.set()
        await service


@pytest.fixture
async def served(pool_path: Path) -> AsyncIterator[tuple[pmlog.Pool, str]]:
    """Give a pool that is shipped, and where; nothing of it may have changed in the end."""
    with pmlog.open(pool_path, **SMALL) as pool:
        pool.dict("words")["a"] = 1
        async with shipping(pool_path) as url:
            yield pool, url
            async with aiohttp.ClientSession() as client, client.get(f"{url}/v1/pools") as answer:
                (known,) = (await answer.json())["pools"]
            assert (known["frozen"], known["fenced_epoch"]) == (False, None)
        pool.dict("words")["b"] = 2
    assert faults_of(pool_path) == []


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a bare connection."""
    return await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Wait for the other side to close a connection."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
    return True


@pytest.mark.parametrize(
    "start", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", b"POST /v1/power-loss HTTP"]
)
async def test_requests_that_do_not_come(
    pool_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    """A connection that brings no whole request is closed."""
    monkeypatch.setattr(http, "REQUEST_TIMEOUT_S", SHORT_S)
    with pmlog.open(pool_path, **SMALL):
        async with shipping(pool_path) as url:
            reader, writer = await connect(url)
            writer.write(start)
            assert await is_closed(reader)
            writer.close()


async def test_body_that_does_not_come(
    served: tuple[pmlog.Pool, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that does not come ends the request, and nothing is done."""
    monkeypatch.setattr(http, "REQUEST_TIMEOUT_S", SHORT_S)
    reader, writer = await connect(served[1])
    writer.write(b"POST /v1/power-loss HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 15\r\n\r\n{")
    async with asyncio.timeout(20):
        assert b" 408 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b" " * (limits.MESSAGE_BYTES_MAX + 1), {}, 413),
        (gzip.compress(bytes(64 << 20)), {"Content-Encoding": "gzip"}, 400),
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"timeout_s":"x"}', {}, 400),
        (b'{"unknown":1}', {}, 400),
        (b"", {"X": "y" * 70_000}, 400),
        (b"", {"Origin": "http://evil.example"}, 403),
        (b"", {"Origin": "null"}, 403),
        (b"", {"Sec-Fetch-Site": "cross-site"}, 403),
        (b"", {"Host": "evil.example"}, 403),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_requests_that_are_refused(
    served: tuple[pmlog.Pool, str], body: bytes, headers: dict[str, str], status: int
) -> None:
    """A request that is too long, packed, no JSON, or of a web page does nothing."""
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{served[1]}/v1/power-loss", data=body, headers=headers) as answer,
    ):
        assert answer.status == status


@pytest.mark.parametrize(
    "start",
    [b"rubbish\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"],
)
async def test_what_is_no_request(
    served: tuple[pmlog.Pool, str], start: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no HTTP is refused, and leaves no traceback for each in the log."""
    for _ in range(5):
        reader, writer = await connect(served[1])
        writer.write(start + b"\r\n\r\n")
        assert await is_closed(reader)
        writer.close()
    assert not [record for record in caplog.records if record.exc_info]


async def test_stream_for_a_web_page(served: tuple[pmlog.Pool, str]) -> None:
    """A page that an operator has open cannot be a receiver: its hello could fence the pool."""
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(
                f"{served[1]}/v1/pools/any/stream", origin="http://evil.example"
            )
        assert caught.value.status == 403


async def test_connections(pool_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections beyond the limit are closed at once; others go on, and places come back."""
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 4)
    with pmlog.open(pool_path, **SMALL):
        async with shipping(pool_path) as url:
            held = [await connect(url) for _ in range(4)]
            for reader, writer in held:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert b" 200 " in await reader.readline()
            for _ in range(20):
                reader, writer = await connect(url)
                assert await is_closed(reader)
                writer.close()
            _, writer = held.pop()
            writer.close()
            async with aiohttp.ClientSession() as client:
                async with asyncio.timeout(20):
                    while True:  # until the place is free again
                        with contextlib.suppress(aiohttp.ClientError):
                            async with client.get(f"{url}/metrics") as answer:
                                text = await answer.text()
                                break
            assert 'pmlog_requests_refused_total{reason="connection"} 2' in text
            for _, writer in held:
                writer.close()


# ---- receivers ---------------------------------------------------------------------------------


async def greet(
    client: aiohttp.ClientSession, url: str, name: str
) -> tuple[aiohttp.ClientWebSocketResponse, wire.FromShipper]:
    """Say hello as a receiver without a copy; return the connection and the answer."""
    socket = await client.ws_connect(f"{url}/v1/pools/any/stream")
    await socket.send_str(wire.encode_message(wire.Hello(wire.VERSION, "any", name)))
    return socket, wire.decode_from_shipper(await socket.receive_str(timeout=20))


def slots(path: Path) -> set[str]:
    """Return the names that have slots."""
    with LogReader(path) as reader:
        status = reader.status()
        assert status is not None
        return {consumer.name for consumer in status.consumers}


async def test_hello_that_does_not_come(
    served: tuple[pmlog.Pool, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that does not say who it is is disconnected."""
    monkeypatch.setattr(session_module, "HELLO_TIMEOUT_S", SHORT_S)
    async with aiohttp.ClientSession() as client:
        socket = await client.ws_connect(f"{served[1]}/v1/pools/any/stream")
        said = wire.decode_from_shipper(await socket.receive_str(timeout=20))
        assert isinstance(said, wire.Refuse)
        assert said.reason == "no hello"
        assert (await socket.receive(timeout=20)).type is aiohttp.WSMsgType.CLOSE


async def test_sockets_without_hello(served: tuple[pmlog.Pool, str]) -> None:
    """Connections that wait for a hello are bounded in number."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        stream = f"{served[1]}/v1/pools/any/stream"
        held = [await client.ws_connect(stream) for _ in range(2 * RECEIVERS_MAX)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(stream)
        assert caught.value.status == 503
        for socket in held:
            await socket.close()


async def test_made_up_names(pool_path: Path) -> None:
    """Names that come and go take no place for good, and a required receiver always gets one."""
    with pmlog.open(pool_path, **SMALL) as pool:
        pool.dict("words")["a"] = 1
        async with (
            shipping(pool_path, frozenset({"mine"})) as url,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client,
        ):
            for number in range(3 * RECEIVERS_MAX):
                socket, said = await greet(client, url, f"ghost {number}")
                assert isinstance(said, wire.Stream | wire.Baseline)
                await socket.close()
                assert len(slots(pool_path)) <= RECEIVERS_MAX
            mine, said = await greet(client, url, "mine")
            assert isinstance(said, wire.Stream | wire.Baseline)
            await mine.close()
            # Idle names make room for those that are there, but not the required one.
            held = []
            for number in range(RECEIVERS_MAX - 1):
                socket, said = await greet(client, url, f"real {number}")
                assert isinstance(said, wire.Stream | wire.Baseline)
                held.append(socket)
            assert slots(pool_path) == {"mine", *(f"real {n}" for n in range(RECEIVERS_MAX - 1))}
            late, said = await greet(client, url, "late")
            assert isinstance(said, wire.Refuse)
            assert "taken" in said.reason
            await late.close()
            mine, said = await greet(client, url, "mine")
            assert isinstance(said, wire.Stream | wire.Baseline)
            for socket in (*held, mine):
                await socket.close()
        pool.dict("words")["b"] = 2
    assert faults_of(pool_path) == []


async def test_required_takes_a_place(pool_path: Path) -> None:
    """With all places taken by connected receivers a required one gets the place of another."""
    with pmlog.open(pool_path, **SMALL) as pool:
        pool.dict("words")["a"] = 1
        async with (
            shipping(pool_path, frozenset({"mine"})) as url,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client,
        ):
            held = [(await greet(client, url, f"r{n}"))[0] for n in range(RECEIVERS_MAX)]
            mine, said = await greet(client, url, "mine")
            assert isinstance(said, wire.Stream | wire.Baseline)
            assert "mine" in slots(pool_path)
            assert len(slots(pool_path)) == RECEIVERS_MAX
            for socket in (*held, mine):
                await socket.close()


async def test_acknowledgement_that_goes_back(pool_path: Path) -> None:
    """Who takes back what it has acknowledged is disconnected; what it had said first counts."""
    with pmlog.open(pool_path, **SMALL) as pool:
        with LogReader(pool_path) as reader:
            reader.claim("liar")  # before anything is written: the log is kept from its first byte
        pool.dict("words")["a"] = 1
        end = pool.position.lsn
        async with shipping(pool_path) as url, aiohttp.ClientSession() as client:
            socket, said = await greet(client, url, "liar")
            assert isinstance(said, wire.Stream)
            while (await socket.receive(timeout=20)).type is not aiohttp.WSMsgType.BINARY:
                pass  # a heartbeat may come first
            await socket.send_str(wire.encode_message(wire.Ack(end, end, end)))
            await socket.send_str(wire.encode_message(wire.Ack(end, end - 8, end - 8)))
            said_last = ""
            async with asyncio.timeout(20):
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        said_last = message.data
            assert json.loads(said_last)["type"] == "refuse"
            async with client.get(f"{url}/v1/pools") as answer:
                (known,) = (await answer.json())["pools"]
            assert known["receivers"]["liar"]["durable"] == end
            assert known["receivers"]["liar"]["connected"] is False
    assert faults_of(pool_path) == []
