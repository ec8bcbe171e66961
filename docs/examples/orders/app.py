"""A small order service: its whole state is in one pool, and it holds no recovery code.

Started again on this host it is at the last committed order; started by a promoted receiver, on
another host, it is there too.

    python3 app.py                      # ORDERS_POOL, ORDERS_LISTEN and ORDERS_LEVEL say how

The pool is made once, by hand: a host that has lost its memory must not open an empty second shop.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

import pmlog
from pmlog import Level

WAIT_S: Final = 2.0
OUTBOX_MAX: Final = 100_000
OUTBOX_PAUSE_S: Final = 0.05
PLACED, CANCELLED, REVENUE_CENTS = range(3)


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a customer sends."""

    reference: str
    """The customer's own number for it: the same order, sent again, is placed once."""
    item: str
    quantity: int
    price_cents: int


class Order(Wanted, frozen=True):
    """What is kept."""

    state: str = "placed"


class Shop:
    """The state, and what changes it."""

    def __init__(self, pool: pmlog.Pool) -> None:
        self.pool = pool
        self.orders = pool.dict("orders", type=Order)
        self.outbox = pool.deque("outbox")
        self.counters = pool.array("counters", shape=(3,), dtype="i8")

    # Commits are made in threads: while a shipper's bound is reached they wait, and the event loop
    # goes on. Looking first and changing then is one transaction, which others wait for.

    def place(self, order: Order) -> bool:
        """Place an order; say whether it is new."""
        with self.pool.transaction():
            if order.reference in self.orders:
                return False
            self.orders[order.reference] = order
            self._tell(order.reference, "placed")
            self.counters[PLACED] += 1
            self.counters[REVENUE_CENTS] += order.quantity * order.price_cents
        return True

    def cancel(self, reference: str) -> Order | None:
        """Cancel an order, if there is one; again changes nothing."""
        with self.pool.transaction():
            order: Order | None = self.orders.get(reference)
            if order is None or order.state == "cancelled":
                return order
            cancelled = msgspec.structs.replace(order, state="cancelled")
            self.orders[reference] = cancelled
            self._tell(reference, "cancelled")
            self.counters[CANCELLED] += 1
            self.counters[REVENUE_CENTS] -= order.quantity * order.price_cents
        return cancelled

    def _tell(self, reference: str, event: str) -> None:
        if len(self.outbox) >= OUTBOX_MAX:
            raise web.HTTPServiceUnavailable(text="the warehouse is behind\n")
        self.outbox.append({"reference": reference, "event": event})


_shop: Final = web.AppKey("shop", Shop)
_level: Final = web.AppKey("level", str)


async def place(request: web.Request) -> web.Response:
    """POST /orders: place an order."""
    level = wanted_level(request)
    try:
        order = msgspec.json.decode(await request.read(), type=Wanted)
    except msgspec.MsgspecError as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from None
    shop = request.app[_shop]
    is_new = await asyncio.to_thread(shop.place, Order(*msgspec.structs.astuple(order)))
    return await answer(shop, shop.orders[order.reference], level, 201 if is_new else 200)


async def show(request: web.Request) -> web.Response:
    """GET /orders/{reference}: an order as it stands."""
    order = request.app[_shop].orders.get(request.match_info["reference"])
    return web.json_response(msgspec.to_builtins(there(order)))


async def cancel(request: web.Request) -> web.Response:
    """POST /orders/{reference}/cancel: cancel an order."""
    level, shop = wanted_level(request), request.app[_shop]
    order = await asyncio.to_thread(shop.cancel, request.match_info["reference"])
    return await answer(shop, there(order), level, 200)


async def stats(request: web.Request) -> web.Response:
    """GET /stats: sums over all orders."""
    shop = request.app[_shop]
    placed, cancelled, revenue_cents = shop.counters[...].tolist()
    position = shop.pool.position
    return web.json_response({
        "orders": len(shop.orders), "placed": placed, "cancelled": cancelled,
        "revenue_cents": revenue_cents, "outbox": len(shop.outbox),
        "epoch": position.epoch, "transaction": position.txn,
    })  # fmt: skip


def there(order: Order | None) -> Order:
    """Return the order, if there is one."""
    if order is None:
        raise web.HTTPNotFound(text="there is no such order\n")
    return order


def wanted_level(request: web.Request) -> Level:
    """Read what the order must have reached before the answer: ?level=, or the service's."""
    name = request.query.get("level", request.app[_level])
    try:
        return Level[name.upper()]
    except KeyError:
        names = ", ".join(level.name.lower() for level in Level)
        raise web.HTTPBadRequest(text=f"level is one of {names}\n") from None


async def answer(shop: Shop, order: Order, level: Level, status: int) -> web.Response:
    """Answer once the order has reached its level; 202: it is committed, and no more is known."""
    try:
        await shop.pool.wait_async(level, timeout=WAIT_S)
    except (pmlog.WaitTimeoutError, pmlog.LevelUnavailableError):
        level, status = Level.COMMITTED, 202
    body = {"level": level.name.lower(), **msgspec.to_builtins(order)}
    return web.json_response(body, status=status)


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say politely that the pool takes no changes just now: nothing was changed."""
    try:
        return await handler(request)
    except (pmlog.CapacityError, pmlog.PoolFrozenError, pmlog.FencedError) as error:
        raise web.HTTPServiceUnavailable(text=f"{error}\n", headers={"Retry-After": "1"}) from None


async def deliver(shop: Shop, level: Level) -> None:
    """Send the outbox to the warehouse (here: standard output), at least once and in order.

    Not before it has reached the level: what the warehouse has heard of must not be lost.
    """
    with contextlib.suppress(pmlog.PoolFrozenError, pmlog.FencedError, pmlog.ClosedError):
        while True:  # until it is cancelled, or the pool is stopped
            with contextlib.suppress(
                pmlog.CapacityError, pmlog.WaitTimeoutError, pmlog.LevelUnavailableError
            ):
                while shop.outbox:
                    await shop.pool.wait_async(level, timeout=WAIT_S)
                    print(json.dumps(shop.outbox[0]), flush=True)
                    await asyncio.to_thread(shop.outbox.popleft)
            await asyncio.sleep(OUTBOX_PAUSE_S)


def make_app(pool_path: str, level: str) -> web.Application:
    """Make the service."""
    app = web.Application(middlewares=[refusals])
    app[_level] = level

    async def life(app: web.Application) -> AsyncIterator[None]:
        with pmlog.open(pool_path, create=False) as pool:
            app[_shop] = Shop(pool)
            delivery = asyncio.create_task(deliver(app[_shop], Level[level.upper()]))
            yield
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

    app.cleanup_ctx.append(life)
    app.router.add_post("/orders", place)
    app.router.add_get("/orders/{reference}", show)
    app.router.add_post("/orders/{reference}/cancel", cancel)
    app.router.add_get("/stats", stats)
    return app


def main() -> None:
    """Serve until SIGTERM."""
    # A promoted receiver gives PMLOG_POOL: the pool that it has promoted.
    path = os.environ.get("PMLOG_POOL") or os.environ["ORDERS_POOL"]
    host, _, port = os.environ.get("ORDERS_LISTEN", "127.0.0.1:8080").rpartition(":")
    app = make_app(path, os.environ.get("ORDERS_LEVEL", "committed"))
    web.run_app(app, host=host, port=int(port), print=None)


if __name__ == "__main__":
    main()
