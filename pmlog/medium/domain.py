"""Persistence domains: their names, numbers, and what survives in each. Pure."""

from enum import IntEnum
from typing import Final

from pmlog.errors import ConfigError


class Domain(IntEnum):
    """How bytes become durable; the numbers are those of `enum pml_domain`."""

    AUTO = 0
    """Detect it."""
    EMULATED = 1
    """tmpfs, memfd: only the order of stores matters."""
    EADR = 2
    """DAX, caches are in the domain: stores and a fence."""
    ADR = 3
    """DAX, mapped with MAP_SYNC: cache lines are flushed, then a fence."""
    PAGE = 4
    """Any other file system: fdatasync and msync."""

    @property
    def label(self) -> str:
        """The name that options, messages and reports use."""
        return self.name.lower()

    @property
    def survives_power_loss(self) -> bool:
        """Whether what is committed survives a power loss of this host alone."""
        return self in _SURVIVES_POWER_LOSS

    @property
    def is_durable_at_commit(self) -> bool:
        """Whether a commit leaves nothing to wait for."""
        return self in (Domain.EADR, Domain.ADR)


_SURVIVES_POWER_LOSS: Final = frozenset({Domain.EADR, Domain.ADR, Domain.PAGE})

DOMAIN_NAMES: Final = tuple(domain.label for domain in Domain)


def parse_domain(name: str) -> Domain:
    """Find a domain by its name.

    Args:
        name: One of `DOMAIN_NAMES`.

    Returns:
        The domain.

    Raises:
        ConfigError: There is none of that name.
    """
    for domain in Domain:
        if domain.label == name:
            return domain
    raise ConfigError(f"domain={name!r} is none of {', '.join(DOMAIN_NAMES)}")
