"""The public names have the types that users rely on, and wrong uses are found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

BAD = """
from pmlog import Level, Pool, open

def bad(pool: Pool) -> None:
    open(1)
    open("p", size=1.5)
    open("p", map_size=1)
    pool.dict(5)
    pool.region("r", 64).write(0, "text")
    pool.wait("LOCAL")
    pool.status().txn = 1
    pool.position.lsn = 1
    number: int = pool.names()
    pool.no_such_method()
    pool.transaction(level=3)
"""


def run_mypy(path: Path) -> tuple[str, int]:
    """Return what mypy says of a file under the project's settings."""
    out, problems, status = api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", str(path)]
    )
    assert not problems, problems
    return out, status


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mypy find its cache and the sources where `make types` does."""
    monkeypatch.chdir(ROOT)


def test_users_see_the_types() -> None:
    """Mypy --strict agrees with every assert_type in `user_code.py`."""
    out, status = run_mypy(HERE / "user_code.py")
    assert status == 0, out


def test_wrong_uses_are_found(tmp_path: Path) -> None:
    """Each wrong line is an error for mypy: the types are more than Any."""
    path = tmp_path / "bad_use.py"
    path.write_text(BAD)
    out, status = run_mypy(path)
    assert status == 1
    wrong = {int(number) for number in re.findall(r"bad_use\.py:(\d+): error:", out)}
    first = BAD.splitlines().index("    open(1)") + 1
    assert wrong == set(range(first, len(BAD.splitlines()) + 1)), out
