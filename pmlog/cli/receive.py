"""`pmlog receive`: keep a copy of a pool that another process ships."""

import shlex
import socket
from pathlib import Path
from typing import Annotated

import typer

from pmlog import limits, security
from pmlog.addresses import parse_listen, parse_source
from pmlog.cli import reported
from pmlog.cli.options import LogLevel, TlsCa, TlsCert, TlsKey, TokenFile
from pmlog.errors import ConfigError, MediumError


def receive(  # noqa: PLR0917 - options of a command
    source: Annotated[
        str, typer.Option("--from", help="Shippers, as http(s)://HOST:PORT, separated by commas.")
    ],
    folder: Annotated[
        Path, typer.Option("--dir", help="Where the replica and its marks are kept.")
    ],
    name: Annotated[
        str, typer.Option(help="This receiver's name, by which the shipper knows it again.")
    ] = "",
    pool: Annotated[
        str, typer.Option(help="The pool's number; `any`: the only one that is shipped there.")
    ] = "any",
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to listen at; port 0 takes any free one.")
    ] = "127.0.0.1:7071",
    on_promote: Annotated[
        str,
        typer.Option(
            help="Command that runs once the replica is promoted, with PMLOG_POOL and PMLOG_EPOCH "
            "in its environment."
        ),
    ] = "",
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
    log_level: LogLevel = "info",
) -> None:
    """Keep a copy of a pool, in DIR/pool, until SIGTERM.

    It goes on where the copy ends, whenever a shipper can be reached.
    `pmlog promote` makes the copy a pool of its own.
    The first line on standard output says where it listens, as JSON.
    Anything but loopback, in --from and --listen, needs a token and TLS.

    Example: pmlog receive --from http://127.0.0.1:7070 --dir /var/lib/orders
    """  # noqa: DOC501 - this is the help text
    with reported():
        from receiver.config import Config
        from receiver.run import run

        name = name or socket.gethostname()[: limits.RECEIVER_NAME_BYTES_MAX]
        if not 0 < len(name.encode()) <= limits.RECEIVER_NAME_BYTES_MAX:
            raise ConfigError(f"--name takes 1 to {limits.RECEIVER_NAME_BYTES_MAX} bytes")
        has = security.load(token_file, tls_cert, tls_key, tls_ca)
        config = Config(
            sources=tuple(parse_source(text, has) for text in source.split(",")),
            folder=folder,
            name=name,
            pool=pool,
            listen=parse_listen(listen, has),
            on_promote=tuple(shlex.split(on_promote)),
            security=has,
        )
        try:
            run(config, log_level)
        except OSError as error:
            raise MediumError(f"cannot listen at {listen}: {error}") from error
