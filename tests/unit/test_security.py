"""Who is let in, decided without a connection: addresses, tokens, requests."""

from __future__ import annotations

import itertools
import os
import ssl
from pathlib import Path

import pytest
import trustme

from pmlog import security
from pmlog.addresses import Address, parse_listen, parse_source
from pmlog.errors import ConfigError
from pmlog.security import Security, judge_request

TOKEN = "correct-horse-battery-staple"
CERT = Path("cert.pem")
WITH_TOKEN = Security(token=TOKEN)
WITH_TLS = Security(cert=CERT, key=CERT)
WITH_BOTH = Security(token=TOKEN, cert=CERT, key=CERT)
EVERY = [security.NONE, WITH_TOKEN, WITH_TLS, WITH_BOTH]

HERE = ["localhost", "127.0.0.1", "127.3.2.1", "::1", "LOCALHOST"]
ELSEWHERE = [
    "0.0.0.0", "::", "192.0.2.1", "example.org", "localhost.example.org", "127.0.0.1.example.org",
    "::ffff:192.0.2.1", "1", "2130706433",
]  # fmt: skip


@pytest.mark.parametrize("has", EVERY)
@pytest.mark.parametrize("host", HERE)
def test_loopback_needs_nothing(host: str, has: Security) -> None:
    """Loopback is listened at and dialled with and without token and TLS."""
    shown = f"[{host}]" if ":" in host else host
    assert parse_listen(f"{shown}:7070", has) == Address(host, 7070)
    assert parse_source(f"http://{shown}:7070", has) == f"http://{shown}:7070"
    assert parse_source(f"https://{shown}:7070/", has) == f"https://{shown}:7070"


@pytest.mark.parametrize("host", ELSEWHERE)
def test_other_addresses_need_both(host: str) -> None:
    """Any other address is refused unless there are token and TLS, and the message says which."""
    shown = f"[{host}]" if ":" in host else host
    for has in (security.NONE, WITH_TOKEN, WITH_TLS):
        with pytest.raises(ConfigError) as caught:
            parse_listen(f"{shown}:7070", has)
        text = str(caught.value)
        assert ("--token-file" in text) == (has.token is None)
        assert ("--tls-cert" in text) == (has.cert is None)
        assert "loopback" in text
    assert parse_listen(f"{shown}:7070", WITH_BOTH).port == 7070
    for scheme, has in itertools.product(("http", "https"), EVERY):
        if scheme == "https" and has.token:
            assert parse_source(f"{scheme}://{shown}:7070", has)
            continue
        with pytest.raises(ConfigError, match="loopback"):
            parse_source(f"{scheme}://{shown}:7070", has)


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1:1", "ftp://127.0.0.1:1", "http://127.0.0.1", "http://a:b@127.0.0.1:1",
     "http://127.0.0.1:1/path", "http://127.0.0.1:1?x", "http://[::1", "http://127.0.0.1:99999"],
)  # fmt: skip
def test_not_an_address(text: str) -> None:
    """What is no address of a service is refused with an example."""
    with pytest.raises(ConfigError, match="as in http"):
        parse_source(text, WITH_BOTH)


def judge(
    has: Security = WITH_TOKEN,
    path: str = "/v1/promote",
    *,
    host: str | None = "127.0.0.1:7070",
    authorization: str | None = f"Bearer {TOKEN}",
    origin: str | None = None,
    site: str | None = None,
) -> str | None:
    """Return the word of a denial."""
    denial = judge_request(
        has, path, host=host, authorization=authorization, origin=origin, site=site
    )
    if denial is None:
        return None
    assert TOKEN not in denial.text
    assert denial.status == (401 if denial.reason == "token" else 403)
    return denial.reason


def test_token() -> None:
    """Exactly the token is let in, whatever is asked for but /healthz."""
    assert judge() is None
    assert judge(authorization=f"bearer  {TOKEN} ") is None
    for wrong in (
        None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN.upper()}", "Bearer \udcff\udcfe", "Bearer é",
    ):  # fmt: skip
        assert judge(authorization=wrong) == "token"
        assert judge(path="/", authorization=wrong) == "token"
        assert judge(path="/metrics", authorization=wrong) == "token"
        assert judge(path="/healthz", authorization=wrong) is None
        assert judge(path="/healthz/", authorization=wrong) == "token"


@pytest.mark.parametrize("has", [security.NONE, WITH_TOKEN])
def test_web_pages_are_refused(has: Security) -> None:
    """What a browser sends for a web page is refused; what it sends for its user is not."""
    for origin in ("http://evil.example", "null", "http://127.0.0.1:7070", ""):
        assert judge(has, origin=origin) == "origin"
    assert judge(has, site="cross-site") == "origin"
    for site in ("none", "same-origin"):
        assert judge(has, path="/", site=site) is None


def test_names_that_mean_loopback_are_refused() -> None:
    """Without a token a name of somebody else, that leads here, is no way in."""
    for host in (
        "evil.example",
        "evil.example:7070",
        "192.0.2.1",
        "127.0.0.1.evil.example",
        "[::1",
    ):
        assert judge(security.NONE, authorization=None, host=host) == "host"
        assert judge(WITH_TOKEN, host=host) is None
    for host in ("localhost", "127.0.0.1:7070", "[::1]:7070", "LOCALHOST:1"):
        assert judge(security.NONE, authorization=None, host=host) is None
    assert judge(security.NONE, authorization=None, host=None) is None


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """Write a file with a mode."""
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_token_file(tmp_path: Path) -> None:
    """A token is read without the end of its line, and is shown by nothing."""
    has = security.load(write(tmp_path / "token", f"{TOKEN}\n".encode()))
    assert has.token == TOKEN
    assert has.headers() == {"Authorization": f"Bearer {TOKEN}"}
    assert TOKEN not in repr(has)
    assert TOKEN not in str(has)


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o660, 0o644, 0o666])
def test_token_file_of_others(tmp_path: Path, mode: int) -> None:
    """A token that others may read or write is refused, and the hint is the way out."""
    path = write(tmp_path / "token", TOKEN.encode(), mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        security.load(path)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_token_file_of_ours(tmp_path: Path, mode: int) -> None:
    """A token that its owner or its group may read is taken."""
    assert security.load(write(tmp_path / "token", TOKEN.encode(), mode)).token == TOKEN


@pytest.mark.parametrize(
    "data", [b"", b"short", b"x" * 15, b"x" * 4097, b"two words, but long enough", b"\xff" * 32]
)
def test_bad_tokens(tmp_path: Path, data: bytes) -> None:
    """A token that is too short, too long or no word is refused without being shown."""
    with pytest.raises(ConfigError, match="openssl rand") as caught:
        security.load(write(tmp_path / "token", data))
    assert len(data) < 2 or data.decode("latin-1") not in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    """Missing, unfit and half-given files are refused by name."""
    ca = trustme.CA()
    one, two = ca.issue_cert("127.0.0.1"), ca.issue_cert("127.0.0.1")
    cert = write(tmp_path / "cert", one.cert_chain_pems[0].bytes(), 0o644)
    key = write(tmp_path / "key", one.private_key_pem.bytes())
    other = write(tmp_path / "other", two.private_key_pem.bytes())
    open_key = write(tmp_path / "open", one.private_key_pem.bytes(), 0o644)
    rubbish = write(tmp_path / "rubbish", b"rubbish")
    assert security.load(tls_cert=cert, tls_key=key).cert == cert
    for arguments, words in (
        ({"token_file": tmp_path / "none"}, "--token-file"),
        ({"tls_cert": cert}, "go together"),
        ({"tls_key": key}, "go together"),
        ({"tls_cert": cert, "tls_key": other}, "--tls-key"),
        ({"tls_cert": cert, "tls_key": open_key}, "chmod 600"),
        ({"tls_cert": tmp_path / "none", "tls_key": key}, "--tls-cert"),
        ({"tls_cert": rubbish, "tls_key": key}, "--tls-cert"),
        ({"tls_ca": rubbish}, "--tls-ca"),
        ({"tls_ca": tmp_path / "none"}, "--tls-ca"),
    ):
        with pytest.raises(ConfigError, match=words):
            security.load(**arguments)


def test_contexts(tmp_path: Path) -> None:
    """TLS is 1.2 or later, names are checked, and a CA asks the others for certificates."""
    ca = trustme.CA()
    made = ca.issue_cert("127.0.0.1")
    cert = write(tmp_path / "cert", made.cert_chain_pems[0].bytes(), 0o644)
    key = write(tmp_path / "key", made.private_key_pem.bytes())
    vouching = write(tmp_path / "ca", ca.cert_pem.bytes(), 0o644)
    has = security.load(tls_cert=cert, tls_key=key)
    listening = has.listening_context()
    assert listening is not None
    assert listening.minimum_version == ssl.TLSVersion.TLSv1_2
    assert listening.verify_mode is ssl.CERT_NONE
    mutual = security.load(tls_cert=cert, tls_key=key, tls_ca=vouching)
    context = mutual.listening_context()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    dialling = mutual.dialling_context()
    assert dialling.minimum_version == ssl.TLSVersion.TLSv1_2
    assert dialling.check_hostname
    assert dialling.verify_mode is ssl.CERT_REQUIRED
    assert len(dialling.get_ca_certs()) == 1  # and none of the system's
    assert security.NONE.listening_context() is None


def test_token_file_is_not_raced(tmp_path: Path) -> None:
    """A name that leads to a private file is as good as the file."""
    write(tmp_path / "real", TOKEN.encode())
    os.symlink(tmp_path / "real", tmp_path / "link")
    assert security.load(tmp_path / "link").token == TOKEN
