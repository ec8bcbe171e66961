"""libpmemobj's own transaction, from C: what pmlog's commit is to be compared with.

- not forced: as it comes. On tmpfs libpmem finds no persistent memory and calls msync instead.
- forced (PMEM_IS_PMEM_FORCE=1): it flushes cache lines as on persistent memory, the same work as
  pmlog's domain `adr`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.peers.base import Peer, Store
from bench.peers.worker import WorkerStore, compiled
from bench.workload import Operation, Workload


class Pmemobj(Peer):
    def __init__(self, name: str, forced: bool) -> None:
        super().__init__(name)
        self.forced = forced

    def can(self, operation: Operation) -> bool:
        return operation.kind == "region.write"

    def batch_size(self, operation: Operation) -> int:
        return 20_000

    def open(self, folder: Path, operation: Operation, workload: Workload) -> Store:
        binary = compiled("pmemobj_tx", "-lpmemobj")
        forced = "1" if self.forced else "0"
        return WorkerStore([str(binary), str(folder / "pool")], {"PMEM_IS_PMEM_FORCE": forced})

    def versions(self) -> dict[str, str]:
        done = subprocess.run(
            ["pkg-config", "--modversion", "libpmemobj"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return {} if done.returncode else {"libpmemobj": done.stdout.strip()}
