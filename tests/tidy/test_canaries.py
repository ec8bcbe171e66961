"""Every canary can be put in: its text stands in its module exactly once."""

from __future__ import annotations

import ast

import pytest

from tests.canaries.registry import CANARIES


@pytest.mark.parametrize("name", CANARIES)
def test_text_is_there(name: str) -> None:
    """Who changes a line that a canary breaks changes the canary in tests/canaries/registry.py."""
    canary = CANARIES[name]
    ast.parse(canary.breaks(canary.source()))
