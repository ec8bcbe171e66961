"""SIGTERM and SIGINT: services end cleanly, whatever they are doing."""

from __future__ import annotations

import asyncio
import signal
import socket

import aiohttp
import pytest

import pmlog
from pmlog import wire
from tests.e2e.services import Cluster, Service, shipped, status, until
from tests.support import PATIENCE_S


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes of a test look for what is left behind, and take it for an error."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    monkeypatch.setenv("PYTHONDEVMODE", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "error")


def ends(cluster: Cluster, service: Service, name: str, number: int = signal.SIGTERM) -> None:
    """End a service; it must leave with 0, and nothing behind."""
    service.process.send_signal(number)
    assert service.process.wait(PATIENCE_S) == 0
    said = (cluster.folder / f"{name}.log").read_text()
    for word in (
        "Traceback", "destroyed", "never awaited", "never retrieved", "unclosed", "Unclosed",
        "ResourceWarning", "Exception ignored", "Error handling request",
    ):  # fmt: skip
        assert word not in said, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_and_streaming(cluster: Cluster, number: int) -> None:
    """A pair ends under load, the shipper first, then the receiver that dials."""
    shipper, receiver = cluster.pair("--required", "one")
    cluster.busy_writer(receiver)
    ends(cluster, shipper, "shipper", number)
    ends(cluster, receiver, "one", number)


def test_receiver_first(cluster: Cluster) -> None:
    """The receiver ends while the shipper sends."""
    shipper, receiver = cluster.pair("--required", "one")
    cluster.busy_writer(receiver)
    ends(cluster, receiver, "one")
    ends(cluster, shipper, "shipper")


@pytest.mark.parametrize("which", ["shipper", "receiver"])
def test_in_a_baseline(cluster: Cluster, which: str) -> None:
    """A copy that is under way is given up at once."""
    with pmlog.open(cluster.pool, size="1MiB", log_size="1MiB") as pool:
        blob = pool.region("blob", "64MiB")
        chunk = bytes(range(256)) * 1024
        for offset in range(0, 64 << 20, len(chunk)):
            blob.write(offset, chunk)
    shipper = cluster.shipper()
    receiver = cluster.receiver("one", shipper.port)
    until(lambda: status(receiver)["blocks"])
    one, other = (shipper, receiver) if which == "shipper" else (receiver, shipper)
    for service in (one, other):
        ends(cluster, service, "shipper" if service is shipper else "one")


def test_in_a_power_loss(cluster: Cluster) -> None:
    """A shipper that waits for receivers which do not come ends, and the pool stays stopped."""
    pmlog.open(cluster.pool, size="1MiB", log_size="4MiB").close()
    shipper = cluster.shipper()
    asking = socket.create_connection(("127.0.0.1", shipper.port), PATIENCE_S)
    body = b'{"timeout_s":600}'
    asking.sendall(
        b"POST /v1/power-loss HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s"
        % (len(body), body)
    )
    until(lambda: shipped(shipper)["frozen"])
    ends(cluster, shipper, "shipper")
    asking.close()
    with pytest.raises(pmlog.PoolFrozenError):
        pmlog.open(cluster.pool)


async def test_stuck_peers(cluster: Cluster) -> None:
    """Peers that take nothing, say nothing, or stop in the middle hold up no end."""
    with pmlog.open(cluster.pool, size="1MiB", log_size="4MiB") as pool:
        pool.dict("words")["a"] = 1
        shipper = await asyncio.to_thread(cluster.shipper)
        silent = [socket.create_connection(("127.0.0.1", shipper.port), 10) for _ in range(3)]
        silent[0].sendall(b"GET /metrics HTT")
        silent[1].sendall(b"POST /v1/power-loss HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        async with aiohttp.ClientSession() as client:
            stream = f"{shipper.url}/v1/pools/any/stream"
            without_hello = await client.ws_connect(stream, autoclose=False)
            deaf = await client.ws_connect(stream, autoclose=False)
            await deaf.send_str(wire.encode_message(wire.Hello(wire.VERSION, "any", "deaf")))
            await asyncio.to_thread(until, lambda: "deaf" in shipped(shipper)["receivers"])
            await asyncio.to_thread(lambda: pool.region("blob", "1MiB").write(0, bytes(1 << 20)))
            # Neither reads nor closes: it is the shipper that has to give up.
            await asyncio.to_thread(ends, cluster, shipper, "shipper")
            await without_hello.close()
            await deaf.close()
        for one in silent:
            one.close()


def test_stuck_shipper(cluster: Cluster) -> None:
    """A receiver whose shipper accepts and says nothing ends at once."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        receiver = cluster.receiver("one", mute.getsockname()[1])
        mute.settimeout(PATIENCE_S)
        connection, _ = mute.accept()
        ends(cluster, receiver, "one")
        connection.close()


def test_promoted_with_application(cluster: Cluster) -> None:
    """A promoted receiver ends its application, though its source never hears of the promotion."""
    shipper, receiver = cluster.pair(receiver=("--on-promote", "sleep 600"))
    until(lambda: not status(receiver)["incomplete"])
    shipper.kill()
    code, answer = receiver.ask("/v1/promote", "POST", {"accept_loss": True})
    assert code == 200, answer
    pid = status(receiver)["application"]["pid"]
    assert pid
    ends(cluster, receiver, "one")
    said = (cluster.folder / "one.log").read_text()
    assert '"event": "application started"' in said
    assert '"event": "application exited"' in said
