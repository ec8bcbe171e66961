"""How a service keeps its memory: buffers that it lets go stay with it for the next ones.

Frames of a megabyte come and go a thousand times a second. By default the C library gives such
pieces back to the system and gets them anew, page fault by page fault, which took more time than
anything that was done with them.
"""

import ctypes
from typing import Final

from pmlog import limits

# Numbers of malloc.h, which are part of glibc's interface.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

KEPT_BYTES_MAX: Final = 64 * limits.MIB
"""Free memory that a process keeps; above the frames that are in flight at a time."""

PIECE_BYTES_MAX: Final = 32 * limits.MIB
"""Larger pieces are given back at once; glibc knows no more."""


def keep_buffers() -> bool:
    """Tell the C library to keep free memory, within bounds, for this process.

    Returns:
        Whether it does; other libraries than glibc have no such switch, and go on as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept = mallopt(_M_MMAP_THRESHOLD, PIECE_BYTES_MAX)
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX) and kept)
