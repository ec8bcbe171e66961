"""`python -m bench`: measure, show, and keep the figures. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import latency, machine, plots, report
from bench.peers import PEERS
from bench.workload import OPERATIONS

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = 1
FULL = {"turns": 11, "rounds": 3, "scale": 1.0, "latency_turns": 5, "latency_samples": 20_000}
QUICK = {"turns": 3, "rounds": 2, "scale": 0.25, "latency_turns": 2, "latency_samples": 5_000}


def throughput(
    operations: list[str], peers: list[str], folder: str, settings: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Run test_ops.py and put its rounds together."""
    with tempfile.TemporaryDirectory(prefix="pmlog-bench-") as scratch:
        raw = Path(scratch) / "pytest-benchmark.json"
        environment = {
            "PMLOG_BENCH_TURNS": str(settings["turns"]),
            "PMLOG_BENCH_ROUNDS": str(settings["rounds"]),
            "PMLOG_BENCH_SCALE": str(settings["scale"]),
            "PMLOG_BENCH_FOLDER": folder,
            "PMLOG_BENCH_PEERS": " ".join(peers),
            "PMLOG_BENCH_OPERATIONS": " ".join(operations),
        }
        command = [
            sys.executable, "-m", "pytest", str(ROOT / "bench" / "test_ops.py"), "-q",
            "--benchmark-quiet", f"--benchmark-json={raw}", "--benchmark-save-data",
        ]  # fmt: skip
        done = subprocess.run(command, env=os.environ | environment, cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(f"bench: test_ops.py failed ({done.returncode})")
        benchmarks = json.loads(raw.read_text())["benchmarks"]
    result: dict[str, dict[str, Any]] = {name: {} for name in operations if OPERATIONS[name].method}
    for one in benchmarks:
        info = one["extra_info"]
        count = info["count"]
        entry = result[info["operation"]].setdefault(
            info["peer"], {"count": count, "wall_ns": [], "cpu_ns": []}
        )
        # One list a turn, so that turns can be compared with each other.
        entry["wall_ns"].append([round(s * 1e9 / count, 2) for s in one["stats"]["data"]])
        entry["cpu_ns"].append([round(ns / count, 2) for ns in info["cpu_ns"]])
    return result


def run(options: argparse.Namespace) -> None:
    operations = options.operations or list(OPERATIONS)
    peers = options.peers or list(PEERS)
    settings = QUICK if options.quick else FULL
    if options.turns:
        settings = settings | {"turns": options.turns}
    before = machine.Load.now()
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": machine.source(),
        "machine": machine.facts(options.folder),
        "settings": settings,
    }
    result["throughput"] = throughput(operations, peers, options.folder, settings)
    result["latency"] = latency.measure(operations, peers, options.folder, settings)
    result["load"] = machine.Load.now().since(before)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    path = (
        report.RESULTS / f"{stamp[:8]}-ops.json"
        if options.save
        else ROOT / "build" / "bench" / f"{stamp}.json"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.dump(result))
    print(report.text(result))
    print(f"figures: {path.relative_to(ROOT)}")


def show(options: argparse.Namespace) -> None:
    print(report.text(json.loads(Path(options.file).read_text())))


def page(options: argparse.Namespace) -> None:
    if not options.check:
        for path in plots.draw(report.newest()):
            print(f"{path.relative_to(ROOT)} drawn")
    if not report.write_page(check=options.check):
        return
    if options.check:
        raise SystemExit("docs/performance.md is out of date: python -m bench page")
    print("docs/performance.md written")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.set_defaults(call=run)
    parser.add_argument("--quick", action="store_true", help="a minute: figures to glance at")
    parser.add_argument("--save", action="store_true", help="write to bench/results/")
    parser.add_argument("--turns", type=int, help="how often each peer has its turn")
    parser.add_argument("--folder", default="/dev/shm", help="where stores are made")
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, metavar="NAME")
    parser.add_argument("--peers", nargs="+", choices=PEERS, metavar="NAME")
    commands = parser.add_subparsers(metavar="show | page")
    command = commands.add_parser("show", help="print a result again")
    command.add_argument("file")
    command.set_defaults(call=show)
    command = commands.add_parser("page", help="write the figures into docs/performance.md")
    command.add_argument("--check", action="store_true", help="only say whether it is out of date")
    command.set_defaults(call=page)
    options = parser.parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
