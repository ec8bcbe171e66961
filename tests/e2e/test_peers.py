"""`pmlog promote --peer`: the receiver that has most is promoted, and no second one."""

from __future__ import annotations

import json

import pytest

from tests.e2e.services import Cluster, Service, status, until
from tests.e2e.test_return import count
from tests.e2e.test_shipping import command, end_of, has_all


@pytest.fixture
def two(cluster: Cluster) -> tuple[Service, Service]:
    """Give two receivers of a pool whose primary is gone, the first one behind the second."""
    shipper, behind = cluster.pair()
    count(cluster, cluster.pool, 60)
    until(lambda: has_all(behind, cluster.pool))
    behind.kill()
    farther = cluster.receiver("two", shipper.port)
    count(cluster, cluster.pool, 40)
    until(lambda: has_all(farther, cluster.pool))
    shipper.kill()
    behind = cluster.receiver("one", shipper.port)
    until(lambda: status(farther)["state"] == "connecting")
    return behind, farther


def test_the_one_behind_is_refused(cluster: Cluster, two: tuple[Service, Service]) -> None:
    """Both positions are said; the farther one is promoted, and then the other one is refused."""
    behind, farther = two
    lsns = [str(status(one)["lsn_durable"]) for one in two]
    assert lsns[0] != lsns[1] == str(end_of(cluster.pool).lsn)
    code, text = command("promote", behind.url, "--peer", farther.url)
    assert code == 1, text
    assert all(lsn in text for lsn in lsns), text
    assert [status(one)["state"] for one in two] == ["connecting", "connecting"]
    # What is left is the loss that nobody can tell: the primary's own.
    code, text = command("promote", farther.url, "--peer", behind.url)
    assert (code, "not sealed" in text) == (1, True), text
    code, text = command("promote", farther.url, "--peer", behind.url, "--accept-loss", "--json")
    assert code == 0, text
    told = json.loads(text)
    assert (told["promoted"], told["epoch"], len(told["peers"])) == (True, 2, 1)
    code, text = command("promote", behind.url, "--peer", farther.url)
    assert (code, "primary of epoch 2 already" in text) == (1, True), text
    assert status(behind)["state"] == "connecting"


def test_loss_is_accepted(two: tuple[Service, Service]) -> None:
    """The one that is behind is promoted by the operator's word, which is repeated."""
    behind, farther = two
    code, text = command("promote", behind.url, "--peer", farther.url, "--accept-loss")
    assert code == 0, text
    assert "accepted: " in text
    assert str(status(farther)["lsn_durable"]) in text


def test_a_peer_that_is_away(two: tuple[Service, Service]) -> None:
    """A peer that does not answer is named, and stands in the way."""
    behind, farther = two
    behind.kill()
    code, text = command("promote", farther.url, "--peer", behind.url)
    assert code == 1, text
    assert behind.url in text
    assert "unknown" in text
    assert status(farther)["state"] == "connecting"
    code, text = command("promote", farther.url, "--peer", behind.url, "--accept-loss")
    assert (code, "promoted: " in text) == (0, True), text
