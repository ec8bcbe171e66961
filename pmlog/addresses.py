"""Addresses that services listen at and dial. Pure."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from pmlog import security
from pmlog.errors import ConfigError
from pmlog.security import Security


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens."""

    host: str
    port: int
    """0: any free one."""


def parse_listen(text: str, has: Security = security.NONE) -> Address:
    """Read HOST:PORT; anything but loopback needs a token and TLS.

    Args:
        text: The address; an IPv6 host stands in brackets.
        has: What the service that listens there has.

    Returns:
        The address.

    Raises:
        ConfigError: It is none, or what it needs is missing.
    """
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{text!r} is not HOST:PORT", hint="as in 127.0.0.1:7070")
    security.check_listen(host, has)
    return Address(host, int(port))


def parse_source(text: str, has: Security = security.NONE) -> str:
    """Read the address of a shipper or receiver; anything but loopback needs a token and TLS.

    Args:
        text: http://HOST:PORT or https://HOST:PORT
        has: What the one who dials has.

    Returns:
        The same without a slash at its end.

    Raises:
        ConfigError: It is none, or what it needs is missing.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts = urlsplit("")
        host = port = None
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username, parts.password)
    if not host or not port or parts.scheme not in ("http", "https") or any(rest):
        raise ConfigError(f"{text!r} is not an address", hint="as in http://127.0.0.1:7070")
    security.check_dial(parts.scheme, host, has)
    return text.rstrip("/")
