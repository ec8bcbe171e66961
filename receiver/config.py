"""What a receiver is told at its start, and its fixed figures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pmlog import security, wire
from pmlog.addresses import Address
from pmlog.security import Security

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 5.0

CONNECT_TIMEOUT_S: Final = 5.0
"""From the first packet to the shipper's first answer."""

CLOSE_TIMEOUT_S: Final = 1.0
"""How long a farewell waits for its answer: the other side may be long gone."""

SILENCE_S: Final = 5.0
"""A shipper says something every second; one that is silent for so long is dialled again."""

ANSWER_TIMEOUT_S: Final = 30.0
"""How long a shipper may think about hello, or read blocks of a baseline."""

IMAGE_BYTES_MAX: Final = 1 << 46
"""As the engine's."""

APP_GRACE_S: Final = 10.0
"""From SIGTERM to SIGKILL for the application, when the receiver ends."""

MESSAGE_BYTES_MAX: Final = wire.FRAME_BYTES_MAX + 1
"""aiohttp refuses messages of this size, not only longer ones."""


@dataclass(frozen=True, slots=True)
class Config:
    """What a receiver is told at its start."""

    sources: tuple[str, ...]
    """Shippers, as http://HOST:PORT."""
    folder: Path
    name: str
    pool: str
    """Its number, or any."""
    listen: Address
    on_promote: tuple[str, ...] = ()
    """Command that runs once this receiver is promoted."""
    security: Security = security.NONE
    """Token and TLS, of this side as it is asked and as it dials."""
    replica: Path | None = None
    """Where the replica is, if not in the folder: the pool of a returning primary."""

    @property
    def pool_path(self) -> Path:
        """Where the replica is."""
        return self.folder / "pool" if self.replica is None else self.replica


def backoff_s(attempt: int) -> float:
    """Choose how long to wait before dialling again.

    Args:
        attempt: How many attempts have failed in a row, from 0.

    Returns:
        Seconds: doubling, up to `BACKOFF_MAX_S`.
    """
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * (1 << min(attempt, 20)))
