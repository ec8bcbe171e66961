"""docs/format.md is the specification: its tables are what is compiled."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pmlog._engine import ffi, lib
from pmlog.medium import pmemobj
from pmlog.record import _range as log_range
from pmlog.record import _record as log_record
from tests.format.tables import DOCS, NATIVE, constants_in, tables, value_of

PAGE = DOCS / "format.md"
# Of the binding's constants, those that stand on the medium.
ON_MEDIA = re.compile(
    r"PML_(FORMAT_VERSION|LINE|PAGE|\w+_OFFSET|MARK_STRIDE|RING_UNIT|LSN_FIRST|BINS|BIN_WORDS"
    r"|SEGMENTS|BUCKET_SLOTS|DEQUE_SLOTS|SLOTS|SLOT_NAME"
    r"|(MEDIUM|MARK|RECORD|RANGE|TYPE|KIND|BLOCK|SLOT)_[A-Z]+)"
)


def struct_tables() -> dict[str, list[tuple[str, int, int]]]:
    """Return name, offset and size of each field in the page's tables, by struct."""
    found = {}
    for heading, rows in tables(PAGE):
        match = re.fullmatch(r"`struct (\w+)`", heading)
        if match and rows and "field" in rows[0]:
            assert match[1] not in found, f"{match[1]} has two tables"
            assert list(rows[0]) == ["field", "offset", "size", "meaning", "zero means"]
            found[match[1]] = [(row["field"], int(row["offset"]), int(row["size"])) for row in rows]
    return found


def constant_table() -> dict[str, int]:
    """Return the values in the page's tables of constants, by name."""
    found: dict[str, int] = {}
    for heading, rows in tables(PAGE):
        if heading == "Constants":
            for row in rows:
                assert row["name"] not in found, f"{row['name']} has two rows"
                found[row["name"]] = value_of(row["value"])
    return found


def layout_structs() -> set[str]:
    """Return the structs that layout.h defines."""
    text = (NATIVE / "layout.h").read_text(encoding="utf-8")
    return set(re.findall(r"^struct (\w+) \{", text, re.MULTILINE))


def compiled(name: str) -> tuple[list[tuple[str, int, int]], int]:
    """Return name, offset and size of a struct's fields as compiled, and the struct's size."""
    source: Any = pmemobj._ffi if name == "pml_pmemobj_root" else ffi
    kind = source.typeof(f"struct {name}")
    fields = [(field, at.offset, source.sizeof(at.type)) for field, at in kind.fields]
    return fields, source.sizeof(kind)


TABLES = struct_tables()


def test_every_struct_has_a_table() -> None:
    """Every struct of layout.h has a table, and no table is of a struct that is not there."""
    structs = layout_structs()
    assert len(structs) > 15
    assert set(TABLES) == structs | {"pml_pmemobj_root"}


@pytest.mark.parametrize("name", TABLES)
def test_struct(name: str) -> None:
    """Names, offsets and sizes of fields are those of the compiled struct, in the same order."""
    fields, _ = compiled(name)
    assert TABLES[name] == fields


@pytest.mark.parametrize("name", TABLES)
def test_no_padding(name: str) -> None:
    """A struct's fields lie side by side and fill it: no byte on the medium is without a name."""
    fields, size = compiled(name)
    at = 0
    for field, offset, field_size in fields:
        assert offset == at, field
        at += field_size
    assert at == size


def test_constants() -> None:
    """The tables of constants hold all that stand on the medium, and the compiled values."""
    wanted = {name: getattr(lib, name) for name in dir(lib) if ON_MEDIA.fullmatch(name)}
    wanted |= constants_in("layout.h", r"PML_MAGIC_[A-Z]+")
    wanted |= constants_in("internal.h", r"PML_(?:MIN|MAX)_[A-Z]+|PML_(?:KEY|NAME)_MAX")
    assert len(wanted) > 50
    assert constant_table() == wanted


@pytest.mark.parametrize(
    ("name", "text"), [(row["name"], row["meaning"]) for _, rows in tables(PAGE) for row in rows
                       if row.get("name", "").startswith("PML_MAGIC_")],
)  # fmt: skip
def test_magics_read_as_text(name: str, text: str) -> None:
    """A magic's bytes on the medium are the letters that the page names."""
    number = constant_table()[name]
    letters = number.to_bytes((number.bit_length() + 7) // 8, "little").decode().strip()
    assert letters in text


def test_first_block() -> None:
    """The diagram's place of the first heap block is where the heap puts it."""
    end = lib.PML_BODY_OFFSET + ffi.sizeof("struct pml_heap")
    first = end + 8 + (-(end) % 16)
    assert first % 16 == 8
    assert f" {first} " in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("reader", "name"), [(log_record, "pml_record"), (log_range, "pml_range")])
def test_log_reader_layouts(reader: Any, name: str) -> None:
    """The log reader unpacks records and ranges as the compiled structs lie."""
    fields, size = compiled(name)
    sizes = {"I": 4, "Q": 8}
    assert reader.format[0] == "<"
    assert [sizes[char] for char in reader.format[1:]] == [entry[2] for entry in fields]
    assert reader.size == size
