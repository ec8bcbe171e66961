"""Termination notices, from a server that answers as the clouds' guides say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from shipper.power.cloud import AwsSource, AzureSource, GcpSource
from shipper.power.source import Event, OnBattery, Restored, Source
from tests.support import PATIENCE_S

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[str]:
    """Serve everything by one function; give the address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Listener:
    """Watches a source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._task = asyncio.create_task(source.watch(self._events.put_nowait))

    async def hear(self, kind: type[Event] | None = None) -> Any:
        """Return the next event, of a kind if one is given."""
        while True:
            event = await asyncio.wait_for(self._events.get(), PATIENCE_S)
            if kind is None or isinstance(event, kind):
                return event

    async def errs(self, text: str) -> None:
        """Wait for an error."""
        async with asyncio.timeout(PATIENCE_S):
            while text not in (self.source.last_error or ""):  # noqa: ASYNC110 - not ours to signal
                await asyncio.sleep(0.01)
        assert not self._task.done()

    def is_silent(self) -> bool:
        """Whether there is no event that was not heard."""
        return self._events.empty()

    async def close(self) -> None:
        """Watch no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@contextlib.asynccontextmanager
async def listening(source: Source) -> AsyncIterator[Listener]:
    """Watch a source."""
    listener = Listener(source)
    try:
        yield listener
    finally:
        await listener.close()


class Aws:
    """The metadata service of an instance, version 2."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.notice: str | None = None
        self.broken = 0
        self.asked = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as the EC2 guide says."""
        if self.broken:
            self.broken -= 1
            return web.Response(status=503)
        if request.path == "/latest/api/token":
            assert request.method == "PUT"
            assert 0 < int(request.headers["X-aws-ec2-metadata-token-ttl-seconds"]) <= 21600
            self.tokens.append(f"token{len(self.tokens)}==")
            return web.Response(text=self.tokens[-1])
        assert (request.method, request.path) == ("GET", "/latest/meta-data/spot/instance-action")
        if not self.tokens or request.headers.get("X-aws-ec2-metadata-token") != self.tokens[-1]:
            return web.Response(status=401)
        self.asked.set()
        if self.notice is None:
            return web.Response(status=404, text="<html>404</html>")
        return web.Response(text=self.notice)


async def test_aws() -> None:
    """No notice, a token that expires, errors, then a notice with its time."""
    aws = Aws()
    async with served(aws.answer) as url, listening(AwsSource("aws", url, 0.01)) as listener:
        for _ in range(2):
            aws.asked.clear()
            await asyncio.wait_for(aws.asked.wait(), PATIENCE_S)
        assert (len(aws.tokens), listener.is_silent()) == (1, True)
        aws.tokens.append("another")  # the one that was given has expired
        aws.asked.clear()
        await asyncio.wait_for(aws.asked.wait(), PATIENCE_S)
        assert (len(aws.tokens), listener.is_silent()) == (3, True)
        aws.broken = 2
        await listener.errs("503")
        aws.asked.clear()
        await asyncio.wait_for(aws.asked.wait(), PATIENCE_S)
        aws.notice = "<html>"
        await listener.errs("JSON")
        assert listener.is_silent()
        when = datetime.now(UTC) + timedelta(seconds=120)
        aws.notice = f'{{"action": "terminate", "time": "{when:%Y-%m-%dT%H:%M:%SZ}"}}'
        event = await listener.hear()
        assert event == OnBattery("aws", event.seconds_left, is_firm=True, is_repeated=True)
        assert 60 < event.seconds_left <= 120
        aws.notice = None  # it is not taken back
        aws.asked.clear()
        await asyncio.wait_for(aws.asked.wait(), PATIENCE_S)
        while not listener.is_silent():
            assert isinstance(await listener.hear(), OnBattery)


async def test_nobody_there() -> None:
    """Where there is no such service the source says why, and goes on asking."""
    async with served(Aws().answer) as url:
        pass
    for source in (AwsSource("s", url, 0.01), GcpSource("s", url, 1), AzureSource("s", url, 0.01)):
        async with listening(source) as listener:
            await listener.errs("Connect")
            assert listener.is_silent()


class Gcp:
    """The metadata server of a machine."""

    def __init__(self) -> None:
        self.preempted = "FALSE"
        self.changed = asyncio.Event()
        self.waiting = asyncio.Event()
        self.broken = False
        self.flavor = "Google"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as the Compute Engine guide says."""
        assert request.path == "/computeMetadata/v1/instance/preempted"
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403)
        if self.broken:
            return web.Response(status=503)
        if request.query.get("wait_for_change") == "true":
            assert int(request.query["timeout_sec"]) > 0
            if request.query["last_etag"] == f"etag-{self.preempted}":
                self.waiting.set()
                await self.changed.wait()
        headers = {"ETag": f"etag-{self.preempted}", "Metadata-Flavor": self.flavor}
        return web.Response(text=self.preempted, headers=headers)


async def test_gcp() -> None:
    """The second request waits for a change, and brings it at once; other servers are not believed."""
    gcp = Gcp()
    async with (
        served(gcp.answer) as url,
        listening(GcpSource("gcp", url, 50, interval_s=0.01)) as listener,
    ):
        await asyncio.wait_for(gcp.waiting.wait(), PATIENCE_S)
        assert listener.is_silent()
        gcp.preempted = "TRUE"
        gcp.changed.set()
        assert await listener.hear() == OnBattery("gcp", 30.0, is_firm=True)
        gcp.changed.clear()
        gcp.waiting.clear()
        await asyncio.wait_for(gcp.waiting.wait(), PATIENCE_S)
        gcp.broken = True
        gcp.preempted = "MAYBE"
        gcp.changed.set()
        await listener.errs("503")
        gcp.broken = False
        await listener.errs("MAYBE")
        gcp.flavor = "Other"
        await listener.errs("not from Google")
        assert listener.is_silent()


class Azure:
    """The metadata service of a machine."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as the guide of scheduled events says."""
        if request.headers.get("Metadata") != "true":
            return web.Response(status=400)
        if request.path == "/metadata/instance/compute/name":
            assert request.query["format"] == "text"
            return web.Response(text="vm-1")
        assert request.path == "/metadata/scheduledevents"
        assert request.query["api-version"] == "2020-07-01"
        return web.json_response({"DocumentIncarnation": 7, "Events": self.events})

    def schedule(self, kind: str, vm: str, seconds: float | None, status: str) -> None:
        """Schedule one event."""
        when = datetime.now(UTC) + timedelta(seconds=seconds or 0)
        self.events = [
            {
                "EventId": "602d9444-d2cd-49c7-8624-8643e7171297",
                "EventType": kind,
                "ResourceType": "VirtualMachine",
                "Resources": [vm, "vm-9"],
                "EventStatus": status,
                "NotBefore": "" if seconds is None else format_datetime(when, usegmt=True),
                "Description": "for the test",
                "EventSource": "Platform",
                "DurationInSeconds": -1,
            }
        ]


async def test_azure() -> None:
    """Events of others and of no harm are passed over; one that disappears is taken back."""
    azure = Azure()
    azure.schedule("Freeze", "vm-1", 900, "Scheduled")
    async with served(azure.answer) as url, listening(AzureSource("az", url, 0.01)) as listener:
        assert await listener.hear() == Restored("az")
        azure.schedule("Terminate", "vm-2", 600, "Scheduled")
        for _ in range(3):
            assert await listener.hear() == Restored("az")
        azure.schedule("Preempt", "vm-1", 30, "Scheduled")
        event = await listener.hear(OnBattery)
        assert event == OnBattery("az", event.seconds_left, is_firm=True, is_repeated=True)
        assert 0 < event.seconds_left <= 30
        azure.events = []
        assert await listener.hear(Restored) == Restored("az")
        azure.schedule("Reboot", "vm-1", None, "Started")
        event = await listener.hear(OnBattery)
        assert event == OnBattery("az", None, is_firm=True, is_repeated=True)


@pytest.mark.parametrize("size", [2 << 20])
async def test_long_answers(size: int) -> None:
    """An answer of any length costs no memory: it is refused."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text="x" * size)

    async with served(answer) as url:
        for source in (AwsSource("s", url, 0.01), GcpSource("s", url), AzureSource("s", url, 0.01)):
            async with listening(source) as listener:
                await listener.errs("too great length")
