"""`pmlog demo`: real flights, an application that is killed, a host that is lost, nothing missing."""

import json
import random
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from pmlog.cli import ExitCode, reported

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder in it
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)
_QUICK_FLIGHTS: Final = 20_000
_FLIGHTS_MIN: Final = 1_000
"""With fewer the application is done before it can be killed."""


def demo(  # noqa: PLR0917 - options of a command
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Only the first {_QUICK_FLIGHTS:,} flights.")
    ] = False,
    flights: Annotated[
        int | None, typer.Option(min=_FLIGHTS_MIN, help="Only so many flights.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Repeats the moments of a run.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the folder of the promoted pool.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--in", help="Where the host's pool is made; /dev/shm if not given."),
    ] = None,
    replica: Annotated[
        Path | None,
        typer.Option("--replica-in", help="Where the replica is kept; /dev/shm if not given."),
    ] = None,
    battery: Annotated[
        str,
        typer.Option(
            help="As of `pmlog ship`; sim:2s if not given and the host's pool is in /dev/shm."
        ),
    ] = "",
    recheck: Annotated[
        Path | None,
        typer.Option("--compare", help="Only compare a pool that --keep left, and run nothing."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Stream the flights of a year through an application, and take its host away on the way.

    The application keeps a dict, a table, a deque and its input cursor in one pool, a transaction
    a flight; a shipper and a receiver run beside it.
    The application is killed with SIGKILL, power fails, the log is sealed, the host is removed,
    the receiver is promoted and the application finishes there.
    In the end every field is compared with the same computation in plain Python.
    Exit code 0 only if all are the same and no acknowledged transaction was lost.

    Example: pmlog demo

    Raises:
        Exit: Something was lost or differs.
    """
    from pmlog.demo.flights import FLIGHTS_MAX, archive

    count = min(flights or (_QUICK_FLIGHTS if quick else FLIGHTS_MAX), FLIGHTS_MAX)
    with reported():
        archive()
        good = (
            _recheck(recheck, count)
            if recheck
            else _run(count, seed, keep, folder, replica, battery, as_json)
        )
    if not good:
        raise typer.Exit(ExitCode.FAILED)


def _run(  # noqa: PLR0917 - as the command's options
    flights: int,
    seed: int | None,
    keep: bool,
    folder: Path | None,
    replica: Path | None,
    battery: str,
    as_json: bool,
) -> bool:
    from pmlog.demo.plan import make_plan
    from pmlog.demo.play import play
    from pmlog.demo.show import choose

    seed = seed if seed is not None else random.SystemRandom().randrange(1 << 32)
    memory = _MEMORY if _MEMORY.is_dir() else None
    elsewhere = Path(tempfile.mkdtemp(prefix="pmlog-demo-elsewhere-", dir=replica or memory))
    host = Path(tempfile.mkdtemp(prefix="pmlog-demo-host-", dir=folder or memory))
    # The lights go out at the end of a simulated battery only where memory is lost with them.
    is_in_memory = memory is not None and host.stat().st_dev == memory.stat().st_dev
    battery = battery or ("sim:2s" if is_in_memory else "60s")
    # As Ctrl-C: no process of the demo may outlive it, nor its terminal.
    before = [signal.signal(number, signal.default_int_handler) for number in _ENDS]
    try:
        with choose(as_json=as_json, flights=flights) as show:
            outcome = play(make_plan(seed, flights), host, elsewhere, battery, show)
            show.end(outcome)
        if as_json:
            print(json.dumps(outcome.as_json() | {"kept": str(elsewhere) if keep else None}))
        elif keep:
            print(f"kept: {elsewhere}")
    finally:
        for number, handler in zip(_ENDS, before, strict=True):
            signal.signal(number, handler)
        shutil.rmtree(host, ignore_errors=True)
        if not keep:
            shutil.rmtree(elsewhere, ignore_errors=True)
    return outcome.is_good


def _recheck(pool: Path, flights: int) -> bool:
    from pmlog.demo.play import compare_pool

    comparison = compare_pool(pool, flights)
    for text in comparison.shown:
        print(text)
    print(f"{comparison.fields:,} fields compared, {comparison.differences:,} differ")
    return not comparison.differences
