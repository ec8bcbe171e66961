"""What the commands make of an address or a folder that is not what they want."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from pmlog.cli import ExitCode
from tests.e2e.services import ROOT, Cluster


class _Server(http.server.BaseHTTPRequestHandler):
    """Answers every question alike, as a web server does that knows nothing of pmlog."""

    body = b"<html>It works!</html>"
    kind = "text/html"

    def answer(self) -> None:
        """Say it."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the standard library's names

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Json(_Server):
    body = b'[{"pools": 1}]'
    kind = "application/json"


@pytest.fixture(params=[_Server, _Json], ids=["html", "json"])
def stranger(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the address of a web server of somebody else."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), request.param) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def refused(*arguments: str) -> tuple[int, str]:
    """Run a command that fails with one line on standard error; return its code and that line."""
    done = subprocess.run(
        [sys.executable, "-m", "pmlog.cli", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.stderr.startswith("pmlog: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_the_other_service(cluster: Cluster) -> None:
    """A shipper is told from a receiver, and the other way round."""
    shipper, receiver = cluster.pair()
    path = str(cluster.pool)
    for arguments, words in (
        (["promote", shipper.url], "is a shipper, and this wants a receiver"),
        (["promote", shipper.url, "--peer", receiver.url], "is a shipper, and this wants"),
        (["promote", receiver.url, "--peer", shipper.url], "is a shipper, and this wants"),
        (["power-loss", receiver.url], "is a receiver, and this wants a shipper"),
        (["power-loss", receiver.url, "--restored"], "is a receiver, and this wants a shipper"),
        (["repair", path, "--from", receiver.url], "is a receiver, and this wants a shipper"),
    ):
        code, text = refused(*arguments)
        assert (code, words in text) == (ExitCode.USAGE, True), text


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["promote"], ["power-loss"], ["power-loss", "--restored"], ["repair", "POOL", "--from"]],
    ids=" ".join,
)  # fmt: skip
def test_a_stranger(cluster: Cluster, stranger: str, arguments: list[str]) -> None:
    """A web server that is neither is called that, whatever it answers."""
    cluster.make_pool()
    given = [str(cluster.pool) if one == "POOL" else one for one in arguments]
    code, text = refused(*given, stranger)
    assert code == ExitCode.USAGE, text
    assert "is neither a shipper nor a receiver" in text
    assert "pmlog ship" in text


def test_a_receiver_of_a_stranger(cluster: Cluster, stranger: str) -> None:
    """A peer that is no receiver is a mistake, not a peer that is away."""
    _, receiver = cluster.pair()
    code, text = refused("promote", receiver.url, "--peer", stranger)
    assert code == ExitCode.USAGE, text


@pytest.mark.parametrize("command", ["status", "promote", "power-loss"])
def test_the_wrong_scheme(cluster: Cluster, command: str) -> None:
    """TLS where the service speaks none, and nobody at all, are named with what to look at."""
    shipper, _ = cluster.pair()
    code, text = refused(command, shipper.url.replace("http:", "https:"))
    assert (code, "does it speak TLS" in text) == (ExitCode.FAILED, True), text
    shipper.kill()
    code, text = refused(command, shipper.url)
    assert (code, "is it running" in text) == (ExitCode.FAILED, True), text
