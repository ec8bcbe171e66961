"""Single operations, each peer in turn, measured by pytest-benchmark.

For each operation all peers are open at once and take turns, A B C A B C …, so that what drifts
(clock rates, neighbours on the machine) reaches all of them.  Nothing here fails for being slow:
what is checked is that the work was done.

`python -m bench` runs this file and puts its rounds together; by itself:
`python -m pytest bench/test_ops.py -k dict.set`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.peers import PEERS, UnavailableError
from bench.peers.base import Store, count_of
from bench.peers.worker import WorkerStore
from bench.workload import KEYS, OPERATIONS, Operation, Workload

# Set by __main__.py.
TURNS = int(os.environ.get("PMLOG_BENCH_TURNS", "2"))
ROUNDS = int(os.environ.get("PMLOG_BENCH_ROUNDS", "3"))
SCALE = float(os.environ.get("PMLOG_BENCH_SCALE", "1"))
FOLDER = os.environ.get("PMLOG_BENCH_FOLDER", "/dev/shm")
CHOSEN_PEERS = os.environ.get("PMLOG_BENCH_PEERS", "").split() or list(PEERS)
CHOSEN_OPERATIONS = os.environ.get("PMLOG_BENCH_OPERATIONS", "").split() or list(OPERATIONS)

CASES = [
    pytest.param(operation, peer, turn, id=f"{operation}-{peer}-{turn}")
    for operation in CHOSEN_OPERATIONS
    if OPERATIONS[operation].method
    for turn in range(TURNS)
    for peer in CHOSEN_PEERS
    if PEERS[peer].can(OPERATIONS[operation])
]


class Stores:
    """The open stores of one operation, a peer each; those of the one before are closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._operation: Operation | None = None
        self._open: dict[str, tuple[Store, Workload]] = {}

    def get(self, operation: Operation, peer: str) -> tuple[Store, Workload]:
        if self._operation is not operation:
            self.close()
            self._operation = operation
        if peer not in self._open:
            folder = self._folder / peer
            folder.mkdir()
            workload = Workload(operation)
            self._open[peer] = PEERS[peer].open(folder, operation, workload), workload
        return self._open[peer]

    def close(self) -> None:
        for peer, (store, _) in self._open.items():
            store.close()
            shutil.rmtree(self._folder / peer)
        self._open.clear()


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    folder = Path(tempfile.mkdtemp(prefix="pmlog-bench-", dir=FOLDER))
    stores = Stores(folder)
    try:
        yield stores
        stores.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.benchmark(disable_gc=True, timer=time.perf_counter)
@pytest.mark.parametrize(("operation", "peer", "turn"), CASES)
def test_operation(benchmark: Any, stores: Stores, operation: str, peer: str, turn: int) -> None:
    what = OPERATIONS[operation]
    try:
        store, workload = stores.get(what, peer)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    run = getattr(store, what.method)
    count = count_of(PEERS[peer], what, SCALE)
    # A turn begins with a round that does not count: it brings caches back, and pages that were
    # given away meanwhile.  In the first turn there are enough of them to touch every key.
    warmup = 1 if turn or what.grows else -(-int(KEYS * SCALE) // count)
    cpu_ns: list[int] = []
    batch: Any = None

    def setup() -> tuple[tuple[Any], dict[str, Any]]:
        nonlocal batch
        batch = workload.batch(count)
        return (store.prepare(what, batch),), {}

    def target(prepared: Any) -> None:
        nonlocal batch
        batch = prepared
        begin = time.process_time_ns()
        run(prepared)
        cpu_ns.append(time.process_time_ns() - begin)
        if isinstance(store, WorkerStore):
            cpu_ns[-1] = store.cpu_ns

    benchmark.group = operation
    benchmark.pedantic(target, setup=setup, rounds=ROUNDS, iterations=1, warmup_rounds=warmup)
    benchmark.extra_info.update(
        operation=operation, peer=peer, turn=turn, count=count, cpu_ns=cpu_ns[-ROUNDS:]
    )
    store.check(what, batch)
