"""What a person sees while the demo runs: a live view on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType
from typing import Any, Protocol, Self

from pmlog.demo.report import Outcome, figures


class Show(Protocol):
    """What the play tells its audience."""

    def now(self, text: str) -> None:
        """Say what is under way."""

    def done(self, text: str) -> None:
        """Say what has happened."""

    def progress(self, count: int, rate_per_s: float, lag_bytes: int | None) -> None:
        """Say how far it is."""

    def end(self, outcome: Outcome) -> None:
        """Sum up."""


class Silence:
    """Nobody looks: for `--json`."""

    def now(self, text: str) -> None:
        """Say nothing."""

    def done(self, text: str) -> None:
        """Say nothing."""

    def progress(self, count: int, rate_per_s: float, lag_bytes: int | None) -> None:
        """Say nothing."""

    def end(self, outcome: Outcome) -> None:
        """Say nothing."""


class Lines(Silence):
    """A line for everything that has happened."""

    def done(self, text: str) -> None:
        """Print a line.

        Args:
            text: What has happened.
        """
        print(text, flush=True)

    def end(self, outcome: Outcome) -> None:
        """Print the figures.

        Args:
            outcome: Of the run.
        """
        print()
        for name, value in figures(outcome):
            print(f"{name:>31}  {value}")
        for text in troubles(outcome):
            print(text)
        print(f"\n{verdict(outcome)}", flush=True)


class Terminal:
    """A live view: what has happened, what is under way, a bar with rate and lag.

    Args:
        flights: How many there are.
    """

    def __init__(self, flights: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        self._console = Console(highlight=False)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            expand=True,
            transient=True,
        )
        self._task = self._bar.add_task("", total=flights, figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def now(self, text: str) -> None:
        """Say what is under way, before the bar.

        Args:
            text: What is under way.
        """
        self._bar.update(self._task, description=text, figures="")

    def done(self, text: str) -> None:
        """Print a line above the bar.

        Args:
            text: What has happened.
        """
        from rich.text import Text

        self._console.print(Text.assemble(("✓", "green"), f" {text}"))

    def progress(self, count: int, rate_per_s: float, lag_bytes: int | None) -> None:
        """Move the bar.

        Args:
            count: Flights so far.
            rate_per_s: Transactions, of late.
            lag_bytes: What the receiver lacks; None: there is no receiver.
        """
        lag = "" if lag_bytes is None else f"  lag {lag_bytes / 1024:,.0f} KiB"
        text = f"{rate_per_s:,.0f}/s{lag}"
        self._bar.update(self._task, completed=count, figures=text)

    def end(self, outcome: Outcome) -> None:
        """Print the figures as a table, in place of the bar.

        Args:
            outcome: Of the run.
        """
        from rich.table import Table

        self._bar.stop()
        table = Table(show_header=False, box=None, padding=(0, 2))
        table.add_column(justify="right", style="cyan")
        table.add_column(style="bold")
        for name, value in figures(outcome):
            table.add_row(name, value)
        self._console.print()
        self._console.print(table)
        for text in troubles(outcome):
            self._console.print(text, style="red", markup=False)
        style = "bold green" if outcome.is_good else "bold red"
        self._console.print(f"\n{verdict(outcome)}", style=style, markup=False)


def troubles(outcome: Outcome) -> list[str]:
    """List what should not be.

    Args:
        outcome: Of the run.

    Returns:
        A line for each.
    """
    texts = [*outcome.shown, *(f"pmlog check: {fault}" for fault in outcome.faults)]
    if outcome.lost:
        texts.append(f"{outcome.lost} acknowledged transactions were lost")
    if not outcome.complete:
        texts.append("the log was not sealed before the host was lost")
    return texts


def verdict(outcome: Outcome) -> str:
    """Sum up in a line.

    Args:
        outcome: Of the run.

    Returns:
        The line.
    """
    if outcome.is_good:
        return "Nothing was lost: every field is as plain Python has it."
    return f"Something is wrong; repeat it with --seed {outcome.seed}."


def choose(*, as_json: bool, flights: int) -> Any:
    """Choose how to show the run.

    Args:
        as_json: Only one JSON document is wanted.
        flights: How many there are.

    Returns:
        A context manager that gives a `Show`.
    """
    import contextlib

    if as_json:
        return contextlib.nullcontext(Silence())
    return Terminal(flights) if sys.stdout.isatty() else contextlib.nullcontext(Lines())
