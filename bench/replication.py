"""`python -m bench.replication`: a primary, a replica on loopback, a writer; figures as JSON.

All stores take turns, A B C A B C, each time on fresh ones; what the machine can do at all is
measured in the same run.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import shutil
import socket
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pmlog
from bench import machine, suite
from bench.repl import STORES, KvUnavailableError, Replicated
from bench.repl.base import spin
from pmlog.log import LogReader
from pmlog.replica import Replica

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
SMALL = b"y" * 64
LARGE = os.urandom(1 << 20)
IDLE_S = 10.0
PACE_PER_S = 2_000
"""What every store can keep up with, in a process that also looks at the replica."""
FAST_PER_S = 100_000
Figures = dict[str, float]


class Meter:
    """Wall and processor time, of this process and the store's."""

    def __init__(self, store: Replicated) -> None:
        self.store = store
        self.pids = store.pids()
        self.others = self._others()
        self.own = time.process_time()
        self.begun = time.perf_counter()

    def _others(self) -> float:
        return sum(map(_cpu_of, self.pids))

    def seconds(self) -> float:
        return time.perf_counter() - self.begun

    def cpu(self) -> float:
        return time.process_time() - self.own + self._others() - self.others


def _cpu_of(pid: int) -> float:
    try:
        return suite.cpu_of(pid)
    except FileNotFoundError:  # a server's helper has ended
        return 0.0


def _drained(store: Replicated) -> None:
    spin(store, store.sent())


# ---- subjects ----------------------------------------------------------------------------------


def throughput(store: Replicated, value: bytes, count: int) -> Figures:
    """From the first commit until the replica has the last."""
    meter = Meter(store)
    store.write_many(value, count)
    written = meter.seconds()
    _drained(store)
    seconds, cpu = meter.seconds(), meter.cpu()
    return {
        "commits_per_s": count / written,
        "replicated_per_s": count / seconds,
        "bytes_per_s": count * len(value) / seconds,
        "cpu_us_a_commit": cpu / count * 1e6,
        "cpu_s_a_gb": cpu / (count * len(value) / 1e9),
    }


def small(store: Replicated, scale: float) -> Figures:
    return throughput(store, SMALL, int(store.small_count * scale))


def large(store: Replicated, scale: float) -> Figures:
    return throughput(store, LARGE, max(4, int(store.large_count * scale)))


def latency(store: Replicated, scale: float) -> Figures:
    """A commit until one replica has acknowledged it."""
    if not store.acknowledges:
        raise KvUnavailableError("it acknowledges nothing to the writer")
    count = int(2500 * scale)
    took = array("q")
    gc.collect()
    for number in range(count + 200):
        begun = time.perf_counter_ns()
        store.write_waiting(SMALL)
        if number >= 200:
            took.append(time.perf_counter_ns() - begun)
    return suite.percentiles(took)


def lag(pace_per_s: int) -> Callable[..., Figures]:
    """A writer at a steady pace; how long until the replica has what was just committed."""

    def run(store: Replicated, scale: float) -> Figures:
        took = array("q")
        marks: list[tuple[int, int]] = []
        seconds = max(2.0, 4 * scale)
        meter, done = Meter(store), 0
        while (now := meter.seconds()) < seconds:
            due = int(now * pace_per_s) - done
            for _ in range(min(due, 500)):
                store.write(SMALL)
                done += 1
            if due and len(marks) < 1000:
                marks.append((time.perf_counter_ns(), store.sent()))
            while marks and store.has(marks[0][1]):
                took.append(time.perf_counter_ns() - marks.pop(0)[0])
            time.sleep(0.0002)
        while marks:
            spin(store, marks[0][1])
            took.append(time.perf_counter_ns() - marks.pop(0)[0])
        return {"paced_per_s": done / seconds, **suite.percentiles(took)}

    return run


def catch_up(value: bytes, count: Callable[[Replicated], int]) -> Callable[..., Figures]:
    """A backlog that stands in the log already, until the replica has it durable."""

    def run(store: Replicated, scale: float) -> Figures:
        best: list[Figures] = []
        for _ in range(4):  # the ring's pages are faulted in by the first ones
            number = max(4, int(count(store) * scale))
            store.hold()
            written = Meter(store)
            store.write_many(value, number)
            generation, generation_cpu = written.seconds(), written.cpu()
            lsn = store.sent()
            services = store.services()
            before = {name: suite.cpu_of(pid) for name, pid in services.items()}
            meter = Meter(store)
            store.release()
            spin(store, lsn)
            seconds = meter.seconds()
            best.append({
                "commits_per_s": number / generation,
                "generation_cpu_s": generation_cpu,
                "replicated_per_s": number / seconds,
                "bytes_per_s": number * len(value) / seconds,
                **{f"{name}_cpu_s": suite.cpu_of(pid) - before[name]
                   for name, pid in services.items()},
            })  # fmt: skip
        return {name: statistics.median(one[name] for one in best[1:]) for name in best[0]}

    return run


def writer_cost(store: Replicated, scale: float) -> Figures:
    """Processor time of the writer's transaction: shipping stopped, then going on."""
    found: dict[str, list[float]] = {"alone": [], "shipped": []}
    count = int(200_000 * scale)
    for _ in range(6):
        for name, times in found.items():
            if name == "alone":
                store.hold()
            begun = time.process_time()
            store.write_many(SMALL, count)
            times.append((time.process_time() - begun) / count * 1e9)
            if name == "alone":
                store.release()
            _drained(store)
    alone, shipped = (statistics.median(times[1:]) for times in found.values())
    return {"alone_cpu_ns": alone, "shipped_cpu_ns": shipped, "ratio": shipped / alone}


def idle(store: Replicated, scale: float) -> Figures:
    """Share of a core that each service takes while nothing is written."""
    time.sleep(0.5)
    services = store.services()
    before = {name: suite.cpu_of(pid) for name, pid in services.items()}
    seconds = max(3.0, IDLE_S * scale)
    time.sleep(seconds)
    return {f"{name}_share": (suite.cpu_of(pid) - before[name]) / seconds
            for name, pid in services.items()}  # fmt: skip


def apply(store: Replicated, scale: float) -> Figures:
    """The engine alone: a log is appended to a replica, verified, and applied; in this process."""
    del store
    count = int(150_000 * scale)
    with (
        tempfile.TemporaryDirectory(prefix="pmlog-bench-", dir="/dev/shm") as folder,
        pmlog.open(f"{folder}/pool", size="16MiB", log_size="256MiB") as pool,
    ):
        table = pool.dict("d")
        keys = [f"key-{number}" for number in range(1000)]
        reader = LogReader(pool.path)
        replica = Replica(f"{folder}/copy", reader.identity(), background=False)
        begun, cpu = time.perf_counter(), time.process_time()
        for number in range(count):
            table[keys[number % 1000]] = SMALL
        generation, generation_cpu = time.perf_counter() - begun, time.process_time() - cpu
        reader.seek(4096)
        runs = []
        while (run := reader.run()) is not None:
            runs.append(bytes(run))
        begun, cpu = time.perf_counter(), time.process_time()
        for run in runs:
            replica.append(replica.lsn_next, run)
        replica.prepare_baseline()  # what is appended is applied now
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        assert replica.position.lsn == pool.position.lsn
        replica.close()
        reader.close()
    return {
        "commits_per_s": count / generation,
        "applied_per_s": count / seconds,
        "speed_ratio": generation / seconds,
        "cpu_ratio": cpu / generation_cpu,
    }


EVERYONE = tuple(STORES)
SUBJECTS: dict[str, tuple[tuple[str, ...], Callable[[Replicated, float], Figures]]] = {
    "latency": (EVERYONE, latency),
    "lag": (EVERYONE, lag(PACE_PER_S)),
    "lag-fast": (("pmlog",), lag(FAST_PER_S)),
    "small": (EVERYONE, small),
    "large": (EVERYONE, large),
    "catch-up-small": (("pmlog",), catch_up(SMALL, lambda store: 600_000)),
    "catch-up-large": (("pmlog",), catch_up(LARGE, lambda store: store.large_count)),
    "apply": (("pmlog",), apply),
    "writer": (("pmlog",), writer_cost),
    "idle": (("pmlog",), idle),
}


def measure(subjects: list[str], folder: str, turns: int, scale: float) -> dict[str, Any]:
    """All turns: in each, each store is started once and does all of its subjects."""
    result: dict[str, Any] = {name: {"stores": {}, "missing": {}} for name in subjects}
    for turn in range(turns):
        for name, make in STORES.items():
            mine = [one for one in subjects if name in SUBJECTS[one][0]]
            if not mine:
                continue
            place = Path(tempfile.mkdtemp(prefix="pmlog-bench-", dir=folder))
            store = make()
            begun = time.monotonic()
            try:
                store.open(place)
                for subject in mine:
                    _perform(result[subject], name, subject, store, scale)
            except KvUnavailableError as error:
                for subject in mine:
                    result[subject]["missing"][name] = str(error)
                continue
            finally:
                store.close()
                shutil.rmtree(place, ignore_errors=True)
            print(f"turn {turn + 1}, {name}: {time.monotonic() - begun:.0f} s", flush=True)
    return result


def _perform(entry: Any, name: str, subject: str, store: Replicated, scale: float) -> None:
    try:
        figures = SUBJECTS[subject][1](store, scale)
    except KvUnavailableError as error:
        entry["missing"][name] = str(error)
        return
    kept = entry["stores"].setdefault(name, {})
    for figure, value in figures.items():
        kept.setdefault(figure, []).append(round(value, 4))


# ---- limits ------------------------------------------------------------------------------------


def loopback() -> Figures:
    """TCP alone: a stream of 1 MiB sends, and one byte there and back, between two processes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = os.fork()
        if not child:
            try:
                _answer(server.getsockname()[1])
            finally:
                os._exit(0)
        peer, _ = server.accept()
    with peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        took = array("q")
        for _ in range(3000):
            begun = time.perf_counter_ns()
            peer.send(b"x")
            peer.recv(1)
            took.append(time.perf_counter_ns() - begun)
        total, begun = 1 << 30, time.perf_counter()
        for _ in range(total >> 20):
            peer.sendall(LARGE)
        peer.recv(1)
        seconds = time.perf_counter() - begun
    os.waitpid(child, 0)
    return {"tcp_bytes_per_s": total / seconds,
            "tcp_there_and_back_us": suite.percentiles(took)["p50_ns"] / 1000}  # fmt: skip


def _answer(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(3000):
            peer.recv(1)
            peer.send(b"x")
        left, buffer = 1 << 30, bytearray(1 << 20)
        while left:
            left -= peer.recv_into(buffer)
        peer.send(b"x")


# ---- the run -----------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    found = {
        "Redis": machine.output("redis-server", "--version"),
        "PostgreSQL": "",
        "Litestream": machine.output("litestream", "version"),
    }
    for program in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        found["PostgreSQL"] = machine.output(str(program), "--version")
    numbers = {name: re.search(r"\d+(\.\d+)+", text) for name, text in found.items()}
    return {name: match[0] for name, match in numbers.items() if match}


def run(options: argparse.Namespace) -> None:
    chosen = [name for name in SUBJECTS if not options.subjects or name in options.subjects]
    scale, turns = (0.1, 1) if options.quick else (options.scale, options.turns)
    before = machine.Load.now()
    facts = machine.facts(options.folder)
    facts["versions"] |= versions()
    result: dict[str, Any] = {
        "schema": 1,
        "kind": "replication",
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": machine.source(),
        "machine": facts,
        "settings": {"turns": turns, "scale": scale},
        "limits": {**suite.limits(options.folder), **loopback()},
    }
    result["subjects"] = measure(chosen, options.folder, turns, scale)
    result["load"] = machine.Load.now().since(before)
    path = (
        Path(options.out) if options.out else RESULTS / f"{result['taken'][:10]}-replication.json"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name, subject in result["subjects"].items():
        for store, figures in subject["stores"].items():
            cells = ", ".join(f"{key} {statistics.median(of):,.4g}" for key, of in figures.items())
            print(f"{name} {store}: {cells}")
        for store, why in subject["missing"].items():
            print(f"{name} {store}: {why}")
    print("limits:", ", ".join(f"{name} {value:,.4g}" for name, value in result["limits"].items()))
    print(f"figures: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.replication", description=__doc__)
    parser.add_argument("--subjects", nargs="+", metavar="NAME", choices=SUBJECTS)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of commits")
    parser.add_argument("--quick", action="store_true", help="half a minute, to glance at")
    parser.add_argument("--folder", default="/dev/shm", help="where stores are made")
    parser.add_argument("--out", help="the file for the figures")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
