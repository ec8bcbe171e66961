"""The shipper's HTTP service: streams, status, metrics, power loss."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from aiohttp import WSCloseCode, web

from pmlog import http, limits
from pmlog.errors import PmlogError
from pmlog.hold import only_shipper
from pmlog.logs import note
from shipper import metrics, page
from shipper.config import BEAT_S, POWER_LOSS_TIMEOUT_S, RECEIVERS_MAX, Config
from shipper.power.supply import Supply
from shipper.session import Session, attend
from shipper.shared import SharedPool

_log = logging.getLogger("shipper")
_pools: Final = web.AppKey("pools", dict[str, SharedPool])
_supplies: Final = web.AppKey("supplies", list[Supply])
"""One, once the pools are open."""
_sockets: Final = web.AppKey("sockets", set[web.WebSocketResponse])


class PowerLoss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /v1/power-loss; may be empty."""

    timeout_s: float = POWER_LOSS_TIMEOUT_S


class Restored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of DELETE /v1/power-loss; may be empty."""

    timeout_s: float = POWER_LOSS_TIMEOUT_S
    forget: tuple[str, ...] = ()
    """Holders of the seal that will never be promoted, by the operator's word."""


def make_app(config: Config, stop: asyncio.Event | None = None) -> web.Application:
    """Make the service.

    Args:
        config: What it was told.
        stop: Set when a power source ends the service; None: nothing can.

    Returns:
        The service; the pools are opened when it starts.
    """
    app = http.make_app(config.security)
    app[_pools] = {}
    app[_supplies] = []
    app[_sockets] = set()
    app.router.add_get("/", _page)
    app.router.add_get("/healthz", _health)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/v1/pools", _list)
    app.router.add_get("/v1/pools/{id}/stream", _stream)
    app.router.add_post("/v1/power-loss", _power_loss)
    app.router.add_delete("/v1/power-loss", _power_restored)

    async def alone(app: web.Application) -> AsyncIterator[None]:
        with contextlib.ExitStack() as held:
            for path in config.pools:
                held.enter_context(only_shipper(path))
            yield

    async def life(app: web.Application) -> AsyncIterator[None]:
        try:
            for path in config.pools:
                pool = SharedPool(path, config)
                app[_pools][pool.id] = pool
                await pool.restore_stop()
                pool.publish()
        except BaseException:
            for pool in app[_pools].values():
                await pool.close()
            raise
        end = asyncio.Event() if stop is None else stop
        pools = app[_pools]
        supply = Supply(config, pools, end.set)
        app[_supplies].append(supply)
        supply.start()
        beats = asyncio.create_task(_beat(app), name="beat")
        yield
        await supply.close()
        beats.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beats
        for pool in app[_pools].values():
            await pool.close()

    app.cleanup_ctx.append(alone)
    app.cleanup_ctx.append(life)
    app.on_shutdown.append(_end_sessions)
    return app


async def _beat(app: web.Application) -> None:
    while True:  # until it is cancelled, at shutdown
        await asyncio.sleep(BEAT_S)
        for pool in app[_pools].values():
            failure: str | None = None
            try:
                await asyncio.to_thread(pool.must_be_there)
                await pool.beat()
            except PmlogError as error:
                failure = str(error)
            _note_risk(pool)
            if failure is not None and pool.failure is None:
                note(_log, "pool failed", level=logging.ERROR, pool=pool.path, reason=failure)
            elif failure is None and pool.failure is not None:
                note(_log, "pool recovered", pool=pool.path)
            pool.failure = failure


def _note_risk(pool: SharedPool) -> None:
    """Log that a pool has come to be at risk, or is no longer; at most once a beat."""
    verdict = pool.verdict
    if verdict.at_risk != pool.was_at_risk:
        pool.was_at_risk = verdict.at_risk
        note(
            _log, "at risk entered" if verdict.at_risk else "at risk left",
            level=logging.WARNING, pool=pool.path, bytes=verdict.bytes,
            limit_bytes=verdict.limit_bytes, missing_bytes=verdict.missing_bytes,
        )  # fmt: skip


async def _end_sessions(app: web.Application) -> None:
    for pool in app[_pools].values():
        for session in list(pool.sessions.values()):
            session.end("the shipper is shutting down")
    closing = [socket.close(code=WSCloseCode.GOING_AWAY) for socket in app[_sockets]]
    await asyncio.gather(*closing, return_exceptions=True)


async def _stream(request: web.Request) -> web.StreamResponse:
    app = request.app
    # Twice as many as have places: some have not said yet who they are.
    if len(app[_sockets]) >= 2 * RECEIVERS_MAX * len(app[_pools]):
        raise web.HTTPServiceUnavailable(text="too many receivers\n")
    pool = _pool_of(request)
    socket = web.WebSocketResponse(max_msg_size=limits.MESSAGE_BYTES_MAX, compress=False)
    try:
        await socket.prepare(request)
    except ConnectionError:
        return web.Response(status=400)  # whoever dialled is gone already: nobody reads it
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


def describe(pool: SharedPool, supply: Supply) -> dict[str, Any]:
    """Tell a pool's figures.

    Args:
        pool: The pool.
        supply: The power.

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
        "delay_ns": pool.verdict.delay_ns,
        "backlog": {name: getattr(pool.verdict, name) for name in _BACKLOG},
        "frozen": pool.seal_lsn is not None,
        "power": supply.describe(pool),
        "fenced_epoch": pool.fenced_epoch,
        "failure": pool.failure,
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


_BACKLOG: Final = (
    "bytes", "limit_bytes", "rate_bytes_per_s", "at_risk", "missing_bytes", "is_blocked",
)  # fmt: skip


def _figures(session: Session | None) -> dict[str, Any]:
    if session is None:
        return {}
    return {
        "sealed": session.sealed,
        "whole": session.is_whole,
        **msgspec.to_builtins(session.figures),
    }


def descriptions(app: web.Application) -> list[dict[str, Any]]:
    """Tell the figures of all pools.

    Args:
        app: The service.

    Returns:
        They, ready for JSON.
    """
    (supply,) = app[_supplies]
    return [describe(pool, supply) for pool in app[_pools].values()]


async def _list(request: web.Request) -> web.Response:
    return web.json_response({"pools": descriptions(request.app)})


async def _health(request: web.Request) -> web.Response:
    ok = all(pool.failure is None for pool in request.app[_pools].values())
    return web.json_response({"ok": ok}, status=200 if ok else 503)


async def _metrics(request: web.Request) -> web.Response:
    body = metrics.render(descriptions(request.app), request.app[http.REFUSALS].counts)
    return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})


async def _page(request: web.Request) -> web.Response:
    return http.page(page.render(descriptions(request.app)))


async def _power_loss(request: web.Request) -> web.Response:
    wanted = await http.read_body(request, PowerLoss)
    (supply,) = request.app[_supplies]
    saved = await supply.power_loss(wanted.timeout_s)
    return _answer(("saved", "sealed"), saved)


async def _power_restored(request: web.Request) -> web.Response:
    wanted = await http.read_body(request, Restored)
    (supply,) = request.app[_supplies]
    restored = await supply.restored(wanted.timeout_s, wanted.forget)
    return _answer(("restored",), restored)


def _answer(words: tuple[str, ...], results: list[dict[str, Any]]) -> web.Response:
    """Answer 200 if the first of the words is true of all pools."""
    good = {word: all(result[word] for result in results) for word in words}
    return web.json_response(good | {"pools": results}, status=200 if good[words[0]] else 409)


async def serve(config: Config, stop: asyncio.Event) -> int:
    """Run the service until it is told to stop.

    Args:
        config: What it was told.
        stop: Set when it is to end.

    Returns:
        The exit code: 1 if a power source ended it and not everything was saved.

    Raises:
        PmlogError: A pool cannot be read.
        OSError: The address cannot be used.
    """
    app = make_app(config, stop)
    await http.serve(app, config.listen, config.security, stop)
    (supply,) = app[_supplies]
    return supply.exit_code
