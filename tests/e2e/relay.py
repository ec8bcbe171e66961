"""A network between receiver and shipper that can be cut, slowed and delayed, on loopback.

Its thread has an event loop of its own; the methods may be called from any thread, and what they
order holds when they return.
A connection's bytes are never reordered, changed or invented, as with TCP; but a frame's, by order.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self

_CHUNK_BYTES: Final = 65536
_SOCKET_BUFFER_BYTES: Final = 1 << 18
"""Small, so that a throttle is felt at the sender soon."""
_CHUNKS_ON_THE_WAY: Final = 16
"""What a delay holds at most, in each direction of a connection."""
_THROTTLE_STEP_S: Final = 0.02
_FRAME_MAGIC: Final = b"PMLF"
_HARM_WITHIN_BYTES: Final = 68
"""From a frame's begin: its header, and the first bytes of what it carries, for it has some."""


class Cut(Enum):
    """How the network fails."""

    RESET = "reset"
    """Connections are reset at both ends; new ones too, as soon as they are made."""
    SILENT = "silent"
    """Nothing passes and nobody is told; when the network is back, what waited goes on."""
    HALF_OPEN = "half open"
    """The source's end is reset, the dialler is told nothing: to it the connection still stands."""
    HALF_OPEN_SOURCE = "half open at the source"
    """The dialler's end is reset, the source is told nothing."""


class _Connection:
    """Two sockets, and a pump for each direction."""

    def __init__(self, relay: Relay, dialler: _Stream, source: _Stream) -> None:
        self.relay = relay
        self.dialler = dialler
        self.source = source
        self.is_orphan = False
        """One end was reset in a half-open cut."""

    async def run(self) -> None:
        """Carry bytes until both directions have ended or either end is reset."""
        pumps = [
            asyncio.create_task(self._pump(self.source, self.dialler, to_dialler=True)),
            asyncio.create_task(self._pump(self.dialler, self.source, to_dialler=False)),
        ]
        try:
            await asyncio.gather(*pumps)
        except OSError:
            await self.relay.open_gate()  # a reset is a packet too
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.reset(self.dialler)
            self.reset(self.source)

    async def _pump(self, source: _Stream, target: _Stream, *, to_dialler: bool) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_ON_THE_WAY)
        deliver = asyncio.create_task(self._deliver(queue, target, to_dialler=to_dialler))
        clock = asyncio.get_running_loop().time
        try:
            while True:  # until the stream ends, or a reset
                await self.relay.open_gate()
                data = await source[0].read(self.relay.chunk_bytes())
                await _either(queue.put((clock() + self.relay.delay_s, data)), deliver)
                if not data:
                    await deliver
                    return
        finally:
            deliver.cancel()
            await asyncio.gather(deliver, return_exceptions=True)

    async def _deliver(
        self, queue: asyncio.Queue[tuple[float, bytes]], target: _Stream, *, to_dialler: bool
    ) -> None:
        clock = asyncio.get_running_loop().time
        while True:  # until the stream's end was passed on
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - clock()))
            await self.relay.take_turn(len(data), to_dialler=to_dialler)
            await self.relay.open_gate()
            if to_dialler and self.relay.flips_left:
                data = self.relay.harm(data)
            if not data:
                with contextlib.suppress(OSError):  # the other direction may have closed it
                    target[1].write_eof()
                return
            target[1].write(data)
            await target[1].drain()
            self.relay.count(len(data), to_dialler=to_dialler)

    def cut(self, kind: Cut) -> None:
        """Fail in that way."""
        if kind in (Cut.RESET, Cut.HALF_OPEN):
            self.reset(self.source)
        if kind in (Cut.RESET, Cut.HALF_OPEN_SOURCE):
            self.reset(self.dialler)
        self.is_orphan = self.is_orphan or kind in (Cut.HALF_OPEN, Cut.HALF_OPEN_SOURCE)

    @staticmethod
    def reset(stream: _Stream) -> None:
        """End one side by RST."""
        transport = stream[1].transport
        own = transport.get_extra_info("socket")
        if not transport.is_closing() and own is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """A relay from a port of its own to a port on loopback.

    Args:
        target_port: Where connections go; may be changed, for new ones.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.delay_s = 0.0
        """What each byte waits, in each direction."""
        self.bytes_to_dialler = 0
        self.bytes_to_source = 0
        self.connections = 0
        """How many were made."""
        self.flips_left = 0
        """So many frames are yet to be harmed, one bit each."""
        self.flipped = 0
        """So many were."""
        self._rate: float | None = None
        self._turns = {True: 0.0, False: 0.0}
        self._cut: Cut | None = None
        self._open: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._gate = asyncio.Event()
        self._gate.set()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()
        self._order(lambda: None)

    # ---- orders, from any thread ---------------------------------------------------------------

    def cut(self, kind: Cut = Cut.RESET) -> None:
        """Let nothing pass from now on.

        Args:
            kind: What the ends notice of it.
        """

        def act() -> None:
            self._cut = kind
            self._gate.clear()
            for connection in self._open:
                connection.cut(kind)

        self._order(act)

    def restore(self) -> None:
        """Let everything pass again; ends that were left over by a half-open cut are reset."""

        def act() -> None:
            self._cut = None
            for connection in self._open:
                if connection.is_orphan:
                    connection.cut(Cut.RESET)
            self._gate.set()

        self._order(act)

    def throttle(self, rate_bytes_per_s: float | None) -> None:
        """Carry so much in each direction, all connections together.

        Args:
            rate_bytes_per_s: How much; None: no limit.
        """

        def act() -> None:
            self._rate = rate_bytes_per_s
            self._turns = {True: 0.0, False: 0.0}

        self._order(act)

    def flip(self, frames: int) -> None:
        """Change one bit of each of the next frames on their way to the dialler.

        Args:
            frames: How many.
        """

        def act() -> None:
            self.flips_left = frames

        self._order(act)

    def close(self) -> None:
        """End all connections and the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _order(self, act: Callable[[], None]) -> None:
        async def run() -> None:
            act()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    # ---- what connections ask ------------------------------------------------------------------

    async def open_gate(self) -> None:
        """Wait until the network carries something."""
        await self._gate.wait()

    def harm(self, data: bytes) -> bytes:
        """Change one bit behind the magic of a frame that begins in a chunk, if one does."""
        at = data.find(_FRAME_MAGIC)
        end = min(len(data), at + _HARM_WITHIN_BYTES)
        if at < 0 or end <= at + len(_FRAME_MAGIC):
            return data
        self.flips_left -= 1
        self.flipped += 1
        place = random.randrange(at + len(_FRAME_MAGIC), end)
        return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]

    def chunk_bytes(self) -> int:
        """Choose how much to carry at once: a throttle shall not come in lumps."""
        if self._rate is None:
            return _CHUNK_BYTES
        return max(256, min(_CHUNK_BYTES, int(self._rate * _THROTTLE_STEP_S)))

    async def take_turn(self, size: int, *, to_dialler: bool) -> None:
        """Wait until the throttle lets so many bytes pass."""
        if self._rate is None:
            return
        now = self._loop.time()
        begin = max(now, self._turns[to_dialler])
        self._turns[to_dialler] = begin + size / self._rate
        await asyncio.sleep(self._turns[to_dialler] - now)

    def count(self, size: int, *, to_dialler: bool) -> None:
        """Note what was carried."""
        if to_dialler:
            self.bytes_to_dialler += size
        else:
            self.bytes_to_source += size

    # ---- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(
            asyncio.start_server(self._accept, sock=self._listener, limit=_CHUNK_BYTES)
        )
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        for connection in list(self._open):
            connection.cut(Cut.RESET)
        self._listener.close()
        self._loop.run_until_complete(asyncio.sleep(0.01))  # lets cancelled tasks end
        self._loop.close()

    async def _accept(self, *dialler: Any) -> None:
        self.connections += 1
        if self._cut is Cut.RESET:
            _Connection.reset(dialler)
            return
        await self.open_gate()
        own = socket.socket()
        own.setblocking(False)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
        try:
            await self._loop.sock_connect(own, ("127.0.0.1", self.target_port))
            source = await asyncio.open_connection(sock=own, limit=_CHUNK_BYTES)
        except OSError:
            own.close()
            _Connection.reset(dialler)
            return
        connection = _Connection(self, dialler, source)
        self._open.add(connection)
        try:
            if self._cut is not None:
                connection.cut(self._cut)
            await connection.run()
        except asyncio.CancelledError:
            pass  # at the end of the relay; asyncio would complain of a task that was cancelled
        finally:
            self._open.discard(connection)


async def _either(work: Any, other: asyncio.Task[None]) -> None:
    """Do some work; if the other task fails first, fail with it."""
    task = asyncio.ensure_future(work)
    await asyncio.wait((task, other), return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        await other
    await task
