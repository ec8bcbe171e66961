"""What all copies of a pool have in common, and what a new copy needs to know. Pure."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a copy a copy: the same number, the same ring, the same hashes."""

    pool_id: UUID
    created_ns: int
    """Unix time."""
    ring_bytes: int
    """Size of the log: the same everywhere, so that an LSN has the same place everywhere."""
    hash_seed: tuple[int, int]
    """Key of the dicts' hash function."""
    image_bytes: int
    """Size of the image at the checkpoint: a new copy is at least that large."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A checkpoint: from where the log has to be applied to the image."""

    epoch: int
    lsn: int
    chain: int
    txn: int
    session: int
    image_bytes: int
