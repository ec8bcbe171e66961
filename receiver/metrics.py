"""The receiver's figures in Prometheus' text format."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_FIGURES: Final = {
    "epoch": "Number of the primaryship",
    "lsn_received": "Verified up to this LSN",
    "lsn_durable": "Durable up to this LSN",
    "lsn_primary": "End of the primary's log, as far as it has said",
    "connections": "Connections to shippers since the start",
    "sealed": "Whether the primary has said that its log ends here",
}


class _Figures:
    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known

    def collect(self) -> Iterable[Metric]:
        for name, text in _FIGURES.items():
            if self._known[name] is not None:
                yield GaugeMetricFamily(f"pmlog_replica_{name}", text, float(self._known[name]))


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


def render(known: dict[str, Any], refused: Mapping[str, int]) -> bytes:
    """Write the figures.

    Args:
        known: As the receiver describes itself.
        refused: How many requests were not answered, by reason.

    Returns:
        The text.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(known))
    registry.register(_Refused(refused))
    return generate_latest(registry)
