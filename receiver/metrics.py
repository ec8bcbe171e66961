"""The receiver's figures in Prometheus' text format.

Positions in the log count bytes, so differences of them are bytes, and their rates bytes a second.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pmlog import logs
from receiver.page import behind_bytes

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

STATES: Final = ("connecting", "receiving", "saving", "promoting", "promoted")

_Value = Callable[[dict[str, Any]], float | int | bool | None]

# Name, help, value; None: it is not known, and nothing is said.
_FIGURES: Final[tuple[tuple[str, str, _Value], ...]] = (
    ("up", "Whether the replica is able", lambda k: not k.get("failure")),
    ("epoch", "Number of the primaryship", lambda k: k["epoch"]),
    ("lsn_received", "Verified up to this LSN", lambda k: k["lsn_received"]),
    ("lsn_durable", "Durable up to this LSN", lambda k: k["lsn_durable"]),
    ("lsn_primary", "End of the primary's log, as far as it has said", lambda k: k["lsn_primary"]),
    ("behind_bytes", "Log bytes of the primary that are not durable here", behind_bytes),
    ("transactions_durable", "Number of the last durable transaction", lambda k: k["txn_durable"]),
    ("sealed", "Whether the primary has said that its log ends here", lambda k: k["sealed"]),
    ("incomplete", "Whether a baseline is under way", lambda k: k["incomplete"]),
    ("promoted_complete", "Whether what was promoted was all there was", lambda k: k["complete"]),
    ("application_running", "Whether the application runs",
     lambda k: None if k["application"] is None else _is_running(k["application"])),
    ("application_exit_code", "What the application has ended with",
     lambda k: None if k["application"] is None else k["application"]["exit"]),
)  # fmt: skip


def _is_running(application: dict[str, Any]) -> bool:
    return application["pid"] is not None and application["exit"] is None


class _Figures:
    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known

    def collect(self) -> Iterable[Metric]:
        for name, text, value_of in _FIGURES:
            value = value_of(self._known)
            if value is not None:
                yield GaugeMetricFamily(f"pmlog_replica_{name}", text, float(value))
        states = GaugeMetricFamily(
            "pmlog_replica_state", "1 for the state that the replica is in", labels=["state"]
        )
        for state in STATES:
            states.add_metric([state], float(self._known["state"] == state))
        yield states
        yield CounterMetricFamily(
            "pmlog_replica_connections", "Connections to shippers", self._known["connections"]
        )


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
