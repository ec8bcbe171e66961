"""The shipper's figures in Prometheus' text format.

Positions in the log count bytes, so differences of them are bytes, and their rates bytes a second.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from pmlog import logs

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

POWER_STATES: Final = ("mains", "saving", "sealed", "vaulted", "unsaved")

_Value = Callable[[dict[str, Any]], float | int | bool | None]

# Of a pool: name, help, value; None: it is not known, and nothing is said.
_POOL: Final[tuple[tuple[str, str, _Value], ...]] = (
    ("up", "Whether the pool can be read", lambda p: not p.get("failure")),
    ("epoch", "Number of the present primaryship", lambda p: p["epoch"]),
    ("lsn_durable", "End of the primary's durable log", lambda p: p["lsn_durable"]),
    ("log_ring_bytes", "Size of the log's ring", lambda p: p["ring_bytes"]),
    ("writer_connected", "Whether a process has the pool open for writing",
     lambda p: p["writer_pid"] is not None),
    ("commit_delay_seconds", "What each commit waits so that receivers keep up",
     lambda p: p["delay_ns"] / 1e9),
    ("frozen", "Whether writers are stopped because power fails", lambda p: p["frozen"]),
    ("fenced", "Whether another pool has taken over", lambda p: p["fenced_epoch"] is not None),
    ("require", "Receivers that a level needs", lambda p: p["require"]),
)  # fmt: skip
_BACKLOG: Final[tuple[tuple[str, str, _Value], ...]] = (
    ("bytes", "Log that required receivers lack", lambda b: b["bytes"]),
    ("limit_bytes", "What they may lack", lambda b: b["limit_bytes"]),
    ("rate_bytes_per_second", "What receivers make durable", lambda b: b["rate_bytes_per_s"]),
    ("at_risk", "Whether more is lacking than could be saved", lambda b: b["at_risk"]),
    ("missing_bytes", "How much more", lambda b: b["missing_bytes"]),
    ("blocked", "Whether writers wait until there is less", lambda b: b["is_blocked"]),
)
_POWER: Final[tuple[tuple[str, str, _Value], ...]] = (
    ("since_seconds", "For how long power has been failing", lambda p: p["since_s"]),
    ("battery_seconds", "How long the battery holds", lambda p: p["battery_seconds_left"]),
)
_SENT: Final = {
    "frames": "Frames sent",
    "raw_bytes": "Log bytes sent",
    "wire_bytes": "Bytes sent, compressed and with headers",
    "blocks": "Blocks of baselines sent",
}
_RECEIVER: Final[tuple[tuple[str, str, _Value], ...]] = (
    ("lsn_received", "Verified at the receiver up to this LSN", lambda r: r["received"]),
    ("lsn_durable", "Durable at the receiver up to this LSN", lambda r: r["durable"]),
    ("lsn_applied", "Readable at the receiver up to this LSN", lambda r: r["applied"]),
    ("behind_bytes", "Log bytes that are not durable at the receiver",
     lambda r: max(0, r["behind_bytes"])),
    ("connected", "Whether the receiver is connected", lambda r: r["connected"]),
    ("required", "Whether writers wait for the receiver", lambda r: r["required"]),
    ("sealed", "Whether the receiver has the seal", lambda r: r.get("sealed", False)),
)  # fmt: skip


class _Pools:
    def __init__(self, pools: list[dict[str, Any]]) -> None:
        self._pools = pools

    def collect(self) -> Iterable[Metric]:
        info = InfoMetricFamily("pmlog_pool", "Where the pool is", labels=["pool"])
        for pool in self._pools:
            info.add_metric([pool["id"]], {"path": pool["path"]})
        yield info
        parts = (
            ("pmlog", _POOL, self._pools),
            ("pmlog_backlog", _BACKLOG, [p.get("backlog") for p in self._pools]),
            ("pmlog_power", _POWER, [p.get("power") for p in self._pools]),
        )
        for prefix, table, described in parts:
            for name, text, value_of in table:
                gauge = GaugeMetricFamily(f"{prefix}_{name}", text, labels=["pool"])
                for pool, known in zip(self._pools, described, strict=True):
                    if known and (value := value_of(known)) is not None:
                        gauge.add_metric([pool["id"]], float(value))
                yield gauge
        yield self._levels()
        yield self._states()
        for name, text in _SENT.items():
            counter = CounterMetricFamily(f"pmlog_sent_{name}", text, labels=["pool"])
            for pool in self._pools:
                counter.add_metric([pool["id"]], float(pool["sent"][name]))
            yield counter
        for name, text, value_of in _RECEIVER:
            gauge = GaugeMetricFamily(f"pmlog_receiver_{name}", text, labels=["pool", "receiver"])
            for pool in self._pools:
                for receiver, known in pool["receivers"].items():
                    value = value_of(known)
                    assert value is not None
                    gauge.add_metric([pool["id"], receiver], float(value))
            yield gauge

    def _levels(self) -> Metric:
        gauge = GaugeMetricFamily(
            "pmlog_level_lsn", "What as many receivers as a level needs have",
            labels=["pool", "level"],
        )  # fmt: skip
        for pool in self._pools:
            for level, lsn in pool["levels"].items():
                gauge.add_metric([pool["id"], level], float(lsn))
        return gauge

    def _states(self) -> Metric:
        gauge = GaugeMetricFamily(
            "pmlog_power_state", "1 for the state that the pool's power is in",
            labels=["pool", "state"],
        )  # fmt: skip
        for pool in self._pools:
            power = pool.get("power")
            if power is None:
                continue
            for state in POWER_STATES:
                gauge.add_metric([pool["id"], state], float(power["state"] == state))
        return gauge


class _Refused:
    def __init__(self, refused: Mapping[str, int]) -> None:
        self._refused = refused

    def collect(self) -> Iterable[Metric]:
        counter = CounterMetricFamily(
            "pmlog_requests_refused", "Requests and connections that were not answered",
            labels=["reason"],
        )  # fmt: skip
        for reason, count in sorted(self._refused.items()):
            counter.add_metric([reason], count)
        yield counter
        yield CounterMetricFamily(
            "pmlog_log_lines_dropped", "Lines of the log that nobody read in time", logs.dropped()
        )


def render(pools: list[dict[str, Any]], refused: Mapping[str, int]) -> bytes:
    """Write the figures.

    Args:
        pools: As `service.describe` tells them.
        refused: How many requests were not answered, by reason.

    Returns:
        The text.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Pools(pools))
    registry.register(_Refused(refused))
    return generate_latest(registry)
