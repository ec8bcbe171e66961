"""`pmlog status`: how shippers, receivers and pools are."""

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pmlog import security
from pmlog.cli import ExitCode, code_of, reported
from pmlog.cli.local import status_of
from pmlog.cli.options import TlsCa, TlsCert, TlsKey, TokenFile
from pmlog.cli.request import ask_either
from pmlog.errors import PmlogError
from pmlog.logs import plain
from pmlog.security import Security


def status(  # noqa: PLR0917 - options of a command
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="URL|POOL...",
            help="Shippers and receivers, as http(s)://HOST:PORT; folders of pools.",
        ),
    ],
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON document; of several targets an array."),
    ] = False,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Tell how a shipper, a receiver or a pool is: who has what, and how far it is behind.

    Of a pool's folder: its position, who writes and who reads its log, and what stops it, also if
    it cannot be opened. Nothing is changed. Exit code 5: a pool is damaged.

    Example: pmlog status http://127.0.0.1:7070 /dev/shm/orders
    """  # noqa: DOC501 - this is the help text
    code = ExitCode.OK
    answers: list[dict[str, Any]] = []
    with reported():
        has = security.load(token_file, tls_cert, tls_key, tls_ca)
        for target in targets:
            try:
                answer = look(target, has)
            except PmlogError as error:
                if len(targets) == 1:
                    raise
                print(f"pmlog: {error}", file=sys.stderr)
                answer = {"target": target, "error": plain(error)}
                code = code or code_of(error)
            answers.append(answer)
            if answer.get("fault"):
                code = code or ExitCode.UNREADABLE
    if as_json:
        print(json.dumps(answers if len(targets) > 1 else answers[0]))
    else:
        for target, answer in zip(targets, answers, strict=True):
            if "error" not in answer:
                _show(target if len(targets) > 1 else "", answer)
    if code:
        raise typer.Exit(code)


def look(target: str, has: Security) -> dict[str, Any]:
    """Ask a service, or look at a pool.

    Args:
        target: An address, or a folder.
        has: Token and TLS of this side.

    Returns:
        What it tells.

    Raises:
        PmlogError: It cannot be asked, or is no pool.
    """
    return ask_either(target, has)[1] if "://" in target else status_of(target)


def _show(title: str, answer: dict[str, Any]) -> None:
    if not sys.stdout.isatty():
        if title:
            print(f"{title}:")
        for depth, name, value in _lines(answer, 1 if title else 0):
            print(f"{'  ' * depth}{name}:" + ("" if value is None else f" {value}"))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, title=title, title_justify="left")
    for depth, name, value in _lines(answer, 0):
        table.add_row(Text("  " * depth + name, style="dim"), Text(value or ""))
    Console(highlight=False).print(table)


def _lines(part: dict[str, Any], depth: int) -> Iterator[tuple[int, str, str | None]]:
    """Give a line for each field: how deep it stands, its name, and its value if it has one."""
    for name, value in part.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield depth, plain(str(name)), None
                yield from _lines(one, depth + 1)
            else:
                yield depth, plain(str(name)), "-" if one is None else plain(str(one))
