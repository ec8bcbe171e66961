"""Fixtures of every tier: pools that are closed and checked after the test, seeds, children."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # `pytest` as a command does not put the working directory there
    sys.path.insert(0, str(ROOT))

from tests.canaries import hook  # noqa: E402 - the lines above make it importable

hook.install()  # before what it breaks is imported

import pmlog  # noqa: E402 - the lines above make the helpers importable
from tests.support import SHM, SMALL, Child, OpenPool, faults_of  # noqa: E402 - the same

SEED = int(os.environ.get("PMLOG_SEED") or random.SystemRandom().randrange(2**32))
# Children are forked from a server: a library's thread pool would not survive that.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

settings.register_profile(
    "ci",
    derandomize=False,
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "soak", settings.get_profile("ci"), max_examples=int(os.environ.get("PMLOG_EXAMPLES", "20000"))
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and give hypothesis the run's seed."""
    config.addinivalue_line("markers", "damaged: the test damages its pools on purpose")
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(SEED)


def pytest_report_header() -> list[str]:
    """Print the seed, so that a run can be repeated."""
    return [f"pmlog seed: PMLOG_SEED={SEED}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long forms to `make soak`."""
    if "soak" in (config.option.markexpr or ""):
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]


def _is_tmpfs(path: Path) -> bool:
    lines = Path("/proc/mounts").read_text().splitlines()
    kinds = {parts[1]: parts[2] for parts in (line.split() for line in lines)}
    return kinds.get(str(path)) == "tmpfs"


@pytest.fixture(scope="session")
def seed() -> int:
    """Return the seed of the run."""
    return SEED


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Return a random source that depends on the run's seed and the test's name only."""
    return random.Random(f"{SEED}:{request.node.nodeid}")


@pytest.fixture
def memory_dir() -> Iterator[Path]:
    """Give a fresh directory in memory where there is a tmpfs, removed afterwards."""
    parent = SHM if _is_tmpfs(SHM) else None
    path = Path(tempfile.mkdtemp(prefix="pmlog-test-", dir=parent))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def disk_dir(tmp_path: Path) -> Iterator[Path]:
    """Give a fresh directory on a disk's file system, removed afterwards."""
    path = tmp_path
    if any(_is_tmpfs(parent) for parent in path.parents):
        path = Path(tempfile.mkdtemp(prefix="pmlog-test-", dir=ROOT / "build"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def pool_path(memory_dir: Path) -> Path:
    """Return a path for a pool in memory; nothing is there yet."""
    return memory_dir / "pool"


@pytest.fixture
def disk_path(disk_dir: Path) -> Path:
    """Return a path for a pool on a disk; nothing is there yet."""
    return disk_dir / "pool"


@pytest.fixture
def domain() -> str:
    """Return the persistence domain; a test parametrises it by its name."""
    return "auto"


@pytest.fixture
def medium() -> str:
    """Return the medium; a test parametrises it by its name."""
    return "file"


@pytest.fixture
def open_pool(
    request: pytest.FixtureRequest, pool_path: Path, domain: str, medium: str
) -> Iterator[OpenPool]:
    """Open pools; each is closed after the test and the checker must find no fault in it."""
    opened: list[tuple[Path, pmlog.Pool]] = []

    def open_one(path: Path | str | None = None, **options: Any) -> pmlog.Pool:
        where = Path(path or pool_path)
        pool = pmlog.open(where, **{**SMALL, "domain": domain, "medium": medium, **options})
        opened.append((where, pool))
        return pool

    yield open_one
    is_damaged = request.node.get_closest_marker("damaged") is not None
    for _, pool in reversed(opened):
        with contextlib.suppress(*(pmlog.PmlogError,) if is_damaged else ()):
            pool.close()
    if is_damaged:
        return
    for path in dict.fromkeys(path for path, _ in opened):
        if path.exists():
            assert faults_of(path) == []


@pytest.fixture
def pool(open_pool: OpenPool) -> pmlog.Pool:
    """Return a small new pool."""
    return open_pool()


@pytest.fixture
def spawn() -> Iterator[Callable[..., Child]]:
    """Start real processes; those that still live after the test are ended."""
    children: list[Child] = []

    def start(target: Callable[..., None], *args: Any) -> Child:
        child = Child(target, *args)
        children.append(child)
        return child

    yield start
    for child in children:
        child.discard()
