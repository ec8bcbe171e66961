"""`pmlog receive`: keep a copy of a pool that another process ships."""

import json
import shlex
import socket
from pathlib import Path
from typing import Annotated

import typer

from pmlog import limits, security
from pmlog.addresses import parse_listen, parse_source
from pmlog.cli import reported
from pmlog.cli.options import LogLevel, TlsCa, TlsCert, TlsKey, TokenFile
from pmlog.errors import ConfigError, MediumError, PmlogError


def receive(  # noqa: PLR0917 - options of a command
    folder: Annotated[
        Path, typer.Option("--dir", help="Where the replica and its marks are kept.")
    ],
    source: Annotated[
        str, typer.Option("--from", help="Shippers, as http(s)://HOST:PORT, separated by commas.")
    ] = "",
    from_vault: Annotated[
        Path | None,
        typer.Option(
            "--from-vault",
            help="Take in what a shipper left in a vault, say what came of it, and end.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --from-vault: one JSON document.")
    ] = False,
    name: Annotated[
        str, typer.Option(help="This receiver's name, by which the shipper knows it again.")
    ] = "",
    pool: Annotated[
        str, typer.Option(help="The pool's number; `any`: the only one that is shipped there.")
    ] = "any",
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to listen at; port 0 takes any free one.")
    ] = "127.0.0.1:7071",
    replica: Annotated[
        Path | None,
        typer.Option(
            help="The replica's folder, DIR/pool if not given: an old primary's pool comes back "
            "as a replica this way, and what its new primary lacks is saved beside it first."
        ),
    ] = None,
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
    """Keep a copy of a pool until SIGTERM.

    It goes on where the copy ends, whenever a shipper can be reached.
    `pmlog promote` makes the copy a pool of its own.
    The first line on standard output says where it listens, as JSON.
    Anything but loopback, in --from and --listen, needs a token and TLS.
    With --from-vault nothing is dialled: the copy is completed from the vault, and sealed.

    Example: pmlog receive --from http://127.0.0.1:7070 --dir /var/lib/orders
    """  # noqa: DOC501 - this is the help text
    with reported():
        from receiver.config import Config
        from receiver.run import run

        if bool(source) == (from_vault is not None):
            raise ConfigError("give either --from or --from-vault")
        if from_vault is not None:
            _take(folder, from_vault, as_json)
            return
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
            replica=replica,
        )
        try:
            run(config, log_level)
        except PmlogError:
            raise  # some are OSErrors too
        except OSError as error:
            raise MediumError(
                f"cannot listen at {listen}: {error}",
                hint="is another service there? port 0 takes any free one",
            ) from error


def _take(folder: Path, source: Path, as_json: bool) -> None:
    from receiver.vault import take

    taken = take(folder, folder / "pool", source)
    place = taken.place
    if as_json:
        answer = {
            "path": str(folder / "pool"),
            "sealed": True,
            "epoch": place.epoch,
            "lsn": place.lsn,
            "txn": place.txn,
            "lsn_before": taken.lsn_before,
            "log_bytes": taken.log_bytes,
            "blocks": taken.blocks,
        }
        print(json.dumps(answer))
    else:
        print(
            f"{folder / 'pool'}: sealed at LSN {place.lsn}, transaction {place.txn}, epoch "
            f"{place.epoch}; {taken.log_bytes} bytes of log and {taken.blocks} blocks were taken in"
        )
