"""`pmlog status`: how a shipper or a receiver is."""

import json
from typing import Annotated, Any

import typer

from pmlog.cli import reported
from pmlog.cli.request import ask


def status(
    url: Annotated[str, typer.Argument(help="Shipper or receiver, as http://HOST:PORT.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Tell how a shipper or a receiver is: who has what, and how far it is behind."""
    with reported():
        code, answer = _ask(url)
        del code
        if as_json:
            print(json.dumps(answer))
        else:
            _show(answer, "")


def _ask(url: str) -> tuple[int, Any]:
    from pmlog.errors import ProtocolError

    try:
        return ask(url, "/v1/status")
    except ProtocolError:
        return ask(url, "/v1/pools")


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
