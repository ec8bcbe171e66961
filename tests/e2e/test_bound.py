"""The backlog's bound between real processes, and shippers that are killed while it holds."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import Any

import pytest

import pmlog
from pmlog.containers.region import PoolRegion
from pmlog.log import LogReader
from tests.e2e.peers import Mute
from tests.e2e.relay import Relay
from tests.e2e.services import ROOT, Cluster, shipped, status, until
from tests.support import PATIENCE_S, SMALL, abandon, faults_of

LSN_FIRST = 4096


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


BOUND = 1 << 20
ROOMY: dict[str, Any] = {"size": "1MiB", "log_size": "8MiB", "max_size": "1GiB"}


def fill(region: PoolRegion, size: int = 1000) -> int:
    """Write until the bound stops it; return how many transactions that were."""
    count = 0
    with pytest.raises(pmlog.BacklogError) as raised:  # noqa: PT012 - some write of many
        while True:
            region.write(0, bytes([count % 251]) * size)
            count += 1
    error = raised.value
    assert not error.changed
    assert error.retryable
    assert isinstance(error, pmlog.LogFullError)
    return count


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocked writers give up soon."""
    monkeypatch.setattr("pmlog.limits.LOCK_TIMEOUT_S", 0.3)


@pytest.mark.usefixtures("impatient")
def test_bound_is_never_passed(cluster: Cluster) -> None:
    """With a receiver that takes everything and acknowledges nothing writers stop at the bound."""
    with pmlog.open(cluster.pool, **ROOMY) as pool:
        region = pool.region("r", 30_000)
        shipper = cluster.shipper("--max-lag", "1MiB")
        with Mute(shipper.port) as mute:
            assert mute.connected.wait(PATIENCE_S)
            assert fill(region) > 500
            end = pool.position.lsn
            assert 0.9 * BOUND < end - LSN_FIRST <= BOUND
            known = pool.status()
            assert known.is_blocked
            assert 0 < (known.backlog_limit_bytes or 0) <= BOUND
            until(lambda: shipped(shipper)["backlog"]["is_blocked"])
            backlog = shipped(shipper)["backlog"]
            assert backlog["bytes"] == end - LSN_FIRST
            assert backlog["limit_bytes"] == BOUND
            # Nothing was begun and nothing changed.
            with pytest.raises(pmlog.BacklogError, match="receivers lack"):
                region.write(0, b"x" * 30_000)
            assert pool.position.lsn == end
        metrics = shipper.read("/metrics").decode()
        for name in ("bytes", "limit_bytes", "at_risk", "rate_bytes_per_second"):
            assert f"pmlog_backlog_{name}{{" in metrics
        until(lambda: shipped(shipper)["backlog"]["at_risk"])  # nobody is there any more
        # A receiver that does its work frees the writer.
        receiver = cluster.receiver("one", shipper.port)
        until(lambda: status(receiver)["lsn_durable"] == end)
        region.write(0, b"y" * 30_000)
        until(lambda: status(receiver)["lsn_durable"] == pool.position.lsn)
        until(lambda: not shipped(shipper)["backlog"]["at_risk"])
    assert faults_of(cluster.pool) == []


@pytest.mark.usefixtures("impatient")
def test_beginning_anew_gives_no_credit(cluster: Cluster) -> None:
    """A receiver that begins one baseline after the other has nothing, and the bound stays."""
    with pmlog.open(cluster.pool, **ROOMY) as pool:
        region = pool.region("r", 30_000)
        begin = pool.position.lsn
        shipper = cluster.shipper("--max-lag", "1MiB")
        with Mute(shipper.port, is_restless=True) as mute:
            assert mute.connected.wait(PATIENCE_S)
            for _ in range(4):
                fill(region)
                pool.checkpoint()  # the next baseline begins here
                count = len(mute.answers)
                until(lambda count=count: len(mute.answers) > count + 2)  # type: ignore[misc]
            assert set(mute.answers) == {"Baseline"}
            assert 0 < pool.position.lsn - begin <= BOUND
            assert shipped(shipper)["backlog"]["at_risk"]
    assert faults_of(cluster.pool) == []


@pytest.mark.usefixtures("impatient")
def test_bound_outlives_the_writer(cluster: Cluster) -> None:
    """A writer that is opened again under the same shipper has no more credit than before."""
    with pmlog.open(cluster.pool, **ROOMY) as pool:
        region = pool.region("r", 30_000)
        shipper = cluster.shipper("--max-lag", "1MiB")
        with Mute(shipper.port) as mute:
            assert mute.connected.wait(PATIENCE_S)
            fill(region)
            end = pool.position.lsn
            abandon(pool)
            with pmlog.open(cluster.pool, **ROOMY) as again, pytest.raises(pmlog.BacklogError):
                again.region("r").write(0, b"x")
            with LogReader(cluster.pool) as reader:
                assert reader.lsn_durable == end
    assert faults_of(cluster.pool) == []


def test_blocked_writer_outlives_the_shipper(cluster: Cluster) -> None:
    """Writers that wait at the bound go on some seconds after their shipper was killed."""
    with pmlog.open(cluster.pool, **ROOMY) as pool:
        region = pool.region("r", 30_000)
        shipper = cluster.shipper("--max-lag", "64KiB")
        with Mute(shipper.port) as mute:
            assert mute.connected.wait(PATIENCE_S)
            while not pool.status().is_blocked:
                region.write(0, b"x" * 20_000)
            end = pool.position.lsn
            shipper.kill()
            begun = time.monotonic()
            region.write(0, b"y")  # waits, and goes on by itself
            assert time.monotonic() - begun < PATIENCE_S / 2
            assert pool.position.lsn > end
            assert pool.status().backlog_limit_bytes is None
            for _ in range(20):
                region.write(0, b"z" * 20_000)
    assert faults_of(cluster.pool) == []


def test_only_listening_holds_nobody_up(cluster: Cluster) -> None:
    """Where no bound is set, a receiver that acknowledges nothing slows no writer."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        region = pool.region("r", 30_000)
        shipper = cluster.shipper()
        with Mute(shipper.port) as mute:
            assert mute.connected.wait(PATIENCE_S)
            begun = time.monotonic()
            for number in range(100):
                region.write(0, bytes([number]) * 30_000)
            assert time.monotonic() - begun < PATIENCE_S / 2
            assert not pool.status().is_blocked
            assert shipped(shipper)["backlog"]["limit_bytes"] is None
            assert not shipped(shipper)["backlog"]["at_risk"]
    assert faults_of(cluster.pool) == []


def test_risk_is_shown(cluster: Cluster) -> None:
    """When the network slows down under a battery, what cannot be shipped in time is shown."""
    with pmlog.open(cluster.pool, size="1MiB", log_size="64MiB", max_size="1GiB") as pool:
        region = pool.region("r", 1 << 20)
        shipper = cluster.shipper("--battery", "10s")
        with Relay(shipper.port) as relay:
            receiver = cluster.receiver("one", relay.port)
            until(lambda: status(receiver)["state"] == "receiving")
            block = random.Random(1).randbytes(1 << 19)

            def backlog() -> dict[str, Any]:
                known: dict[str, Any] = shipped(shipper)["backlog"]
                return known

            def fast() -> bool:
                region.write(0, block)
                return bool(backlog()["rate_bytes_per_s"] > 4 << 20)

            until(fast)
            until(lambda: backlog()["bytes"] == 0)
            assert not backlog()["at_risk"]
            relay.throttle(100_000)
            for _ in range(8):
                region.write(0, block)
            until(lambda: backlog()["at_risk"])
            known = backlog()
            assert known["rate_bytes_per_s"] < 4 << 20
            if known["at_risk"] and known["bytes"] > known["limit_bytes"]:
                assert known["missing_bytes"] == known["bytes"] - known["limit_bytes"]
            until(lambda: backlog()["is_blocked"])
            assert pool.status().is_blocked
            relay.throttle(None)
            until(lambda: backlog()["bytes"] == 0)
            assert not backlog()["at_risk"]
            region.write(0, b"x")
    assert faults_of(cluster.pool) == []


@pytest.mark.parametrize("text", ["nothing", "0", "2 parsecs"])
def test_bad_bound(cluster: Cluster, text: str) -> None:
    """A bound that cannot be is refused at the start, with what it may be."""
    pmlog.open(cluster.pool, **SMALL).close()
    done = subprocess.run(
        [sys.executable, "-m", "shipper", str(cluster.pool), "--max-lag", text],
        check=False, capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2
    assert "max-lag" in done.stderr
