"""docs/recovery.md holds the decision table of recovery; the compiled function decides by it."""

from __future__ import annotations

import re
from itertools import product

import pytest

from pmlog._engine import lib
from tests.format.tables import DOCS, NATIVE, tables

MARKS = {"none": lib.PML_MARKS_NONE, "one": lib.PML_MARKS_ONE, "both": lib.PML_MARKS_BOTH}
ENDS = {
    "nothing": lib.PML_END_NOTHING,
    "stale": lib.PML_END_STALE,
    "torn": lib.PML_END_TORN,
    "later lap": lib.PML_END_LATER_LAP,
}
NO_YES = {"no": 0, "yes": 1}
FINDINGS = {
    "marks": MARKS, "end": ENDS, "below durable": NO_YES, "clean": NO_YES, "records": NO_YES,
}  # fmt: skip
DECISIONS = {
    "clean": lib.PML_DECIDE_CLEAN,
    "replay": lib.PML_DECIDE_REPLAY,
    "corrupt marks": lib.PML_DECIDE_CORRUPT_MARKS,
    "corrupt log": lib.PML_DECIDE_CORRUPT_LOG,
}
COMBINATIONS = list(product(*FINDINGS.values()))


def decision_table() -> list[dict[str, str]]:
    """Return the rows of the page's decision table."""
    found = [rows for _, rows in tables(DOCS / "recovery.md") if rows and "decision" in rows[0]]
    assert len(found) == 1
    return found[0]


def matches(row: dict[str, str], combination: tuple[str, ...]) -> bool:
    """Whether a row speaks of a combination of findings."""
    return all(
        row[column] == "any" or value in [cell.strip() for cell in row[column].split(",")]
        for column, value in zip(FINDINGS, combination, strict=True)
    )


def test_cells_are_known() -> None:
    """Every cell holds findings and decisions that there are."""
    for row in decision_table():
        assert row["decision"] in DECISIONS
        for column, known in FINDINGS.items():
            cells = [cell.strip() for cell in row[column].split(",")]
            assert cells == ["any"] or set(cells) <= set(known), row


def test_names_cover_the_enums() -> None:
    """The combinations are made of all values that the core knows."""
    for prefix, known in (("PML_MARKS_", MARKS), ("PML_END_", ENDS), ("PML_DECIDE_", DECISIONS)):
        compiled = {getattr(lib, name) for name in dir(lib) if name.startswith(prefix)}
        assert set(known.values()) == compiled


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_decision(combination: tuple[str, ...]) -> None:
    """Exactly one row matches each combination of findings, and the core decides as it says."""
    rows = [row for row in decision_table() if matches(row, combination)]
    assert len(rows) == 1
    found = dict(zip(FINDINGS, combination, strict=True))
    decided = lib.pml_recover_decide(
        MARKS[found["marks"]],
        NO_YES[found["clean"]],
        NO_YES[found["records"]],
        ENDS[found["end"]],
        NO_YES[found["below durable"]],
    )
    assert decided == DECISIONS[rows[0]["decision"]]


def test_labels_are_those_of_the_source() -> None:
    """The labels in the page are the labels in the comments of recover.c."""
    source = (NATIVE / "recover.c").read_text(encoding="utf-8")
    labels = re.findall(r"/\* (R\d)(?:: [^*]*)? \*/", source)
    assert labels == sorted(set(labels))
    assert list(dict.fromkeys(row["label"] for row in decision_table())) == labels
