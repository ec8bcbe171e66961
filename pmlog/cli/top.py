"""`pmlog top`: a live view of shippers, receivers and pools."""

import contextlib
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from pmlog import security
from pmlog.cli import ExitCode, reported
from pmlog.cli.options import TlsCa, TlsCert, TlsKey, TokenFile
from pmlog.cli.watch import COLUMNS, Sample, Target, cells
from pmlog.errors import ConfigError

TARGETS_MAX = 32


def top(  # noqa: PLR0917 - options of a command
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="URL|POOL...", help="Shippers and receivers, as URLs; folders of pools."
        ),
    ],
    interval: Annotated[
        float, typer.Option(min=0.1, max=60, help="Seconds from one look to the next.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Watch shippers, receivers and pools: transactions, lag, backlog, power, peers.

    `q` or Ctrl-C ends it. Where standard output is no terminal it prints one frame.
    Exit code 1: of one frame, something did not answer.

    Example: pmlog top http://127.0.0.1:7070 http://127.0.0.1:7071 /dev/shm/orders
    """  # noqa: DOC501 - this is the help text
    with reported():
        if len(targets) > TARGETS_MAX:
            raise ConfigError(f"{len(targets)} targets, more than {TARGETS_MAX}")
        has = security.load(token_file, tls_cert, tls_key, tls_ca)
        watched = [Target(text, has) for text in targets]
        with ThreadPoolExecutor(len(watched)) as executor:
            before = _look(executor, watched)
            if once or not sys.stdout.isatty():
                # Rates need two looks.
                time.sleep(min(interval, 0.5))
                after = _look(executor, watched)
                _print(before, after)
                if any(row.kind == "?" for sample in after for row in sample.rows):
                    raise typer.Exit(ExitCode.FAILED)
                return
            with contextlib.suppress(KeyboardInterrupt):
                _watch(executor, watched, before, interval)


def _look(executor: ThreadPoolExecutor, targets: list[Target]) -> list[Sample]:
    """Ask all at once: one that is stuck holds up the others by a few seconds only."""
    return list(executor.map(Target.look, targets))


def _print(before: list[Sample], after: list[Sample]) -> None:
    lines = [COLUMNS] + [
        cells(row, old, new.at_s) for old, new in zip(before, after, strict=True) for row in new.rows
    ]  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    for line in lines:
        print(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        )


def _watch(
    executor: ThreadPoolExecutor, targets: list[Target], before: list[Sample], interval_s: float
) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    def frame(old: list[Sample], new: list[Sample]) -> Group:
        table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
        for name in COLUMNS:
            right = name in {"tx/s", "log/s", "lacks", "backlog"}
            table.add_column(name, justify="right" if right else "left", overflow="fold")
        for was, now in zip(old, new, strict=True):
            for row in now.rows:
                texts = [Text(text) for text in cells(row, was, now.at_s)]
                texts[2].stylize("bold red" if row.is_bad else "green")
                table.add_row(*texts)
        return Group(table, Text("q ends", style="dim"))

    with _keys() as wait, Live(frame(before, before), screen=True, auto_refresh=False) as live:
        while not wait(interval_s):
            after = _look(executor, targets)
            live.update(frame(before, after), refresh=True)
            before = after


class _Keys:
    def __init__(self, number: int | None) -> None:
        self._number = number

    def __call__(self, seconds: float) -> bool:
        """Wait so long; return at once, and true, when `q` was pressed."""
        if self._number is None:
            time.sleep(seconds)
            return False
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([self._number], [], [], left)
            if ready and sys.stdin.read(1) in ("q", "Q", ""):
                return True
        return False


@contextlib.contextmanager
def _keys() -> Iterator[_Keys]:
    """Hear single keys; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield _Keys(None)
        return
    number = sys.stdin.fileno()
    old = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield _Keys(number)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, old)
