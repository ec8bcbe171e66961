"""`pmlog drill`: would a copy of this pool come up as a primary?"""

import json
import shlex
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pmlog.cli import ExitCode, reported
from pmlog.drill import Report
from pmlog.drill import drill as try_out

_STDERR = 2


def drill(
    pool: Annotated[str, typer.Argument(help="The pool's folder, or a receiver's.")],
    scratch: Annotated[
        str | None,
        typer.Option("--dir", help="Empty folder for the copy, which stays there afterwards."),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option("--run", help="Runs on the promoted copy, whose path is PMLOG_POOL."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Restore a copy of a pool, promote the copy, check it, and run a command on it.

    The pool is only read, and a writer may be at work meanwhile.
    Exit code 0: all is well; 1: the checker found faults, or the command failed.

    Example: pmlog drill /dev/shm/orders

    Raises:
        Exit: Not all is well.
    """
    with reported(), tempfile.TemporaryDirectory(prefix="pmlog-drill-") as folder:
        report = try_out(
            pool,
            scratch or Path(folder, "copy"),
            shlex.split(command or ""),
            output=_STDERR if as_json else None,
        )
        if as_json:
            print(json.dumps({**asdict(report), "is_well": report.is_well}))
        else:
            _tell(report, is_kept=scratch is not None)
    if not report.is_well:
        raise typer.Exit(ExitCode.FAILED)


def _tell(report: Report, *, is_kept: bool) -> None:
    at = report.position
    print(
        f"restored in {report.restore_s:.3f} s: {report.image_bytes} bytes of image, "
        f"{report.log_bytes} bytes of log, up to transaction {at.txn} ({at})"
    )
    print(f"promoted in {report.promote_s:.3f} s: epoch {report.epoch}")
    for fault in report.faults:
        print(fault)
    print(f"faults: {len(report.faults)}")
    if report.exit_code is not None:
        print(f"the command's exit code: {report.exit_code}")
    if is_kept:
        print(f"the copy: {report.copy}")
    print("all is well" if report.is_well else "NOT well")
