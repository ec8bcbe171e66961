"""The command line: `pmlog COMMAND`, one module a command.

Exit codes are the same for all commands; see `ExitCode`.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import typer

from pmlog import errors
from pmlog.check import looks_like_a_pool
from pmlog.pool import Pool
from pmlog.pool import open as open_pool


class ExitCode(IntEnum):
    """What a command's exit code says."""

    OK = 0
    """It did what was asked, and all is well."""
    FAILED = 1
    """It did what was asked, and found faults, or what it tried failed."""
    USAGE = 2
    """The command line is wrong."""
    NO_POOL = 3
    """There is no pool at that path."""
    LOCKED = 4
    """Another process has the pool open for writing."""
    UNREADABLE = 5
    """The pool is damaged, incomplete, or of a later version, so that it cannot be opened."""
    REFUSED = 6
    """The file system refuses."""
    GONE = 7
    """The log does not hold that LSN."""
    NO_ROOM = 8
    """The file system, the log or the pool is full."""
    INTERRUPTED = 130
    """Ctrl-C."""


_MEANINGS: Final = {
    ExitCode.OK: "all is well",
    ExitCode.FAILED: "faults were found, or it failed",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.NO_POOL: "there is no pool at that path",
    ExitCode.LOCKED: "another process has the pool open for writing",
    ExitCode.UNREADABLE: "the pool is damaged or of a later version",
    ExitCode.REFUSED: "the file system refuses",
    ExitCode.GONE: "the log does not hold that LSN",
    ExitCode.NO_ROOM: "no room",
    ExitCode.INTERRUPTED: "interrupted",
}

# The first class that fits decides.
_CODES: Final[tuple[tuple[type[Exception], ExitCode], ...]] = (
    (errors.PoolNotFoundError, ExitCode.NO_POOL),
    (errors.PoolLockedError, ExitCode.LOCKED),
    (errors.PoolPermissionError, ExitCode.REFUSED),
    (errors.GapError, ExitCode.GONE),
    (errors.CapacityError, ExitCode.NO_ROOM),
    (errors.ConfigError, ExitCode.USAGE),
    (errors.FormatError, ExitCode.UNREADABLE),
    (errors.CorruptionError, ExitCode.UNREADABLE),
    (errors.IncompleteError, ExitCode.UNREADABLE),
    (Exception, ExitCode.FAILED),
)

app = typer.Typer(
    name="pmlog",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Transactional live state in a memory-mapped pool.",
    epilog="Exit codes: "
    + "; ".join(f"{code.value} {meaning}" for code, meaning in _MEANINGS.items())
    + ".",
)


def code_of(error: Exception) -> ExitCode:
    """Choose the exit code for an error.

    Args:
        error: The error.

    Returns:
        The code.
    """
    if isinstance(error, errors.FormatError) and not looks_like_a_pool(error.path or ""):
        return ExitCode.NO_POOL
    return next(code for kind, code in _CODES if isinstance(error, kind))


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn errors of the library into a line on standard error and an exit code.

    Yields:
        Nothing.

    Raises:
        Exit: An error was reported.
    """
    try:
        yield
    except errors.PmlogError as error:
        print(f"pmlog: {error}", file=sys.stderr)
        raise typer.Exit(code_of(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def open_readonly(path: str) -> Pool:
    """Open a pool to look at it, however large it is.

    Args:
        path: The pool.

    Returns:
        The pool, read-only.

    Raises:
        PmlogError: As `pmlog.open`.
    """
    size = 0
    for name in ("image", "image.pmemobj"):
        with contextlib.suppress(OSError):
            size = max(size, os.stat(os.path.join(path, name)).st_size)
    return open_pool(path, readonly=True, max_size=max(2 * size, 64 << 30))


def register() -> typer.Typer:
    """Give every command to `app`; again changes nothing.

    Returns:
        The program.
    """
    if app.registered_commands:
        return app
    from pmlog.cli import (
        check,
        demo,
        drill,
        dump,
        info,
        power_loss,
        promote,
        receive,
        repair,
        ship,
        status,
    )
    from pmlog.cli import top as top_command

    commands = (
        info.info,
        check.check,
        dump.dump,
        repair.repair,
        drill.drill,
        demo.demo,
        ship.ship,
        receive.receive,
        status.status,
        promote.promote,
        power_loss.power_loss,
        top_command.top,
    )
    for one in commands:
        app.command()(one)
    return app


def main(command: str | None = None) -> None:
    """Run the command line.

    Args:
        command: The subcommand that the program stands for; None: the first argument names it.
    """
    register()(args=None if command is None else [command, *sys.argv[1:]], prog_name="pmlog")
