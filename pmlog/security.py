"""Who may ask a service, and how both sides prove who they are: tokens and TLS.

Loopback needs neither.
Any other address needs both: a token, so that only those who know it are answered, and TLS, so that
nobody on the way reads or changes what is said.
Decisions take values and return values; `load` and the contexts read the files.
"""

import hmac
import ipaddress
import os
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pmlog.errors import ConfigError

TOKEN_BYTES_MIN: Final = 16
TOKEN_BYTES_MAX: Final = 4096

OPEN_PATH: Final = "/healthz"
"""Answered without a token: it says nothing but whether the service is able."""

_OTHERS: Final = stat.S_IRWXO | stat.S_IWGRP
"""The group may read: so do systemd's credentials and Kubernetes's secrets show their files."""

_LOOPBACK_HINT: Final = "or use a loopback address, 127.0.0.1 or [::1], and a tunnel between hosts"


@dataclass(frozen=True, slots=True)
class Security:
    """A token and the files of TLS, as far as they were given."""

    token: str | None = field(default=None, repr=False)
    """What everybody who asks has to know; never logged nor shown."""
    cert: Path | None = None
    key: Path | None = field(default=None, repr=False)
    ca: Path | None = None
    """Who vouches for the others; given to a service, those who ask it need certificates too."""

    def headers(self) -> dict[str, str]:
        """Return what goes with each request.

        Returns:
            The headers.
        """
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def listening_context(self) -> ssl.SSLContext | None:
        """Make what a service listens with.

        Returns:
            The context; None: plain connections.

        Raises:
            ConfigError: A file cannot be used.
        """
        if self.cert is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._fill(context)
        if self.ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def dialling_context(self) -> ssl.SSLContext:
        """Make what https addresses are dialled with: certificate and host name are checked.

        Returns:
            The context; without a CA of its own it trusts those of the system.

        Raises:
            ConfigError: A file cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        self._fill(context)
        return context

    def _fill(self, context: ssl.SSLContext) -> None:
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"--tls-ca {self.ca} cannot be used: {error}") from None
        if self.cert is not None:
            try:
                # A password: nobody is asked for one, so an encrypted key is refused.
                context.load_cert_chain(self.cert, self.key, password="")
            except (OSError, ssl.SSLError, ValueError) as error:
                raise ConfigError(
                    f"--tls-cert {self.cert} with --tls-key {self.key} cannot be used: {error}"
                ) from None


NONE: Final = Security()
"""No token, no TLS: loopback only."""


# ---- files -------------------------------------------------------------------------------------


def load(
    token_file: Path | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    tls_ca: Path | None = None,
) -> Security:
    """Read the files that were named, and try them.

    Args:
        token_file: Holds the token, in one line.
        tls_cert: Certificate, and those between it and the CA.
        tls_key: Its private key.
        tls_ca: Certificates of those who vouch for the others.

    Returns:
        What they hold.

    Raises:
        ConfigError: A file is missing, unusable, or readable by others.
    """
    if (tls_cert is None) != (tls_key is None):
        raise ConfigError("--tls-cert and --tls-key go together")
    if tls_key is not None:
        _read_private(tls_key, "--tls-key", _OTHERS)
    token = None
    if token_file is not None:
        token = parse_token(_read_private(token_file, "--token-file", _OTHERS))
    security = Security(token, tls_cert, tls_key, tls_ca)
    if tls_cert is not None or tls_ca is not None:
        security.dialling_context()
    return security


def _read_private(path: Path, option: str, forbidden: int) -> bytes:
    try:
        # Mode and bytes of one open file: the name could be another's a moment later.
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & forbidden:
                raise ConfigError(f"{option} {path} is open to others", hint=f"chmod 600 {path}")
            return file.read(1 << 20)
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be read: {error.strerror}") from None


def parse_token(data: bytes) -> str:
    """Read a token.

    Args:
        data: The file's bytes; white space around the token does not count.

    Returns:
        The token.

    Raises:
        ConfigError: It cannot be used; the message does not show it.
    """
    text = data.strip()
    if not TOKEN_BYTES_MIN <= len(text) <= TOKEN_BYTES_MAX:
        raise ConfigError(
            f"the token has {len(text)} bytes, not {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX}",
            hint="openssl rand -hex 32 makes a good one",
        )
    if not all(0x21 <= byte <= 0x7E for byte in text):
        raise ConfigError(
            "the token holds something else than visible ASCII",
            hint="openssl rand -hex 32 makes a good one",
        )
    return text.decode("ascii")


# ---- addresses ---------------------------------------------------------------------------------


def is_loopback(host: str) -> bool:
    """Tell whether only this host can be meant.

    Args:
        host: A name or an address, without brackets.

    Returns:
        Whether it is.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_listen(host: str, security: Security) -> None:
    """Decide whether a service may listen at a host.

    Args:
        host: Name or address.
        security: What the service has.

    Raises:
        ConfigError: It may not; the message says what is missing.
    """
    if is_loopback(host):
        return
    missing = [] if security.token else ["--token-file"]
    missing += [] if security.cert else ["--tls-cert", "--tls-key"]
    if missing:
        raise ConfigError(
            f"{host} can be reached from other hosts, so everyone who asks has to prove who they "
            f"are, encrypted: {', '.join(missing)} not given",
            hint=f"give {' and '.join(missing)}, {_LOOPBACK_HINT}",
        )


def check_dial(scheme: str, host: str, security: Security) -> None:
    """Decide whether a service at a host may be dialled.

    Args:
        scheme: http or https.
        host: Name or address.
        security: What the one who dials has.

    Raises:
        ConfigError: It may not; the message says what is missing.
    """
    if is_loopback(host):
        return
    missing = [] if scheme == "https" else ["https://"]
    missing += [] if security.token else ["--token-file"]
    if missing:
        raise ConfigError(
            f"{scheme}://{host} is another host, so both sides have to prove who they are, "
            f"encrypted: {', '.join(missing)} not given",
            hint=f"give {' and '.join(missing)}, {_LOOPBACK_HINT}",
        )


# ---- requests ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is not answered."""

    status: int
    reason: str
    """One word, for figures: token, origin, host."""
    text: str


_ORIGIN: Final = Denial(403, "origin", "web pages may not ask this service\n")
_TOKEN: Final = Denial(401, "token", "a token is needed: Authorization: Bearer …\n")
_HOST: Final = Denial(403, "host", "without a token this service answers to loopback names only\n")


def judge_request(
    security: Security,
    path: str,
    *,
    host: str | None,
    authorization: str | None,
    origin: str | None,
    site: str | None,
) -> Denial | None:
    """Decide whether a request is answered.

    A web page that an operator has open can send requests to loopback too.
    Browsers say so in `Origin`, with every POST, DELETE and WebSocket; no program of ours does.
    Without a token a name that somebody else has made to mean 127.0.0.1 is refused as well.

    Args:
        security: What the service has.
        path: What is asked for.
        host: The Host header.
        authorization: The Authorization header.
        origin: The Origin header.
        site: The Sec-Fetch-Site header.

    Returns:
        Why not; None: it is answered.
    """
    if path == OPEN_PATH:
        return None
    if security.token is not None:
        scheme, _, given = (authorization or "").partition(" ")
        # Both always run, and the comparison takes as long whatever the first difference is.
        heard = given.strip().encode(errors="surrogateescape")  # headers are bytes, not always text
        same = hmac.compare_digest(heard, security.token.encode())
        if not (same and scheme.lower() == "bearer"):
            return _TOKEN
    elif host is not None and not is_loopback(_name_of(host)):
        return _HOST
    if origin is not None or site == "cross-site":
        return _ORIGIN
    return None


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
