"""How long single operations take: p50, p99, p99.9.

Peers take turns, as in test_ops.py, and warm up in the same way.  In each turn every operation is timed by itself, by
`time.perf_counter_ns`; what the same loop takes around a function that does nothing is measured in
the same turn, and its median is subtracted.  Where that leaves less than nothing, it is zero.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns, sleep
from typing import Any

from bench.peers import PEERS, UnavailableError
from bench.peers.base import Store, single_of
from bench.peers.worker import WorkerStore
from bench.workload import OPERATIONS, Operation, Workload

PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def nothing(item: Any) -> None:
    """The cost of the loop and the timer."""


def time_each(call: Callable[[Any], Any], items: Sequence[Any]) -> array[int]:
    """The duration of each call in ns, the timer's own cost included."""
    took = array("q", bytes(8 * len(items)))
    for index, item in enumerate(items):
        begin = perf_counter_ns()
        call(item)
        took[index] = perf_counter_ns() - begin
    return took


def percentiles(sorted_ns: Sequence[int], timer_ns: int) -> dict[str, int]:
    """Percentiles less the timer's cost."""
    last = len(sorted_ns) - 1
    return {
        name: max(0, sorted_ns[min(last, int(share * len(sorted_ns)))] - timer_ns)
        for name, share in PERCENTILES.items()
    }


def measure_turn(
    store: Store, operation: Operation, workload: Workload, count: int
) -> dict[str, int]:
    """One turn of one peer."""
    if isinstance(store, WorkerStore):
        if not operation.pause_s:
            store.run((operation.kind, count))
        return store.latency(operation, count)
    call = single_of(store, operation)
    assert call is not None
    if not operation.pause_s:
        for item in store.prepare(operation, workload.batch(count)):
            call(item)
    batch = store.prepare(operation, workload.batch(count))
    gc.disable()
    try:
        empty = time_each(nothing, batch)
        took = time_each(call, batch)
    finally:
        gc.enable()
    timer_ns = sorted(empty)[len(empty) // 2]
    store.check(operation, batch)
    return percentiles(sorted(took), timer_ns) | {"timer": timer_ns}


def measure(
    operations: list[str], peers: list[str], folder: str, settings: dict[str, Any]
) -> dict[str, dict[str, dict[str, list[int]]]]:
    """All turns: operation → peer → percentile → one figure a turn, in ns."""
    result: dict[str, dict[str, dict[str, list[int]]]] = {}
    for name in operations:
        operation = OPERATIONS[name]
        if not operation.single:
            continue
        place = Path(tempfile.mkdtemp(prefix="pmlog-bench-", dir=folder))
        stores: dict[str, tuple[Store, Workload]] = {}
        try:
            for peer in peers:
                if not PEERS[peer].can(operation):
                    continue
                (place / peer).mkdir()
                workload = Workload(operation)
                try:
                    stores[peer] = PEERS[peer].open(place / peer, operation, workload), workload
                except UnavailableError:
                    continue  # the throughput part has named it
            result[name] = {peer: {} for peer in stores}
            for turn in range(settings["latency_turns"] + 1):
                sleep(operation.pause_s)
                for peer, (store, workload) in stores.items():
                    figures = measure_turn(store, operation, workload, settings["latency_samples"])
                    if turn:  # the first warms up
                        for percentile, ns in figures.items():
                            result[name][peer].setdefault(percentile, []).append(ns)
        finally:
            for store, _ in stores.values():
                store.close()
            shutil.rmtree(place, ignore_errors=True)
    return result
