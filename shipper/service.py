"""The shipper's HTTP service: streams, status, metrics, power loss."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from aiohttp import WSCloseCode, web

from pmlog import http, limits
from shipper import metrics, page, power_loss
from shipper.config import BEAT_S, POWER_LOSS_TIMEOUT_S, RECEIVERS_MAX, Config
from shipper.session import Session, attend
from shipper.shared import SharedPool

_pools: Final = web.AppKey("pools", dict[str, SharedPool])
_sockets: Final = web.AppKey("sockets", set[web.WebSocketResponse])


class PowerLoss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /v1/power-loss; may be empty."""

    timeout_s: float = POWER_LOSS_TIMEOUT_S


def make_app(config: Config) -> web.Application:
    """Make the service.

    Args:
        config: What it was told.

    Returns:
        The service; the pools are opened when it starts.
    """
    app = http.make_app(config.security)
    app[_pools] = {}
    app[_sockets] = set()
    app.router.add_get("/", _page)
    app.router.add_get("/healthz", _health)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/v1/pools", _list)
    app.router.add_get("/v1/pools/{id}/stream", _stream)
    app.router.add_post("/v1/power-loss", _power_loss)
    app.router.add_delete("/v1/power-loss", _power_restored)

    async def life(app: web.Application) -> AsyncIterator[None]:
        for path in config.pools:
            pool = SharedPool(path, config)
            app[_pools][pool.id] = pool
            await pool.restore_stop()
            pool.publish()
        beats = asyncio.create_task(_beat(app), name="beat")
        yield
        beats.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beats
        for pool in app[_pools].values():
            await pool.close()

    app.cleanup_ctx.append(life)
    app.on_shutdown.append(_end_sessions)
    return app


async def _beat(app: web.Application) -> None:
    while True:  # until it is cancelled, at shutdown
        await asyncio.sleep(BEAT_S)
        for pool in app[_pools].values():
            await pool.beat()


async def _end_sessions(app: web.Application) -> None:
    for pool in app[_pools].values():
        for session in list(pool.sessions.values()):
            session.end("the shipper is shutting down")
    closing = [socket.close(code=WSCloseCode.GOING_AWAY) for socket in app[_sockets]]
    await asyncio.gather(*closing, return_exceptions=True)


async def _stream(request: web.Request) -> web.StreamResponse:
    app = request.app
    if len(app[_sockets]) >= RECEIVERS_MAX * len(app[_pools]):
        raise web.HTTPServiceUnavailable(text="too many receivers\n")
    pool = _pool_of(request)
    socket = web.WebSocketResponse(max_msg_size=limits.MESSAGE_BYTES_MAX, compress=False)
    await socket.prepare(request)
    app[_sockets].add(socket)
    try:
        await attend(pool, socket)
    finally:
        app[_sockets].discard(socket)
        await socket.close()
    return socket


def _pool_of(request: web.Request) -> SharedPool:
    pools = request.app[_pools]
    number = request.match_info["id"]
    if number == "any" and len(pools) == 1:
        return next(iter(pools.values()))
    if number not in pools:
        raise web.HTTPNotFound(text="no such pool is shipped here\n")
    return pools[number]


def describe(pool: SharedPool) -> dict[str, Any]:
    """Tell a pool's figures.

    Args:
        pool: The pool.

    Returns:
        They, ready for JSON.
    """
    status = pool.reader.status()
    end = pool.lsn_end
    level = pool.level
    return {
        "id": pool.id,
        "path": pool.path,
        "epoch": pool.reader.epoch,
        "writer_pid": status.writer_pid if status is not None and status.live else None,
        "lsn_durable": end,
        "ring_bytes": pool.identity.ring_bytes,
        "require": pool.config.require,
        "levels": {
            "received": level.received,
            "replicated": level.durable,
            "applied": level.applied,
        },
        "delay_ns": pool.delay_ns,
        "frozen": pool.seal_lsn is not None,
        "fenced_epoch": pool.fenced_epoch,
        "sent": msgspec.to_builtins(pool.totals),
        "receivers": {
            name: {
                "connected": name in pool.sessions,
                "required": name in pool.config.required,
                **msgspec.to_builtins(progress),
                "behind_bytes": end - progress.durable,
                **_figures(pool.sessions.get(name)),
            }
            for name, progress in sorted(pool.progress.items())
        },
    }


def _figures(session: Session | None) -> dict[str, Any]:
    if session is None:
        return {}
    return {"sealed": session.sealed, **msgspec.to_builtins(session.figures)}


def _descriptions(app: web.Application) -> list[dict[str, Any]]:
    return [describe(pool) for pool in app[_pools].values()]


async def _list(request: web.Request) -> web.Response:
    return web.json_response({"pools": _descriptions(request.app)})


async def _health(request: web.Request) -> web.Response:
    del request
    return web.json_response({"ok": True})


async def _metrics(request: web.Request) -> web.Response:
    body = metrics.render(_descriptions(request.app), request.app[http.REFUSALS].counts)
    return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})


async def _page(request: web.Request) -> web.Response:
    return http.page(page.render(_descriptions(request.app)))


async def _power_loss(request: web.Request) -> web.Response:
    wanted = await http.read_body(request, PowerLoss)
    pools = request.app[_pools].values()
    saved = await asyncio.gather(*(power_loss.save(pool, wanted.timeout_s) for pool in pools))
    return _answer("sealed", saved)


async def _power_restored(request: web.Request) -> web.Response:
    pools = request.app[_pools].values()
    restored = await asyncio.gather(
        *(power_loss.restore(pool, POWER_LOSS_TIMEOUT_S) for pool in pools)
    )
    return _answer("restored", restored)


def _answer(word: str, results: list[dict[str, object]]) -> web.Response:
    good = all(result[word] for result in results)
    return web.json_response({word: good, "pools": results}, status=200 if good else 409)


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Run the service until it is told to stop.

    Args:
        config: What it was told.
        stop: Set when it is to end.

    Raises:
        PmlogError: A pool cannot be read.
        OSError: The address cannot be used.
    """
    await http.serve(make_app(config), config.listen, config.security, stop)
