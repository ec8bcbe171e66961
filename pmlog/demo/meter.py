"""Rate and lag, from figures that are looked at now and then. Pure."""

from collections.abc import Mapping
from typing import Any, Final

SAMPLE_S: Final = 0.04


class Meter:
    """What happened between one look and the next.

    Args:
        at: When looking begins, in seconds.
        count: Transactions by then.
        lsn: End of the log by then; None: there is no shipper to ask.
    """

    def __init__(self, at: float, count: int, lsn: int | None) -> None:
        self.at = at
        self.rate_per_s = 0.0
        self.lag: tuple[int, float] | None = None
        """Bytes that the receiver lacks, and in how many seconds that much is written."""
        self._count = count
        self._lsn = lsn

    def sample(self, at: float, count: int, shipped: Mapping[str, Any] | None, name: str) -> None:
        """Look.

        Args:
            at: Now, in seconds.
            count: Transactions so far.
            shipped: The shipper's figures of the pool; None: there is no shipper.
            name: Of the receiver.
        """
        elapsed_s = at - self.at
        self.rate_per_s = (count - self._count) / elapsed_s
        self.at, self._count, self.lag = at, count, None
        if shipped is None:
            return
        lsn = shipped["lsn_durable"]
        written = 0 if self._lsn is None else lsn - self._lsn
        self._lsn = lsn
        receiver = shipped["receivers"].get(name)
        if written > 0 and receiver is not None:
            behind = receiver["behind_bytes"]
            self.lag = (behind, behind * elapsed_s / written)
