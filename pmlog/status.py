"""What a pool says about itself."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from pmlog._engine import STATUS_ERRORS, ffi
from pmlog.medium import Domain, Medium


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """Figures of one pool at one moment; sizes in bytes, counters since the open."""

    path: str
    pool_id: UUID
    created: datetime
    """In UTC."""
    version: int
    """Of the format."""
    medium: str
    domain: str
    """The persistence domain in use."""
    domain_detected: str
    """What the file system would give; another than `domain` if that was overridden."""
    survives_power_loss: bool
    """Whether what is committed survives a power loss of this host alone."""
    readonly: bool
    poisoned: str | None
    """Name of the error that every call raises until the pool is opened again; None: none."""
    frozen: bool
    """Power is failing: no transaction commits."""
    epoch: int
    session: int
    txn: int
    """Number of the last transaction; 0: none."""
    lsn_checkpoint: int
    """Everything below is in the image."""
    lsn_durable: int
    """Everything below is durable in the log."""
    lsn_committed: int
    """End of the last record."""
    image_bytes: int
    max_bytes: int
    """Up to which the image grows by itself."""
    ring_bytes: int
    ring_used_bytes: int
    """From the oldest byte that may not be overwritten to the end."""
    tx_record_bytes_max: int
    """The greatest transaction's record."""
    heap_used_bytes: int
    heap_used_blocks: int
    heap_top: int
    commits: int
    drains: int
    """Of the log."""
    drains_image: int
    """Of the image, its checksums and marks."""
    flushes: int
    checkpoints: int
    pages_released: int
    """Private copies of pages that were given back to the system."""
    recovered_records: int
    """Replayed at the open."""
    refreshes: int
    """How often a read-only handle caught up with the writer."""
    delay_ns: int
    """What each transaction waits before it begins, so that receivers keep up."""
    backlog_bytes: int | None
    """What receivers lack of the log, as the shipper's bound counts it; None: there is no bound."""
    backlog_limit_bytes: int | None
    """What they may lack; None: no shipper serves the pool, or it sets no bound."""
    is_blocked: bool
    """Whether transactions wait until receivers have caught up."""


# Fields that are not the engine's figure of the same name.
_TRANSLATED: Final = frozenset(
    {
        "path",
        "pool_id",
        "created",
        "medium",
        "domain",
        "domain_detected",
        "survives_power_loss",
        "readonly",
        "poisoned",
        "frozen",
        "tx_record_bytes_max",
        "backlog_bytes",
        "backlog_limit_bytes",
        "is_blocked",
    }
)


def status_of(path: str, info: Any) -> PoolStatus:
    """Turn the engine's figures into a `PoolStatus`.

    Args:
        path: The pool.
        info: `struct pml_info *`.

    Returns:
        The status.
    """
    domain = Domain(info.domain)
    limit, limit_bytes = info.lsn_limit, info.backlog_limit_bytes
    behind = max(0, info.lsn_committed - (limit - limit_bytes)) if limit else None
    return PoolStatus(
        path=path,
        pool_id=UUID(bytes=bytes(ffi.buffer(info.pool_id))),
        created=datetime.fromtimestamp(info.created_ns / 1e9, UTC),
        medium=Medium(info.medium).label,
        domain=domain.label,
        domain_detected=Domain(info.domain_detected).label,
        survives_power_loss=domain.survives_power_loss,
        readonly=bool(info.read_only),
        poisoned=STATUS_ERRORS[info.poisoned].__name__ if info.poisoned else None,
        frozen=bool(info.frozen),
        tx_record_bytes_max=info.tx_record_max,
        backlog_bytes=behind,
        backlog_limit_bytes=limit_bytes if limit else None,
        is_blocked=bool(limit) and info.lsn_committed >= limit,
        **{
            name: getattr(info, name)
            for name in PoolStatus.__dataclass_fields__
            if name not in _TRANSLATED
        },
    )
