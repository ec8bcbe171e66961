"""Random programs on containers of a pool and on plain Python end alike, whatever happens to the pool."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property import machines
from tests.support import DOMAINS

PLACES = [*(("file", domain) for domain in DOMAINS), ("pmemobj", "auto")]
KINDS = [
    machines.DictMachine,
    machines.DequeMachine,
    machines.ArrayMachine,
    machines.WholeMachine,
]
SAMPLED = settings(max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck))
LONG = settings(SAMPLED, max_examples=3_000, stateful_step_count=100)


def _run(
    kind: type[machines.PoolMachine], medium: str, domain: str, directory: Path, how: settings
) -> None:
    run_state_machine_as_test(
        lambda: kind(domain, medium, directory),  # type: ignore[arg-type] # a factory will do
        settings=how,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("medium", "domain"), PLACES)
def test_equal_to_plain_python(
    kind: type[machines.PoolMachine], medium: str, domain: str, memory_dir: Path
) -> None:
    """After any program of operations, aborts, crashes and reopens, pool and plain Python are equal.

    Model: a crash takes the process, not the memory that files are mapped to.
    Method: sampled programs of 40 steps; the checker looks at each pool at the end.
    """
    _run(kind, medium, domain, memory_dir, SAMPLED)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("medium", "domain"), PLACES)
def test_equal_to_plain_python_for_long(
    kind: type[machines.PoolMachine], medium: str, domain: str, memory_dir: Path
) -> None:
    """The same with more and longer programs.

    Model: a crash takes the process, not the memory that files are mapped to.
    Method: sampled programs of 100 steps.
    """
    _run(kind, medium, domain, memory_dir, LONG)


class _ForgetfulMachine(machines.DictMachine):
    """A canary: its aborts keep what they should undo."""

    def abort(self) -> None:
        """End the innermost block well, though the model goes back."""
        self.open.pop().__exit__(None, None, None)
        self.model = self.saved.pop()


def test_canary(memory_dir: Path) -> None:
    """A pool whose aborts keep changes is caught: the tests above can fail."""
    rule = machines.PoolMachine.abort
    _ForgetfulMachine.abort.hypothesis_stateful_rule = rule.hypothesis_stateful_rule  # type: ignore[attr-defined]
    how = settings(
        SAMPLED,
        max_examples=300,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        database=None,
        print_blob=False,
    )
    with pytest.raises(AssertionError):
        _run(_ForgetfulMachine, "file", "emulated", memory_dir, how)
