"""`pmlog demo`: it runs whole, and it can fail."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import pmlog
from pmlog.cli.demo import demo
from pmlog.demo import flights as flights_module
from pmlog.demo import play
from pmlog.demo.acknowledgements import Acknowledgements
from pmlog.demo.application import FlightDesk
from pmlog.demo.compare import compare, compute
from pmlog.demo.flights import FLIGHTS_MAX, Flight, archive, read_flights
from pmlog.demo.meter import Meter
from pmlog.demo.plan import KILLS, make_plan
from pmlog.demo.report import Life, Outcome
from pmlog.demo.show import Terminal
from pmlog.demo.stage import Stage
from tests.e2e.services import ROOT, until
from tests.support import PATIENCE_S, OpenPool, faults_of

FLIGHTS = 6_000
COMMAND = (sys.executable, "-m", "pmlog.cli", "demo")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command and return what came of it."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=2 * PATIENCE_S,
    )  # fmt: skip


def test_whole_run_and_its_comparison(memory_dir: Path, seed: int) -> None:
    """A run loses nothing, and its comparison notices one wrong field or one missing flight."""
    options = ("--flights", str(FLIGHTS))
    places = ("--in", str(memory_dir), "--replica-in", str(memory_dir))
    done = run(*options, *places, "--seed", str(seed), "--json", "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    known = json.loads(done.stdout)
    assert (known["good"], known["sealed"], known["complete"]) == (True, True, True)
    assert (known["transactions_lost"], known["fields_different"], known["epoch"]) == (0, 0, 2)
    assert (len(known["lives"]), known["flights"]) == (KILLS + 2, FLIGHTS)
    assert known["fields_compared"] > 10 * FLIGHTS
    assert [path.name for path in memory_dir.iterdir()] == [Path(known["kept"]).name]

    pool = Path(known["kept"]) / "replica" / "pool"
    assert faults_of(pool) == []
    assert run(*options, "--compare", str(pool)).returncode == 0
    first = next(read_flights())
    with pmlog.open(pool) as opened:
        desk = FlightDesk(opened)
        desk.flights[first.key] = Flight(
            **{name: getattr(first, name) for name in Flight.__struct_fields__}
            | {"distance_miles": first.distance_miles + 1}
        )
    done = run(*options, "--compare", str(pool))
    assert done.returncode == 1
    assert f"flights[{first.key!r}].distance_miles" in done.stdout
    with pmlog.open(pool) as opened:
        del FlightDesk(opened).flights[first.key]
    done = run(*options, "--compare", str(pool))
    assert done.returncode == 1
    assert first.key in done.stdout
    assert faults_of(pool) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_interrupted(memory_dir: Path, number: signal.Signals) -> None:
    """A run that is told to end leaves neither processes nor folders behind."""
    process = subprocess.Popen(
        [*COMMAND, "--in", str(memory_dir), "--replica-in", str(memory_dir)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: list(memory_dir.glob("pmlog-demo-elsewhere-*/acknowledged-1")))
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == 130
    assert list(memory_dir.iterdir()) == []
    lines = [_read(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert len(lines) > 1
    assert not any(str(memory_dir).encode() in line for line in lines)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""


class Sabotaged(Stage):
    """A host that is lost without a word, while its shipper stands still and its writer does not."""

    def fail_power(self) -> dict[str, Any] | None:
        """Stop the shipper, let the application commit some more, and kill the shipper."""
        self._battery = ""  # nobody waits for the lights to go out
        shipper = self._processes["shipper"]
        with Acknowledgements(self.acknowledgements_path()) as life:
            shipper.send_signal(signal.SIGSTOP)
            count = life.committed_count
            until(lambda: life.committed_count > count + 100)
        shipper.kill()
        return None


def test_a_loss_is_a_failure(
    memory_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    """Where acknowledged transactions are lost, the run counts them and ends with exit code 1."""
    monkeypatch.setattr(play, "Stage", Sabotaged)
    with pytest.raises(typer.Exit) as caught:
        demo(
            flights=100_000, seed=seed, folder=memory_dir, replica=memory_dir, battery="60s",
            as_json=True,
        )  # fmt: skip
    assert caught.value.exit_code == 1
    known = json.loads(capsys.readouterr().out)
    assert known["transactions_lost"] > 100
    assert (known["good"], known["sealed"], known["complete"]) == (False, False, False)
    # What was lost was only lost: what is there is right.
    assert (known["fields_different"], known["faults"]) == (0, [])
    assert list(memory_dir.iterdir()) == []


def test_on_a_terminal(memory_dir: Path) -> None:
    """On a terminal it shows a bar with rate and lag, and says in the end that all is well."""
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        [*COMMAND, "--flights", "30000", "--in", str(memory_dir), "--replica-in", str(memory_dir)],
        cwd=ROOT, stdout=follower, stderr=follower, stdin=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    deadline = time.monotonic() + 2 * PATIENCE_S
    while time.monotonic() < deadline:
        if not select.select([leader], [], [], 1.0)[0]:
            continue
        try:
            shown += os.read(leader, 1 << 16)
        except OSError:  # the other side is closed
            break
    os.close(leader)
    assert process.wait(PATIENCE_S) == 0, shown.decode(errors="replace")
    text = shown.decode()
    for word in ("life 1", "comparing", "kill -9", "Nothing was lost"):
        assert word in text, text
    assert list(memory_dir.iterdir()) == []


def test_bar_shows_rate_and_lag(capsys: pytest.CaptureFixture[str]) -> None:
    """The bar tells how many there are, how many a second, and what the receiver lacks.

    A run on a quiet machine is over before its bar is drawn with figures, so it is moved by hand.
    """
    with Terminal(30_000) as terminal:
        terminal.now("life 1")
        terminal.progress(12_000, 51_234.0, 3 * 1024)
        figures = terminal._bar.tasks[0].fields["figures"]
        assert terminal._bar.tasks[0].completed == 12_000
    assert figures == "51,234/s  lag 3 KiB"
    capsys.readouterr()


def _wrong_counter(desk: FlightDesk) -> None:
    desk.airports[0, 0] += 1


def _wrong_departures(desk: FlightDesk) -> None:
    desk.airports[(4 * 26 + 22) * 26 + 17, 0] -= 1  # EWR


def _wrong_cursor(desk: FlightDesk) -> None:
    desk.cursor[0] -= 1


def _missing_delay(desk: FlightDesk) -> None:
    desk.delayed.pop()


def _order(desk: FlightDesk) -> None:
    key, flight = next(iter(desk.flights.items()))
    del desk.flights[key]
    desk.flights[key] = flight


def _other_type(desk: FlightDesk) -> None:
    key, delay_min = desk.delayed[0]
    desk.delayed[0] = [key, str(delay_min)]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_wrong_counter, "airports[0]"),
        (_wrong_departures, "airports[EWR].departures"),
        (_wrong_cursor, "cursor"),
        (_missing_delay, "delayed["),
        (_order, "key of a flight"),
        (_other_type, "delayed[0]"),
    ],
)
def test_comparison_finds(
    open_pool: OpenPool, spoil: Callable[[FlightDesk], None], named: str
) -> None:
    """Each kind of difference is found and named; without it there is none."""
    pool = open_pool()
    desk = FlightDesk(pool)
    for flight in read_flights(0, 300):
        desk.take(flight)
    plain = compute(read_flights(0, 300))
    assert compare(pool, plain).differences == 0
    spoil(desk)
    found = compare(pool, plain)
    assert found.differences > 0
    assert found.shown[0].startswith(named)


def test_comparison_of_another_pool(open_pool: OpenPool) -> None:
    """A pool without the application's containers differs."""
    assert compare(open_pool(), compute(read_flights(0, 1))).differences == 1


def good(**changes: Any) -> Outcome:
    """Return the outcome of a run in which all went well, or all but what is changed."""
    outcome = Outcome(seed=1, flights=10, battery="60s", sealed=True, complete=True, fields=5)
    outcome.lives = [Life(0, 4, 0.0, 1.0), Life(5, 10, 0.0, 1.0)]
    for name, value in changes.items():
        setattr(outcome, name, value)
    return outcome


@pytest.mark.parametrize(
    "changes",
    [
        {"lives": [Life(0, 4, 0.0, 1.0), Life(3, 10, 0.0, 1.0)]},
        {"lives": [Life(0, 4, 0.0, 1.0), Life(4, 9, 0.0, 1.0)]},
        {"complete": False},
        {"fields": 0},
        {"differences": 1},
        {"faults": ["a fault"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_not_good(changes: dict[str, Any]) -> None:
    """One acknowledged transaction that is missing, or anything else that is wrong, is a failure."""
    assert good().is_good
    assert not good(**changes).is_good


def test_lost_are_counted() -> None:
    """Lost is what one life acknowledged and the next did not find."""
    lives = [Life(0, 7, 0.0, 1.0), Life(4, 9, 0.0, 1.0), Life(10, 10, 0.0, 1.0)]
    assert good(lives=lives).lost == 3
    assert good(lives=lives).as_json()["transactions_lost"] == 3


def test_plan() -> None:
    """Kills come before the loss of power, and a seed repeats them."""
    for seed in range(200):
        plan = make_plan(seed, 1000)
        assert plan == make_plan(seed, 1000)
        assert list(plan.kills) == sorted(plan.kills)
        assert len(plan.kills) == KILLS
        assert 0 < plan.kills[0] <= plan.kills[-1] < plan.power_loss < 1000
    assert len({make_plan(seed, 1000) for seed in range(200)}) > 100


def test_meter() -> None:
    """Rate and lag are those between two looks."""
    meter = Meter(10.0, 100, 4000)
    meter.sample(10.5, 600, {"lsn_durable": 5000, "receivers": {}}, "r")
    assert (meter.rate_per_s, meter.lag) == (1000.0, None)
    receivers = {"r": {"behind_bytes": 500}}
    meter.sample(11.0, 600, {"lsn_durable": 6000, "receivers": receivers}, "r")
    assert (meter.rate_per_s, meter.lag) == (0.0, (500, 0.25))
    meter.sample(11.5, 700, None, "r")
    assert meter.lag is None


def test_acknowledgements(tmp_path: Path) -> None:
    """What one side says the other one reads, also after the first has ended."""
    with Acknowledgements(tmp_path / "a") as said, Acknowledgements(tmp_path / "a") as heard:
        assert (heard.is_open, heard.first_s) == (False, None)
        said.opened(7, 0.5)
        assert (heard.is_open, heard.resumed_count, heard.open_s) == (True, 7, 0.5)
        assert (heard.committed_count, heard.first_s) == (7, None)
        before = time.monotonic()
        said.committed(8)
        assert heard.first_s is not None
        assert before - 0.001 <= heard.first_s <= time.monotonic()
    with Acknowledgements(tmp_path / "a") as heard:
        assert heard.committed_count == 8


def test_flights() -> None:
    """The data are the real ones, whole, and can be read from anywhere."""
    assert archive().is_file()
    assert sum(1 for _ in read_flights()) == FLIGHTS_MAX
    first = next(read_flights())
    assert first.key == "2013-01-01T10:00:00Z UA1545"
    assert (first.origin, first.destination, first.departure_delay_min) == ("EWR", "IAH", 2)
    assert list(read_flights(500, 510)) == list(read_flights(0, 510))[500:]


def test_without_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the data are not installed, the error says how to get them."""
    monkeypatch.setattr(flights_module, "_PACKAGE", "no_such_package_of_flights")
    with pytest.raises(pmlog.ConfigError, match=r"pmlog\[demo\]"):
        archive()
