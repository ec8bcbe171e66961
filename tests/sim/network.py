"""A network in one process: WebSockets without sockets, with seeded faults.

Fault model: within a connection messages arrive whole and in order, as over TCP.
They take a latency and the time that the rate says; more than `WINDOW_BYTES` on their way block
the sender.
A connection may be cut (what is on its way is lost; both ends learn of it), be half open (one
direction swallows everything; nobody learns of it), or stall (everything comes late).
Dialling may fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import WSMessage, WSMsgType

WINDOW_BYTES = 256 * 1024
Trace = Callable[..., None]


class End:
    """One end of a connection: what the real classes use of aiohttp's."""

    def __init__(self, wire: Connection, name: str) -> None:
        self.name = name
        self.peer: End
        self._wire = wire
        self._queue: deque[tuple[WSMsgType, Any]] = deque()
        self._heard: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.is_over = False
        """Nothing more is sent, nothing more comes."""
        self.is_deaf = False
        """What is sent from here gets lost."""
        self.late_until_s = 0.0
        self._free_at_s = 0.0
        self._underway_bytes = 0

    # ---- what a session and a link use ---------------------------------------------------------

    async def send_str(self, text: str) -> None:
        """Send a message."""
        await self._send(WSMsgType.TEXT, text, len(text))

    async def send_bytes(self, data: bytes) -> None:
        """Send a frame."""
        await self._send(WSMsgType.BINARY, bytes(data), len(data))

    async def receive(self, timeout: float | None = None) -> WSMessage:  # noqa: ASYNC109 - aiohttp's
        """Wait for what comes next."""
        loop = self._wire.loop
        while not self._queue and not self.is_over:
            self._heard = loop.create_future()
            timer = None
            if timeout is not None:
                timer = loop.call_later(timeout, _give_up, self._heard)
            try:
                await self._heard
            finally:
                self._heard = None
                if timer is not None:
                    timer.cancel()
        if self._queue:
            kind, data = self._queue.popleft()
            if kind is WSMsgType.CLOSE:
                self.is_over = True
            return WSMessage(kind, data, None)
        return WSMessage(WSMsgType.CLOSED, None, None)

    def __aiter__(self) -> End:
        return self

    async def __anext__(self) -> WSMessage:
        message = await self.receive()
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED):
            raise StopAsyncIteration
        return message

    async def close(self, **_: Any) -> None:
        """Say goodbye and end this side."""
        if not self.is_over:
            self._transmit(WSMsgType.CLOSE, None, 0)
        self.end()

    # ---- the inside ----------------------------------------------------------------------------

    async def _send(self, kind: WSMsgType, data: Any, size: int) -> None:
        if self.is_over:
            raise ConnectionResetError("the connection is over")
        self._transmit(kind, data, size)
        while self._underway_bytes > WINDOW_BYTES and not self.is_over:
            self._room = self._wire.loop.create_future()
            try:
                await self._room
            finally:
                self._room = None

    def _transmit(self, kind: WSMsgType, data: Any, size: int) -> None:
        wire = self._wire
        self._underway_bytes += size
        crc = zlib.crc32(data.encode() if isinstance(data, str) else data or b"")
        wire.trace("send", self.name, kind.value, size, crc)
        if self.is_deaf:
            return
        now_s = wire.loop.time()
        begin_s = max(now_s, self._free_at_s, self.late_until_s)
        self._free_at_s = begin_s + size / wire.rate_bytes_per_s
        wire.loop.call_at(self._free_at_s + wire.latency_s, self._arrive, kind, data, size)

    def _arrive(self, kind: WSMsgType, data: Any, size: int) -> None:
        if self.is_deaf or self.peer.is_over:
            return
        self._underway_bytes -= size
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._wire.trace("arrive", self.peer.name, kind.value, size)
        self.peer.hear(kind, data)

    def hear(self, kind: WSMsgType, data: Any) -> None:
        """Take what has arrived."""
        self._queue.append((kind, data))
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(None)

    def end(self) -> None:
        """End this side; whoever waits here learns of it."""
        self.is_over = True
        for waiter in (self._heard, self._room):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def lose_queue(self) -> None:
        """Lose what had arrived and was not read."""
        self._queue.clear()


def _give_up(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


class Connection:
    """Two ends and what is between them."""

    def __init__(self, network: Network, number: int, client: str) -> None:
        rng = network.rng
        self.loop = network.loop
        self.trace = network.trace
        self.client_name = client
        self.latency_s = rng.choice((0.0001, 0.002, 0.05, 0.3))
        self.rate_bytes_per_s = rng.choice((3e4, 1e6, 1e8, 1e9))
        self.client = End(self, f"{number}{client}>")
        self.server = End(self, f"{number}{client}<")
        self.client.peer, self.server.peer = self.server, self.client

    def cut(self, *, loses_queue: bool) -> None:
        """Break it: what is on its way is lost."""
        for end in (self.client, self.server):
            if loses_queue:
                end.lose_queue()
            end.end()

    @property
    def is_over(self) -> bool:
        """Whether both ends have ended."""
        return self.client.is_over and self.server.is_over


class Network:
    """All connections.

    Args:
        loop: The loop.
        rng: Decides everything.
        trace: Notes every event.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random, trace: Trace) -> None:
        self.loop = loop
        self.rng = rng
        self.trace = trace
        self.servers: dict[str, Callable[[End], Awaitable[None]]] = {}
        self.connections: list[Connection] = []
        self.partitioned: set[str] = set()
        """Clients that reach nobody."""
        self.failures: list[BaseException] = []
        self._count = 0
        self._tasks: dict[asyncio.Task[None], str] = {}

    @contextlib.asynccontextmanager
    async def dial(self, client: str, server: str) -> AsyncIterator[Any]:
        """Open a connection."""
        await asyncio.sleep(0.001)
        if client in self.partitioned or server not in self.servers:
            raise aiohttp.ClientConnectionError(f"{server} cannot be reached")
        self._count += 1
        wire = Connection(self, self._count, client)
        self.connections = [one for one in self.connections if not one.is_over]
        self.connections.append(wire)
        self.trace("dial", client, server, wire.latency_s, wire.rate_bytes_per_s)
        task = asyncio.create_task(self._serve(server, wire.server), name=f"serve {client}")
        self._tasks[task] = server
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        try:
            yield wire.client
        finally:
            await wire.client.close()

    async def _serve(self, server: str, end: End) -> None:
        try:
            await self.servers[server](end)
        except Exception as error:
            self.failures.append(error)
        finally:
            await end.close()

    def shut(self, server: str) -> None:
        """A server is killed: its connections break."""
        self.servers.pop(server, None)
        for wire in self.connections:
            wire.cut(loses_queue=False)

    async def end_served(self, server: str) -> None:
        """End what a killed server was doing."""
        tasks = [task for task, name in self._tasks.items() if name == server]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drop(self, client: str) -> None:
        """A client is killed: its connections break."""
        for wire in self.connections:
            if wire.client_name == client:
                wire.cut(loses_queue=True)

    def disturb(self) -> str:
        """Harm one connection, chosen and harmed by the seed; say what was done."""
        rng, now_s = self.rng, self.loop.time()
        live = [wire for wire in self.connections if not wire.is_over]
        if not live:
            return "nothing"
        wire = rng.choice(live)
        what = rng.choice(("cut", "cut", "half open", "deaf", "stall", "slow"))
        if what == "cut":
            wire.cut(loses_queue=rng.random() < 0.5)
        elif what == "half open":
            rng.choice((wire.client, wire.server)).is_deaf = True
        elif what == "deaf":
            wire.client.is_deaf = wire.server.is_deaf = True
        elif what == "stall":
            end = rng.choice((wire.client, wire.server))
            end.late_until_s = now_s + rng.choice((0.5, 3.0, 20.0))
        else:
            wire.rate_bytes_per_s = 2e4
        return what
