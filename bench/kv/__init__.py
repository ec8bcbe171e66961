"""The stores that whole workloads run on: one module each, behind one small interface."""

from __future__ import annotations

from collections.abc import Callable

from bench.kv.base import Kv, KvUnavailableError
from bench.kv.builtin import BuiltinKv
from bench.kv.diskcache import DiskcacheKv
from bench.kv.lmdb import LmdbKv
from bench.kv.pmlog import PmlogKv
from bench.kv.redis import RedisKv
from bench.kv.rocksdb import RocksKv
from bench.kv.sqlite import SqliteKv
from bench.kv.zodb import ZodbKv

__all__ = ["DURABLE", "STORES", "Kv", "KvUnavailableError"]

STORES: dict[str, Callable[[], Kv]] = {
    "pmlog": PmlogKv,
    "pmlog-eadr": lambda: PmlogKv(domain="eadr"),
    "pmlog-adr": lambda: PmlogKv(domain="adr"),
    "pmlog-page": lambda: PmlogKv(domain="page"),
    "lmdb-sync": lambda: LmdbKv(sync=True),
    "lmdb-nosync": lambda: LmdbKv(sync=False),
    "rocksdb-sync": lambda: RocksKv(sync=True),
    "rocksdb-wal": lambda: RocksKv(sync=False),
    "sqlite-full": lambda: SqliteKv(synchronous="FULL"),
    "sqlite-normal": lambda: SqliteKv(synchronous="NORMAL"),
    "diskcache": DiskcacheKv,
    "zodb": ZodbKv,
    "redis-always": lambda: RedisKv(fsync="always"),
    "redis-everysec": lambda: RedisKv(fsync="everysec"),
    "builtin": BuiltinKv,
}
"""All settings, in the order of the tables."""

DURABLE = tuple(name for name in STORES if name != "builtin")
"""Those whose writes survive the death of any process once they have returned."""
