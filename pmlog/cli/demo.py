"""`pmlog demo`: a short walk of the library, with real processes that are really killed."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

import pmlog
from pmlog.check import check
from pmlog.cli import ExitCode, reported
from pmlog.cli.demo_writer import ACCOUNTS, OPENING_CENTS, OPTIONS

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder in it
_ROUNDS: Final = 5
_ROUND_S: Final = (0.6, 1.4)
_QUICK_ROUNDS: Final = 3
_QUICK_ROUND_S: Final = (0.15, 0.4)
_START_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one life of the writer."""

    acknowledged: int
    """Transfers that the writer said were committed, before it was killed."""
    recovered: int
    """Transfers that are there after the next open."""
    transactions_per_s: float
    records_replayed: int
    recovery_ms: float
    wrong: str
    """What does not agree; empty: all does."""


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter rounds.")] = False,
    seed: Annotated[int | None, typer.Option(help="Repeats a run's kills and amounts.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--in", help="Where to make the pool; /dev/shm if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Kill an application with SIGKILL, again and again, and see what it finds afterwards.

    A process transfers money between accounts: a dict, a deque and an array change in each
    transaction.
    After each kill the pool is opened and compared with its own journal, replayed in plain Python.
    Exit code 0 only if everything agrees, every time.

    Raises:
        Exit: Something does not agree.
    """
    seed = seed if seed is not None else random.SystemRandom().randrange(1 << 32)
    parent = folder or (_MEMORY if _MEMORY.is_dir() else None)
    with reported():
        home = tempfile.mkdtemp(prefix="pmlog-demo-", dir=parent)
        show = _Show(as_json)
        try:
            show.begin(home, seed)
            rounds = _run(os.path.join(home, "bank"), seed, quick, show)
            faults = [str(fault) for fault in check(os.path.join(home, "bank"))]
        finally:
            shutil.rmtree(home, ignore_errors=True)
        agrees = not faults and not any(one.wrong for one in rounds)
        show.end(seed, rounds, faults, agrees)
    if not agrees:
        raise typer.Exit(ExitCode.FAILED)


def _run(path: str, seed: int, quick: bool, show: "_Show") -> list[Round]:
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    span = _QUICK_ROUND_S if quick else _ROUND_S
    rounds: list[Round] = []
    for number in range(_QUICK_ROUNDS if quick else _ROUNDS):
        before = rounds[-1].recovered if rounds else 0
        acknowledged, seconds = _write_until_killed(
            path, rng.randrange(1 << 32), rng.uniform(*span)
        )
        rounds.append(_reopen(path, before, acknowledged, seconds))
        show.round(number + 1, rounds[-1])
    return rounds


def _write_until_killed(path: str, seed: int, life_s: float) -> tuple[int, float]:
    """Run the writer and kill it.

    Args:
        path: The pool.
        seed: Of the writer.
        life_s: How long it may write, in seconds.

    Returns:
        The last transfer that it acknowledged, and for how long it wrote.

    Raises:
        PmlogError: It did not start.
    """
    command = [sys.executable, "-m", "pmlog.cli.demo_writer", path, str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        # Kills it also where the application does not get as far as its first word.
        guard = threading.Timer(_START_TIMEOUT_S, writer.kill)
        guard.start()
        first = writer.stdout.readline()
        guard.cancel()
        if not first:
            raise pmlog.PmlogError("the demo's application did not start")
        begun = time.perf_counter()
        killer = threading.Timer(life_s, writer.kill)
        killer.start()
        lines = writer.stdout.read()
        seconds = time.perf_counter() - begun
        writer.wait()
    # The last line may have been cut short by the kill.
    whole = (first + lines).splitlines(keepends=True)
    return int([line for line in whole if line.endswith(b"\n")][-1]), seconds


def _reopen(path: str, before: int, acknowledged: int, seconds: float) -> Round:
    begun = time.perf_counter()
    pool = pmlog.open(path, **OPTIONS)  # type: ignore[arg-type]  # strings, all of them
    recovery_s = time.perf_counter() - begun
    with pool:
        recovered = len(pool.deque("journal"))
        return Round(
            acknowledged=acknowledged,
            recovered=recovered,
            transactions_per_s=(recovered - before) / seconds,
            records_replayed=pool.status().recovered_records,
            recovery_ms=recovery_s * 1000,
            wrong=_compare(pool, acknowledged),
        )


def _compare(pool: pmlog.Pool, acknowledged: int) -> str:
    """Replay the journal in plain Python and compare.

    Args:
        pool: The pool.
        acknowledged: How many transfers must be there at least.

    Returns:
        What does not agree; empty: all does.
    """
    balances = dict.fromkeys(range(ACCOUNTS), OPENING_CENTS)
    totals = [[0, 0] for _ in range(ACCOUNTS)]
    count = 0
    for giver, taker, cents in pool.deque("journal"):
        balances[giver] -= cents
        balances[taker] += cents
        totals[giver][0] += cents
        totals[taker][1] += cents
        count += 1
    wrong = []
    if count < acknowledged:
        wrong.append(f"{acknowledged - count} acknowledged transfers are missing")
    if dict(pool.dict("balances").items()) != balances:
        wrong.append("the balances are not those of the journal")
    if pool.array("totals")[...].tolist() != totals:
        wrong.append("the totals are not those of the journal")
    return "; ".join(wrong)


class _Show:
    """Say what happens: in colour on a terminal, in plain lines elsewhere, as JSON at the end.

    Args:
        as_json: Only the JSON.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console: Any = None
        if not as_json and sys.stdout.isatty():
            from rich.console import Console

            self._console = Console(highlight=False)

    def _say(self, text: str, style: str = "") -> None:
        if self._console is not None:
            self._console.print(text, style=style, markup=False)
        elif not self._as_json:
            print(text, flush=True)

    def begin(self, home: str, seed: int) -> None:
        """Say what is about to happen.

        Args:
            home: Where the pool is.
            seed: Of the run.
        """
        self._say(f"A pool in {home}, {ACCOUNTS} accounts, seed {seed}.")
        self._say("Each transfer changes a dict, a deque and an array in one transaction.")

    def round(self, number: int, one: Round) -> None:
        """Tell of one life of the writer.

        Args:
            number: Which one.
            one: What came of it.
        """
        self._say(
            f"kill -9 no. {number}: {one.recovered} transfers, "
            f"{one.transactions_per_s:,.0f} transactions/s, opened again in "
            f"{one.recovery_ms:.1f} ms, {one.records_replayed} records replayed: "
            + (one.wrong or "balances, journal and totals agree"),
            style="red" if one.wrong else "green",
        )

    def end(self, seed: int, rounds: list[Round], faults: list[str], agrees: bool) -> None:
        """Sum up.

        Args:
            seed: Of the run.
            rounds: All lives of the writer.
            faults: What `pmlog check` found.
            agrees: Whether all is well.
        """
        if self._as_json:
            facts = {
                "seed": seed,
                "agrees": agrees,
                "transactions": rounds[-1].recovered,
                "transactions_per_s": round(max(one.transactions_per_s for one in rounds)),
                "recovery_ms_max": round(max(one.recovery_ms for one in rounds), 3),
                "rounds": [asdict(one) for one in rounds],
                "faults": faults,
            }
            print(json.dumps(facts))
            return
        for fault in faults:
            self._say(f"pmlog check: {fault}", style="red")
        self._say(
            f"{rounds[-1].recovered} transfers over {len(rounds)} kills, "
            f"{max(one.transactions_per_s for one in rounds):,.0f} transactions/s at best, opened "
            f"again in {max(one.recovery_ms for one in rounds):.1f} ms at worst, 0 lost: all agrees."
            if agrees
            else f"Something does not agree; repeat it with --seed {seed}.",
            style="bold green" if agrees else "bold red",
        )
