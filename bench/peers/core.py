"""The limit: pmlog's C core in a C loop, without Python."""

from __future__ import annotations

from pathlib import Path

from bench.peers.base import Peer, Store
from bench.peers.worker import ROOT, WorkerStore, compiled, core_library
from bench.workload import Operation, Workload

# enum pml_domain.
_DOMAINS = {"auto": 0, "emulated": 1, "eadr": 2, "adr": 3, "page": 4}


class Core(Peer):
    def __init__(self, name: str, domain: str) -> None:
        super().__init__(name)
        self.domain = domain

    def can(self, operation: Operation) -> bool:
        return operation.items == 1

    def batch_size(self, operation: Operation) -> int:
        return 20_000

    def open(self, folder: Path, operation: Operation, workload: Workload) -> Store:
        binary = compiled(
            "core_loop", f"-I{ROOT / 'pmlog' / '_native'}", str(core_library()), "-pthread"
        )
        return WorkerStore([str(binary), str(folder / "pool"), str(_DOMAINS[self.domain])], {})
