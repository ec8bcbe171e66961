"""The receiver's figures in Prometheus' text format."""

from collections.abc import Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily

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


def render(known: dict[str, Any]) -> bytes:
    """Write the figures.

    Args:
        known: As the receiver describes itself.

    Returns:
        The text.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(known))
    return generate_latest(registry)
