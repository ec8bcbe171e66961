"""Asking a shipper or a receiver, over HTTP, for the commands."""

import json
import urllib.error
import urllib.request
from typing import Any

from pmlog.addresses import parse_source
from pmlog.errors import PeerUnavailableError, ProtocolError

ANSWER_BYTES_MAX = 16 << 20


def ask(
    url: str, path: str, *, method: str = "GET", body: Any = None, timeout_s: float = 10.0
) -> tuple[int, Any]:
    """Ask and wait for the answer.

    Args:
        url: http://HOST:PORT of the service.
        path: What is asked for.
        method: GET, POST or DELETE.
        body: What is sent, as JSON.
        timeout_s: How long to wait.

    Returns:
        The status and the JSON of the answer.

    Raises:
        PeerUnavailableError: Nobody answered.
        ProtocolError: The answer is no JSON.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(parse_source(url) + path, data=data, method=method)  # noqa: S310 - parse_source takes http only
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - the same
            status, text = answer.status, answer.read(ANSWER_BYTES_MAX)
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read(ANSWER_BYTES_MAX)
    except OSError as error:
        raise PeerUnavailableError(
            f"{url} does not answer: {error}", hint="is it running, and is the port right?"
        ) from error
    try:
        return status, json.loads(text)
    except ValueError:
        raise ProtocolError(f"{url}{path} answered {status}: {text[:200]!r}") from None
