"""`pmlog repair`: make a damaged or diverged copy the same as its primary again."""

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmlog import limits, security
from pmlog.addresses import Address, parse_source
from pmlog.cli import ExitCode, reported
from pmlog.cli.options import TlsCa, TlsCert, TlsKey, TokenFile
from pmlog.cli.request import ask_shipper
from pmlog.drill import find_pool
from pmlog.errors import ConfigError, PeerUnavailableError
from pmlog.headers import identity_of
from pmlog.security import Security
from pmlog.sizes import format_size

if TYPE_CHECKING:
    from receiver.repair import Progress, Repaired

_LINE_S = 2.0
"""From one plain line of progress to the next."""


def repair(  # noqa: PLR0917 - options of a command
    pool: Annotated[str, typer.Argument(help="The pool's folder, or a receiver's.")],
    source: Annotated[
        str,
        typer.Option("--from", help="Shipper of a sound copy, as http(s)://HOST:PORT."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Make a copy that is damaged, incomplete or diverged the same as its primary again.

    For a pool that nobody has open. Only blocks that differ are fetched, then the log.
    What only this copy's log has is saved beside it first, as POOL.tail-EPOCH-LSN.
    Nothing is changed unless the shipper answers and ships this pool.
    Afterwards the copy is a replica. Cut short, it is incomplete: run the command again.
    Exit code 0: the checker finds no fault in it.

    Example: pmlog repair /var/lib/orders/pool --from http://127.0.0.1:7070
    """  # noqa: DOC501 - this is the help text
    with reported():
        from receiver.config import Config
        from receiver.repair import repair as run

        path = find_pool(pool)
        number = str(identity_of(path).pool_id)
        has = security.load(token_file, tls_cert, tls_key, tls_ca)
        url = parse_source(source, has)
        config = Config(
            sources=(url,),
            folder=path,
            name=f"repair-{socket.gethostname()}"[: limits.RECEIVER_NAME_BYTES_MAX],
            pool=number,
            listen=Address("127.0.0.1", 0),
            security=has,
            replica=path,
        )
        lsn_end = _end_of(url, number, path, has)
        with _shown(quiet=as_json) as note:
            done = run(config, lsn_end, note)
        if as_json:
            print(json.dumps(_as_json(done, url, number)))
        else:
            _show(done, url)
    if done.faults:
        raise typer.Exit(ExitCode.FAILED)


def _end_of(url: str, number: str, path: Path, has: Security) -> int:
    """Ask the shipper for the end of that pool's log."""
    pools = {one["id"]: one for one in ask_shipper(url, has)}
    if number not in pools:
        raise ConfigError(
            f"{url} ships {', '.join(pools) or 'nothing'}; {path} is of pool {number}",
            hint="nothing was changed; give the shipper of another copy of this pool",
        )
    if pools[number].get("frozen"):
        # It would take time from the saving, and hold a seal that nobody gives back.
        raise PeerUnavailableError(
            f"{url} saves its log, since power fails there",
            hint="nothing was changed; repair once power is back: a receiver would go on now",
        )
    return int(pools[number]["lsn_durable"])


@contextlib.contextmanager
def _shown(*, quiet: bool) -> "Iterator[Callable[[Progress], None]]":
    """Show progress on standard error: a bar on a terminal, a line now and then elsewhere."""
    if not quiet and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), transient=True) as bar:
            blocks = bar.add_task("comparing blocks", total=None)

            def draw(at: "Progress") -> None:
                text = f"comparing blocks, {at.fetched} fetched"
                if at.log_bytes:
                    text = f"{format_size(at.log_bytes)} of log"
                bar.update(blocks, total=at.total or None, completed=at.compared, description=text)

            yield draw
        return
    said_at = time.monotonic()

    def line(at: "Progress") -> None:
        nonlocal said_at
        if quiet or time.monotonic() - said_at < _LINE_S:
            return
        said_at = time.monotonic()
        print(
            f"{at.compared} of {at.total} blocks compared, {at.fetched} fetched, "
            f"{at.log_bytes} bytes of log",
            file=sys.stderr,
            flush=True,
        )

    yield line


def _as_json(done: "Repaired", url: str, number: str) -> dict[str, Any]:
    return {
        "path": str(done.path),
        "pool": number,
        "source": url,
        "state": "replica",
        "epoch": done.position.epoch,
        "lsn": done.position.lsn,
        "txn": done.position.txn,
        "blocks_compared": done.blocks_compared,
        "blocks_fetched": done.blocks_fetched,
        "block_bytes": done.block_bytes,
        "log_bytes": done.log_bytes,
        "saved_tail": str(done.saved.path) if done.saved else None,
        "saved_records": done.saved.records if done.saved else 0,
        "faults": [asdict(fault) for fault in done.faults],
    }


def _show(done: "Repaired", url: str) -> None:
    path, at = done.path, done.position
    print(
        f"{done.blocks_compared} blocks compared, {done.blocks_fetched} fetched "
        f"({done.block_bytes} bytes), {done.log_bytes} bytes of log"
    )
    if done.saved is not None:
        print(
            f"saved: {done.saved.path}: {done.saved.records} records that are not known to be "
            "there; `pmlog dump` lists them"
        )
    for fault in done.faults:
        print(fault)
    print(
        f"{path}: a replica of epoch {at.epoch}, up to LSN {at.lsn}, transaction {at.txn}; "
        f"{len(done.faults) or 'no'} fault{'' if len(done.faults) == 1 else 's'}"
    )
    where = f"--dir {path.parent}" if path.name == "pool" else f"--dir DIR --replica {path}"
    print(f"next: `pmlog receive --from {url} {where}` follows; `pmlog promote` then makes it")
    print("the primary, if the one that it follows is gone")
