"""What docs/guide.md says in tables is what the library does."""

from __future__ import annotations

import inspect

import pytest

from pmlog import errors
from tests.format.tables import DOCS, tables

SAYS = {"no": False, "yes": True, "unknown": None}
# The parent of all, and one that stands for what other parts of the library will raise.
UNUSED = {"PmlogError", "PoolExistsError"}


def rows() -> list[dict[str, str]]:
    """Return the rows of the table of errors."""
    found = [rows for _, rows in tables(DOCS / "guide.md") if rows and "retryable" in rows[0]]
    assert len(found) == 1
    return found[0]


def test_every_error_is_there() -> None:
    """The table holds every error that can be met, once."""
    classes = {
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, errors.PmlogError)
    }
    names = [row["error"] for row in rows()]
    assert len(names) == len(set(names))
    assert set(names) == classes - UNUSED


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["error"])
def test_answers(row: dict[str, str]) -> None:
    """The table's answers are those of the class."""
    kind = getattr(errors, row["error"])
    assert kind.changed is SAYS[row["changed"]]
    assert kind.retryable is SAYS[row["retryable"]]
