"""What `--power` takes. Pure."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pmlog.durations import parse_duration
from pmlog.errors import ConfigError
from shipper.power import cloud, nut, sysfs
from shipper.power.signals import SignalSource
from shipper.power.source import Source

FORMS: Final = "pwr, term:25s, nut:UPS@HOST:PORT, sysfs[:DIR], aws[:URL], gcp[:URL] and azure[:URL]"


@dataclass(frozen=True, slots=True)
class Spec:
    """A source that was asked for."""

    text: str
    kind: str
    make: Callable[[], Source]
    """Makes it; nothing is read before it watches."""


def parse_power(text: str) -> Spec:
    """Read a power source.

    Args:
        text: One of `FORMS`.

    Returns:
        What it asks for.

    Raises:
        ConfigError: It is none of them; the message lists them.
    """
    text = text.strip()
    kind, colon, rest = text.partition(":")
    if colon and not rest:
        kind = ""
    if kind == "pwr" and not colon:
        return Spec(text, kind, lambda: SignalSource(text, signal.SIGPWR))
    if kind == "term" and rest:
        grace_s = parse_duration(rest, f"--power {text}")
        return Spec(text, kind, lambda: SignalSource(text, signal.SIGTERM, grace_s))
    if kind == "nut" and rest:
        ups, host, port = _parse_ups(text, rest)
        return Spec(text, kind, lambda: nut.NutSource(text, ups, host, port))
    if kind == "sysfs":
        folder = Path(rest or sysfs.FOLDER)
        return Spec(text, kind, lambda: sysfs.SysfsSource(text, folder))
    if kind == "aws":
        url = _parse_url(text, rest or cloud.AWS_URL)
        return Spec(text, kind, lambda: cloud.AwsSource(text, url))
    if kind == "gcp":
        url = _parse_url(text, rest or cloud.GCP_URL)
        return Spec(text, kind, lambda: cloud.GcpSource(text, url))
    if kind == "azure":
        url = _parse_url(text, rest or cloud.AZURE_URL)
        return Spec(text, kind, lambda: cloud.AzureSource(text, url))
    error = _bad(text)
    raise error


def parse_powers(texts: tuple[str, ...]) -> list[Spec]:
    """Read all power sources.

    Args:
        texts: One each.

    Returns:
        What they ask for.

    Raises:
        ConfigError: One is no source, or two are the same signal or source.
    """
    specs = [parse_power(text) for text in texts]
    if len({spec.text for spec in specs}) < len(specs):
        raise ConfigError("--power names a source twice")
    if sum(spec.kind == "term" for spec in specs) > 1:
        raise ConfigError("--power term is given twice: there is one SIGTERM, and one grace")
    return specs


def _bad(text: str) -> ConfigError:
    return ConfigError(f"--power {text}: no such power source", hint=f"there are {FORMS}")


def _parse_ups(text: str, rest: str) -> tuple[str, str, int]:
    ups, at, address = rest.partition("@")
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    # The name goes into a line of upsd's protocol: no spaces, no quotes.
    plain = ups.replace("-", "").replace("_", "").replace(".", "")
    if not at or not host or not plain.isalnum() or not plain.isascii() or "/" in address:
        error = _bad(text)
        raise error
    return ups, host, nut.PORT if port is None else port


def _parse_url(text: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or parts.username:
        error = _bad(text)
        raise error
    return url.rstrip("/")
