"""Containers that live in a pool and behave as their Python counterparts."""

from pmlog.containers.deque import PoolDeque
from pmlog.containers.dict import PoolDict
from pmlog.containers.region import PoolRegion

__all__ = ["PoolDeque", "PoolDict", "PoolRegion"]
