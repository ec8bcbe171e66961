"""Addresses that services listen at and dial. Pure."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from pmlog.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens."""

    host: str
    port: int
    """0: any free one."""


def parse_listen(text: str) -> Address:
    """Read HOST:PORT; only loopback is served so far.

    Args:
        text: The address; an IPv6 host stands in brackets.

    Returns:
        The address.

    Raises:
        ConfigError: It is none, or not on this host's loopback.
    """
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{text!r} is not HOST:PORT", hint="as in 127.0.0.1:7070")
    _must_be_loopback(host, text)
    return Address(host, int(port))


def parse_source(text: str) -> str:
    """Read the address of a shipper or receiver; only loopback is dialled so far.

    Args:
        text: http://HOST:PORT

    Returns:
        The same without a slash at its end.

    Raises:
        ConfigError: It is none, or not on this host's loopback.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != "http" or parts.path.strip("/"):
        raise ConfigError(f"{text!r} is not an address", hint="as in http://127.0.0.1:7070")
    _must_be_loopback(host, text)
    return text.rstrip("/")


def _must_be_loopback(host: str, text: str) -> None:
    if host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise ConfigError(
        f"{text}: only loopback addresses are allowed: nothing is encrypted and nobody has to "
        "prove who they are",
        hint="use 127.0.0.1 or [::1], and a tunnel between hosts",
    )
