"""`pmlog status` of pools in folders, and of several things at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pmlog
from pmlog import marks
from pmlog.cli import ExitCode
from tests.e2e.services import ROOT, Cluster, status, until
from tests.e2e.test_return import count, promote, spoil
from tests.e2e.test_shipping import end_of, has_all


def tell(*targets: Path | str) -> tuple[int, Any]:
    """Run the command; return its exit code and what it tells."""
    done = subprocess.run(
        [sys.executable, "-m", "pmlog.cli", "status", *map(str, targets), "--json"],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_pool_that_is_shipped(cluster: Cluster) -> None:
    """Position, writer, shipper, levels and consumers of a pool in use."""
    shipper, receiver = cluster.pair("--max-lag", "1MiB")
    last = count(cluster, cluster.pool, 50)
    with pmlog.open(cluster.pool) as pool:
        until(lambda: has_all(receiver, cluster.pool))
        code, known = tell(cluster.pool)
        assert known["position"] == str(pool.position)
    assert code == 0
    assert (known["epoch"], known["stop"], known["incomplete"]) == (1, None, None)
    assert known["txn"] >= last
    assert known["writer_pid"] is not None
    assert known["state"] == f"written by process {known['writer_pid']}"
    assert known["lsn_checkpoint"] <= known["lsn_durable"]
    assert 0 <= known["shipper_age_s"] < 30
    assert known["bound"]["limit_bytes"] > 0
    (consumer,) = [one for one in known["consumers"] if one["name"] == "one"]
    assert consumer["behind_bytes"] >= 0
    assert known["domain"]
    # Several at a time, with what each of them says.
    code, known = tell(cluster.pool, shipper.url, receiver.url)
    assert code == 0
    assert [sorted(one)[0] for one in known[1:]] == ["pools", "application"]


def test_replica_beside_its_receiver(cluster: Cluster) -> None:
    """A receiver's folder stands for its replica, with the seal that lies beside it."""
    shipper, receiver = cluster.pair()
    count(cluster, cluster.pool, 50)
    assert shipper.ask("/v1/power-loss", "POST", {"timeout_s": 60})[1]["sealed"]
    code, known = tell(cluster.folder / "one", cluster.pool)
    assert code == 0
    replica, primary = known
    assert (replica["state"], primary["state"]) == ("replica", "stopped for power")
    assert replica["path"] == str(cluster.replica("one"))
    assert replica["receiver"]["seal"]["place"]["lsn"] == end_of(cluster.pool).lsn
    assert primary["stop"]["told"] == ["one"]
    assert status(receiver)["sealed"]


def test_fenced(cluster: Cluster) -> None:
    """An old primary says which epoch has taken over once it knows."""
    shipper, receiver = cluster.pair()
    count(cluster, cluster.pool, 20)
    until(lambda: has_all(receiver, cluster.pool))
    shipper.kill()
    promote(receiver)
    cluster.shipper(port=shipper.port)
    until(lambda: marks.stop_of(cluster.pool))
    code, known = tell(cluster.pool)
    assert (code, known["state"], known["heard_epoch"]) == (0, "fenced", 2)
    assert known["stop"]["epoch"] == 2


def test_what_cannot_be_opened(cluster: Cluster) -> None:
    """Damaged and incomplete pools are told of, not refused; one that is not there is."""
    cluster.make_pool()
    count(cluster, cluster.pool, 20)
    marks.set_incomplete(cluster.pool, marks.Incomplete("repair"))
    code, known = tell(cluster.pool)
    assert (code, known["state"], known["incomplete"]) == (0, "incomplete", "repair")
    marks.set_incomplete(cluster.pool, None)
    for at in (4096, 8192):
        spoil(cluster.pool / "image", at + 20)
    code, known = tell(cluster.pool)
    assert (code, known["state"]) == (ExitCode.UNREADABLE, "damaged")
    assert "pmlog repair" in known["fault"]
    assert known["pool"]
    code, known = tell(cluster.folder / "none", cluster.pool)
    assert (code, "error" in known[0]) == (ExitCode.NO_POOL, True)
