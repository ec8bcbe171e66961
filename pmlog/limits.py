"""Every limit of the library, with its unit.

Limits that the medium's format fixes stand in `_native/layout.h` and are enforced there.
"""

from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

KEY_BYTES_MAX: Final = 64 * KIB
"""Longest encoded key."""

NAME_BYTES_MAX: Final = 255
"""Longest name of a container, in UTF-8."""

DESCR_BYTES_MAX: Final = 64 * KIB
"""Longest description of an array's shape and dtype."""

ARRAY_BYTES_MAX: Final = 1 << 46
"""Largest array: as the largest image."""

LOCK_TIMEOUT_S: Final = 60.0
"""How long a call waits for another thread's transaction."""

OPEN_TIMEOUT_S: Final = 5.0
"""How long a reader's open waits for a writer that recovers the pool."""

SCRATCH_BYTES: Final = 4 * KIB
"""Values up to this size are read by one call into the engine."""

SCAN_BYTES: Final = 64 * KIB
"""Iterators fetch about this many bytes a call."""

LOG_READ_BYTES: Final = MIB
"""A log reader hands out runs of records of about this size."""

WAIT_SLICE_S: Final = 0.05
"""Blocking calls come back this often to see signals."""

FAULTS_FIRST: Final = 256
"""The checker asks for this many faults, then for all."""

CONSUMER_NAME_BYTES_MAX: Final = 31
"""Longest name of a consumer slot, in UTF-8."""

ADVANCED_GAP_BYTES: Final = 16
"""Array assignments log gaps up to this size: a log range's own header takes as much."""

FRAME_RAW_BYTES_MAX: Final = MIB
"""Log bytes that one frame carries at most."""

MESSAGE_BYTES_MAX: Final = 64 * KIB
"""Longest message between shipper and receiver."""

BLOCK_BYTES: Final = 64 * KIB
"""Unit of baselines."""

BLOCKS_PER_MESSAGE_MAX: Final = 256
"""Digests that a receiver sends at a time."""

RECEIVER_NAME_BYTES_MAX: Final = CONSUMER_NAME_BYTES_MAX
"""A receiver's name is that of its consumer slot."""

SHIPPER_SILENCE_S: Final = 5.0
"""A shipper that has said nothing for so long is taken for gone."""
