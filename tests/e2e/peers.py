"""Receivers that behave badly, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self

import aiohttp

from pmlog import wire
from tests.support import PATIENCE_S

_PAUSE_S = 0.05


class Mute:
    """A receiver that takes all it is sent and never acknowledges a byte; it dials again for ever.

    Args:
        port: The shipper's.
        name: Its name.
        is_restless: It wants a baseline, and hangs up as soon as it is to begin.
    """

    def __init__(self, port: int, name: str = "mute", *, is_restless: bool = False) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/pools/any/stream"
        self._name = name
        self._is_restless = is_restless
        self._stop = threading.Event()
        self.received_bytes = 0
        self.answers: list[str] = []
        """The type of the first message of each connection."""
        self.connected = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=name)
        self._thread.start()

    async def _run(self) -> None:
        async with aiohttp.ClientSession() as session:
            while not self._stop.is_set():
                with contextlib.suppress(aiohttp.ClientError):
                    await self._dial(session)
                await asyncio.sleep(_PAUSE_S)

    async def _dial(self, session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(self._url, max_msg_size=wire.FRAME_BYTES_MAX) as socket:
            hello = wire.Hello(
                version=wire.VERSION, pool="any", name=self._name, rebuild=self._is_restless
            )
            await socket.send_str(wire.encode_message(hello))
            first = wire.decode_from_shipper((await socket.receive()).data)
            self.answers.append(type(first).__name__)
            self.connected.set()
            if self._is_restless:
                return
            while not self._stop.is_set():
                try:
                    message = await socket.receive(timeout=_PAUSE_S)
                except TimeoutError:
                    continue
                if message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING}:
                    return
                if message.type is aiohttp.WSMsgType.BINARY:
                    self.received_bytes += len(message.data)

    def close(self) -> None:
        """Hang up."""
        self._stop.set()
        self._thread.join(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
