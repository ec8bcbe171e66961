"""What a run of the demo has shown, and whether that is good."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Life:
    """One life of the application."""

    resumed: int
    """Flights that the pool held when it was opened."""
    acknowledged: int
    """The last flight that it acknowledged."""
    open_s: float
    busy_s: float
    """From its first commit to its end."""


@dataclass(slots=True)
class Outcome:
    """What a run has shown."""

    seed: int
    flights: int
    battery: str
    """As `pmlog ship --battery` takes it."""
    lives: list[Life] = field(default_factory=list)
    lags: list[tuple[int, float]] = field(default_factory=list)
    """Bytes that the receiver lacked, and in how many seconds they were written, at each look."""
    sealed: bool = False
    """Whether the shipper has said so before the lights went out."""
    sealed_s: float = 0.0
    """From the loss of power to the seal at the receiver."""
    flushed_bytes: int = 0
    """Of the log, after the freeze."""
    complete: bool = False
    """Whether promotion found that nothing is missing."""
    epoch: int = 0
    first_commit_s: float = 0.0
    """From the order to promote to the first commit there."""
    fields: int = 0
    differences: int = 0
    shown: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What `pmlog check` found in the promoted pool."""
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """Transactions that were acknowledged in one life, and missing at the start of the next."""
        return sum(
            max(0, before.acknowledged - after.resumed)
            for before, after in zip(self.lives, self.lives[1:], strict=False)
        )

    @property
    def transactions_per_s(self) -> float:
        """While an application was at work."""
        busy_s = sum(life.busy_s for life in self.lives)
        return sum(life.acknowledged - life.resumed for life in self.lives) / busy_s

    @property
    def is_good(self) -> bool:
        """Whether the demo shows what it is to show."""
        return (
            self.complete
            and not self.lost
            and self.fields > 0
            and not self.differences
            and not self.faults
            and self.lives[-1].acknowledged == self.flights
        )

    def as_json(self) -> dict[str, Any]:
        """Tell all of it.

        Returns:
            Figures, ready for JSON.
        """
        bytes_behind = [lag for lag, _ in self.lags] or [0]
        seconds_behind = [lag for _, lag in self.lags] or [0.0]
        return {
            "good": self.is_good,
            "seed": self.seed,
            "flights": self.flights,
            "battery": self.battery,
            "transactions_per_s": round(self.transactions_per_s),
            "lag_bytes_median": round(statistics.median(bytes_behind)),
            "lag_bytes_max": max(bytes_behind),
            "lag_ms_median": round(statistics.median(seconds_behind) * 1000, 1),
            "lag_ms_max": round(max(seconds_behind) * 1000, 1),
            "sealed": self.sealed,
            "power_loss_to_sealed_ms": round(self.sealed_s * 1000, 1),
            "flushed_on_battery_bytes": self.flushed_bytes,
            "complete": self.complete,
            "epoch": self.epoch,
            "promotion_to_first_commit_ms": round(self.first_commit_s * 1000, 1),
            "transactions_lost": self.lost,
            "fields_compared": self.fields,
            "fields_different": self.differences,
            "differences": self.shown,
            "faults": self.faults,
            "lives": [asdict(life) for life in self.lives],
            "seconds": round(self.seconds, 1),
        }


def figures(outcome: Outcome) -> list[tuple[str, str]]:
    """Choose what a person reads at the end.

    Args:
        outcome: Of the run.

    Returns:
        Names and values.
    """
    known = outcome.as_json()
    return [
        ("transactions per second", f"{known['transactions_per_s']:,}"),
        (
            "shipping lag, median / most",
            f"{known['lag_bytes_median']:,} / {known['lag_bytes_max']:,} bytes "
            f"({known['lag_ms_median']:,} / {known['lag_ms_max']:,} ms)",
        ),
        ("flushed on battery", f"{outcome.flushed_bytes:,} bytes"),
        (
            "power loss to sealed",
            f"{known['power_loss_to_sealed_ms']:,} ms" if outcome.sealed else "nobody has said so",
        ),
        ("promotion to first new commit", f"{known['promotion_to_first_commit_ms']:,} ms"),
        ("transactions lost", f"{outcome.lost:,}"),
        ("fields compared / different", f"{outcome.fields:,} / {outcome.differences:,}"),
        ("time", f"{outcome.seconds:.1f} s"),
    ]
