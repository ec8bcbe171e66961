"""`pmlog check`: every fault in a pool."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pmlog.check import check as find_faults
from pmlog.cli import ExitCode, reported


def check(
    pool: Annotated[str, typer.Argument(help="The pool's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """List every fault: format, log chain, page checksums, heap, containers, leaks.

    Nothing is changed, and a writer may be at work meanwhile.
    Exit code 0: none; 1: at least one.

    Example: pmlog check /dev/shm/orders --json

    Raises:
        Exit: There are faults.
    """
    with reported():
        faults = find_faults(pool)
        if as_json:
            print(json.dumps({"path": pool, "faults": [asdict(fault) for fault in faults]}))
        else:
            for fault in faults:
                print(fault)
            print(f"{pool}: {_count(len(faults))}")
    if faults:
        raise typer.Exit(ExitCode.FAILED)


def _count(faults: int) -> str:
    return {0: "no faults", 1: "1 fault"}.get(faults, f"{faults} faults")
