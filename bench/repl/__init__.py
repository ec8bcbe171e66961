"""Stores with one replica on loopback, behind one interface."""

from __future__ import annotations

from collections.abc import Callable

from bench.repl.base import KvUnavailableError, Replicated
from bench.repl.litestream import LitestreamReplicated
from bench.repl.pmlog import PmlogReplicated
from bench.repl.postgres import PostgresReplicated
from bench.repl.redis import RedisReplicated

__all__ = ["STORES", "KvUnavailableError", "Replicated"]

STORES: dict[str, Callable[[], Replicated]] = {
    "pmlog": PmlogReplicated,
    "redis": RedisReplicated,
    "postgres": PostgresReplicated,
    "litestream": LitestreamReplicated,
}
