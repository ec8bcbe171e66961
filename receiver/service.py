"""The receiver's HTTP service: status, metrics, promotion."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from aiohttp import web

from pmlog import http
from pmlog.errors import NotPromotableError
from receiver import metrics, page
from receiver.config import Config
from receiver.receiver import Receiver

_receiver: Final = web.AppKey("receiver", Receiver)


class Promote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /v1/promote; may be empty."""

    accept_loss: bool = False


def make_app(config: Config) -> web.Application:
    """Make the service.

    Args:
        config: What it was told.

    Returns:
        The service; the replica is opened when it starts.

    Raises:
        PmlogError: A mark cannot be read.
    """
    app = http.make_app(config.security)
    app[_receiver] = Receiver(config)
    app.router.add_get("/", _page)
    app.router.add_get("/healthz", _health)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/v1/status", _status)
    app.router.add_post("/v1/promote", _promote)

    async def life(app: web.Application) -> AsyncIterator[None]:
        await app[_receiver].start()
        yield
        await app[_receiver].stop()

    app.cleanup_ctx.append(life)
    return app


async def _page(request: web.Request) -> web.Response:
    return http.page(page.render(request.app[_receiver].describe()))


async def _health(request: web.Request) -> web.Response:
    ok = request.app[_receiver].failure is None
    return web.json_response({"ok": ok}, status=200 if ok else 503)


async def _metrics(request: web.Request) -> web.Response:
    body = metrics.render(request.app[_receiver].describe(), request.app[http.REFUSALS].counts)
    return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})


async def _status(request: web.Request) -> web.Response:
    return web.json_response(request.app[_receiver].describe())


async def _promote(request: web.Request) -> web.Response:
    wanted = await http.read_body(request, Promote)
    receiver = request.app[_receiver]
    try:
        promotion = await receiver.promote(wanted.accept_loss)
    except NotPromotableError as error:
        known = receiver.describe()
        return web.json_response(
            {"promoted": False, "reason": str(error), "lsn_durable": known["lsn_durable"]},
            status=409,
        )
    return web.json_response(
        {
            "promoted": True,
            "epoch": promotion.epoch,
            "complete": promotion.complete,
            "lsn": promotion.place.lsn,
            "txn": promotion.place.txn,
            "path": str(receiver.config.pool_path),
        }
    )


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Run the service until it is told to stop.

    Args:
        config: What it was told.
        stop: Set when it is to end.

    Raises:
        PmlogError: The replica cannot be opened.
        OSError: The address cannot be used.
    """
    await http.serve(make_app(config), config.listen, config.security, stop)
