"""Status pages and metrics, of every state a service can be in."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from receiver import metrics as receiver_metrics
from receiver import page as receiver_page
from shipper import metrics as shipper_metrics
from shipper import page as shipper_page

NASTY = "<script>alert('x')</script>\"&"


def shipped(**changes: Any) -> dict[str, Any]:
    """Return what a shipper tells of a pool."""
    return {
        "id": "3f", "path": "/dev/shm/orders", "epoch": 1, "writer_pid": 7, "lsn_durable": 123456,
        "ring_bytes": 1 << 20, "require": 1,
        "levels": {"received": 1, "replicated": 2, "applied": 3}, "delay_ns": 1_500_000,
        "frozen": False, "fenced_epoch": None, "failure": None,
        "sent": {"frames": 1, "raw_bytes": 2, "wire_bytes": 3, "blocks": 4},
        "receivers": {
            "one": {"connected": True, "required": True, "received": 9, "durable": 8, "applied": 7,
                    "behind_bytes": 6, "sealed": False},
            NASTY: {"connected": False, "required": False, "received": 9, "durable": 8,
                    "applied": 7, "behind_bytes": -6},
        },
    } | changes  # fmt: skip


BACKLOG = {
    "bytes": 3 << 20, "limit_bytes": 4 << 20, "rate_bytes_per_s": 5e6, "at_risk": True,
    "missing_bytes": 77, "is_blocked": True,
}  # fmt: skip
POWER = {"state": "saving", "source": "pwr", "since_s": 3.2, "battery_seconds_left": 41.5}
POOLS = [
    shipped(),
    shipped(backlog=BACKLOG, power=POWER),
    shipped(backlog=BACKLOG | {"limit_bytes": None, "rate_bytes_per_s": None, "at_risk": False}),
    shipped(power=POWER | {"state": "mains", "source": None, "since_s": None,
                           "battery_seconds_left": None}),
    shipped(frozen=True, writer_pid=None),
    shipped(fenced_epoch=2),
    shipped(failure="gone"),
    shipped(receivers={}),
]  # fmt: skip


def received(**changes: Any) -> dict[str, Any]:
    """Return what a receiver tells of itself."""
    return {
        "name": "one", "path": "/tmp/r", "state": "receiving", "connections": 3,
        "last_error": NASTY, "failure": None, "epoch": 1, "lsn_received": 10, "lsn_durable": 8,
        "txn_durable": 2, "lsn_primary": 12, "lsn_first": 1, "frames": 5, "raw_bytes": 6,
        "wire_bytes": 7, "incomplete": False, "blocks": 0, "sealed": False, "complete": None,
        "application": None,
    } | changes  # fmt: skip


EMPTY = dict.fromkeys(
    (
        "last_error",
        "epoch",
        "lsn_received",
        "lsn_durable",
        "txn_durable",
        "lsn_primary",
        "lsn_first",
    )
)
REPLICAS = [
    received(),
    received(state="connecting", **EMPTY),
    received(incomplete=True, blocks=7),
    received(sealed=True, state="saving"),
    received(
        state="promoted", complete=True, application={"pid": 1, "exit": None, "failure": None}
    ),
    received(state="promoted", complete=False, application={"pid": 1, "exit": 7, "failure": None}),
    received(state="promoted", application={"pid": None, "exit": None, "failure": NASTY}),
    received(failure="no room"),
]


class Tags(HTMLParser):
    """Counts tags, and sees whether they close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """See that the right tag closes."""
        assert self.open.pop() == tag


def look(text: str) -> Tags:
    """Check that a page is well formed, has no script, and nothing of a peer as markup."""
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    assert not tags.seen & {"script", "iframe", "img", "link", "form", "a"}
    assert not {name for name in tags.attributes if name.startswith("on")} | (
        tags.attributes & {"src", "href", "style"}
    )
    assert len(text) < 20_000
    return tags


@pytest.mark.parametrize("pool", POOLS)
def test_shipper_page(pool: dict[str, Any]) -> None:
    """The page shows every state, with and without the figures of backlog and power."""
    text = shipper_page.render([pool, pool])
    tags = look(text)
    assert ("meter" in tags.seen) == bool((pool.get("backlog") or {}).get("limit_bytes"))
    assert "123,456" in text
    word, _ = shipper_page.state_of(pool)
    assert f">{word}</b>" in text


def test_states() -> None:
    """The gravest state is the one that is shown."""
    words = [shipper_page.state_of(pool)[0] for pool in POOLS]
    assert words == [
        "running", "at risk", "blocked", "running", "frozen", "fenced by epoch 2",
        "cannot be read", "running",
    ]  # fmt: skip


@pytest.mark.parametrize("known", REPLICAS)
def test_receiver_page(known: dict[str, Any]) -> None:
    """The page shows every state."""
    text = receiver_page.render(known)
    look(text)
    assert f">{known['state']}</b>" in text


def figures(text: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return samples by name, after a check of names and help."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert re.fullmatch(r"pmlog_[a-z_]+", family.name), family.name
        assert family.documentation, family.name
        assert family.type in ("gauge", "counter"), (family.name, family.type)
        assert not family.name.endswith(("_ns", "_ms", "_kb", "_total"))
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            found.setdefault(sample.name, []).append((dict(sample.labels), float(sample.value)))
    return found


@pytest.mark.parametrize("pool", POOLS)
def test_shipper_metrics(pool: dict[str, Any]) -> None:
    """Every figure that is known is there, in base units, whatever else is not known."""
    found = figures(shipper_metrics.render([pool], {"token": 3}))
    assert found["pmlog_commit_delay_seconds"] == [({"pool": "3f"}, 0.0015)]
    assert found["pmlog_up"][0][1] == (pool["failure"] is None)
    assert found["pmlog_sent_raw_bytes_total"] == [({"pool": "3f"}, 2.0)]
    assert found["pmlog_requests_refused_total"] == [({"reason": "token"}, 3.0)]
    assert {labels["level"] for labels, _ in found["pmlog_level_lsn"]} == set(pool["levels"])
    behind = {
        labels["receiver"]: value for labels, value in found.get("pmlog_receiver_behind_bytes", [])
    }
    assert behind == ({"one": 6.0, NASTY: 0.0} if pool["receivers"] else {})
    if pool.get("backlog"):
        assert found["pmlog_backlog_bytes"] == [({"pool": "3f"}, float(3 << 20))]
        assert ("pmlog_backlog_limit_bytes" in found) == (
            pool["backlog"]["limit_bytes"] is not None
        )
    if pool.get("power"):
        states = {labels["state"]: value for labels, value in found["pmlog_power_state"]}
        assert sum(states.values()) == states[pool["power"]["state"]] == 1


@pytest.mark.parametrize("known", REPLICAS)
def test_receiver_metrics(known: dict[str, Any]) -> None:
    """Every figure that is known is there, and none that is not."""
    found = figures(receiver_metrics.render(known, {}))
    assert found["pmlog_replica_connections_total"] == [({}, 3.0)]
    assert ("pmlog_replica_lsn_durable" in found) == (known["lsn_durable"] is not None)
    assert sum(value for _, value in found["pmlog_replica_state"]) == 1
    assert found["pmlog_replica_up"][0][1] == (known["failure"] is None)
    if known["lsn_primary"] is not None:
        assert found["pmlog_replica_behind_bytes"] == [({}, 4.0)]
