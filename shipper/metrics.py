"""The shipper's figures in Prometheus' text format."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_RECEIVER: Final = {
    "received": "Verified at the receiver up to this LSN",
    "durable": "Durable at the receiver up to this LSN",
    "applied": "Readable at the receiver up to this LSN",
    "behind_bytes": "Log bytes that are not durable at the receiver",
    "connected": "Whether the receiver is connected",
}
_POOL: Final = {
    "lsn_durable": "End of the primary's durable log",
    "delay_ns": "What each commit waits so that receivers keep up",
    "frozen": "Whether writers are stopped because power fails",
}
_SENT: Final = {
    "frames": "Frames sent",
    "raw_bytes": "Log bytes sent",
    "wire_bytes": "Bytes sent, compressed and with headers",
    "blocks": "Blocks of baselines sent",
}


class _Pools:
    def __init__(self, pools: list[dict[str, Any]]) -> None:
        self._pools = pools

    def collect(self) -> Iterable[Metric]:
        for name, text in _POOL.items():
            gauge = GaugeMetricFamily(f"pmlog_{name}", text, labels=["pool"])
            for pool in self._pools:
                gauge.add_metric([pool["id"]], float(pool[name]))
            yield gauge
        for name, text in _SENT.items():
            counter = CounterMetricFamily(f"pmlog_sent_{name}", text, labels=["pool"])
            for pool in self._pools:
                counter.add_metric([pool["id"]], float(pool["sent"][name]))
            yield counter
        for name, text in _RECEIVER.items():
            gauge = GaugeMetricFamily(f"pmlog_receiver_{name}", text, labels=["pool", "receiver"])
            for pool in self._pools:
                for receiver, figures in pool["receivers"].items():
                    gauge.add_metric([pool["id"], receiver], float(figures[name]))
            yield gauge


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
