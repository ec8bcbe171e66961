"""What a shipper is told at its start."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pmlog import security
from pmlog.addresses import Address
from pmlog.security import Security
from shipper.backlog import MaxLag
from shipper.battery import Battery

IN_FLIGHT_BYTES_MAX: Final = 32 << 20
"""What is sent to a receiver before it has acknowledged it."""

RECEIVERS_MAX: Final = 16
"""As many as a pool has consumer slots."""

BEAT_S: Final = 1.0
"""How often receivers and writer hear from an idle shipper."""

SEND_TIMEOUT_S: Final = 30.0
"""A receiver that takes nothing for so long is disconnected."""

HELLO_TIMEOUT_S: Final = 10.0

POWER_LOSS_TIMEOUT_S: Final = 60.0
"""How long a power loss waits for receivers, if the caller does not say."""


@dataclass(frozen=True, slots=True)
class Config:
    """What a shipper is told at its start."""

    pools: tuple[str, ...]
    listen: Address
    require: int = 1
    """How many receivers have to have a transaction for it to have reached a level."""
    required: frozenset[str] = field(default_factory=frozenset)
    """Names of receivers for which writers wait rather than overwrite what those need."""
    battery: Battery | None = None
    """How long there is power once it fails; None: nobody has said."""
    max_lag: MaxLag | None = None
    """How far receivers may be behind; None: as far as battery and ring allow."""
    power: tuple[str, ...] = ()
    """Where to hear that power fails, as `--power` takes it."""
    vault: Path | None = None
    """Directory for what no receiver could be given in time; None: there is none."""
    security: Security = security.NONE
    """Token and TLS, of this side as it is asked."""
