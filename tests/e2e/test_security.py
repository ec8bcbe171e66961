"""Tokens and TLS between real processes: who is not let in changes nothing."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

import pmlog
from pmlog import security
from pmlog.cli.request import ask
from pmlog.errors import ConfigError, PeerUnavailableError
from pmlog.security import Security
from tests.e2e.services import Cluster, Service, shipped, status, until
from tests.e2e.test_shipping import command, has_all, last_of

TOKEN = "a-token-that-only-the-test-knows"


@dataclass(frozen=True)
class Papers:
    """Files of one side."""

    token: Path
    cert: Path
    key: Path
    ca: Path

    def options(self, *names: str) -> list[str]:
        """Return the options for some of them."""
        said: list[str] = []
        for name in names or ("token", "cert", "key", "ca"):
            option = "--token-file" if name == "token" else f"--tls-{name}"
            said += [option, str(getattr(self, name))]
        return said

    def load(self, *names: str) -> Security:
        """Return some of them, read."""
        wanted = names or ("token", "cert", "key", "ca")
        return security.load(**{
            ("token_file" if name == "token" else f"tls_{name}"): getattr(self, name)
            for name in wanted
        })  # fmt: skip


def issue(folder: Path, ca: trustme.CA, name: str, *, token: str = TOKEN, days: int = 1) -> Papers:
    """Make the files of one side."""
    folder.mkdir()
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    made = ca.issue_cert(name, not_after=expires)
    papers = Papers(folder / "token", folder / "cert", folder / "key", folder / "ca")
    for path, data in (
        (papers.token, token.encode()),
        (papers.cert, b"".join(pem.bytes() for pem in made.cert_chain_pems)),
        (papers.key, made.private_key_pem.bytes()),
        (papers.ca, ca.cert_pem.bytes()),
    ):
        path.write_bytes(data)
        path.chmod(0o600)
    return papers


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Make who vouches for everybody."""
    return trustme.CA()


@pytest.fixture
def papers(tmp_path: Path, authority: trustme.CA) -> Papers:
    """Make what a service on this host needs."""
    return issue(tmp_path / "good", authority, "127.0.0.1")


@pytest.fixture
def guarded(cluster: Cluster, papers: Papers) -> Iterator[Service]:
    """Run a shipper that wants a token and certificates."""
    pmlog.open(cluster.pool, size="1MiB", log_size="4MiB").close()
    service = cluster.shipper(*papers.options())
    service.has = papers.load()
    assert service.url.startswith("https://127.0.0.1:")
    yield service
    # Whatever was tried: nobody's word counted, and the service still answers.
    known = shipped(service)
    assert (known["frozen"], known["fenced_epoch"]) == (False, None)
    assert known["receivers"] == {}
    log = (cluster.folder / "shipper.log").read_text()
    assert TOKEN not in log
    assert "Traceback" not in log


def test_all_of_it(cluster: Cluster, papers: Papers) -> None:
    """With tokens and certificates on both sides the log streams, is sealed, and is promoted."""
    pmlog.open(cluster.pool, size="1MiB", log_size="4MiB").close()
    source = cluster.shipper(*papers.options())
    target = cluster.receiver("one", source.url, *papers.options())
    source.has = target.has = papers.load()
    until(lambda: status(target)["state"] == "receiving")
    writer = cluster.busy_writer(target)
    for service in (source, target):
        assert b"pmlog_" in service.read("/metrics")
        assert b"<!doctype html>" in service.read("/")
    code, text = command("power-loss", source.url, *papers.options())
    assert (code, ": sealed" in text) == (0, True)
    stopped = writer.hear()
    until(lambda: has_all(target, cluster.pool))
    code, text = command("status", target.url, *papers.options())
    assert (code, "sealed: True" in text) == (0, True)
    code, text = command("promote", target.url, *papers.options())
    assert (code, "promoted" in text) == (0, True)
    until(lambda: shipped(source)["fenced_epoch"] == 2)
    assert last_of(cluster.replica("one")) == stopped["last"]
    assert (source.end(), target.end()) == (0, 0)
    for path in cluster.folder.glob("*.log"):
        assert TOKEN not in path.read_text()


def test_wrong_or_no_token(guarded: Service, cluster: Cluster, tmp_path: Path, papers: Papers,
                           authority: trustme.CA) -> None:  # fmt: skip
    """Without the token everything but /healthz is refused, counted, and logged without it."""
    wrong = issue(tmp_path / "wrong", authority, "127.0.0.1", token="b-token-of-somebody-else")
    for has in (papers.load("cert", "key", "ca"), wrong.load()):
        for method, path in (
            ("GET", "/"), ("GET", "/metrics"), ("GET", "/v1/pools"), ("GET", "/nothing"),
            ("GET", "/v1/pools/any/stream"), ("POST", "/v1/power-loss"),
            ("DELETE", "/v1/power-loss"),
        ):  # fmt: skip
            with pytest.raises(ConfigError, match="a token is needed"):
                ask(guarded.url, path, has=has, method=method)
        assert ask(guarded.url, "/healthz", has=has)[0] == 200
    text = guarded.read("/metrics").decode()
    assert 'pmlog_requests_refused_total{reason="token"} 14.0' in text
    log = (cluster.folder / "shipper.log").read_text()
    assert '"event": "token refused"' in log
    assert "somebody-else" not in log
    target = cluster.receiver("one", guarded.url, *wrong.options())
    target.has = wrong.load()
    until(lambda: "401" in (status(target)["last_error"] or ""))


@pytest.mark.parametrize("case", ["no certificate", "another CA", "expired"])
def test_client_certificates(
    guarded: Service, tmp_path: Path, papers: Papers, authority: trustme.CA, case: str
) -> None:
    """Who has the token, but no certificate of the right CA, is not heard."""
    names = ("token", "ca") if case == "no certificate" else ("token", "cert", "key", "ca")
    own = papers
    if case == "another CA":
        own = issue(tmp_path / "x", trustme.CA(), "127.0.0.1")
    elif case == "expired":
        own = issue(tmp_path / "x", authority, "127.0.0.1", days=-1)
    mixed = Papers(papers.token, own.cert, own.key, papers.ca)
    with pytest.raises(PeerUnavailableError):
        ask(guarded.url, "/v1/power-loss", has=mixed.load(*names), method="POST")
    assert b'refused_total{reason="handshake"}' in guarded.read("/metrics")


def test_receiver_with_another_ca(
    guarded: Service, cluster: Cluster, tmp_path: Path, papers: Papers
) -> None:
    """A receiver that does not trust the shipper's CA sends it nothing, and says why."""
    other = issue(tmp_path / "x", trustme.CA(), "127.0.0.1")
    target = cluster.receiver("one", guarded.url, *papers.options("token"), *other.options("ca"))
    target.has = papers.load("token")
    until(lambda: "certificate" in (status(target)["last_error"] or ""))
    assert status(target)["state"] == "connecting"


def test_server_certificates(guarded: Service, tmp_path: Path, papers: Papers) -> None:
    """A service that another CA vouches for, or of another name, is not told the token."""
    other = issue(tmp_path / "x", trustme.CA(), "127.0.0.1")
    with pytest.raises(PeerUnavailableError, match="TLS"):
        ask(
            guarded.url,
            "/v1/pools",
            has=Papers(papers.token, papers.cert, papers.key, other.ca).load(),
        )
    with pytest.raises(PeerUnavailableError, match="TLS"):
        # The certificate is for 127.0.0.1.
        ask(guarded.url.replace("127.0.0.1", "localhost"), "/v1/pools", has=papers.load())
    with pytest.raises(PeerUnavailableError, match="TLS"):
        ask(guarded.url, "/v1/pools", has=papers.load("token", "cert", "key"))


def test_plain_http_to_tls(guarded: Service, cluster: Cluster, papers: Papers) -> None:
    """Plain requests to a port that speaks TLS get nothing."""
    plain = guarded.url.replace("https:", "http:")
    with pytest.raises(PeerUnavailableError, match="https"):
        ask(plain, "/v1/power-loss", has=papers.load("token"), method="POST")
    target = cluster.receiver("one", plain, *papers.options("token"))
    target.has = papers.load("token")
    until(lambda: status(target)["last_error"])
    assert status(target)["state"] == "connecting"


def test_old_tls(guarded: Service, papers: Papers) -> None:
    """TLS 1.1 is refused."""
    context = papers.load().dialling_context()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", guarded.port), 10) as raw,
        pytest.raises(OSError, match=r"(?i)ssl|version|reset|alert"),
    ):
        context.wrap_socket(raw, server_hostname="127.0.0.1")


def test_refused_starts(cluster: Cluster, papers: Papers) -> None:
    """Addresses of other hosts without token and TLS end the start with one line that says why."""
    pmlog.open(cluster.pool, size="1MiB", log_size="4MiB").close()
    folder = str(cluster.folder / "x")
    for arguments in (
        ("ship", str(cluster.pool), "--listen", "0.0.0.0:0"),
        ("ship", str(cluster.pool), "--listen", "[::]:0", *papers.options("token")),
        ("ship", str(cluster.pool), "--listen", "0.0.0.0:0", *papers.options("cert", "key")),
        ("receive", "--from", "http://192.0.2.1:7070", "--dir", folder, *papers.options()),
        ("receive", "--from", "https://192.0.2.1:7070", "--dir", folder),
        ("receive", "--from", "http://127.0.0.1:7", "--dir", folder, "--listen", "0.0.0.0:0"),
        ("promote", "http://192.0.2.1:7070"),
        ("status", "https://192.0.2.1:7070"),
        ("power-loss", "http://192.0.2.1:7070", *papers.options("token")),
    ):
        code, text = command(*arguments)
        assert (code, text.count("\n")) == (2, 1), text
        assert "not given" in text
        assert "loopback" in text
    papers.token.chmod(0o644)
    code, text = command("ship", str(cluster.pool), *papers.options("token"))
    assert (code, text.count("\n"), "chmod 600" in text) == (2, 1, True), text
