"""What follows from what the sources say. Pure: clocks come in as figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Final

from shipper.power.source import Event, OnBattery

UPS_SHARE: Final = 0.5
"""Of a UPS's own estimate so much is counted on, unless the operator has said a battery."""

VAULT_BYTES_PER_S: Final = 20e6
"""What a vault's disk is counted on for."""
VAULT_FIXED_S: Final = 1.0
VAULT_SHARE_MAX: Final = 0.8
"""Receivers get the rest at least, however large the vault would be."""

PARK_SHARE: Final = 0.5
"""After this part of the time nobody is held back for others any more."""


class State(Enum):
    """How a pool stands to the power."""

    MAINS = "mains"
    SAVING = "saving"
    """Writers are stopped, the rest of the log is on its way."""
    SEALED = "sealed"
    """As many receivers as are required have everything, and know that it is everything."""
    VAULTED = "vaulted"
    """The vault has what receivers lack."""
    UNSAVED = "unsaved"
    """The time was too short, or nobody was there; who comes still gets the rest."""


@dataclass(frozen=True, slots=True)
class _End:
    at_s: float
    is_firm: bool


@dataclass(frozen=True, slots=True)
class Failures:
    """Which sources say that power fails, in the order in which they said so."""

    ends: Mapping[str, _End | None] = field(default_factory=lambda: MappingProxyType({}))
    since_s: float | None = None
    """On the clock; None: power is there."""
    repeated: frozenset[str] = frozenset()
    """Those of the sources that go on saying so."""
    dismissed: frozenset[str] = frozenset()
    """Overruled by the operator until they say that power is back."""

    @property
    def is_failing(self) -> bool:
        """Whether power fails."""
        return bool(self.ends)

    @property
    def source(self) -> str | None:
        """Who said so first."""
        return next(iter(self.ends), None)

    def heard(self, event: Event, now_s: float) -> "Failures":
        """Take in what a source says.

        Args:
            event: What it says.
            now_s: On the clock.

        Returns:
            What is known now.
        """
        name = event.source
        if not isinstance(event, OnBattery):
            ends = {other: end for other, end in self.ends.items() if other != name}
            return replace(
                self,
                ends=MappingProxyType(ends),
                since_s=self.since_s if ends else None,
                repeated=self.repeated - {name},
                dismissed=self.dismissed - {name},
            )
        if name in self.dismissed:
            return self
        end = self.ends.get(name)
        if event.seconds_left is not None:
            end = _End(now_s + event.seconds_left, event.is_firm)
        return replace(
            self,
            ends=MappingProxyType({**self.ends, name: end}),
            since_s=now_s if self.since_s is None else self.since_s,
            repeated=self.repeated | {name} if event.is_repeated else self.repeated,
        )

    def overruled(self) -> "Failures":
        """Take the operator's word that power is back.

        Returns:
            What is known now: sources that go on saying otherwise are not heard until they agree.
        """
        return Failures(dismissed=self.dismissed | self.repeated)

    def seconds_left(self, battery_s: float | None, now_s: float) -> float | None:
        """Tell how long there is power.

        Args:
            battery_s: What is left of the battery, as the operator has described it; None: they
                have not.
            now_s: On the clock.

        Returns:
            The least of what is known; 0: it should be gone; None: nothing is known.
        """
        known = [] if battery_s is None else [battery_s]
        share = UPS_SHARE if battery_s is None else 1.0
        for end in self.ends.values():
            if end is not None:
                known.append((end.at_s - now_s) * (1.0 if end.is_firm else share))
        return max(0.0, min(known)) if known else None


def vault_s(size_bytes: int, seconds_left: float) -> float:
    """Tell how long before the end the vault has to be begun.

    Args:
        size_bytes: What goes there.
        seconds_left: How long there is power.

    Returns:
        Seconds.
    """
    return min(VAULT_FIXED_S + size_bytes / VAULT_BYTES_PER_S, seconds_left * VAULT_SHARE_MAX)


class Rank(Enum):
    """Who gets the network first while power fails; lower numbers do."""

    REQUIRED = 0
    """Writers wait for it when the log is full."""
    OTHER = 1
    BASELINE = 2
    """It has no whole copy yet: all of the image goes there before the rest of the log."""


def is_parked(rank: Rank, lacking: frozenset[Rank], passed_s: float, time_s: float) -> bool:
    """Tell whether a receiver has to wait for others.

    Args:
        rank: Its rank.
        lacking: Ranks of the connected receivers that lack something.
        passed_s: Since writers were stopped.
        time_s: How long there was power then.

    Returns:
        Whether others go first.
    """
    return passed_s < time_s * PARK_SHARE and any(one.value < rank.value for one in lacking)


def state_of(
    *, is_frozen: bool, is_busy: bool, is_sealed: bool, is_vaulted: bool, is_running: bool
) -> State:
    """Name the state of a pool.

    Args:
        is_frozen: Writers are stopped because power fails.
        is_busy: Receivers are waited for, or the vault is being written.
        is_sealed: Enough receivers have the seal.
        is_vaulted: The vault has it.
        is_running: Power fails, and writers could not be stopped.

    Returns:
        The state.
    """
    if not is_frozen:
        return State.SAVING if is_busy else State.UNSAVED if is_running else State.MAINS
    if is_sealed:
        return State.SEALED
    if is_vaulted:
        return State.VAULTED
    return State.SAVING if is_busy else State.UNSAVED
