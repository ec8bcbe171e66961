"""`pmlog promote`: make a receiver's replica a primary."""

import json
from typing import Annotated

import typer

from pmlog import security
from pmlog.cli import ExitCode, reported
from pmlog.cli.options import TlsCa, TlsCert, TlsKey, TokenFile
from pmlog.cli.request import ask


def promote(  # noqa: PLR0917 - options of a command
    url: Annotated[str, typer.Argument(help="The receiver, as http://HOST:PORT.")],
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Take what the receiver has, though what the primary still held is unknown.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Make a receiver's replica a primary, with the next epoch, and start its application.

    It is refused (exit code 1) unless the primary has sealed its log and the receiver has all of
    it; --accept-loss takes what there is.

    Example: pmlog promote http://127.0.0.1:7071
    """  # noqa: DOC501 - this is the help text
    with reported():
        has = security.load(token_file, tls_cert, tls_key, tls_ca)
        _, answer = ask(
            url, "/v1/promote", has=has, method="POST", body={"accept_loss": accept_loss}
        )
    if as_json:
        print(json.dumps(answer))
    elif answer["promoted"]:
        what = "complete" if answer["complete"] else "what came after is lost"
        print(
            f"promoted: {answer['path']}, epoch {answer['epoch']}, up to transaction "
            f"{answer['txn']} ({what})"
        )
    else:
        print(f"refused: {answer['reason']}")
    if not answer["promoted"]:
        raise typer.Exit(ExitCode.FAILED)
