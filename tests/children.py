"""What child processes of the tests run; the fork server has imported this before it forks."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pmlog

Connection = Any  # multiprocessing's class takes type parameters in some versions only


def hold_pool(connection: Connection, path: str, options: dict[str, Any]) -> None:
    """Open a pool, say so, and keep it open until told to go on; then close it."""
    pool = pmlog.open(path, **options)
    connection.send("open")
    connection.recv()
    pool.close()
    connection.send("closed")


def try_open(connection: Connection, path: str, options: dict[str, Any], user: int) -> None:
    """Open a pool as another user and send what came of it: an error or a summary."""
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    try:
        with pmlog.open(path, **options) as pool:
            connection.send(sorted(pool.names()))
    except pmlog.PmlogError as error:
        connection.send(error)


def serve_reads(connection: Connection, path: str, options: dict[str, Any]) -> None:
    """Open a pool read-only and answer questions until told to stop.

    A question is (name of a function below, arguments); None stops.
    """
    with pmlog.open(path, readonly=True, **options) as pool:
        connection.send("open")
        while (question := connection.recv()) is not None:
            name, *arguments = question
            try:
                connection.send(QUESTIONS[name](pool, *arguments))
            except pmlog.PmlogError as error:
                connection.send(error)
    connection.send("closed")


def _dict_items(pool: pmlog.Pool, name: str) -> list[tuple[Any, Any]]:
    return list(pool.dict(name).items())


def _dict_get(pool: pmlog.Pool, name: str, key: Any) -> Any:
    return pool.dict(name).get(key)


def _deque_items(pool: pmlog.Pool, name: str) -> list[Any]:
    return list(pool.deque(name))


def _array_items(pool: pmlog.Pool, name: str, shape: Any, dtype: str) -> list[Any]:
    items: list[Any] = pool.array(name, shape=shape, dtype=dtype)[...].tolist()
    return items


def _region_read(pool: pmlog.Pool, name: str, size: int) -> bytes:
    return pool.region(name, size).read(0, size)


def _image_bytes(pool: pmlog.Pool) -> int:
    return pool.status().image_bytes


QUESTIONS: dict[str, Callable[..., Any]] = {
    "dict": _dict_items,
    "get": _dict_get,
    "deque": _deque_items,
    "array": _array_items,
    "region": _region_read,
    "image_bytes": _image_bytes,
    "names": lambda pool: sorted(pool.names()),
}


def watch_sums(connection: Connection, path: str, size: int) -> None:
    """Read a dict of numbers over and over until told to stop; send the numbers of odd sights.

    The writer keeps the sum of all values at 0 and all values of one transaction alike: a sight
    of half a transaction shows in either.
    """
    looks = odd = 0
    last = -1
    with pmlog.open(path, readonly=True) as pool:
        d = pool.dict("sums")
        connection.send("open")
        while not connection.poll():
            items = dict(d.items())
            looks += 1
            total = sum(items.values())
            generation = items.get(0, 0)
            if total != 0 or len(items) != size or generation < last:
                odd += 1
            last = generation
    connection.send((looks, odd, last))


def write_forever(connection: Connection, path: str, options: dict[str, Any]) -> None:
    """Keep a counter in a dict, a deque and a region, one transaction a step, until killed."""
    pool = pmlog.open(path, **options)
    d = pool.dict("d")
    q = pool.deque("q")
    r = pool.region("r", 64)
    n = d.get("n", 0)
    connection.send(n)
    while True:
        n += 1
        with pool.transaction():
            d["n"] = n
            q.append(n)
            if len(q) > 100:
                q.popleft()
            r.write(0, n.to_bytes(8, "little"))
        if n % 50 == 0:
            connection.send(n)


def commit_on_order(connection: Connection, path: str, options: dict[str, Any]) -> None:
    """Commit one transaction for each message: a bytes value is stored; None closes the pool."""
    with pmlog.open(path, **options) as pool:
        d = pool.dict("d")
        connection.send("open")
        while (value := connection.recv()) is not None:
            d["value"] = value
            connection.send(pool.position)
    connection.send("closed")


def try_and_hold(connection: Connection, path: str, options: dict[str, Any]) -> None:
    """Try to open a pool for writing, tell what came of it, and keep what was got until told."""
    try:
        pool = pmlog.open(path, **options)
    except pmlog.PmlogError as error:
        connection.send(type(error).__name__)
        connection.recv()
        return
    connection.send("open")
    connection.recv()
    pool.close()


def run_named(connection: Connection, module: str, name: str, *args: Any) -> None:
    """Run a function of a test's own module: what too few tests need to stand here."""
    getattr(importlib.import_module(module), name)(connection, *args)


def run_command(_: Connection, arguments: list[str], out: str, err: str) -> None:
    """Run the command line as a process of its own would, its output going to files."""
    for number, path in ((1, out), (2, err)):
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, number)
        os.close(target)
    os.environ.update(NO_COLOR="1", COLUMNS="200", TERM="dumb")
    sys.argv = ["pmlog", *arguments]
    cli = importlib.import_module("pmlog.cli")
    status = 0
    try:
        cli.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
