"""`python -m bench.plots`: pictures for docs/performance.md, from the newest results of each kind.

Drawn anew from the same figures they are the same files, so that a change of one shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench import report
from bench.kv import DURABLE
from bench.pages import REPLICATION_PEERS, YCSB_SUBJECTS, best_peer, ratios, stores_of

PICTURES = report.ROOT / "docs" / "_static" / "performance"
OURS, THEIRS, FLOOR = "#0b6e4f", "#9aa5b1", "#d9dde2"
Result = dict[str, Any]


def _colour(name: str) -> str:
    return OURS if name.startswith(("pmlog", "core")) else FLOOR if name == "builtin" else THEIRS


def _bars(axes: Any, names: list[str], values: list[float], form: Callable[[float], str]) -> None:
    """Bars with their figures, on a logarithmic axis: ratios of ten are a step, wherever."""
    axes.barh(names, values, color=[_colour(name) for name in names])
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 4)
    axes.invert_yaxis()
    for row, value in enumerate(values):
        axes.text(value * 1.08, row, form(value), va="center", fontsize=8)


def ratios_picture(figure: Any, result: Result) -> bool:
    """How many times faster than LMDB, operation by operation."""
    names, values = [], []
    for operation in result["throughput"]:
        if found := report.ratio(result, operation, "pmlog", "lmdb-nosync"):
            names.append(report.OPERATIONS[operation].title)
            values.append(found[0])
    if not names:
        return False
    axes = figure.add_subplot()
    _bars(axes, names, values, lambda value: f"{value:.2g} ×")
    for bar in axes.patches:
        bar.set_color(OURS)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times as fast as LMDB without syncs (which survives as much on tmpfs)")
    return True


def latency_picture(figure: Any, result: Result) -> bool:
    """From the median to the 99.9th percentile, store by store."""
    operations = [name for name in ("dict.set", "dict.get") if name in result["latency"]]
    for column, operation in enumerate(operations):
        axes = figure.add_subplot(1, len(operations), column + 1)
        peers = [
            peer for peer in result["latency"][operation]
            if peer in {"pmlog", "pmlog-adr", "lmdb-sync", "lmdb-nosync", "sqlite-full", "builtin"}
        ]  # fmt: skip
        for row, peer in enumerate(peers):
            low, middle, high = (
                median(result["latency"][operation][peer][name]) / 1000
                for name in ("p50", "p99", "p99.9")
            )
            axes.plot([low, high], [row, row], color=_colour(peer), linewidth=6, zorder=1)
            axes.scatter([low, middle, high], [row] * 3, color="black", s=14, zorder=2)
        axes.set_yticks(range(len(peers)), peers)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_title(operation)
        axes.set_xlabel("µs: p50, p99, p99.9")
    return bool(operations)


def ycsb_picture(figure: Any, result: Result) -> bool:
    """YCSB: operations a second, to the best store whose writes survive."""
    names, values = [], []
    for subject in YCSB_SUBJECTS:
        stores = stores_of(result, subject)
        best = best_peer(stores)
        if best and "pmlog" in stores:
            ours, theirs = (stores[one]["operations_per_s"] for one in ("pmlog", best))
            names.append(f"{subject.removeprefix('ycsb-')}, against {best}")
            values.append(median(ratios(ours, theirs)))
    if not names:
        return False
    axes = figure.add_subplot()
    _bars(axes, names, values, lambda value: f"{value:.2g} ×")
    for bar in axes.patches:
        bar.set_color(OURS)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("pmlog's operations a second, to the fastest durable peer's")
    return True


def large_picture(figure: Any, result: Result) -> bool:
    """Values of 1 MiB: bytes a second, and copying memory."""
    stores = stores_of(result, "large")
    if not stores:
        return False
    rates = {
        name: median(figures["operations_per_s"]) * (1 << 20) / 1e9
        for name, figures in stores.items()
        if name in DURABLE  # Python's own dict only keeps a reference
    }
    rates["memcpy"] = result["limits"]["memcpy_bytes_per_s"] / 1e9
    names = sorted(rates, key=lambda name: -rates[name])
    axes = figure.add_subplot()
    _bars(axes, names, [rates[name] for name in names], lambda value: f"{value:.2g}")
    axes.set_xlabel("values of 1 MiB: GB/s")
    return True


def _series(figure: Any, result: Result, prefix: str, label: str) -> bool:
    chosen = sorted(
        (int(one.rpartition("-")[2]), one)
        for one in result["subjects"]
        if one.startswith(prefix) and stores_of(result, one)
    )
    if len(chosen) < 2:
        return False
    axes = figure.add_subplot()
    names = dict.fromkeys(name for _, one in chosen for name in stores_of(result, one))
    for name in names:
        points = [
            (size, median(found[name]["operations_per_s"]))
            for size, one in chosen
            if name in (found := stores_of(result, one))
        ]
        style = "-" if name in DURABLE else ":"
        line = axes.plot(*zip(*points, strict=True), style, marker="o", label=name)
        if name == "pmlog":
            line[0].set(color=OURS, linewidth=3)
    axes.set_xscale("log", base=2 if prefix == "threads-" else 10)
    axes.set_xticks([size for size, _ in chosen], [f"{size:,}" for size, _ in chosen])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(label)
    axes.set_ylabel("operations a second")
    axes.legend(fontsize=8)
    return True


def threads_picture(figure: Any, result: Result) -> bool:
    """YCSB A in several threads of one process."""
    return _series(figure, result, "threads-", "threads of one process")


def sizes_picture(figure: Any, result: Result) -> bool:
    """What an operation costs as a store grows."""
    return _series(figure, result, "keys-", "keys in the store")


def replication_picture(figure: Any, result: Result) -> bool:
    """A commit until one replica has acknowledged it, and bytes a second."""
    acknowledged, large = stores_of(result, "latency"), stores_of(result, "large")
    if not acknowledged or not large:
        return False
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    names = [name for name in REPLICATION_PEERS if name in acknowledged]
    for row, name in enumerate(names):
        points = [
            median(acknowledged[name][one]) / 1000 for one in ("p50_ns", "p99_ns", "p99.9_ns")
        ]
        left.plot(points, [row] * 3, color=_colour(name), linewidth=6, zorder=1)
        left.scatter(points, [row] * 3, color="black", s=14, zorder=2)
    floor = result["limits"]["tcp_there_and_back_us"]
    left.axvline(floor, color="black", linewidth=1, linestyle=":")
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_xscale("log")
    left.set_xlabel("commit acknowledged by a replica, µs:\np50, p99, p99.9 (dotted: TCP alone)")
    rates = {name: median(figures["bytes_per_s"]) / 1e9 for name, figures in large.items()}
    rates["TCP alone"] = result["limits"]["tcp_bytes_per_s"] / 1e9
    _bars(right, list(rates), list(rates.values()), lambda value: f"{value:.2g}")
    right.set_xlabel("records of 1 MiB at the replica: GB/s")
    return True


Draw = Callable[[Any, Result], bool]
DRAWN: dict[str, tuple[str, Draw]] = {
    "ratios": ("ops", ratios_picture),
    "latency": ("ops", latency_picture),
    "ycsb": ("suite", ycsb_picture),
    "large": ("suite", large_picture),
    "threads": ("suite", threads_picture),
    "sizes": ("suite", sizes_picture),
    "replication": ("replication", replication_picture),
}


def draw(results: dict[str, Result], folder: Path = PICTURES) -> list[Path]:
    """Draw what there are figures for; others are left out."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib.figure import Figure

    # No dates and no random names: the same figures give the same file.
    mpl.rcParams.update({"svg.hashsalt": "pmlog", "svg.fonttype": "path", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (kind, make) in DRAWN.items():
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        if kind in results and make(figure, results[kind]):
            for axes in figure.axes:
                axes.spines[["top", "right"]].set_visible(False)
            path = folder / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            written.append(path)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description=__doc__)
    parser.add_argument("--out", type=Path, default=PICTURES, help="the folder for the pictures")
    parser.add_argument("files", nargs="*", type=Path, help="results; without: the newest")
    options = parser.parse_args()
    results = report.newest() if not options.files else report.of_files(options.files)
    for path in draw(results, options.out):
        print(path)


if __name__ == "__main__":
    main()
