"""`pmlog dump`: the records of a pool's log."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer

from pmlog import saved
from pmlog.cli import reported
from pmlog.errors import ConfigError
from pmlog.log import LogReader, Record


def dump(
    pool: Annotated[
        str, typer.Argument(help="The pool's folder, or a file of records saved from one.")
    ],
    lsn: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="LSN", help="LSN of the first record; the checkpoint if not given."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many records.")] = None,
    ranges: Annotated[
        bool, typer.Option("--ranges", help="What each record changes, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a record.")] = False,
) -> None:
    """List the log's records, from the checkpoint or an LSN on.

    Nothing is changed, and a writer may be at work meanwhile.
    Of a file that a returning primary has saved, the records that it holds.

    Example: pmlog dump /dev/shm/orders
    """
    with reported():
        for record in islice(_records(pool, None if lsn is None else _parse(lsn)), limit):
            if as_json:
                print(json.dumps(_facts(record)))
            else:
                print(_line(record))
                for change in record.ranges if ranges else ():
                    print(f"  {change.kind} offset={change.offset} length={change.length}")


def _records(path: str, lsn: int | None) -> Iterator[Record]:
    if saved.is_saved_tail(path):
        yield from (record for record in saved.read(path) if record.lsn >= (lsn or 0))
        return
    with LogReader(path, lsn) as reader:
        yield from reader.records()


def _parse(lsn: str) -> int:
    try:
        return int(lsn)
    except ValueError:
        raise ConfigError(f"--from={lsn} is not an LSN", hint="LSNs are numbers") from None


def _facts(record: Record) -> dict[str, Any]:
    return {
        "lsn": record.lsn,
        "lsn_next": record.lsn_next,
        "length": record.length,
        "txn": record.txn,
        "epoch": record.epoch,
        "session": record.session,
        "kind": record.kind,
        "lsn_durable": record.lsn_durable,
        "checksum": f"{record.checksum:08x}",
        "checksum_prev": f"{record.checksum_prev:08x}",
        "ranges": [
            {"kind": change.kind, "offset": change.offset, "length": change.length}
            for change in record.ranges
        ],
    }


def _line(record: Record) -> str:
    changed = sum(change.length for change in record.ranges)
    return (
        f"lsn={record.lsn} txn={record.txn} epoch={record.epoch} session={record.session} "
        f"{record.kind} length={record.length} ranges={len(record.ranges)} changed={changed} "
        f"checksum={record.checksum:08x}"
    )
