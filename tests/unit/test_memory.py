"""What a service keeps of the memory that it has let go."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pmlog import limits, memory

FAULTS = """
import resource, sys
from pmlog import limits, memory
assert not sys.argv[1:] or memory.keep_buffers()
def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        frames = [bytes(limits.FRAME_RAW_BYTES_MAX) for _ in range(4)]
        del frames
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(10)
print(faults(100))
"""


def count_faults(*arguments: str) -> int:
    """Return how many pages a process faulted in meanwhile."""
    command = [sys.executable, "-c", FAULTS, *arguments]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_frames_fault_no_pages_in_once_buffers_are_kept() -> None:
    """A hundred rounds of four frames of a megabyte fault in less than one round's pages."""
    try:
        pages_a_round = 4 * limits.FRAME_RAW_BYTES_MAX // 4096
        kept = count_faults("keep")
    except subprocess.CalledProcessError as error:
        if memory.keep_buffers():
            raise
        pytest.skip(f"another C library than glibc: {error}")
    assert kept < pages_a_round
    assert count_faults() > 10 * pages_a_round, "without it there is nothing to be gained"
