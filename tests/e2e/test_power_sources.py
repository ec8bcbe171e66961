"""Power sources against real processes: signals, a UPS daemon, the kernel's files, a dying battery."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import pmlog
from pmlog import marks
from shipper.power.nut import NutSource
from shipper.power.source import Event, OnBattery, Restored, Source
from tests.e2e.nut import UPS, nut
from tests.e2e.services import ROOT, Cluster, Service, shipped, status, until
from tests.e2e.test_shipping import end_of, last_of
from tests.support import PATIENCE_S


def power(shipper: Service) -> dict[str, Any]:
    """Return how the only pool stands to the power."""
    known: dict[str, Any] = shipped(shipper)["power"]
    return known


def is_in(shipper: Service, state: str) -> Callable[[], bool]:
    """Return whether the pool is in a state."""
    return lambda: bool(power(shipper)["state"] == state)


@contextlib.asynccontextmanager
async def watching(source: Source) -> AsyncIterator[Callable[[], Any]]:
    """Watch a source; give what waits for its next event that is not like the one before."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    task = asyncio.create_task(source.watch(events.put_nowait))
    last: Event | None = None

    async def hear() -> Event:
        nonlocal last
        while True:
            event = await asyncio.wait_for(events.get(), PATIENCE_S)
            if event != last:
                last = event
                return event

    yield hear
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_sigpwr(cluster: Cluster) -> None:
    """SIGPWR seals; a second one does no harm; only the operator can say that power is back."""
    shipper, receiver = cluster.pair("--power", "pwr")
    assert power(shipper)["state"] == "mains"
    writer = cluster.busy_writer(receiver)
    shipper.process.send_signal(signal.SIGPWR)
    assert writer.hear()["error"] == "PoolFrozenError"
    shipper.process.send_signal(signal.SIGPWR)
    until(is_in(shipper, "sealed"))
    assert power(shipper)["source"] == "pwr"
    assert status(receiver)["lsn_durable"] == end_of(cluster.pool).lsn
    shipper.process.send_signal(signal.SIGPWR)
    assert shipper.ask("/v1/power-loss", "POST")[1]["sealed"]
    assert shipper.ask("/v1/power-loss", "DELETE")[1]["restored"]
    assert power(shipper) == power(shipper) | {"state": "mains", "source": None, "since_s": None}
    cluster.busy_writer(receiver).kill()
    assert last_of(cluster.pool) > 0


def test_sigterm_with_grace(cluster: Cluster) -> None:
    """SIGTERM with a grace freezes, drains, seals and ends with 0; the pool stays stopped."""
    shipper, receiver = cluster.pair("--power", "term:40s")
    writer = cluster.busy_writer(receiver)
    assert shipper.end() == 0
    stopped = writer.hear()
    assert stopped["error"] == "PoolFrozenError"
    assert status(receiver)["sealed"]
    assert cluster.writer().hear()["event"] == "refused"
    assert receiver.ask("/v1/promote", "POST")[1]["complete"]
    assert receiver.end() == 0
    assert last_of(cluster.replica("one")) == stopped["last"]


def test_sigterm_without_receivers(cluster: Cluster) -> None:
    """A grace in which nothing could be saved ends the shipper in time, with 1."""
    pmlog.open(cluster.pool, size="1MiB", log_size="4MiB").close()
    shipper = cluster.shipper("--power", "term:2s")
    assert shipper.end() == 1
    assert marks.stop_of(cluster.pool) is not None


def test_sigterm_without_grace(cluster: Cluster) -> None:
    """Without a grace SIGTERM is a clean end, and the pool may be written."""
    shipper, receiver = cluster.pair("--power", "pwr")
    assert shipper.end() == 0
    assert not status(receiver)["sealed"]
    pmlog.open(cluster.pool, size="1MiB", log_size="4MiB").close()


def test_ups(cluster: Cluster) -> None:
    """On battery seals, on line again lets the writer go on, by itself; upsd's death changes nothing."""
    with nut(cluster.folder / "nut") as ups:
        shipper, receiver = cluster.pair("--power", ups.spec)
        with pmlog.open(cluster.pool, size="1MiB", log_size="4MiB") as pool:
            words = pool.dict("words")
            words["a"] = 1
            assert power(shipper)["sources"] == {ups.spec: None}
            ups.say("OB DISCHRG", 90)
            until(is_in(shipper, "sealed"))
            assert 0 < power(shipper)["battery_seconds_left"] <= 45  # half of what the UPS says
            with pytest.raises(pmlog.PoolFrozenError):
                words["b"] = 2
            ups.daemon.kill()
            ups.daemon.wait(60)
            until(lambda: power(shipper)["sources"][ups.spec])
            assert power(shipper)["state"] == "sealed"
            ups.daemon = ups.start("upsd", "-F")
            ups.say("OL CHRG")
            until(is_in(shipper, "mains"))
            assert not status(receiver)["sealed"]
            words["b"] = 2
            pool.wait(pmlog.Level.REPLICATED, timeout=60)
            assert power(shipper)["sources"] == {ups.spec: None}


async def test_ups_events(memory_dir: Path) -> None:
    """A low battery is reported with little time; a driver that dies says nothing."""
    with nut(memory_dir / "nut") as ups:
        source = NutSource("ups", UPS, "127.0.0.1", ups.port, interval_s=0.05)
        async with watching(source) as hear:
            assert await hear() == Restored("ups")
            ups.say("OB")
            assert await hear() == OnBattery("ups", 600.0, is_repeated=True)
            ups.say("OB LB", 400)
            low = await hear()
            while low.seconds_left is None or low.seconds_left > 30:  # the runtime came first
                low = await hear()
            assert low == OnBattery("ups", 30.0, is_repeated=True)
            ups.driver.kill()
            ups.driver.wait(60)
            await asyncio.to_thread(until, lambda: source.last_error)
            error = str(source.last_error)
            assert "DRIVER-NOT-CONNECTED" in error or "DATA-STALE" in error


def test_kernel_supplies(cluster: Cluster) -> None:
    """The kernel's files: mains off seals, mains on lets the writer go on; one of two is not enough."""
    supply = cluster.folder / "supplies" / "AC"
    supply.mkdir(parents=True)
    (supply / "type").write_text("Mains\n")
    (supply / "online").write_text("1\n")
    shipper, receiver = cluster.pair("--power", f"sysfs:{supply.parent}", "--power", "pwr")
    writer = cluster.busy_writer(receiver)
    (supply / "online").write_text("0\n")
    assert writer.hear()["error"] == "PoolFrozenError"
    until(is_in(shipper, "sealed"))
    # The shipper is killed and started again: the same source's word lets the writer go on.
    shipper.kill()
    again = cluster.shipper(
        "--power", f"sysfs:{supply.parent}", "--power", "pwr", port=shipper.port
    )
    until(is_in(again, "sealed"))
    again.process.send_signal(signal.SIGPWR)
    until(lambda: again.ask("/v1/pools")[0] == 200)
    (supply / "online").write_text("1\n")
    until(lambda: power(again)["source"] == "pwr")
    assert power(again)["state"] == "sealed"
    assert again.ask("/v1/power-loss", "DELETE")[1]["restored"]
    cluster.busy_writer(receiver).kill()


def test_battery_too_short(cluster: Cluster) -> None:
    """At the end of a simulated battery nothing is left here, and the receiver is not sealed."""
    shipper, receiver = cluster.pair("--battery", "sim:1s")
    writer = cluster.busy_writer(receiver)
    receiver.kill()
    durable = end_of(cluster.replica("one"))
    with contextlib.suppress(ConnectionError):  # the answer never comes
        shipper.ask("/v1/power-loss", "POST")
    assert shipper.process.wait(60) == -signal.SIGKILL
    assert not cluster.pool.exists()
    assert writer.hear()["error"] == "PoolFrozenError"
    receiver = cluster.receiver("one", shipper.port)
    code, answer = receiver.ask("/v1/promote", "POST")
    assert (code, answer["promoted"], answer["lsn_durable"]) == (409, False, durable.lsn)
    code, answer = receiver.ask("/v1/promote", "POST", {"accept_loss": True})
    assert (code, answer["complete"]) == (200, False)


def test_battery_long_enough(cluster: Cluster) -> None:
    """Inside a simulated battery's time everything is sealed; then the lights go out."""
    shipper, receiver = cluster.pair("--battery", "sim:12s", "--power", "pwr")
    writer = cluster.busy_writer(receiver)
    shipper.process.send_signal(signal.SIGPWR)
    last = writer.hear()["last"]
    until(lambda: status(receiver)["sealed"])
    assert shipper.process.wait(60) == -signal.SIGKILL
    assert not cluster.pool.exists()
    assert receiver.ask("/v1/promote", "POST")[1]["complete"]
    assert receiver.end() == 0
    assert last_of(cluster.replica("one")) == last


def refusal(path: Path) -> str:
    """Return why a shipper with a simulated battery does not start."""
    command = ["-m", "shipper", str(path), "--listen", "127.0.0.1:0", "--battery", "sim:1s"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_simulated_battery_is_refused(cluster: Cluster, disk_dir: Path) -> None:
    """A pool on a disk, and a folder with anything else in it, are never put at risk."""
    on_disk = disk_dir / "pool"
    pmlog.open(on_disk, size="1MiB", log_size="1MiB").close()
    pmlog.open(cluster.pool, size="1MiB", log_size="1MiB").close()
    (cluster.pool / "letters").write_text("dear")
    for path, word in ((on_disk, "tmpfs"), (cluster.pool, "letters")):
        assert word in refusal(path)
        assert (path / "log").exists()
    (cluster.pool / "letters").unlink()
    # A link to a pool on a disk is no way around it.
    link = cluster.folder / "link"
    link.symlink_to(on_disk)
    assert "tmpfs" in refusal(link)
    assert (on_disk / "log").exists()


def test_only_the_tail_is_sent(cluster: Cluster) -> None:
    """What is sent after the freeze is exactly what the receiver lacks, however large the pool is."""
    shipper, receiver = cluster.pair()
    cluster.busy_writer(receiver).kill()
    until(lambda: status(receiver)["lsn_durable"] == end_of(cluster.pool).lsn)
    receiver.kill()
    had = end_of(cluster.replica("one")).lsn
    last = last_of(cluster.pool)
    writer = cluster.writer(str(last + 300))
    assert [writer.hear()["event"], writer.hear()["event"]] == ["open", "done"]
    end = end_of(cluster.pool).lsn
    code, answer = shipper.ask("/v1/power-loss", "POST", {"timeout_s": 0.1})
    assert (code, answer["pools"][0]["state"]) == (409, "unsaved")
    cluster.receiver("one", shipper.port)
    until(is_in(shipper, "sealed"))
    (result,) = shipper.ask("/v1/power-loss", "POST")[1]["pools"]
    assert result["receivers"]["one"]["flushed_bytes"] == end - had > 0
    assert result["receivers"]["one"]["lacks_bytes"] == 0


def test_again_in_the_middle(cluster: Cluster) -> None:
    """Triggers from everywhere while receivers are waited for: one freeze, one seal."""
    shipper, receiver = cluster.pair("--power", "pwr", "--require", "2")
    writer = cluster.busy_writer(receiver)
    shipper.process.send_signal(signal.SIGPWR)
    assert writer.hear()["error"] == "PoolFrozenError"
    until(lambda: status(receiver)["sealed"])
    until(is_in(shipper, "saving"))
    shipper.process.send_signal(signal.SIGPWR)
    cluster.receiver("two", shipper.port)
    code, answer = shipper.ask("/v1/power-loss", "POST")
    assert (code, answer["sealed"]) == (200, True)
    assert {one["lacks_bytes"] for one in answer["pools"][0]["receivers"].values()} == {0}
    assert power(shipper)["source"] == "pwr"
