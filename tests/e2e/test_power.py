"""Power loss, promotion and fencing between real processes."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import uuid
from pathlib import Path

import pytest

import pmlog
from tests.e2e.services import ROOT, WRITER, Cluster, shipped, status, until
from tests.e2e.test_shipping import has_all, last_of
from tests.support import SMALL


def test_power_loss(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers stop, the tail is sealed, the host is lost, the application goes on elsewhere."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = cluster.folder / "application.out"
    script = cluster.folder / "application.sh"
    script.write_text(f'exec "{sys.executable}" "{WRITER}" "$PMLOG_POOL" > "{out}"\n')
    shipper, receiver = cluster.pair(receiver=("--on-promote", f"sh {script}"))
    writer = cluster.busy_writer(receiver)

    code, answer = shipper.ask("/v1/power-loss", "POST", {"timeout_s": 60})
    assert (code, answer["sealed"]) == (200, True)
    stopped = writer.hear()
    assert stopped == {"event": "stopped", "error": "PoolFrozenError", "last": stopped["last"]}
    # A second trigger does no harm, and an application that is restarted is refused.
    assert shipper.ask("/v1/power-loss", "POST")[1]["sealed"]
    assert cluster.writer().hear() == {"event": "refused", "error": "PoolFrozenError"}
    assert status(receiver)["sealed"]

    shipper.kill()
    shutil.rmtree(cluster.pool)
    code, answer = receiver.ask("/v1/promote", "POST")
    assert (code, answer["promoted"], answer["complete"], answer["epoch"]) == (200, True, True, 2)
    until(lambda: out.exists() and out.read_text())
    assert f'"last": {stopped["last"]}' in out.read_text()
    assert '"epoch": 2' in out.read_text()
    known = status(receiver)
    assert known["state"] == "promoted"
    assert known["application"]["exit"] is None
    assert receiver.end() == 0
    assert last_of(cluster.replica("one")) > stopped["last"]


def test_application_exit_is_seen(cluster: Cluster) -> None:
    """The exit code of the application stands in the status."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        pool.dict("words")["a"] = 1
        shipper = cluster.shipper()
        receiver = cluster.receiver("one", shipper.port, "--on-promote", "sh -c 'exit 7'")
        pool.wait(pmlog.Level.COMMITTED)
        until(lambda: status(receiver)["txn_durable"])
        assert receiver.ask("/v1/promote", "POST", {"accept_loss": True})[0] == 200
        until(lambda: status(receiver)["application"]["exit"] == 7)


def test_power_returns(cluster: Cluster) -> None:
    """When power is back writers go on, and the receiver's seal is gone before."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        words = pool.dict("words")
        words["a"] = 1
        shipper = cluster.shipper()
        receiver = cluster.receiver("one", shipper.port)
        until(lambda: status(receiver)["txn_durable"])
        assert shipper.ask("/v1/power-loss", "POST")[1]["sealed"]
        before = pool.position
        with pytest.raises(pmlog.PoolFrozenError) as caught:
            words["b"] = 2
        assert caught.value.changed is False
        assert pool.position == before
        assert "b" not in words
        code, answer = shipper.ask("/v1/power-loss", "DELETE")
        assert (code, answer["restored"]) == (200, True)
        assert not status(receiver)["sealed"]
        words["b"] = 2
        pool.wait(pmlog.Level.REPLICATED, timeout=60)
        assert receiver.ask("/v1/promote", "POST")[0] == 409


def test_unsealed_promotion(cluster: Cluster) -> None:
    """Without a seal promotion is refused, says what it knows, and --accept-loss takes that."""
    shipper, receiver = cluster.pair()
    writer = cluster.busy_writer(receiver)
    shipper.kill()
    until(lambda: status(receiver)["state"] == "connecting")
    durable = status(receiver)["lsn_durable"]
    code, answer = receiver.ask("/v1/promote", "POST")
    assert (code, answer["promoted"], answer["lsn_durable"]) == (409, False, durable)
    assert "the source's tail is unknown" in answer["reason"]
    assert str(durable) in answer["reason"]
    assert status(receiver)["state"] == "connecting"
    code, answer = receiver.ask("/v1/promote", "POST", {"accept_loss": True})
    assert (code, answer["promoted"], answer["complete"]) == (200, True, False)
    assert answer["lsn"] == durable
    assert receiver.ask("/v1/promote", "POST", {"accept_loss": True})[0] == 409
    writer.kill()
    assert 0 < last_of(cluster.replica("one")) <= last_of(cluster.pool)


def test_old_primary_is_fenced(cluster: Cluster) -> None:
    """A primary whose receiver was promoted learns it: its writer stops, and cannot be restarted."""
    shipper, receiver = cluster.pair()
    writer = cluster.busy_writer(receiver)
    assert receiver.ask("/v1/promote", "POST", {"accept_loss": True})[0] == 200
    stopped = writer.hear()
    assert stopped["error"] == "FencedError"
    assert shipped(shipper)["fenced_epoch"] == 2
    assert cluster.writer().hear() == {"event": "refused", "error": "FencedError"}
    assert last_of(cluster.replica("one")) <= last_of(cluster.pool)
    with pmlog.open(cluster.replica("one")) as pool:
        pool.dict("numbers")["new"] = 1
        assert pool.position.epoch == 2


def test_promoted_is_not_promoted_again(cluster: Cluster) -> None:
    """A receiver that is restarted after promotion stays promoted, at the same epoch."""
    with pmlog.open(cluster.pool, **SMALL) as pool:
        pool.dict("words")["a"] = 1
        shipper = cluster.shipper()
        receiver = cluster.receiver("one", shipper.port)
        until(lambda: status(receiver)["txn_durable"])
        assert receiver.ask("/v1/promote", "POST", {"accept_loss": True})[0] == 200
    receiver.kill()
    again = cluster.receiver("one", shipper.port)
    assert (status(again)["state"], status(again)["epoch"]) == ("promoted", 2)
    assert again.end() == 0
    with pmlog.open(cluster.replica("one"), create=False) as copy:
        assert copy.position.epoch == 2
        assert copy.dict("words")["a"] == 1


def test_shipper_restarts_frozen(cluster: Cluster) -> None:
    """A shipper that is killed while it saves takes it up again."""
    shipper, receiver = cluster.pair()
    receiver.kill()
    writer = cluster.writer()
    writer.hear()
    code, answer = shipper.ask("/v1/power-loss", "POST", {"timeout_s": 0.1})
    assert (code, answer["sealed"]) == (409, False)
    assert writer.hear()["error"] == "PoolFrozenError"
    shipper.kill()
    again = cluster.shipper(port=shipper.port)
    receiver = cluster.receiver("one", again.port)
    until(lambda: status(receiver)["sealed"])
    assert has_all(receiver, cluster.pool)
    assert again.ask("/v1/power-loss", "POST")[1]["sealed"]


def test_receiver_killed_after_promotion(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A promoted receiver that was killed comes back beside its application, which goes on.

    1. The receiver is promoted, and starts the application.
    2. SIGKILL to the receiver; the application holds the pool and writes.
    3. The receiver is started again: it has to say that it is promoted, and to tell old primaries.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = cluster.folder / "application.out"
    script = cluster.folder / "application.sh"
    script.write_text(f'exec "{sys.executable}" "{WRITER}" "$PMLOG_POOL" >> "{out}"\n')
    with pmlog.open(cluster.pool, **SMALL) as pool:
        pool.array("last", shape=(1,), dtype="i8")
        pool.dict("numbers")
        shipper = cluster.shipper()
        command = ("--on-promote", f"sh {script}")
        receiver = cluster.receiver("one", shipper.port, *command)
        until(lambda: status(receiver)["txn_durable"])
        assert receiver.ask("/v1/promote", "POST", {"accept_loss": True})[0] == 200
        until(lambda: out.exists() and '"open"' in out.read_text())
        application = status(receiver)["application"]["pid"]
        receiver.kill()
        try:
            again = cluster.receiver("one", shipper.port, *command)
            until(lambda: status(again)["state"] == "promoted")
            assert status(again)["epoch"] == 2
            before = numbers(cluster)
            until(lambda: numbers(cluster) > before)
        finally:
            os.kill(application, signal.SIGKILL)


def numbers(cluster: Cluster) -> int:
    """Return how far the application at the promoted receiver has come."""
    with pmlog.open(cluster.replica("one"), readonly=True) as pool:
        return int(pool.array("last")[0])


@pytest.mark.parametrize("control", ["of another boot", "gone"])
def test_host_comes_back_frozen(cluster: Cluster, control: str) -> None:
    """A pool that was sealed, and whose host then restarted, is shipped again, and can be restored.

    1. Frozen, sealed; the host restarts, from its disk or from a copy without the control file.
    2. The shipper finds the stop mark, and no writer to stop.
    """
    shipper, receiver = cluster.pair()
    writer = cluster.busy_writer(receiver)
    assert shipper.ask("/v1/power-loss", "POST")[1]["sealed"]
    last = writer.hear()["last"]
    shipper.kill()
    file = cluster.pool / "control"
    if control == "gone":
        file.unlink()
    else:
        boot = uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes
        data = file.read_bytes()
        assert boot in data
        file.write_bytes(data.replace(boot, bytes(16)))
    receiver.kill()
    again = cluster.shipper()
    receiver = cluster.receiver("one", again.port)
    assert cluster.writer().hear()["event"] == "refused"
    until(
        lambda: status(receiver)["state"] in ("saving", "receiving") and status(receiver)["sealed"]
    )
    code, answer = again.ask("/v1/power-loss", "DELETE", {"timeout_s": 60})
    assert (code, answer["restored"]) == (200, True)
    assert not status(receiver)["sealed"]
    resumed = cluster.writer(str(last + 100))
    assert resumed.hear() == {"event": "open", "last": last, "epoch": 1}
    assert resumed.hear()["last"] == last + 100
    until(lambda: has_all(receiver, cluster.pool))
    assert last_of(cluster.replica("one")) == last + 100
