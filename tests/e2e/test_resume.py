"""After any interruption the first byte that is sent is the first one that the receiver lacks."""

from __future__ import annotations

import random

from pmlog.replica import Replica
from tests.e2e.relay import Cut, Relay
from tests.e2e.services import Cluster, Service, shipped, status, until
from tests.e2e.test_shipping import has_all, last_of

INTERRUPTIONS = 6


def resumed(receiver: Service) -> int:
    """Return the LSN of the first byte that came on the present connection, once one has come."""
    known = until(lambda: (said := status(receiver))["lsn_first"] and said)
    return int(known["lsn_first"])


def lost(receiver: Service) -> int:
    """Return where a receiver's log ends, once it has noticed that the connection is gone."""
    until(lambda: status(receiver)["state"] == "connecting")
    return int(status(receiver)["lsn_durable"])


def test_resume_is_exact(cluster: Cluster, rng: random.Random) -> None:
    """Whatever broke: receiver, shipper or network, and in whatever order, under load."""
    cluster.make_pool()
    shipper = cluster.shipper("--required", "one")
    with Relay(shipper.port) as relay:
        receiver = cluster.receiver("one", relay.port)
        until(lambda: status(receiver)["state"] == "receiving")
        writer = cluster.busy_writer(receiver)
        for _ in range(INTERRUPTIONS):
            what = rng.choice(("receiver", "shipper", "network", "writer"))
            print(what)
            if what == "receiver":
                receiver.kill()
                with Replica(cluster.replica("one")) as replica:
                    durable = replica.position.lsn
                receiver = cluster.receiver("one", relay.port)
            elif what == "shipper":
                shipper.kill()
                durable = lost(receiver)
                shipper = cluster.shipper("--required", "one", port=0)
                relay.target_port = shipper.port
            elif what == "network":
                relay.cut(rng.choice((Cut.RESET, Cut.HALF_OPEN_SOURCE)))
                durable = lost(receiver)
                relay.restore()
            else:  # nothing is sent again, and nothing is left out
                writer.kill()
                before = status(receiver)["connections"]
                writer = cluster.busy_writer(receiver)
                assert status(receiver)["connections"] == before
                continue
            assert resumed(receiver) == durable
            assert shipped(shipper)["receivers"]["one"]["lsn_first"] == durable
        writer.kill()
        until(lambda: has_all(receiver, cluster.pool))
    assert last_of(cluster.replica("one")) == last_of(cluster.pool)


def test_half_open_at_the_shipper(cluster: Cluster) -> None:
    """A receiver that comes again while its old connection still stands is served at once."""
    cluster.make_pool()
    shipper = cluster.shipper("--required", "one")
    with Relay(shipper.port) as relay:
        receiver = cluster.receiver("one", relay.port)
        until(lambda: status(receiver)["state"] == "receiving")
        writer = cluster.busy_writer(receiver)
        relay.cut(Cut.HALF_OPEN_SOURCE)  # the shipper is told nothing
        until(lambda: status(receiver)["state"] == "connecting")
        assert shipped(shipper)["receivers"]["one"]["connected"]
        receiver.kill()
        direct = cluster.receiver("one", shipper.port)
        until(lambda: status(direct)["lsn_first"])
        writer.kill()
        until(lambda: has_all(direct, cluster.pool))
    assert last_of(cluster.replica("one")) == last_of(cluster.pool)
