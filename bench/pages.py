"""Tables for docs/performance.md from the results of `bench.suite` and `bench.replication`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median, quantiles
from typing import Any

from bench.kv import DURABLE
from bench.report import machine_lines, number, table, times
from bench.workloads import YCSB

REPLICATION_PEERS = ("pmlog", "redis", "postgres", "litestream")
Result = dict[str, Any]
Stores = dict[str, dict[str, list[float]]]

YCSB_SUBJECTS = tuple(f"ycsb-{name}" for name in YCSB)


def picture(name: str, text: str) -> str:
    """A picture that `bench.plots` draws from the same figures."""
    return f"![{text}](_static/performance/{name}.svg)"


def stores_of(result: Result, subject: str) -> Stores:
    found: Stores = result["subjects"].get(subject, {}).get("stores", {})
    return found


def middle(figures: dict[str, list[float]], name: str) -> float | None:
    return median(figures[name]) if name in figures else None


def quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Ours to theirs, turn by turn: drift of the machine reaches both."""
    return [mine / other for mine, other in zip(ours, theirs, strict=False) if other]


def best_peer(stores: Stores, figure: str = "operations_per_s") -> str | None:
    """The fastest other store whose writes survive."""
    peers = [name for name in stores if name in DURABLE and not name.startswith("pmlog")]
    return max(peers, key=lambda name: median(stores[name][figure]), default=None)


def spread(values: Iterable[float], form: Callable[[float], str]) -> str:
    low, high = quartiles(list(values))
    return f"{form(low)} – {form(high)}"


# ---- of the suite ------------------------------------------------------------------------------


def ratios_of(result: Result, subjects: Iterable[str]) -> str:
    """One row a subject: pmlog's operations a second to those of each peer."""
    chosen = [one for one in subjects if "pmlog" in stores_of(result, one)]
    peers = dict.fromkeys(
        name for one in chosen for name in stores_of(result, one) if not name.startswith("pmlog")
    )
    rows = []
    for subject in chosen:
        stores = stores_of(result, subject)
        best = best_peer(stores)
        ours = stores["pmlog"]["operations_per_s"]
        found = ratios(ours, stores[best]["operations_per_s"]) if best else []
        cells = [f"{times(median(found))} `{best}`" if found else "–"]
        cells += [
            times(median(ratios(ours, stores[peer]["operations_per_s"]))) if peer in stores else "–"
            for peer in peers
        ]
        rows.append([f"`{subject}`", *cells])
    header = ["`pmlog` against", "the best durable", *(f"`{peer}`" for peer in peers)]
    return table(header, rows)


def subject_table(result: Result, subject: str) -> str:
    stores = stores_of(result, subject)
    rows = []
    for name, figures in stores.items():
        rates = figures["operations_per_s"]
        ours = stores.get("pmlog", {}).get("operations_per_s", [])
        found = ratios(rates, ours)
        microseconds = [
            number(value / 1000) if (value := middle(figures, key)) is not None else "–"
            for key in ("p50_ns", "p99_ns", "p99.9_ns")
        ]
        cpu = middle(figures, "cpu_us")
        rows.append([
            f"`{name}`", f"{median(found):.2f}" if found else "–", number(median(rates)),
            spread(rates, number), *microseconds, "–" if cpu is None else f"{cpu:.2f}",
        ])  # fmt: skip
    header = ["", "to `pmlog`", "a second", "quartiles", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs"]
    return table(header, rows)


def subjects_text(result: Result, subjects: Iterable[str]) -> str:
    chosen = [one for one in subjects if stores_of(result, one)]
    parts = [ratios_of(result, chosen)]
    parts += [f"**`{one}`**\n\n{subject_table(result, one)}" for one in chosen]
    return "\n\n".join(filter(None, parts))


def series_text(result: Result, prefix: str, title: str) -> str:
    """One column a subject of a series: operations a second, and to the first of the series."""
    chosen = sorted(
        (one for one in result["subjects"] if one.startswith(prefix) and stores_of(result, one)),
        key=lambda one: int(one.rpartition("-")[2]),
    )
    if not chosen:
        return ""
    names = dict.fromkeys(name for one in chosen for name in stores_of(result, one))
    rows = []
    for name in names:
        first: list[float] = []
        cells = []
        for subject in chosen:
            rates = stores_of(result, subject).get(name, {}).get("operations_per_s")
            if not rates:
                cells.append("–")
                continue
            first = first or rates
            share = median(rates) / median(first)
            cells.append(f"{share:.2f}: {number(median(rates))} ({spread(rates, number)})")
        rows.append([f"`{name}`", *cells])
    header = [title, *(f"{int(one.rpartition('-')[2]):,}" for one in chosen)]
    return table(header, rows)


def suite_limits(result: Result) -> str:
    return limits_table(result, {
        "memcpy_bytes_per_s": ("copying memory, 64 MiB", 1e9, "GB/s"),
        "fdatasync_folder_us": ("fdatasync, where the stores are", 1, "µs"),
        "fdatasync_disk_us": ("fdatasync, on the disk of `domains-disk`", 1, "µs"),
    })  # fmt: skip


def limits_table(result: Result, wanted: dict[str, tuple[str, float, str]]) -> str:
    rows = [
        [title, f"{result['limits'][name] / unit:,.1f} {text}"]
        for name, (title, unit, text) in wanted.items()
        if name in result["limits"]
    ]
    return table(["the machine alone", "in the same run"], rows)


# ---- of replication ----------------------------------------------------------------------------

_REPLICATION = {
    "latency": ("a commit that one replica has acknowledged", "p50_ns", 1e3, "µs"),
    "lag": ("behind a writer at a steady pace", "p50_ns", 1e3, "µs"),
    "small": ("commits of 64 bytes, until the replica has them", "replicated_per_s", 1, "a second"),
    "large": ("commits of 1 MiB, until the replica has them", "bytes_per_s", 1e6, "MB/s"),
}


def replication_text(result: Result) -> str:
    parts = []
    for subject, (title, figure, unit, text) in _REPLICATION.items():
        stores = stores_of(result, subject)
        if not stores:
            continue
        is_time = unit == 1e3
        rows = []
        for name, figures in stores.items():
            ours = stores.get("pmlog", {}).get(figure, [])
            found = ratios(figures[figure], ours)
            values = [value / unit for value in figures[figure]]
            cells = [
                f"{median(found):.2f}" if found else "–",
                number(median(values)),
                spread(values, number),
            ]
            if is_time:
                cells.append(number(median(figures["p99_ns"]) / unit))
                if subject == "lag":
                    cells.append(number(median(figures["paced_per_s"])))
            else:
                cells += [
                    number(median(figures["cpu_us_a_commit"])),
                    number(median(figures["cpu_s_a_gb"])),
                ]
            rows.append([f"`{name}`", *cells])
        header = ["", "to `pmlog`", text, "quartiles"]
        if is_time:
            header += ["p99 µs", *(["commits a second"] if subject == "lag" else [])]
        else:
            header += ["CPU µs a commit", "CPU s a GB"]
        missing = "".join(
            f"\n\n`{name}`: {why}."
            for name, why in sorted(result["subjects"][subject]["missing"].items())
        )
        parts.append(f"**{title}**\n\n{table(header, rows)}{missing}")
    rows = [
        [title, form(median(figures[name])), spread(figures[name], form), target]
        for subject, name, title, target, form in _OWN
        if name in (figures := stores_of(result, subject).get("pmlog", {}))
    ]
    own = table(["`pmlog`", "measured", "quartiles", "target"], rows)
    return "\n\n".join(filter(None, [*parts, own]))


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.2f} GB/s"


def _rate(value: float) -> str:
    return f"{number(value)} a second"


def _share(value: float) -> str:
    return f"{value * 100:.1f} %"


def _more(value: float) -> str:
    return f"{(value - 1) * 100:+.1f} %"


def _milliseconds(value: float) -> str:
    return f"{value / 1e6:.2f} ms"


_Own = tuple[str, str, str, str, Callable[[float], str]]
_OWN: tuple[_Own, ...] = (
    ("catch-up-large", "bytes_per_s", "a backlog in records of 1 MiB", "1 GB/s", _gigabytes),
    ("catch-up-small", "replicated_per_s", "a backlog of 64-byte commits", "500,000", _rate),
    ("small", "replicated_per_s", "the same while they are committed", "500,000", _rate),
    ("apply", "speed_ratio", "applying, to generating, by speed", "2 ×", times),
    ("apply", "cpu_ratio", "applying, to generating, by processor time", "25 %", _share),
    ("latency", "p50_ns", "commit to REPLICATED and back, p50", "0.35 ms", _milliseconds),
    ("latency", "p99_ns", "the same, p99", "1.5 ms", _milliseconds),
    ("lag-fast", "p99_ns", "lag at 100,000 commits a second, p99", "2 ms", _milliseconds),
    ("writer", "ratio", "writer's processor time, with shipping", "+6 %", _more),
    ("idle", "shipper_share", "an idle shipper, of a core", "1 %", _share),
    ("idle", "receiver_share", "an idle receiver, of a core", "1 %", _share),
)


def replication_limits(result: Result) -> str:
    return limits_table(result, {
        "memcpy_bytes_per_s": ("copying memory, 64 MiB", 1e9, "GB/s"),
        "tcp_bytes_per_s": ("TCP on loopback, sends of 1 MiB", 1e9, "GB/s"),
        "tcp_there_and_back_us": ("TCP on loopback, a byte there and back", 1, "µs"),
    })  # fmt: skip


def taken_text(result: Result) -> str:
    settings = result["settings"]
    return machine_lines(
        result, f"{settings['turns']} turns, {settings['scale']} of the full numbers of operations."
    )


def _with(name: str, text: str, make: Callable[[Result], str]) -> Callable[[Result], str]:
    """A picture, and the table below it, if there are figures."""
    return lambda result: f"{picture(name, text)}\n\n{made}" if (made := make(result)) else ""


SUITE: dict[str, Callable[[Result], str]] = {
    "ycsb": _with(
        "ycsb",
        "YCSB workloads against the best durable peer",
        lambda result: subjects_text(result, YCSB_SUBJECTS),
    ),
    "transfers": lambda result: subjects_text(result, ["transfers"]),
    "large": _with(
        "large",
        "large values against copying memory",
        lambda result: subjects_text(result, ["large"]),
    ),
    "bulk": lambda result: subjects_text(result, ["bulk"]),
    "threads": _with(
        "threads",
        "YCSB A in several threads",
        lambda result: series_text(result, "threads-", "threads"),
    ),
    "sizes": _with(
        "sizes",
        "operations a second as a store grows",
        lambda result: series_text(result, "keys-", "keys"),
    ),
    "domains": lambda result: subjects_text(result, ["domains-shm", "domains-disk"]),
    "limits": suite_limits,
    "machine-suite": taken_text,
}
REPLICATION: dict[str, Callable[[Result], str]] = {
    "replication": _with(
        "replication", "a commit acknowledged by a replica; bytes a second", replication_text
    ),
    "limits-replication": replication_limits,
    "machine-replication": taken_text,
}
