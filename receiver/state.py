"""What a receiver remembers beside the replica, each in a small durable file.

- `seal`: the primary's word that its log ends there. Stored after the bytes are durable, removed
  before a byte beyond it is taken.
- `promotion`: stored before the replica is promoted, so that a receiver that was killed on the way
  finishes it, and never takes another byte of the old history.
"""

from pathlib import Path

import msgspec

from pmlog import marks, wire


class Seal(msgspec.Struct, frozen=True):
    """Where the primary's log ends."""

    place: wire.Place


class Promotion(msgspec.Struct, frozen=True):
    """This replica is, or is about to be, a primary."""

    place: wire.Place
    """Where the replica's log ended."""
    epoch: int
    """The new one."""
    complete: bool
    """Whether the seal vouched for it; false: loss was accepted."""


class State:
    """The files of one receiver.

    Args:
        folder: Where they are.

    Raises:
        CorruptionError: One is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._seal_path = folder / "seal"
        self._promotion_path = folder / "promotion"
        folder.mkdir(parents=True, exist_ok=True)
        self.seal = marks.load(self._seal_path, Seal)
        self.promotion = marks.load(self._promotion_path, Promotion)

    def set_seal(self, seal: Seal | None) -> None:
        """Store the seal, or forget it; durable on return.

        Args:
            seal: The seal.
        """
        if seal is None:
            marks.remove(self._seal_path)
        else:
            marks.store(self._seal_path, seal)
        self.seal = seal

    def set_promotion(self, promotion: Promotion | None) -> None:
        """Store that this replica is promoted, or that its primaryship is over; durable on return.

        Args:
            promotion: What is known; None: it is a replica again.
        """
        if promotion is None:
            marks.remove(self._promotion_path)
        else:
            marks.store(self._promotion_path, promotion)
        self.promotion = promotion
