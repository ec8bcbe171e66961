"""HTTP as both services speak it: who is answered, how many, for how long.

Only shipper and receiver import this module; the library itself needs no network.
It stands here and not twice in them, so that there is one door to guard.

Invariants:

1. No handler but /healthz runs before `security.judge_request` has let its request pass.
2. Connections, request bodies, and the time until a request is there, are bounded.
3. A token goes only to addresses that the operator has named: redirects are refused.
"""

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pmlog import limits
from pmlog.addresses import Address
from pmlog.errors import PmlogError
from pmlog.logs import note, plain
from pmlog.security import Security, judge_request

CONNECTIONS_MAX: Final = 128
"""Further ones are closed at once: file descriptors are needed for saving the log."""

REQUEST_TIMEOUT_S: Final = 10.0
"""Until a connection has brought a whole request; also for the handshake of TLS."""

SHUTDOWN_TIMEOUT_S: Final = 5.0

_QUIET_S: Final = 1.0
"""Refusals are logged no more often than this."""

_log = logging.getLogger("http")
_T = TypeVar("_T", bound=msgspec.Struct)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Refusals:
    """Counts requests that were not answered."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._logged_at = float("-inf")

    def count(self, reason: str, peer: str | None, path: str) -> None:
        """Count one; log it unless another was logged a moment ago.

        Args:
            reason: Why, in one word.
            peer: Who asked.
            path: What for.
        """
        self.counts[reason] += 1
        now = time.monotonic()
        if now - self._logged_at >= _QUIET_S:
            self._logged_at = now
            note(
                _log, f"{reason} refused", level=logging.WARNING, peer=peer, path=path,
                count=self.counts[reason],
            )  # fmt: skip


REFUSALS: Final = web.AppKey("refusals", Refusals)


def make_app(security: Security) -> web.Application:
    """Make a service without handlers.

    Args:
        security: Who is answered.

    Returns:
        The service.
    """
    refusals = Refusals()

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        denial = judge_request(
            security,
            request.path,
            host=request.headers.get("Host"),
            authorization=request.headers.get("Authorization"),
            origin=request.headers.get("Origin"),
            site=request.headers.get("Sec-Fetch-Site"),
        )
        if denial is not None:
            refusals.count(denial.reason, request.remote, request.path)
            answer = web.Response(status=denial.status, text=denial.text)
            if denial.status == web.HTTPUnauthorized.status_code:
                answer.headers["WWW-Authenticate"] = "Bearer"
            # Whoever may not ask sends no body either.
            answer.force_close()
            return answer
        try:
            return await handler(request)
        except PmlogError as error:
            note(
                _log, "request failed", level=logging.ERROR, path=request.path,
                error=type(error).__name__, reason=error,
            )  # fmt: skip
            return web.json_response(
                {"error": type(error).__name__, "reason": str(error)}, status=500
            )

    app = web.Application(middlewares=[guard], client_max_size=limits.MESSAGE_BYTES_MAX)
    app[REFUSALS] = refusals
    return app


async def read_body(request: web.Request, kind: type[_T]) -> _T:
    """Read what was sent with a request.

    Args:
        request: The request.
        kind: What it has to be; made without arguments if nothing was sent.

    Returns:
        What it is.

    Raises:
        HTTPBadRequest: It is something else.
        HTTPRequestTimeout: It does not come.
    """
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body does not come\n") from None
    try:
        return msgspec.json.decode(body, type=kind) if body else kind()
    except msgspec.MsgspecError as error:
        raise web.HTTPBadRequest(text=f"{plain(error)}\n") from None


def page(text: str) -> web.Response:
    """Make the answer that is a page.

    Args:
        text: HTML without scripts and without anything from elsewhere.

    Returns:
        The answer.
    """
    return web.Response(text=text, content_type="text/html", headers=PAGE_HEADERS)


# ---- listening ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a service listens."""

    scheme: str
    host: str
    port: int
    socket: socket.socket
    """Closed by a forked child, so that the port is free once the service has ended."""

    @property
    def url(self) -> str:
        """As others dial it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def say_listening(at: Listening) -> None:
    """Say on standard output, as JSON, where a service listens: for whoever started it.

    Args:
        at: Where.
    """
    said = {"event": "listening", "host": at.host, "port": at.port, "url": at.url}
    print(json.dumps(said), flush=True)


async def serve(
    app: web.Application,
    address: Address,
    security: Security,
    stop: asyncio.Event,
    announce: Callable[[Listening], None] = say_listening,
) -> None:
    """Run a service until it is told to stop.

    Args:
        app: The service.
        address: Where it listens.
        security: With what.
        stop: Set when it is to end.
        announce: Told where, once it listens.

    Raises:
        PmlogError: It cannot start.
        OSError: The address cannot be used.
    """
    context = await asyncio.to_thread(security.listening_context)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        logger=_server_log(app[REFUSALS]),
        keepalive_timeout=REQUEST_TIMEOUT_S,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
    )
    await runner.setup()
    try:
        listener = await _bind(address)
        door = asyncio.create_task(_Door(runner, listener, context).run(), name="accept")
        try:
            host, port = listener.getsockname()[:2]
            scheme = "http" if context is None else "https"
            announce(Listening(scheme, host, port, listener))
            await stop.wait()
        finally:
            door.cancel()
            await asyncio.gather(door, return_exceptions=True)
            listener.close()
    finally:
        await runner.cleanup()


def _server_log(refusals: Refusals) -> logging.Logger:
    """Make what aiohttp logs to: it writes a traceback for each request that is none."""

    def is_ours(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            refusals.count("malformed", None, "")
            return False
        return True

    # Not a registered one: each service counts for itself.
    log = logging.Logger("http.server")
    log.parent = _log
    log.addFilter(is_ours)
    return log


async def _bind(address: Address) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, where = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(where)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


class _Door:
    """Lets connections in, so many at a time, those in the handshake of TLS included."""

    def __init__(self, runner: web.AppRunner, listener: socket.socket, context: object) -> None:
        self._runner = runner
        self._listener = listener
        self._context = context
        self._entering: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:  # until it is cancelled, at shutdown
                try:
                    connection, _ = await loop.sock_accept(self._listener)
                except OSError as error:  # no file descriptors, or the peer has gone again
                    note(_log, "accept failed", level=logging.ERROR, reason=error)
                    await asyncio.sleep(_QUIET_S)
                    continue
                server = self._runner.server
                assert server is not None
                if len(self._entering) + len(server.connections) >= CONNECTIONS_MAX:
                    self._runner.app[REFUSALS].count("connection", None, "")
                    connection.close()
                    continue
                task = asyncio.create_task(self._enter(connection, server), name="enter")
                self._entering.add(task)
                task.add_done_callback(self._entering.discard)
        finally:
            for task in self._entering:
                task.cancel()
            await asyncio.gather(*self._entering, return_exceptions=True)

    async def _enter(self, connection: socket.socket, server: web.Server) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            timeout_s = None if self._context is None else REQUEST_TIMEOUT_S
            await asyncio.get_running_loop().connect_accepted_socket(
                server,
                connection,
                ssl=self._context,  # type: ignore[arg-type]
                ssl_handshake_timeout=timeout_s,
            )
        except (OSError, TimeoutError) as error:  # errors of TLS are OSErrors too
            self._runner.app[REFUSALS].count("handshake", None, "")
            _log.debug("no handshake: %s", error)
            connection.close()


# ---- dialling ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def dialling(security: Security, timeout_s: float) -> AsyncIterator[aiohttp.ClientSession]:
    """Make connections to services.

    Args:
        security: What this side has.
        timeout_s: How long connecting and the first answer may take.

    Yields:
        What makes them.
    """
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_refuse_redirect)
    # In a thread: it reads the files.
    context = await asyncio.to_thread(security.dialling_context)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(
        connector=connector,
        headers=security.headers(),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        trace_configs=[trace],
    ) as session:
        yield session


async def _refuse_redirect(
    session: aiohttp.ClientSession, context: object, params: aiohttp.TraceRequestRedirectParams
) -> None:
    del session, context, params
    raise aiohttp.ClientError("it sends us elsewhere, and we do not go")
