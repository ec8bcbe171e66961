"""The end of a simulated battery: the shipper dies at once, and the pools are gone.

A real pool must never be removed.  So a simulated battery is refused at the start unless each
pool's folder is on tmpfs, where a real power failure would lose it too, and holds nothing but a
pool; and at its end only the files that a pool consists of are removed, and only from the very
folder that was looked at then.
"""

import contextlib
import os
import signal
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

from pmlog.errors import ConfigError

POOL_FILES: Final = frozenset({"log", "image", "image.pmemobj", "sums", "control", "lock", "stop"})
_BESIDE: Final = frozenset({"image.new", "image.pmemobj.new", "stop.new"})
"""What a process that was killed may have left."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """A pool's folder that may be removed."""

    path: str
    """Without symbolic links."""
    device: int
    inode: int


def kinds_of(mountinfo: str) -> dict[tuple[int, int], str]:
    """Read /proc/self/mountinfo.

    Args:
        mountinfo: Its text.

    Returns:
        The kind of the file system on each device, by its two numbers.
    """
    kinds = {}
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if dash and len(fields) > 2 and after:
            major, _, minor = fields[2].partition(":")
            kinds[int(major), int(minor)] = after.split()[0]
    return kinds


def kind_of(path: str) -> str:
    """Tell on what kind of file system a folder is.

    Args:
        path: The folder.

    Returns:
        Its name, as mounts show it.
    """
    device = os.stat(path).st_dev
    with open("/proc/self/mountinfo") as file:
        kinds = kinds_of(file.read())
    return kinds.get((os.major(device), os.minor(device)), "an unknown file system")


def examine(path: str) -> Doomed:
    """Make sure that a pool may be removed when a simulated battery ends.

    Args:
        path: The pool's folder.

    Returns:
        The folder.

    Raises:
        ConfigError: It may not.
    """
    real = os.path.realpath(path)
    about = os.stat(real)
    kind = kind_of(real)
    if kind != "tmpfs":
        raise ConfigError(
            f"--battery sim: removes the pools at its end, and {path} is on {kind}",
            hint="a simulated battery is for pools on tmpfs, as in /dev/shm",
        )
    for entry in os.scandir(real):
        own = entry.stat(follow_symlinks=False)
        plain = stat.S_ISREG(own.st_mode) and own.st_nlink == 1 and own.st_dev == about.st_dev
        if entry.name not in POOL_FILES | _BESIDE or not plain:
            raise ConfigError(
                f"--battery sim: removes the pools at its end, and {path} holds {entry.name!r}, "
                "which is no pool's own",
                hint="a simulated battery is for folders that hold nothing but a pool",
            )
    return Doomed(real, about.st_dev, about.st_ino)


def remove(doomed: Doomed) -> None:
    """Remove a pool, unless another folder has taken its place.

    Args:
        doomed: The folder.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    with contextlib.suppress(OSError):
        fd = os.open(doomed.path, flags)
        about = os.fstat(fd)
        if (about.st_dev, about.st_ino) == (doomed.device, doomed.inode):
            for name in POOL_FILES | _BESIDE:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=fd)
            os.rmdir(doomed.path)


def go_out(pools: Iterable[Doomed]) -> NoReturn:
    """Remove the pools and die, with no more cleaning up than a power failure does.

    Args:
        pools: Their folders.
    """
    for pool in pools:
        remove(pool)
    os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)  # never reached
