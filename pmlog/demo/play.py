"""What happens in the demo, in its order."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pmlog
from pmlog.check import check
from pmlog.demo.acknowledgements import Acknowledgements
from pmlog.demo.application import STOPPED
from pmlog.demo.compare import Comparison, compare, compute
from pmlog.demo.flights import read_flights
from pmlog.demo.meter import SAMPLE_S, Meter
from pmlog.demo.plan import Plan
from pmlog.demo.report import Life, Outcome
from pmlog.demo.show import Show
from pmlog.demo.stage import LOOK_S, RECEIVER, DemoError, Stage

STALL_S: Final = 60.0
"""An application that takes in no flight for so long is taken to hang."""


def play(plan: Plan, host: Path, elsewhere: Path, battery: str, show: Show) -> Outcome:
    """Run the demo once.

    Args:
        plan: When things happen.
        host: An empty folder: the host that will be lost. It is removed.
        elsewhere: An empty folder: the host that takes over.
        battery: For `pmlog ship --battery`.
        show: Who is told.

    Returns:
        What it has shown.

    Raises:
        DemoError: A process did not do what it should.
        PmlogError: A pool cannot be opened or made.
    """
    begun = time.monotonic()
    outcome = Outcome(plan.seed, plan.flights, battery)
    with Stage(host, elsewhere, plan.flights, battery) as stage:
        show.now("starting")
        stage.start_services()
        show.done(
            f"a pool in {stage.pool} is shipped to a receiver, whose replica is in {stage.replica}"
        )
        _live_and_die(stage, plan, outcome, show)
        _go_on_elsewhere(stage, plan, outcome, show)
    show.now("comparing")
    comparison = compare_pool(stage.replica, plan.flights)
    outcome.fields, outcome.differences = comparison.fields, comparison.differences
    outcome.shown = comparison.shown
    outcome.faults = [str(fault) for fault in check(stage.replica)]
    show.done(f"compared with plain Python: {comparison.fields:,} fields")
    outcome.seconds = time.monotonic() - begun
    return outcome


def compare_pool(path: Path, flights: int) -> Comparison:
    """Compare a pool with the same computation in plain Python.

    Args:
        path: The pool.
        flights: How many flights it has taken in.

    Returns:
        What differs.

    Raises:
        PmlogError: The pool cannot be opened.
    """
    plain = compute(read_flights(0, flights))
    with pmlog.open(path, readonly=True) as pool:
        return compare(pool, plain)


def _live_and_die(stage: Stage, plan: Plan, outcome: Outcome, show: Show) -> None:
    """Run the application, kill it as often as is planned; power fails in its last life."""
    for number, goal in enumerate((*plan.kills, plan.power_loss)):
        show.now(f"life {number + 1}")
        with stage.start_application() as life:
            _await_open(stage, life)
            if outcome.lives:
                show.done(_recovered(outcome.lives[-1], life))
            _watch(
                life, goal, outcome, show, exit_code=stage.application_here, shipper=stage.shipper
            )
            if number < len(plan.kills):
                ended_at = time.monotonic()
                stage.kill("application")
                what = f"kill -9 of the application at flight {life.committed_count:,}"
            else:
                ended_at = _fail_power(stage, outcome, show)
                what = "lights out: every process of the host is dead, its pool is gone"
            outcome.lives.append(_life_of(life, ended_at))
            show.done(what)


def _await_open(stage: Stage, life: Acknowledgements) -> None:
    stage.until(
        lambda: life.is_open or stage.application_here() is not None,
        "the application to open its pool",
    )
    if not life.is_open:
        raise DemoError(f"the application did not start: {stage.last_words('application')}")


def _fail_power(stage: Stage, outcome: Outcome, show: Show) -> float:
    """Let power fail, then lose the host; return when it failed."""
    show.now("power fails")
    durable = stage.shipper()["receivers"][RECEIVER]["durable"]
    failed_at = time.monotonic()
    saved = stage.fail_power()
    if saved is not None and saved["sealed"]:
        outcome.sealed = True
        outcome.sealed_s = time.monotonic() - failed_at
        outcome.flushed_bytes = saved["lsn"] - durable
        _await_stop(stage)
        show.done(
            f"power failed: {outcome.flushed_bytes:,} bytes flushed on battery, sealed after "
            f"{outcome.sealed_s * 1000:.0f} ms"
        )
    else:
        show.done("power failed: nobody has said that the log is sealed")
    show.now("lights out")
    stage.lose_host()
    return failed_at


def _await_stop(stage: Stage) -> None:
    """Wait until the application has noticed that its commits are refused."""
    stage.until(lambda: stage.application_here() is not None, "the application to stop")
    if (code := stage.application_here()) not in (STOPPED, 0):
        raise DemoError(f"the application ended: {code}, {stage.last_words('application')}")


def _go_on_elsewhere(stage: Stage, plan: Plan, outcome: Outcome, show: Show) -> None:
    """Promote the receiver, which starts the application; look on until that is done."""
    show.now("promoting")
    ordered_at = time.monotonic()
    answer = stage.promote()
    outcome.complete, outcome.epoch = answer["complete"], answer["epoch"]
    with Acknowledgements(stage.acknowledgements_path(promoted=True)) as life:
        stage.until(lambda: life.first_s, "the first commit after promotion")
        outcome.first_commit_s = (life.first_s or 0.0) - ordered_at
        show.done(
            f"promoted to epoch {outcome.epoch}: the application goes on at flight "
            f"{life.resumed_count:,}, first new commit after {outcome.first_commit_s * 1000:.0f} ms"
        )
        show.now("elsewhere")
        _watch(life, plan.flights, outcome, show, exit_code=stage.application_elsewhere)
        outcome.lives.append(_life_of(life, time.monotonic()))
    stage.until(lambda: stage.application_elsewhere() is not None, "the application to end")
    if code := stage.application_elsewhere():
        raise DemoError(f"the application has ended, with exit code {code}")
    show.done(f"all {plan.flights:,} flights are in the promoted pool")


def _recovered(before: Life, life: Acknowledgements) -> str:
    lost = max(0, before.acknowledged - life.resumed_count)
    return (
        f"opened again in {life.open_s * 1000:.1f} ms, goes on at flight "
        f"{life.resumed_count:,}: {lost:,} lost"
    )


def _life_of(life: Acknowledgements, ended_at: float) -> Life:
    return Life(
        life.resumed_count,
        life.committed_count,
        life.open_s,
        ended_at - (life.first_s or ended_at),
    )


def _watch(
    life: Acknowledgements,
    goal: int,
    outcome: Outcome,
    show: Show,
    *,
    exit_code: Callable[[], int | None],
    shipper: Callable[[], dict[str, Any]] | None = None,
) -> None:
    """Look on until so many flights have been taken in, noting rate and lag.

    Args:
        life: What the application says.
        goal: How many flights.
        outcome: Where lags are noted.
        show: Who is told.
        exit_code: Of the application; None: it runs.
        shipper: The shipper's figures of the pool; None: there is no shipper.

    Raises:
        DemoError: The application has ended, or stands still.
    """
    lsn = shipper()["lsn_durable"] if shipper is not None else None
    moved_at, seen = time.monotonic(), life.committed_count
    meter = Meter(moved_at, seen, lsn)
    # An application that was quicker than these looks is beyond it: each life commits something.
    goal = max(goal, life.resumed_count + 1)
    while (count := life.committed_count) < goal:
        now = time.monotonic()
        if count > seen:
            seen, moved_at = count, now
        if (code := exit_code()) is not None:
            if code:
                raise DemoError(f"the application has ended, with exit code {code}")
            break  # it has taken in all that there is for it
        if now - moved_at > STALL_S:
            raise DemoError(f"the application has stood still for {STALL_S:.0f} s")
        if now - meter.at >= SAMPLE_S:
            meter.sample(now, count, shipper and shipper(), RECEIVER)
            if meter.lag is not None:
                outcome.lags.append(meter.lag)
            show.progress(count, meter.rate_per_s, meter.lag and meter.lag[0])
        time.sleep(LOOK_S)
    show.progress(count, meter.rate_per_s, meter.lag and meter.lag[0])
