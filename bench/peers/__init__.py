"""The peers: one module each, one class each, several settings where its documentation has them."""

from __future__ import annotations

from bench.peers.base import Peer, UnavailableError
from bench.peers.builtin import Builtin
from bench.peers.core import Core
from bench.peers.lmdb import Lmdb
from bench.peers.pmemobj import Pmemobj
from bench.peers.pmlog import Pmlog
from bench.peers.sqlite import Sqlite

__all__ = ["PEERS", "Peer", "UnavailableError"]

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Pmlog("pmlog", domain="auto"),
        Pmlog("pmlog-adr", domain="adr"),
        Lmdb("lmdb-sync", sync=True),
        Lmdb("lmdb-nosync", sync=False),
        Sqlite("sqlite-full", synchronous="FULL"),
        Sqlite("sqlite-normal", synchronous="NORMAL"),
        Pmemobj("pmemobj", forced=False),
        Pmemobj("pmemobj-forced", forced=True),
        Core("core", domain="emulated"),
        Core("core-adr", domain="adr"),
        Builtin("builtin"),
    )
}
"""All settings of all peers, in the order of the tables."""
