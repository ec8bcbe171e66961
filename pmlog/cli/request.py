"""Asking a shipper or a receiver, over HTTP, for the commands."""

import http
import http.client
import json
import ssl
import urllib.error
import urllib.request
from typing import IO, Any

from pmlog import security
from pmlog.addresses import parse_source
from pmlog.errors import ConfigError, PeerUnavailableError, ProtocolError
from pmlog.logs import plain
from pmlog.security import Security

ANSWER_BYTES_MAX = 16 << 20
SHOWN_BYTES = 80
"""Of an answer that is none."""

SHIPPER = "shipper"
RECEIVER = "receiver"
# Where each tells how it is, and a field that no other service has there.
_KINDS = {RECEIVER: ("/v1/status", "lsn_durable"), SHIPPER: ("/v1/pools", "pools")}
_HINT = "is the port that of `pmlog ship` or `pmlog receive`?"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token goes to the address that the operator has named, and nowhere else."""

    def redirect_request(  # noqa: PLR0917 - the standard library's
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def ask(
    url: str,
    path: str,
    *,
    has: Security = security.NONE,
    method: str = "GET",
    body: Any = None,
    timeout_s: float = 10.0,
) -> tuple[int, Any]:
    """Ask and wait for the answer.

    Args:
        url: http://HOST:PORT or https://HOST:PORT of the service.
        path: What is asked for.
        has: Token and TLS of this side.
        method: GET, POST or DELETE.
        body: What is sent, as JSON.
        timeout_s: How long to wait.

    Returns:
        The status and the JSON of the answer.

    Raises:
        ConfigError: The address needs what is missing, or the service refuses the token.
        PeerUnavailableError: Nobody answered.
        ProtocolError: The answer is no JSON.
    """
    source = parse_source(url, has)
    data = None if body is None else json.dumps(body).encode()
    headers = has.headers() | ({} if body is None else {"Content-Type": "application/json"})
    request = urllib.request.Request(source + path, data=data, method=method, headers=headers)  # noqa: S310 - parse_source takes http and https only
    # No proxies: the environment does not decide who hears the token.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=has.dialling_context()),
        _NoRedirect(),
    )
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            status, text = answer.status, answer.read(ANSWER_BYTES_MAX)
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        hint = "is it running, and is the port right?"
        if isinstance(reason, ssl.SSLError):
            hint = "does it speak TLS, and do --tls-ca, --tls-cert and --tls-key fit?"
        elif isinstance(reason, http.client.HTTPException | ConnectionResetError):
            hint = "https:// if it speaks TLS, and --tls-cert if it wants certificates"
        raise PeerUnavailableError(
            f"{url} does not answer: {plain(reason) or type(reason).__name__}", hint=hint
        ) from error
    if status in (401, 403):
        raise ConfigError(
            f"{url} refuses: {plain(text.decode(errors='replace').strip())}",
            hint="--token-file names the service's token",
        )
    try:
        return status, json.loads(text)
    except ValueError:
        said = plain(text[:SHOWN_BYTES].decode(errors="replace").strip())
        raise ProtocolError(f"{url}{path} answered {status}: {said!r}", hint=_HINT) from None


def ask_for(
    url: str,
    path: str,
    field: str,
    *,
    wanted: str,
    has: Security,
    method: str,
    body: Any,
    timeout_s: float = 10.0,
) -> dict[str, Any]:
    """Have a shipper or a receiver do something; explain what else is there, if it is not one.

    Args:
        url: The service.
        path: What is asked for.
        field: One of its answer's, whatever the answer is.
        wanted: SHIPPER or RECEIVER.
        has: Token and TLS of this side.
        method: POST or DELETE.
        body: What is sent, as JSON.
        timeout_s: How long to wait.

    Returns:
        The answer.

    Raises:
        ConfigError: It is another kind of service.
        ProtocolError: It could not do it, and says why.
        PmlogError: As `ask`.
    """
    try:
        _, answer = ask(url, path, has=has, method=method, body=body, timeout_s=timeout_s)
    except ProtocolError:
        _told(url, wanted, has)
        raise
    if isinstance(answer, dict) and field in answer:
        return answer
    _told(url, wanted, has)
    reason = answer.get("reason") if isinstance(answer, dict) else None
    raise ProtocolError(f"{url} could not do it: {plain(str(reason or answer))[: SHOWN_BYTES * 4]}")


def ask_shipper(url: str, has: Security) -> list[dict[str, Any]]:
    """Ask a shipper for its pools.

    Args:
        url: The shipper.
        has: Token and TLS of this side.

    Returns:
        As `GET /v1/pools` tells them.

    Raises:
        ConfigError: It is another kind of service.
        PmlogError: As `ask`.
    """
    answer = _told(url, SHIPPER, has)
    pools: list[dict[str, Any]] = answer["pools"]
    return pools


def ask_receiver(url: str, has: Security) -> dict[str, Any]:
    """Ask a receiver how it is.

    Args:
        url: The receiver.
        has: Token and TLS of this side.

    Returns:
        As `GET /v1/status` tells it.

    Raises:
        ConfigError: It is another kind of service.
        PmlogError: As `ask`.
    """
    return _told(url, RECEIVER, has)


def ask_either(url: str, has: Security, timeout_s: float = 10.0) -> tuple[str, dict[str, Any]]:
    """Ask a shipper or a receiver how it is.

    Args:
        url: The service.
        has: Token and TLS of this side.
        timeout_s: How long to wait for each answer.

    Returns:
        SHIPPER or RECEIVER, and what it tells.

    Raises:
        ConfigError: It is neither.
        PmlogError: As `ask`.
    """
    for kind, (path, field) in _KINDS.items():
        try:
            status, answer = ask(url, path, has=has, timeout_s=timeout_s)
        except ProtocolError:
            continue  # a web server has something to say to every question
        if status == http.HTTPStatus.OK and isinstance(answer, dict) and field in answer:
            return kind, answer
    raise ConfigError(f"{url} is neither a shipper nor a receiver", hint=_HINT)


def _told(url: str, wanted: str, has: Security) -> dict[str, Any]:
    kind, answer = ask_either(url, has)
    if kind != wanted:
        raise ConfigError(
            f"{url} is a {kind}, and this wants a {wanted}", hint="give the other one's address"
        )
    return answer
