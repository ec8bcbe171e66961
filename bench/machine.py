"""Facts about the machine and the software that a result depends on; no names, no paths."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import PEERS

ROOT = Path(__file__).resolve().parents[1]


def _first(path: str, key: str) -> str:
    try:
        for line in Path(path).read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    except OSError:
        pass
    return ""


def output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except FileNotFoundError:
        return ""
    return "" if done.returncode else done.stdout.rstrip()


def cpu_flushes() -> list[str]:
    """Instructions that write cache lines back."""
    flags = _first("/proc/cpuinfo", "flags").split()
    return [name for name in ("clwb", "clflushopt", "clflush") if name in flags]


def file_system(folder: str) -> str:
    """Its type, as the kernel calls it."""
    best, kind = "", "unknown"
    place = os.path.realpath(folder)
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split()
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def facts(folder: str) -> dict[str, Any]:
    """What figures are to be read with."""
    versions = {"Python": platform.python_version()}
    for peer in PEERS.values():
        versions |= peer.versions()
    configured = sysconfig.get_config_var("CONFIG_ARGS") or ""
    compiler = output(os.environ.get("CC", "cc"), "--version").splitlines()
    return {
        "cpu": _first("/proc/cpuinfo", "model name") or platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "cache_flush": cpu_flushes(),
        "hypervisor": "hypervisor" in _first("/proc/cpuinfo", "flags").split(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "compiler": compiler[0] if compiler else "",
        "python_build": {
            "compiler": platform.python_compiler(),
            # Without it the interpreter's own share of every call is larger.
            "profile_guided": "--enable-optimizations" in configured
            or "-fprofile-use" in (sysconfig.get_config_var("PY_CORE_CFLAGS") or ""),
        },
        "file_system": file_system(folder),
        "versions": versions,
    }


def source() -> dict[str, Any]:
    """Which pmlog was measured. `changed`: what differs from the commit, of what counts."""
    changed = output("git", "status", "--porcelain", "--", "pmlog", "shipper", "receiver", "bench")
    return {
        "commit": output("git", "rev-parse", "HEAD"),
        "changed": sorted(
            line[3:] for line in changed.splitlines() if not line[3:].startswith("bench/results")
        ),
    }


@dataclass(frozen=True)
class Load:
    """Processor time in seconds: of the whole machine, stolen from it, and our own."""

    wall: float
    busy: float
    stolen: float
    own: float

    @classmethod
    def now(cls) -> Load:
        words = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        user, nice, system, _, _, irq, softirq, steal = (
            int(word) / os.sysconf("SC_CLK_TCK") for word in words[:8]
        )
        own = sum(
            usage.ru_utime + usage.ru_stime
            for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )
        wall = float(Path("/proc/uptime").read_text().split()[0])
        return cls(wall, user + nice + system + irq + softirq, steal, own)

    def since(self, before: Load) -> dict[str, float]:
        """How busy others kept the machine; 1.0 is one core."""
        wall = max(self.wall - before.wall, 0.01)
        others = (self.busy - before.busy) - (self.own - before.own)
        return {
            "seconds": round(wall, 1),
            "others_cores": round(max(0.0, others) / wall, 3),
            "stolen_cores": round((self.stolen - before.stolen) / wall, 3),
        }
