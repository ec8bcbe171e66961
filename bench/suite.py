"""`python -m bench.suite`: whole workloads, each store in turn; figures as JSON.

For a subject all stores take turns: A B C …, then again, a few times over, each time on a fresh
store, so that drift of the machine reaches all of them; ratios are of figures within one turn.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import statistics
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine, workloads
from bench.kv import DURABLE, STORES, KvUnavailableError
from bench.workloads import YCSB, Operation

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
TICKS = os.sysconf("SC_CLK_TCK")
BATCH = 512
SLOW = {"sqlite-full", "sqlite-normal", "diskcache", "zodb", "redis-always", "redis-everysec"}
"""Get a fifth of the operations: a second of work is enough for a figure."""


def cpu_of(pid: int) -> float:
    """Processor seconds of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid: int | str = "self") -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def percentiles(times: array[int]) -> dict[str, float]:
    ordered = sorted(times)
    last = len(ordered) - 1
    return {
        name: ordered[min(last, int(share * len(ordered)))]
        for name, share in (("p50_ns", 0.5), ("p99_ns", 0.99), ("p99.9_ns", 0.999))
    }


def perform(store: Any, operations: list[Operation]) -> dict[str, float]:
    """Run all operations: throughput in the first half, latency of each in the second."""
    calls = workloads.runners(store)
    plan = [(calls[kind], item) for kind, item in operations]
    half = len(plan) // 2
    gc.collect()
    gc.disable()
    try:
        written, cpu = store.written_bytes(), time.process_time()
        others = sum(map(cpu_of, store.pids()))
        begin = time.perf_counter()
        for call, item in plan[:half]:
            call(item)
        seconds = time.perf_counter() - begin
        cpu = time.process_time() - cpu + sum(map(cpu_of, store.pids())) - others
        written = store.written_bytes() - written
        took = array("q", bytes(8 * (len(plan) - half)))
        clock = time.perf_counter_ns
        for index, (call, item) in enumerate(plan[half:]):
            started = clock()
            call(item)
            took[index] = clock() - started
    finally:
        gc.enable()
    workloads.check(store, operations)
    return {
        "operations_per_s": half / seconds,
        "cpu_us": cpu / half * 1e6,
        "written_bytes": written / half,
        "resident_bytes": resident_bytes() + sum(map(resident_bytes, store.pids())),
        **percentiles(took),
    }


def perform_threads(store: Any, operations: list[Operation], threads: int) -> dict[str, float]:
    """The same operations, shared among threads."""
    calls = workloads.runners(store)
    shares = [
        [(calls[kind], item) for kind, item in operations[n::threads]] for n in range(threads)
    ]
    barrier = threading.Barrier(threads + 1)

    def work(share: list[Any]) -> None:
        barrier.wait()
        for call, item in share:
            call(item)

    team = [threading.Thread(target=work, args=(share,)) for share in shares]
    for one in team:
        one.start()
    barrier.wait()
    begin = time.perf_counter()
    for one in team:
        one.join()
    return {"operations_per_s": len(operations) / (time.perf_counter() - begin)}


class Subject:
    """What is measured: a store's content, operations, and how they are run."""

    def __init__(
        self,
        stores: list[str],
        entries: Callable[[], dict[str, bytes]],
        operations: Callable[[], list[Operation]],
        run: Callable[[Any, list[Operation]], dict[str, float]] = perform,
        folder: str | None = None,
    ) -> None:
        self.stores, self.entries, self.operations = stores, entries, operations
        self.run, self.folder = run, folder


def subjects(scale: float, disk: str) -> dict[str, Subject]:
    """All of them, by name."""

    def many(count: int) -> int:
        return max(200, int(count * scale))

    count = many(100_000)
    everyone = [*DURABLE, "builtin"]
    quick = ["pmlog", "lmdb-sync", "lmdb-nosync", "rocksdb-wal", "builtin"]
    ours = ["pmlog", "pmlog-eadr", "pmlog-adr", "pmlog-page"]
    found: dict[str, Subject] = {}
    for name, mix in YCSB.items():
        found[f"ycsb-{name}"] = Subject(
            [one for one in everyone if not one.startswith("pmlog-")],
            lambda: workloads.records(count),
            lambda mix=mix: workloads.ycsb(mix, count, many(60_000)),  # type: ignore[misc]
        )
    found["transfers"] = Subject(
        everyone, lambda: workloads.records(many(10_000), 64),
        lambda: workloads.transfers(many(10_000), many(60_000)),
    )  # fmt: skip
    found["large"] = Subject(everyone, lambda: {"none": b"x"}, lambda: workloads.large(many(400)))
    found["bulk"] = Subject([*everyone], lambda: {}, lambda: [], run=_bulk(many(200_000)))
    for threads in (1, 2, 4, 8):
        found[f"threads-{threads}"] = Subject(
            [one for one in quick if one != "builtin"],
            lambda: workloads.records(count),
            lambda: workloads.ycsb(YCSB["A"], count, many(60_000)),
            run=lambda store, items, n=threads: perform_threads(store, items, n),  # type: ignore[misc]
        )
    for size in (1_000, 10_000, 100_000, 1_000_000, 10_000_000):
        if size > 1_000_000 and scale < 1:
            continue
        found[f"keys-{size}"] = Subject(
            ["pmlog", "lmdb-nosync", "builtin"] if size < 10_000_000 else ["pmlog", "builtin"],
            lambda size=size: workloads.records(size, 64),  # type: ignore[misc]
            lambda size=size: workloads.uniform_half(size, many(60_000)),  # type: ignore[misc]
        )
    for place, folder in (("shm", None), ("disk", disk)):
        found[f"domains-{place}"] = Subject(
            ours + (["lmdb-sync", "sqlite-full", "rocksdb-sync"] if folder else []),
            lambda: workloads.records(many(10_000), 64),
            lambda folder=folder: workloads.uniform_half(  # type: ignore[misc]
                many(10_000), many(2_000 if folder else 60_000)
            ),
            folder=folder,
        )
    return found


def _bulk(count: int) -> Callable[[Any, list[Operation]], dict[str, float]]:
    def run(store: Any, operations: list[Operation]) -> dict[str, float]:
        del operations
        entries = workloads.records(count, 100)
        cpu, begin = time.process_time(), time.perf_counter()
        store.load(entries)
        seconds = time.perf_counter() - begin
        key = workloads.key_of(count // 2)
        assert store.read(key) == entries[key]
        return {
            "operations_per_s": count / seconds,
            "cpu_us": (time.process_time() - cpu) / count * 1e6,
        }

    return run


def measure(subject: Subject, folder: str, turns: int) -> dict[str, Any]:
    """All turns of one subject: store → figure → one value a turn."""
    entries, operations = subject.entries(), subject.operations()
    result: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for _ in range(turns):
        for name in subject.stores:
            if name in missing:
                continue
            place = Path(tempfile.mkdtemp(prefix="pmlog-bench-", dir=subject.folder or folder))
            store = STORES[name]()
            share = operations[: len(operations) // 5] if name in SLOW else operations
            try:
                store.open(place)
                try:
                    if entries:
                        store.load(entries)
                    figures = subject.run(store, share)
                finally:
                    store.close()
            except KvUnavailableError as error:
                missing[name] = str(error)
                continue
            finally:
                shutil.rmtree(place, ignore_errors=True)
            for figure, value in figures.items():
                result.setdefault(name, {}).setdefault(figure, []).append(round(value, 3))
    return {"stores": result, "missing": missing}


def limits(folder: str) -> dict[str, float]:
    """What the machine can do at all, in the same run."""
    size = 64 << 20
    source, target = bytearray(os.urandom(1 << 20) * 64), bytearray(size)
    best = min(_timed(lambda: target.__setitem__(slice(None), source)) for _ in range(7))
    found = {"memcpy_bytes_per_s": size / best}
    for place, where in (("folder", folder), ("disk", str(ROOT))):
        with tempfile.NamedTemporaryFile(dir=where) as file:
            file.write(bytes(4096))

            def sync(file: Any = file) -> None:
                file.seek(0)
                file.write(b"x" * 64)
                file.flush()
                os.fdatasync(file.fileno())

            found[f"fdatasync_{place}_us"] = (
                statistics.median(_timed(sync) for _ in range(50)) * 1e6
            )
    return found


def _timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def run(options: argparse.Namespace) -> None:
    known = subjects(options.scale, options.disk)
    chosen = [name for name in known if not options.subjects or name in options.subjects]
    before = machine.Load.now()
    result: dict[str, Any] = {
        "schema": 1,
        "kind": "suite",
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": machine.source(),
        "machine": machine.facts(options.folder),
        "settings": {"turns": options.turns, "scale": options.scale},
        "limits": limits(options.folder),
        "subjects": {},
    }
    for name in chosen:
        begin = time.monotonic()
        result["subjects"][name] = measure(known[name], options.folder, options.turns)
        rates = {
            store: statistics.median(figures["operations_per_s"])
            for store, figures in result["subjects"][name]["stores"].items()
        }
        text = ", ".join(f"{store} {rate:,.0f}/s" for store, rate in rates.items())
        print(f"{name} ({time.monotonic() - begin:.0f} s): {text}", flush=True)
    result["load"] = machine.Load.now().since(before)
    result["resident_max_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    path = Path(options.out) if options.out else RESULTS / f"{result['taken'][:10]}-suite.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"figures: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.suite", description=__doc__)
    parser.add_argument("--subjects", nargs="+", metavar="NAME")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of operations")
    parser.add_argument("--folder", default="/dev/shm", help="where stores are made")
    parser.add_argument("--disk", default=str(ROOT / "build"), help="a folder on a real disk")
    parser.add_argument("--out", help="the file for the figures")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
