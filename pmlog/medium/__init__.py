"""Where a pool's bytes live: media and persistence domains."""

from enum import IntEnum
from typing import Final

from pmlog.errors import ConfigError
from pmlog.medium.domain import DOMAIN_NAMES, Domain, parse_domain

__all__ = ["DOMAIN_NAMES", "MEDIUM_NAMES", "Domain", "Medium", "parse_domain", "parse_medium"]


class Medium(IntEnum):
    """What holds the image; the numbers are those of `enum pml_medium_kind`."""

    FILE = 1
    """Mapped files; needs nothing."""
    PMEMOBJ = 2
    """A libpmemobj pool; needs the system's libpmemobj."""

    @property
    def label(self) -> str:
        """The name that options, messages and reports use."""
        return self.name.lower()


MEDIUM_NAMES: Final = tuple(medium.label for medium in Medium)


def parse_medium(name: str) -> Medium:
    """Find a medium by its name.

    Args:
        name: One of `MEDIUM_NAMES`.

    Returns:
        The medium.

    Raises:
        ConfigError: There is none of that name.
    """
    for medium in Medium:
        if medium.label == name:
            return medium
    raise ConfigError(f"medium={name!r} is none of {', '.join(MEDIUM_NAMES)}")
