"""docs/examples/orders: it runs, loses its host, and goes on; its units and manifest are sound."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import pmlog
from pmlog.durations import parse_duration
from tests.e2e.services import ROOT, Cluster, status, until
from tests.format.commands import parse, words_of
from tests.support import PATIENCE_S, faults_of

EXAMPLE = ROOT / "docs" / "examples" / "orders"
APP = EXAMPLE / "app.py"
UNITS = sorted(EXAMPLE.glob("*.service"))
MANIFEST = EXAMPLE / "kubernetes.yaml"
ORDERS = 60


def free_port() -> int:
    """Return a port that nobody listens at just now."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
    return port


class Orders:
    """A customer of the service."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: Any = None, method: str = "POST") -> tuple[int, Any]:
        """Return status and answer; (0, None) if nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, None

    def place(self, number: int, query: str = "") -> tuple[int, Any]:
        """Place the order of a number."""
        wanted = {"reference": f"A-{number}", "item": "seat", "quantity": number, "price_cents": 5}
        return self.ask(f"/orders{query}", wanted)

    def get(self, path: str) -> tuple[int, Any]:
        """Look at something."""
        return self.ask(path, method="GET")

    def is_there(self) -> bool:
        """Whether the service answers."""
        return self.get("/stats")[0] == 200


@pytest.fixture
def host(memory_dir: Path) -> Iterator[Host]:
    """Give a host on which the service runs, and what was started there is ended afterwards."""
    made = Host(memory_dir)
    yield made
    made.close()


class Host:
    """The order service, its shipper and its receiver."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder)
        self.pool = self.cluster.pool
        pmlog.open(self.pool).close()  # the first start, by hand
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, port: int) -> tuple[subprocess.Popen[bytes], Orders]:
        """Start the service; return it once it answers."""
        process = subprocess.Popen(
            [sys.executable, str(APP)], cwd=ROOT, stdout=subprocess.DEVNULL,
            env=os.environ | {
                "PYTHONPATH": str(ROOT), "ORDERS_POOL": str(self.pool),
                "ORDERS_LISTEN": f"127.0.0.1:{port}", "ORDERS_LEVEL": "replicated",
            },
        )  # fmt: skip
        self.started.append(process)
        orders = Orders(port)
        until(orders.is_there)
        return process, orders

    def close(self) -> None:
        """End everything."""
        for process in self.started:
            process.kill()
            process.wait()
        self.cluster.close()


def test_losing_the_host(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders are placed, the host is lost after a power loss, every order is at the receiver."""
    elsewhere = free_port()
    monkeypatch.setenv("ORDERS_LISTEN", f"127.0.0.1:{elsewhere}")
    monkeypatch.setenv("ORDERS_LEVEL", "committed")
    cluster = host.cluster
    shipper = cluster.shipper()
    receiver = cluster.receiver(
        "one", shipper.port, "--on-promote", shlex.join([sys.executable, str(APP)])
    )
    until(lambda: status(receiver)["state"] == "receiving")
    port = free_port()
    process, orders = host.start(port)

    for number in range(ORDERS):
        code, answer = orders.place(number)
        assert (code, answer["level"]) == (201, "replicated")
    assert orders.place(3)[0] == 200  # sent again, placed once
    code, answer = orders.ask("/orders/A-3/cancel")
    assert (code, answer["state"], answer["level"]) == (200, "cancelled", "replicated")
    assert orders.place(ORDERS, "?level=committed")[1]["level"] == "committed"
    until(lambda: orders.get("/stats")[1]["outbox"] == 0)  # replicated, so the warehouse hears it
    before = orders.get("/stats")[1]
    assert (before["orders"], before["placed"], before["cancelled"]) == (ORDERS + 1, ORDERS + 1, 1)
    assert before["revenue_cents"] == 5 * (sum(range(ORDERS + 1)) - 3)

    # The service is killed and comes back with everything.
    process.kill()
    process.wait()
    process, orders = host.start(port)
    assert orders.get("/stats")[1]["placed"] == ORDERS + 1

    assert shipper.ask("/v1/power-loss", "POST")[1]["sealed"]
    code, answer = orders.place(999)
    assert code == 503
    process.kill()
    process.wait()
    shipper.kill()
    shutil.rmtree(host.pool)

    assert receiver.ask("/v1/promote", "POST")[1]["complete"]
    orders = Orders(elsewhere)
    until(orders.is_there)
    after = orders.get("/stats")[1]
    assert after["epoch"] == 2
    for name in ("orders", "placed", "cancelled", "revenue_cents"):
        assert after[name] == before[name]
    for number in range(ORDERS + 1):
        code, order = orders.get(f"/orders/A-{number}")
        assert (code, order["quantity"]) == (200, number)
        assert order["state"] == ("cancelled" if number == 3 else "placed")
    assert orders.get("/orders/A-999")[0] == 404
    assert orders.place(999)[0] == 201
    assert receiver.end() == 0
    assert faults_of(cluster.replica("one")) == []


def test_without_a_receiver(host: Host) -> None:
    """An answer never says more than is known, and bad requests change nothing."""
    process, orders = host.start(free_port())
    code, answer = orders.place(1)
    assert (code, answer["level"]) == (202, "committed")
    assert orders.place(2, "?level=certain")[0] == 400
    assert orders.ask("/orders", {"reference": "x"})[0] == 400
    assert orders.get("/orders/A-2")[0] == 404
    assert orders.ask("/orders/A-2/cancel")[0] == 404
    known = orders.get("/stats")[1]
    assert known["orders"] == 1
    assert known["outbox"] == 1  # the warehouse hears of nothing that could still be lost
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert faults_of(host.pool) == []


def test_no_second_shop(memory_dir: Path) -> None:
    """A host that has lost its memory does not open an empty shop."""
    done = subprocess.run(
        [sys.executable, str(APP)], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=PATIENCE_S,
        env=os.environ | {"PYTHONPATH": str(ROOT), "ORDERS_POOL": str(memory_dir / "orders")},
    )  # fmt: skip
    assert done.returncode != 0
    assert "PoolNotFoundError" in done.stderr
    assert list(memory_dir.iterdir()) == []


# ---- units and manifest ------------------------------------------------------------------------


def unit(path: Path) -> configparser.SectionProxy:
    """Return the section Service of a unit."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names as they stand
    parser.read_string(path.read_text().replace("\\\n", " "))
    assert set(parser.sections()) == {"Unit", "Service", "Install"}
    return parser["Service"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units(path: Path) -> None:
    """A unit's command is one that there is, and it is given time to end."""
    service = unit(path)
    words = words_of(service["ExecStart"])
    if path.name == "orders.service":
        assert words is None
        assert service["ExecStart"].endswith("/app.py")
    else:
        assert words is not None
        parse(words)
    assert service["KillSignal"] == "SIGTERM"
    assert service["Restart"] == "always"
    for word in words or ():
        if word.startswith("term:"):
            stop_s = parse_duration(service["TimeoutStopSec"])
            assert stop_s > parse_duration(word.removeprefix("term:"))


def test_there_are_units() -> None:
    """The tests above look at something."""
    assert [path.name for path in UNITS] == [
        "orders-receive.service", "orders-ship.service", "orders.service",
    ]  # fmt: skip
    words = words_of(unit(EXAMPLE / "orders-ship.service")["ExecStart"])
    assert words is not None
    assert "term:25s" in words


def test_manifest() -> None:
    """The manifest's commands are taken, writer and shipper share memory, the grace is enough."""
    found = list(yaml.safe_load_all(MANIFEST.read_text()))
    kinds = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(set(kinds)) == len(kinds)
    secrets = {one["metadata"]["name"] for one in found if one["kind"] == "Secret"}
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in found
        if one["kind"] == "StatefulSet"
    }
    assert set(pods) == {"orders-writer", "orders-receive"}
    commands = {}
    for name, pod in pods.items():
        volumes = {volume["name"] for volume in pod["volumes"]}
        own = next(
            one for one in found if one["metadata"]["name"] == name and "template" in one["spec"]
        )
        volumes |= {
            claim["metadata"]["name"] for claim in own["spec"].get("volumeClaimTemplates", ())
        }
        for volume in pod["volumes"]:
            assert volume.get("secret", {"secretName": None})["secretName"] in {None, *secrets}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            words = [*container["command"], *container.get("args", ())]
            if words[0] == "pmlog":
                commands[container["name"]] = parse(words[1:])
    assert set(commands) == {"ship", "receive"}
    writer = pods["orders-writer"]
    memory = next(volume for volume in writer["volumes"] if volume["name"] == "memory")
    assert memory["emptyDir"]["medium"] == "Memory"
    grace = max(
        parse_duration(source.removeprefix("term:")) for source in commands["ship"]["power"]
    )
    assert writer["terminationGracePeriodSeconds"] > grace


# ---- the page that walks through it ------------------------------------------------------------


def test_page(memory_dir: Path) -> None:
    """The commands of docs/losing-the-host.md run as they stand, in one shell."""
    page = (ROOT / "docs" / "losing-the-host.md").read_text(encoding="utf-8")
    script = "".join(block[1] for block in re.finditer(r"^```sh\n(.*?)^```$", page, re.M | re.S))
    for port in ("7070", "7071", "8080", "8081"):
        assert f"127.0.0.1:{port}" in script
        script = script.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
    script = script.replace("/dev/shm", str(memory_dir))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # Whatever happens, no process of the page outlives it.
    trap = "trap 'kill -9 $(jobs -p) 2> /dev/null || true' EXIT\n"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", trap + script], cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=2 * PATIENCE_S,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sealed" in done.stdout
    assert "(complete)" in done.stdout
    elsewhere = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    stats = [answer for answer in elsewhere if answer.get("epoch") == 2]
    assert [(one["orders"], one["placed"], one["cancelled"]) for one in stats] == [(2, 2, 1)]
    assert [answer["reference"] for answer in elsewhere if "reference" in answer][-1] == "A-19"
    assert list(memory_dir.iterdir()) == []
