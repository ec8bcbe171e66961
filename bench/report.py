"""Results as tables: for the terminal, and for docs/performance.md. Nothing is measured here.

The page is prose with marked blocks, `<!-- figures: NAME -->` … `<!-- end -->`.  What stands
between is written from the newest file in bench/results/, so that text and figures can't drift
apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.workload import OPERATIONS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "performance.md"

Result = dict[str, Any]

# (operation, ours, peer, at least, which stage asks for it)
TARGETS = (
    ("dict.set", "pmlog", "lmdb-sync", 2.0, "first"),
    ("dict.get", "pmlog", "lmdb-sync", 1.0, "first"),
    ("dict.set", "pmlog", "lmdb-sync", 5.0, "speed"),
    ("dict.set", "pmlog", "lmdb-nosync", 3.0, "speed"),
    ("transaction.set", "pmlog", "lmdb-sync", 4.0, "speed"),
    ("dict.get", "pmlog", "lmdb-sync", 2.0, "speed"),
    ("region.write", "pmlog", "pmemobj", 1.0, "speed"),
)
# (operation, ours, a second, which stage asks for it)
RATES = (
    ("region.write", "pmlog", 600_000, "first"),
    ("region.write", "pmlog", 1_000_000, "speed"),
    ("region.write", "pmlog-adr", 700_000, "speed"),
    ("dict.update", "pmlog", 2_000_000, "speed"),
)


# ---- figures -----------------------------------------------------------------------------------


def flat(turns: Sequence[Sequence[float]]) -> list[float]:
    return [ns for turn in turns for ns in turn]


def ns(result: Result, operation: str, peer: str, clock: str = "wall_ns") -> float | None:
    """Median over all rounds, in ns an operation."""
    entry = result["throughput"].get(operation, {}).get(peer)
    return median(flat(entry[clock])) if entry else None


def spread(result: Result, operation: str, peer: str) -> tuple[float, float] | None:
    """The quartiles of the rounds."""
    entry = result["throughput"].get(operation, {}).get(peer)
    if not entry:
        return None
    low, _, high = quantiles(flat(entry["wall_ns"]), n=4, method="inclusive")
    return low, high


def ratio(
    result: Result, operation: str, ours: str, peer: str
) -> tuple[float, float, float] | None:
    """How many times faster ours is: median over the turns, and the quartiles.

    Both had each turn within a second of each other, so that drift cancels.
    """
    entries = result["throughput"].get(operation, {})
    if ours not in entries or peer not in entries:
        return None
    ratios = [
        median(theirs) / median(mine)
        for mine, theirs in zip(entries[ours]["wall_ns"], entries[peer]["wall_ns"], strict=True)
    ]
    if len(ratios) < 2:
        return ratios[0], ratios[0], ratios[0]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return median(ratios), low, high


# ---- tables ------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that is Markdown and reads well as it is; nothing, if it has no rows."""
    lines = [list(header), *map(list, rows)]
    if len(lines) == 1:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def form(line: Sequence[str]) -> str:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([form(lines[0]), f"|{rule}|", *map(form, lines[1:])])


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "–"
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value / 10**digits) * 10**digits:,}"
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


def times(value: float) -> str:
    digits = 2 if value < 0.995 else 1 if value < 9.95 else 0
    return f"{value:.{digits}f} ×"


def peers_in(result: Result, operation: str | None = None) -> list[str]:
    """Peers with a figure, in the order that they were measured in."""
    found: dict[str, None] = {}
    for name, entries in result["throughput"].items():
        if operation in {None, name}:
            found |= dict.fromkeys(entries)
    return list(found)


def ratios_table(result: Result, ours: str = "pmlog") -> str:
    # The C loop of the same domain, and every peer that is not ours.
    limit = ours.replace("pmlog", "core")
    peers = [
        peer for peer in peers_in(result) if peer == limit or not peer.startswith(("pmlog", "core"))
    ]
    rows = []
    for operation in result["throughput"]:
        cells = [
            times(found[0]) if (found := ratio(result, operation, ours, peer)) else "–"
            for peer in peers
        ]
        if ours in result["throughput"][operation]:
            rows.append([OPERATIONS[operation].title, *cells])
    return table([f"`{ours}` against", *(f"`{peer}`" for peer in peers)], rows)


def operation_table(result: Result, operation: str) -> str:
    rows = []
    for peer in peers_in(result, operation):
        middle = ns(result, operation, peer)
        low, high = spread(result, operation, peer) or (0.0, 0.0)
        found = ratio(result, operation, "pmlog", peer)
        rows.append([
            f"`{peer}`", number(middle), f"{number(low)} – {number(high)}",
            number(ns(result, operation, peer, "cpu_ns")),
            number(1e9 / middle) if middle else "–",
            f"{found[0]:.2f} ({found[1]:.2f} – {found[2]:.2f})" if found else "–",
        ])  # fmt: skip
    header = ["", "ns", "quartiles", "CPU ns", "a second", "ns against `pmlog`'s"]
    return table(header, rows)


def operations_text(result: Result) -> str:
    parts = []
    for operation in result["throughput"]:
        title = OPERATIONS[operation].title
        parts.append(f"**`{operation}`**: {title}\n\n{operation_table(result, operation)}")
    return "\n\n".join(parts)


def latency_text(result: Result) -> str:
    rows = []
    for operation, entries in result["latency"].items():
        for peer, figures in entries.items():
            cells = [number(median(figures[name])) for name in ("p50", "p99", "p99.9", "timer")]
            rows.append([f"`{operation}`", f"`{peer}`", *cells])
    return table(["", "", "p50 ns", "p99 ns", "p99.9 ns", "timer ns"], rows)


def targets_text(result: Result) -> str:
    rows = []
    for stage in ("first", "speed"):
        for operation, ours, rate, asked in RATES:
            middle = ns(result, operation, ours)
            if asked == stage and middle:
                reached = 1e9 / middle
                rows.append([
                    f"`{ours}` {operation}", stage, f"{rate:,} a second", f"{number(reached)}",
                    "yes" if reached >= rate else "no",
                ])  # fmt: skip
        for operation, ours, peer, least, asked in TARGETS:
            found = ratio(result, operation, ours, peer)
            if asked == stage and found:
                rows.append([
                    f"`{ours}` {operation}", stage, f"{least:.0f} × `{peer}`", f"{found[0]:.2f} ×",
                    "yes" if found[0] >= least else "no",
                ])  # fmt: skip
    return table(["", "stage", "target", "measured", "met"], rows)


def machine_lines(result: Result, how: str) -> str:
    facts, source, load = result["machine"], result["source"], result["load"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    changed = " with uncommitted changes" if source["changed"] else ""
    virtual = "virtual machine, " if facts["hypervisor"] else ""
    guided = "" if facts["python_build"]["profile_guided"] else ", built without profile guidance"
    memory = round(facts["memory_bytes"] / 2**30)
    lines = [
        f"- Taken {result['taken']}, pmlog at commit `{source['commit'][:12]}`{changed}.",
        f"- {virtual}{facts['cores']} cores, {facts['cpu']}, {memory} GiB, {facts['kernel']}; "
        f"stores on {facts['file_system']}; cache lines flushed by {facts['cache_flush'][0]}.",
        f"- {versions}; {facts['compiler']}.",
        f"- The interpreter: {facts['python_build']['compiler']}{guided}.",
        f"- {how}",
        f"- Meanwhile other work on the machine took {load['others_cores']:.2f} cores, and its host "
        f"took away {load['stolen_cores']:.2f}.",
    ]
    return "\n".join(lines)


def machine_text(result: Result) -> str:
    settings = result["settings"]
    return machine_lines(
        result,
        f"{settings['turns']} turns of {settings['rounds']} rounds; latency of "
        f"{settings['latency_samples']:,} operations a turn.",
    )


_RATIOS_PICTURE = "![times as fast as LMDB](_static/performance/ratios.svg)"
_LATENCY_PICTURE = "![latency percentiles](_static/performance/latency.svg)"

BLOCKS: dict[str, Callable[[Result], str]] = {
    "ratios": lambda result: f"{_RATIOS_PICTURE}\n\n{ratios_table(result)}",
    "ratios-adr": lambda result: ratios_table(result, "pmlog-adr"),
    "targets": targets_text,
    "operations": operations_text,
    "latency": lambda result: f"{_LATENCY_PICTURE}\n\n{latency_text(result)}",
    "machine": machine_text,
}


def text(result: Result) -> str:
    """Everything, for the terminal."""
    return "\n\n".join(filter(None, (block(result) for block in BLOCKS.values())))


# ---- files -------------------------------------------------------------------------------------


def dump(result: Result) -> str:
    """JSON with lists of figures on one line each."""
    pretty = json.dumps(result, indent=1, ensure_ascii=False)
    return re.sub(r"\[[-\d.,\s]*\]", lambda match: re.sub(r"\s+", " ", match[0]), pretty) + "\n"


def kind_of(result: Result) -> str:
    """Which program has written it: ops, suite or replication."""
    return str(result.get("kind", "ops" if "throughput" in result else "suite"))


def newest() -> dict[str, Result]:
    """The newest result of each kind."""
    return of_files(RESULTS.glob("*.json"))


def of_files(paths: Iterable[Path]) -> dict[str, Result]:
    """The newest of some results, of each kind."""
    found: dict[str, Result] = {}
    for path in paths:
        result = json.loads(path.read_text())
        kind = kind_of(result)
        if kind not in found or result["taken"] > found[kind]["taken"]:
            found[kind] = result
    if not found:
        raise SystemExit("bench: no file in bench/results/: python -m bench --save")
    return found


_BLOCK = re.compile(r"(<!-- figures: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def blocks() -> dict[str, tuple[str, Callable[[Result], str]]]:
    """Every block that a page may have: the kind of result that it is made from, and how."""
    from bench import pages  # which needs the forms of this module

    made = {"ops": BLOCKS, "suite": pages.SUITE, "replication": pages.REPLICATION}
    return {name: (kind, make) for kind, those in made.items() for name, make in those.items()}


def filled(page: str, results: dict[str, Result]) -> str:
    """The page with its blocks written anew; those without a result say so."""
    known = blocks()

    def fill(match: re.Match[str]) -> str:
        kind, make = known[match["name"]]
        text = make(results[kind]) if kind in results else ""
        return f"{match[1]}{text or 'No figures have been kept yet: `make bench` takes them.'}\n{match[3]}"

    return _BLOCK.sub(fill, page)


def write_page(*, check: bool = False) -> bool:
    """Bring docs/performance.md up to date; answer whether it was not."""
    old = PAGE.read_text()
    new = filled(old, newest())
    if old != new and not check:
        PAGE.write_text(new)
    return old != new
