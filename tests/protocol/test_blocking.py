"""No blocking call in the event loops of shipper and receiver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from blockbuster import BlockBuster, BlockingError

import pmlog
from pmlog import http
from pmlog.addresses import Address
from pmlog.security import NONE
from receiver.config import Config as ReceiverConfig
from receiver.service import make_app as make_receiver
from shipper.config import Config as ShipperConfig
from shipper.service import make_app as make_shipper
from tests.support import SMALL, faults_of

LOOPBACK = Address("127.0.0.1", 0)

# File, function, and why a blocking call below it is right.
ALLOWED = [
    ("shipper/shared.py", "__init__", "at the start, before anybody is served"),
    ("pmlog/log.py", "status", "the boot's number, from /proc: the kernel's memory"),
    # The mark has to be durable before anybody is told, and nothing may come in between: an epoch
    # that takes over while power fails would have to be thought through at each await.
    ("shipper/shared.py", "_set_stop", "a stop mark, before the seal is given"),
    ("shipper/shared.py", "fence", "a stop mark, before the receiver is answered"),
    ("shipper/shared.py", "is_replica", "a stop mark, only while power fails or an epoch ends"),
    ("shipper/shared.py", "unfreeze", "a stop mark is removed, after the seals are back"),
    ("shipper/session.py", "_begin", "the marks of a pool's folder, once a connection"),
    ("shipper/shared.py", "is_replica", "the same, when power fails or an epoch ends"),
    ("shipper/shared.py", "_file_of", "whether the pool is still the same, once a beat"),
    ("logging/__init__.py", "emit", "a line to standard error"),
]


@pytest.fixture
def watched() -> Iterator[BlockBuster]:
    """Let blocking calls in an event loop fail, from the packages of the services only."""
    guard = BlockBuster()
    for file, function, _ in ALLOWED:
        for one in guard.functions.values():
            one.can_block_in(file, function)
    guard.activate()
    yield guard
    guard.deactivate()


async def test_guard_sees(watched: BlockBuster) -> None:
    """A blocking call in this very loop is seen."""
    with pytest.raises(BlockingError):
        time.sleep(0.001)  # noqa: ASYNC251 - it has to fail
    with pytest.raises(BlockingError):
        Path(__file__).read_bytes()  # noqa: ASYNC240 - the same


@asynccontextmanager
async def running(app: web.Application) -> AsyncIterator[str]:
    """Run a service as its command does; give its URL."""
    stop = asyncio.Event()
    where: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    service = asyncio.create_task(
        http.serve(app, LOOPBACK, NONE, stop, lambda at: where.set_result(at.url))
    )
    done, _ = await asyncio.wait((service, where), return_when=asyncio.FIRST_COMPLETED)
    if service in done:
        await service
    try:
        yield where.result()
    finally:
        stop.set()
        await service


async def ask(client: aiohttp.ClientSession, url: str, **options: Any) -> dict[str, Any]:
    """Ask a service."""
    method = options.pop("method", "GET")
    async with client.request(method, url, **options) as answer:
        known: dict[str, Any] = await answer.json()
        return known | {"status": answer.status}


async def until(client: aiohttp.ClientSession, url: str, is_so: Callable[[Any], Any]) -> None:
    """Wait until a service says something."""
    async with asyncio.timeout(60):
        while not is_so(await ask(client, url)):  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("has_to_copy", [False, True])
async def test_whole_life(memory_dir: Path, watched: BlockBuster, has_to_copy: bool) -> None:
    """Hello, baseline, stream, acknowledgements, power loss, seal, promotion: nothing blocks."""
    path, folder = memory_dir / "pool", memory_dir / "one"

    def prepare() -> pmlog.Pool:
        folder.mkdir()
        pool = pmlog.open(path, **SMALL)
        words = pool.dict("words")
        for number in range(10_000 if has_to_copy else 10):  # laps of the ring, or none
            words[number % 100] = number
        return pool

    pool = await asyncio.to_thread(prepare)
    try:
        async with (
            running(make_shipper(ShipperConfig((str(path),), LOOPBACK))) as source,
            aiohttp.ClientSession() as client,
        ):
            config = ReceiverConfig((source,), folder, "one", "any", LOOPBACK)
            app = await asyncio.to_thread(make_receiver, config)
            async with running(app) as target:
                await until(client, f"{target}/v1/status", lambda k: k["state"] == "receiving")

                def write() -> None:
                    words = pool.dict("words")
                    for number in range(1000):
                        words[number % 100] = number
                    pool.wait(pmlog.Level.APPLIED, timeout=60)

                await asyncio.to_thread(write)
                known = await ask(client, f"{target}/v1/status")
                assert bool(known["blocks"]) == has_to_copy
                for url in (f"{source}/", f"{source}/metrics", f"{target}/", f"{target}/metrics"):
                    async with client.get(url) as answer:
                        assert answer.status == 200
                for url in (source, target):
                    assert (await ask(client, f"{url}/healthz"))["ok"] is True
                saved = await ask(client, f"{source}/v1/power-loss", method="POST")
                assert saved["sealed"] is True
                back = await ask(client, f"{source}/v1/power-loss", method="DELETE")
                assert back["restored"] is True
                saved = await ask(client, f"{source}/v1/power-loss", method="POST")
                assert saved["sealed"] is True
                said = await ask(client, f"{target}/v1/promote", method="POST")
                assert (said["status"], said["complete"]) == (200, True)
                await until(client, f"{source}/v1/pools", lambda k: k["pools"][0]["fenced_epoch"])
    finally:
        await asyncio.to_thread(pool.close)
    assert await asyncio.to_thread(faults_of, folder / "pool") == []
