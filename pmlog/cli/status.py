"""`pmlog status`: how a shipper or a receiver is."""

import json
from typing import Annotated, Any

import typer

from pmlog import security
from pmlog.cli import reported
from pmlog.cli.options import TlsCa, TlsCert, TlsKey, TokenFile
from pmlog.cli.request import ask


def status(  # noqa: PLR0917 - options of a command
    url: Annotated[str, typer.Argument(help="Shipper or receiver, as http(s)://HOST:PORT.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Tell how a shipper or a receiver is: who has what, and how far it is behind.

    Example: pmlog status http://127.0.0.1:7070
    """
    with reported():
        has = security.load(token_file, tls_cert, tls_key, tls_ca)
        code, answer = _ask(url, has)
        del code
        if as_json:
            print(json.dumps(answer))
        else:
            _show(answer, "")


def _ask(url: str, has: security.Security) -> tuple[int, Any]:
    from pmlog.errors import ProtocolError

    try:
        return ask(url, "/v1/status", has=has)
    except ProtocolError:
        return ask(url, "/v1/pools", has=has)


def _show(value: Any, indent: str) -> None:
    for name, part in value.items():
        if isinstance(part, dict):
            print(f"{indent}{name}:")
            _show(part, indent + "  ")
        elif isinstance(part, list):
            for one in part:
                print(f"{indent}{name}:")
                _show(one, indent + "  ")
        else:
            print(f"{indent}{name}: {'-' if part is None else part}")
