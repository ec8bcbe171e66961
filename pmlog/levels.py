"""What an acknowledgement says."""

from enum import IntEnum


class Level(IntEnum):
    """How far a transaction has come, from the least to the most; levels compare.

    A wait for a level, and a transaction with one, returns when the transaction survives
    what the level names.
    """

    COMMITTED = 1
    """In the log: survives the death of any process."""
    LOCAL = 2
    """Durable here: survives a power loss of this host alone.
    Not to be had in domain `emulated`."""
    RECEIVED = 3
    """Verified, in the memory of K receivers."""
    REPLICATED = 4
    """Durable in the log of K receivers."""
    APPLIED = 5
    """Readable at K receivers."""
