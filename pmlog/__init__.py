"""Transactional live state in a memory-mapped pool, with a log that outlives the host.

    import pmlog

    with pmlog.open("/dev/shm/orders") as pool:
        orders = pool.dict("orders")
        with pool.transaction():
            orders["A-17"] = {"qty": 3, "px": 101.5}

The process may be killed at any instant: the next `pmlog.open` is at the last committed
transaction.
"""

from typing import TYPE_CHECKING

from pmlog.containers import PoolDeque, PoolDict, PoolRegion
from pmlog.errors import (
    BacklogError,
    BoundsError,
    BusyError,
    CapacityError,
    ClosedError,
    ConfigError,
    ContainerNotFoundError,
    ContainerTypeError,
    CorruptionError,
    DecodeError,
    DroppedError,
    EncodeError,
    FencedError,
    ForkedError,
    ForkError,
    FormatError,
    GapError,
    IncompleteError,
    InvariantViolationError,
    LevelUnavailableError,
    LogFullError,
    MediumError,
    MemoryExhaustedError,
    NotPromotableError,
    PeerUnavailableError,
    PmlogError,
    PoolExistsError,
    PoolFrozenError,
    PoolFullError,
    PoolLockedError,
    PoolNotFoundError,
    PoolPermissionError,
    ProtocolError,
    ReadOnlyError,
    ReplicationError,
    TransactionEndedError,
    TransactionTooLargeError,
    UsageError,
    WaitTimeoutError,
)
from pmlog.levels import Level
from pmlog.pool import Pool, open
from pmlog.position import Position, Relation
from pmlog.serving import Serving, serve
from pmlog.status import PoolStatus
from pmlog.transaction import Transaction

if TYPE_CHECKING:
    from pmlog.containers.array import PoolArray

__all__ = [
    "BacklogError",
    "BoundsError",
    "BusyError",
    "CapacityError",
    "ClosedError",
    "ConfigError",
    "ContainerNotFoundError",
    "ContainerTypeError",
    "CorruptionError",
    "DecodeError",
    "DroppedError",
    "EncodeError",
    "FencedError",
    "ForkError",
    "ForkedError",
    "FormatError",
    "GapError",
    "IncompleteError",
    "InvariantViolationError",
    "Level",
    "LevelUnavailableError",
    "LogFullError",
    "MediumError",
    "MemoryExhaustedError",
    "NotPromotableError",
    "PeerUnavailableError",
    "PmlogError",
    "Pool",
    "PoolArray",
    "PoolDeque",
    "PoolDict",
    "PoolExistsError",
    "PoolFrozenError",
    "PoolFullError",
    "PoolLockedError",
    "PoolNotFoundError",
    "PoolPermissionError",
    "PoolRegion",
    "PoolStatus",
    "Position",
    "ProtocolError",
    "ReadOnlyError",
    "Relation",
    "ReplicationError",
    "Serving",
    "Transaction",
    "TransactionEndedError",
    "TransactionTooLargeError",
    "UsageError",
    "WaitTimeoutError",
    "open",
    "serve",
]

__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> object:
    """Import what needs numpy when it is asked for: that takes 0.1 s.

    Args:
        name: A public name that is not there yet.

    Returns:
        What it stands for.

    Raises:
        AttributeError: There is no such name.
    """
    if name == "PoolArray":
        from pmlog.containers.array import PoolArray

        return PoolArray
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
