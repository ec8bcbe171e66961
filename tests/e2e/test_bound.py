"""The backlog's bound between real processes, and shippers that are killed while it holds."""

from __future__ import annotations

import pytest

import pmlog
from tests.e2e.services import Cluster, shipped, status, until
from tests.support import SMALL, faults_of


def test_shipper_killed(cluster: Cluster) -> None:
    """The receivers of a killed shipper hold nobody up; one that was required does, as it must."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        region = pool.region("r", 30_000)
        shipper = cluster.shipper()
        receiver = cluster.receiver("one", shipper.port)
        until(lambda: status(receiver)["state"] == "receiving")
        shipper.kill()
        lsn = pool.position.lsn
        for number in range(60):  # many laps of the ring
            region.write(0, bytes([number]) * 30_000)
        assert pool.position.lsn > lsn + 6 * pool.status().ring_bytes
        # It fell out of the ring meanwhile, and gets blocks.
        again = cluster.shipper("--required", "one", port=shipper.port)
        until(
            lambda: (
                shipped(again)["receivers"].get("one", {}).get("applied", 0) >= pool.position.lsn
            )
        )
        again.kill()
        with pytest.raises(pmlog.LogFullError):  # noqa: PT012 - some write of many
            for number in range(60):
                region.write(0, bytes([number]) * 30_000)
    assert faults_of(cluster.pool) == []
