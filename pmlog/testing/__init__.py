"""For tests of programs that keep their state in pools.

- `explore`: what a power cut would leave of a program, image by image, and a check of each.
- `CrashRecorder`, `CrashImage`: the same in two steps.
- `faults`: pools whose disk fails or is full at a chosen moment.
- `VirtualClock`: seconds that pass when a test says so.

Nothing here is imported by the library; a pool that is not recorded pays nothing for it.
"""

from pmlog.testing.clock import VirtualClock
from pmlog.testing.explore import CrashRecorder, Note, Violation, explore
from pmlog.testing.faults import faults
from pmlog.testing.images import CrashImage

__all__ = [
    "CrashImage",
    "CrashRecorder",
    "Note",
    "Violation",
    "VirtualClock",
    "explore",
    "faults",
]
