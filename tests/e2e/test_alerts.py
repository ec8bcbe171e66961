"""docs/examples/orders/alerts.yaml: rules over metrics that the services have."""

from __future__ import annotations

import re
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from receiver.metrics import STATES
from shipper.metrics import POWER_STATES
from tests.e2e.services import ROOT, Cluster, Service, status, until
from tests.format.tables import DOCS, tables

RULES = ROOT / "docs" / "examples" / "orders" / "alerts.yaml"


def rules() -> list[dict[str, Any]]:
    """Return all rules."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def samples_of(service: Service) -> set[str]:
    """Return the names of what a service serves at /metrics."""
    text = service.read("/metrics").decode()
    return {
        sample.name for family in text_string_to_metric_families(text) for sample in family.samples
    }


def test_rules_are_whole() -> None:
    """Each rule has a name of its own, a severity and a summary."""
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found) > 10
    for rule in found:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]


def test_metrics_exist(cluster: Cluster) -> None:
    """Every metric that a rule names is served by a shipper or a receiver."""
    shipper, receiver = cluster.pair(
        "--battery", "45s", receiver=("--on-promote", "sh -c 'sleep 60'")
    )
    until(lambda: status(receiver)["txn_durable"] and not status(receiver)["incomplete"])
    served = samples_of(shipper) | samples_of(receiver)
    assert receiver.ask("/v1/promote", "POST", {"accept_loss": True})[0] == 200
    until(lambda: status(receiver)["application"])
    served |= samples_of(receiver)
    # Counters that have not counted yet are not served.
    served |= {"pmlog_requests_refused_total"}
    named = {name for rule in rules() for name in re.findall(r"\bpmlog_[a-z_]+\b", rule["expr"])}
    assert len(named) > 10
    assert named <= served


def test_states_in_rules() -> None:
    """A state that a rule compares with is one of the states."""
    text = " ".join(rule["expr"] for rule in rules())
    known = {"power": set(POWER_STATES), "replica": set(STATES)}
    found = re.findall(r'pmlog_(power|replica)_state\{state="([a-z]+)"\}', text)
    assert found
    for kind, state in found:
        assert state in known[kind]


def test_states_are_explained() -> None:
    """The table of states in docs/operations.md has every state of power and replicas."""
    found = [rows for _, rows in tables(DOCS / "operations.md") if rows and "state" in rows[0]]
    assert len(found) == 1
    named = {row["state"] for row in found[0]}
    assert set(POWER_STATES) | set(STATES) <= named
    assert {"at_risk", "is_blocked", "fenced", "diverged", "incomplete"} <= named
