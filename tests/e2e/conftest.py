"""Fixtures of the end-to-end tier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.services import Cluster


@pytest.fixture
def cluster(memory_dir: Path) -> Iterator[Cluster]:
    """Give a place for processes, all of which are ended after the test."""
    made = Cluster(memory_dir)
    yield made
    made.close()
