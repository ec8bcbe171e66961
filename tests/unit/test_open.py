"""pmlog.open: what it makes, what it finds, and every bad input with an error that says what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pmlog
from tests import children
from tests.support import DOMAINS, SMALL, Child, OpenPool

NOBODY = 65534
Spawn = Callable[..., Child]


# ---- what it makes and finds -----------------------------------------------------------------


def test_makes_a_pool(open_pool: OpenPool, pool_path: Path) -> None:
    """A path where nothing is becomes a pool: a directory of image, log and control files."""
    with open_pool() as pool:
        assert list(pool.names()) == []
    assert pool_path.is_dir()
    assert {"image", "log"} <= {entry.name for entry in pool_path.iterdir()}


def test_makes_a_pool_in_an_empty_directory(open_pool: OpenPool, pool_path: Path) -> None:
    """An empty directory becomes a pool."""
    pool_path.mkdir()
    with open_pool() as pool:
        pool.dict("d")["a"] = 1


def test_finds_the_pool(open_pool: OpenPool, pool_path: Path) -> None:
    """The second open finds what the first left, with or without `create`."""
    with open_pool() as pool:
        pool.dict("d")["a"] = 1
        pool_id = pool.status().pool_id
    every: list[dict[str, Any]] = [{}, {"create": False}, {"readonly": True}]
    for options in every:
        with open_pool(**options) as pool:
            assert pool.status().pool_id == pool_id
            assert pool.dict("d")["a"] == 1


def test_path_kinds(open_pool: OpenPool, pool_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may be a str, a Path, relative, and with a slash at its end."""
    with open_pool(str(pool_path)) as pool:
        pool.dict("d")["a"] = 1
    monkeypatch.chdir(pool_path.parent)
    for path in ("pool", "./pool/", Path("pool"), f"{pool_path}/"):
        with pmlog.open(path) as pool:
            assert pool.dict("d")["a"] == 1


def test_odd_names(open_pool: OpenPool, memory_dir: Path) -> None:
    """Spaces, unicode and long names in the path are no obstacle."""
    for name in ("with space", "é\U0001f40d", "x" * 200, "%s%n", "-"):
        with open_pool(memory_dir / name) as pool:
            pool.dict("d")["a"] = 1
        with open_pool(memory_dir / name) as pool:
            assert pool.dict("d")["a"] == 1


def test_through_a_link(open_pool: OpenPool, memory_dir: Path, pool_path: Path) -> None:
    """A symbolic link to a pool opens the pool, and is no second way to write it."""
    with open_pool() as pool:
        pool.dict("d")["a"] = 1
    link = memory_dir / "link"
    link.symlink_to(pool_path)
    with open_pool(link) as pool:
        assert pool.dict("d")["a"] == 1
        with pytest.raises(pmlog.PoolLockedError):
            pmlog.open(pool_path)


@pytest.mark.parametrize("domain", DOMAINS)
def test_domain_is_taken(open_pool: OpenPool, domain: str) -> None:
    """`domain=` overrides what is detected, and status shows both."""
    pool = open_pool()
    status = pool.status()
    assert status.domain == domain
    assert status.domain_detected in DOMAINS
    pool.dict("d")["a"] = 1
    pool.close()
    with open_pool() as pool:
        assert pool.dict("d")["a"] == 1


def test_domain_detected_in_memory(pool: pmlog.Pool) -> None:
    """On tmpfs the domain is `emulated`, and status says that power loss is not survived."""
    status = pool.status()
    assert status.domain == status.domain_detected == "emulated"
    assert status.survives_power_loss is False


def test_domain_detected_on_disk(open_pool: OpenPool, disk_path: Path) -> None:
    """On a disk's file system the domain is `page`."""
    pool = open_pool(disk_path)
    assert pool.status().domain == "page"
    assert pool.status().survives_power_loss is True
    pool.dict("d")["a"] = 1
    pool.close()
    with open_pool(disk_path) as pool:
        assert pool.dict("d")["a"] == 1


def test_sizes_are_taken(open_pool: OpenPool) -> None:
    """Sizes of a new pool are those asked for; at an open of an old one they change nothing."""
    with open_pool(size="3MiB", log_size="512KiB") as pool:
        status = pool.status()
        assert status.image_bytes >= 3 << 20
        assert status.ring_bytes == 512 << 10
    with open_pool(size="8MiB", log_size="4MiB") as pool:
        assert pool.status().ring_bytes == 512 << 10


def test_open_of_a_killed_writers_pool(open_pool: OpenPool, pool_path: Path, spawn: Spawn) -> None:
    """A pool whose writer was killed opens at the last committed transaction, without a lock left."""
    child = spawn(children.write_forever, str(pool_path), SMALL)
    child.hear()
    told = child.hear()
    child.kill()
    pool = open_pool()
    n = pool.dict("d")["n"]
    assert n >= told
    assert pool.deque("q")[-1] == n
    assert int.from_bytes(pool.region("r", 64).read(0, 8), "little") == n


# ---- paths that are no pool ------------------------------------------------------------------


def _snapshot(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_path_is_a_file(memory_dir: Path) -> None:
    """A file at the path is refused, named, and left as it was."""
    path = memory_dir / "file"
    path.write_bytes(b"precious")
    for options in ({}, {"create": False}, {"readonly": True}):
        with pytest.raises((pmlog.FormatError, pmlog.UsageError)) as raised:
            pmlog.open(path, **options)  # type: ignore[arg-type]
        assert str(path) in str(raised.value)
        assert raised.value.changed is False
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_path_is_something_odd(memory_dir: Path, kind: str) -> None:
    """A pipe, socket or device at the path is refused at once: open does not hang on it."""
    path = memory_dir / "odd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path = Path("/dev/null")
    with pytest.raises((pmlog.FormatError, pmlog.UsageError)) as raised:
        pmlog.open(path)
    assert str(path) in str(raised.value)


def test_directory_of_something_else(memory_dir: Path) -> None:
    """A directory that holds anything else is refused and left as it was, file by file."""
    path = memory_dir / "photos"
    (path / "2013").mkdir(parents=True)
    (path / "2013" / "a.jpg").write_bytes(b"jpg")
    (path / "notes.txt").write_text("notes")
    before = _snapshot(path)
    for options in ({}, {"create": False}, {"readonly": True}):
        with pytest.raises((pmlog.FormatError, pmlog.UsageError)) as raised:
            pmlog.open(path, **options)  # type: ignore[arg-type]
        assert str(path) in str(raised.value)
    assert _snapshot(path) == before


@pytest.mark.parametrize("name", ["image", "log"])
def test_directory_with_a_foreign_file_of_our_name(memory_dir: Path, name: str) -> None:
    """A directory with an `image` or `log` that is not ours is refused and left as it was."""
    path = memory_dir / "other"
    path.mkdir()
    (path / name).write_bytes(b"not ours" * 4096)
    before = _snapshot(path)
    with pytest.raises((pmlog.FormatError, pmlog.UsageError, pmlog.CorruptionError)) as raised:
        pmlog.open(path)
    assert str(path) in str(raised.value)
    assert _snapshot(path) == before


@pytest.mark.parametrize("options", [{"create": False}, {"readonly": True}], ids=repr)
def test_missing(memory_dir: Path, options: dict[str, Any]) -> None:
    """A missing pool is PoolNotFoundError, which is a FileNotFoundError, and nothing is made."""
    for path in (memory_dir / "none", memory_dir / "no" / "parent"):
        with pytest.raises(pmlog.PoolNotFoundError) as raised:
            pmlog.open(path, **options)
        assert str(path) in str(raised.value)
        assert isinstance(raised.value, FileNotFoundError)
        assert not path.exists()


def test_missing_in_an_empty_directory(memory_dir: Path) -> None:
    """An empty directory is no pool to `create=False`, and stays empty."""
    with pytest.raises(pmlog.PoolNotFoundError):
        pmlog.open(memory_dir, create=False)
    assert list(memory_dir.iterdir()) == []


def test_parent_is_a_file(memory_dir: Path) -> None:
    """A path below a file is refused with the path in the message."""
    (memory_dir / "file").write_bytes(b"x")
    with pytest.raises(pmlog.PmlogError) as raised:
        pmlog.open(memory_dir / "file" / "pool")
    assert str(memory_dir / "file") in str(raised.value)


@pytest.mark.parametrize("bad", [None, 1, b"x", "", "with\0nul", "x" * 5_000, object()], ids=repr)
def test_path_is_no_path(bad: Any) -> None:
    """What is no path at all is refused by an error of pmlog or as Python refuses it."""
    with pytest.raises((pmlog.PmlogError, TypeError, ValueError)):
        pmlog.open(bad, create=False)


# ---- rights ----------------------------------------------------------------------------------


@pytest.fixture
def others_pool(open_pool: OpenPool, memory_dir: Path, pool_path: Path) -> Path:
    """Give a pool of root's, in a directory that everybody may search."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    memory_dir.chmod(0o755)
    with open_pool() as pool:
        pool.dict("d")["a"] = 1
    return pool_path


def test_not_writable(others_pool: Path, spawn: Spawn) -> None:
    """Another user's pool cannot be opened for writing, and the error names path and reason."""
    others_pool.chmod(0o755)
    for entry in others_pool.iterdir():
        entry.chmod(0o644)
    before = _snapshot(others_pool)
    error = spawn(children.try_open, str(others_pool), {}, NOBODY).hear()
    assert isinstance(error, pmlog.UsageError)
    assert isinstance(error, PermissionError)
    assert str(others_pool) in str(error)
    assert error.hint
    assert _snapshot(others_pool) == before


def test_not_readable(others_pool: Path, spawn: Spawn) -> None:
    """Another user's closed pool cannot be opened at all, not even for reading."""
    others_pool.chmod(0o700)
    for options in ({}, {"readonly": True}, {"create": False}):
        error = spawn(children.try_open, str(others_pool), options, NOBODY).hear()
        assert isinstance(error, pmlog.UsageError)
        assert isinstance(error, PermissionError)
        assert str(others_pool) in str(error)


def test_parent_not_writable(memory_dir: Path, others_pool: Path, spawn: Spawn) -> None:
    """A new pool in a directory that may not be written is refused, and nothing is left."""
    path = memory_dir / "new"
    error = spawn(children.try_open, str(path), {}, NOBODY).hear()
    assert isinstance(error, pmlog.UsageError)
    assert isinstance(error, PermissionError)
    assert str(path) in str(error)
    assert not path.exists()


def test_readable_only(others_pool: Path, spawn: Spawn) -> None:
    """Another user who may read the files can open them read-only."""
    others_pool.chmod(0o755)
    for entry in others_pool.iterdir():
        entry.chmod(0o644)
    answer = spawn(children.try_open, str(others_pool), {"readonly": True}, NOBODY).hear()
    assert answer == ["d"]


# ---- locks -----------------------------------------------------------------------------------


def test_locked_by_another_process(open_pool: OpenPool, pool_path: Path, spawn: Spawn) -> None:
    """A pool open for writing in another process is PoolLockedError with that process's pid."""
    child = spawn(children.hold_pool, str(pool_path), SMALL)
    assert child.hear() == "open"
    with pytest.raises(pmlog.PoolLockedError) as raised:
        pmlog.open(pool_path)
    assert raised.value.pid == child.pid
    assert str(child.pid) in str(raised.value)
    assert raised.value.retryable is True
    with pmlog.open(pool_path, readonly=True) as reader:
        assert list(reader.names()) == []
    child.say("go on")
    assert child.hear() == "closed"
    with open_pool() as pool:
        pool.dict("d")["a"] = 1


def test_locked_by_this_process(open_pool: OpenPool, pool_path: Path) -> None:
    """A second handle for writing in the same process is refused with its own pid."""
    open_pool()
    with pytest.raises(pmlog.PoolLockedError) as raised:
        pmlog.open(pool_path)
    assert raised.value.pid == os.getpid()


def test_lock_dies_with_its_holder(open_pool: OpenPool, pool_path: Path, spawn: Spawn) -> None:
    """A killed holder's lock is gone at once."""
    child = spawn(children.hold_pool, str(pool_path), SMALL)
    assert child.hear() == "open"
    child.kill()
    with open_pool() as pool:
        pool.dict("d")["a"] = 1


def test_many_openers_one_wins(pool_path: Path, open_pool: OpenPool, spawn: Spawn) -> None:
    """Of several processes that make the same new pool at once exactly one gets it for writing."""
    openers = [spawn(children.try_and_hold, str(pool_path), SMALL) for _ in range(4)]
    answers = [opener.hear() for opener in openers]
    assert sorted(answers) == ["PoolLockedError"] * 3 + ["open"]
    for opener in openers:
        opener.say("go on")
        assert opener.join() == 0
    with open_pool() as pool:
        assert list(pool.names()) == []


# ---- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["size", "log_size", "max_size"])
@pytest.mark.parametrize(
    "value",
    [0, 1, 4096, -1, "-64MiB", "", "lots", "12 parsecs", 1.5, None, b"64MiB", [], 2**70, "9999PiB"],
)
def test_bad_sizes(pool_path: Path, option: str, value: Any) -> None:
    """A size too small, negative or no size is refused by name, and nothing is made."""
    with pytest.raises((pmlog.ConfigError, pmlog.UsageError)) as raised:
        pmlog.open(pool_path, **{**SMALL, option: value})
    assert option in str(raised.value)
    assert not pool_path.exists() or list(pool_path.iterdir()) == []


def test_size_above_max_size(pool_path: Path) -> None:
    """A pool cannot start larger than its limit."""
    with pytest.raises(pmlog.UsageError) as raised:
        pmlog.open(pool_path, size="64MiB", max_size="32MiB")
    assert "size" in str(raised.value)
    assert not pool_path.exists() or list(pool_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("domain", "ram"), ("domain", None), ("domain", 3), ("medium", "tape"), ("medium", None)],
)
def test_bad_names(pool_path: Path, option: str, value: Any) -> None:
    """An unknown domain or medium is refused, and nothing is made."""
    with pytest.raises((pmlog.ConfigError, TypeError)) as raised:
        pmlog.open(pool_path, **{option: value})
    assert option in str(raised.value)
    assert not pool_path.exists() or list(pool_path.iterdir()) == []


def test_unknown_option(pool_path: Path) -> None:
    """An option that does not exist is a TypeError, as for any function."""
    with pytest.raises(TypeError):
        pmlog.open(pool_path, map_size=1)  # type: ignore[call-arg]
    assert not pool_path.exists()


def test_max_size_below_the_pool(open_pool: OpenPool) -> None:
    """A pool that is larger than `max_size` is refused and unharmed."""
    with open_pool(size="4MiB") as pool:
        pool.dict("d")["a"] = 1
    with pytest.raises((pmlog.UsageError, pmlog.CapacityError)) as raised:
        open_pool(max_size="2MiB")
    assert raised.value.changed is False
    with open_pool() as pool:
        assert pool.dict("d")["a"] == 1


# ---- names -----------------------------------------------------------------------------------


def test_names(pool: pmlog.Pool) -> None:
    """`names` lists every container."""
    pool.dict("d")
    pool.deque("q")
    pool.array("a", shape=(2,), dtype="u1")
    pool.region("r", 100)
    assert sorted(pool.names()) == ["a", "d", "q", "r"]


KINDS: dict[str, Callable[[pmlog.Pool], object]] = {
    "dict": lambda pool: pool.dict("name"),
    "deque": lambda pool: pool.deque("name"),
    "array": lambda pool: pool.array("name", shape=(4,), dtype="u1"),
    "region": lambda pool: pool.region("name", 4),
}


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_name_of_another_type(pool: pmlog.Pool, first: str, second: str) -> None:
    """A name used with another type of container is refused, naming both types; the same is found."""
    KINDS[first](pool)
    if first == second:
        KINDS[second](pool)
        return
    with pytest.raises(pmlog.UsageError) as raised:
        KINDS[second](pool)
    assert "name" in str(raised.value)
    assert first in str(raised.value)
    assert raised.value.changed is False
    KINDS[first](pool)


@pytest.mark.parametrize(
    "name", ["a", "with space", "é\U0001f40d", "x" * 255, "é" * 127, "a/b", "%s"]
)
def test_good_names(open_pool: OpenPool, name: str) -> None:
    """Names up to 255 bytes of UTF-8 are kept."""
    with open_pool() as pool:
        pool.dict(name)["a"] = 1
        assert list(pool.names()) == [name]
    with open_pool() as pool:
        assert pool.dict(name)["a"] == 1


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, None, 1, b"bytes", "\ud800"], ids=repr)
def test_bad_container_names(pool: pmlog.Pool, name: Any) -> None:
    """A name that is empty, too long or no text is refused for every type of container."""
    makers: list[Callable[[], object]] = [
        lambda: pool.dict(name),
        lambda: pool.deque(name),
        lambda: pool.array(name, shape=(1,), dtype="u1"),
        lambda: pool.region(name, 1),
    ]
    for make in makers:
        with pytest.raises((pmlog.UsageError, TypeError)):
            make()
    assert list(pool.names()) == []


def test_drop(pool: pmlog.Pool) -> None:
    """A dropped container is gone, its handle says so, and the name is free for any type."""
    d = pool.dict("name")
    d.update(dict.fromkeys(range(200), "x" * 100))
    pool.drop("name")
    assert "name" not in pool.names()
    for use in (lambda: d["a"], lambda: len(d), lambda: list(d), lambda: d.update(a=1), d.clear):
        with pytest.raises(pmlog.UsageError):
            use()
    q = pool.deque("name")
    q.append(1)
    assert list(q) == [1]
    with pytest.raises(pmlog.UsageError):
        len(d)


def test_drop_missing(pool: pmlog.Pool) -> None:
    """Dropping what is not there is an error that names it, and a KeyError."""
    with pytest.raises(pmlog.UsageError) as raised:
        pool.drop("none")
    assert "none" in str(raised.value)
    assert isinstance(raised.value, KeyError)


@pytest.mark.parametrize("kind", KINDS)
def test_drop_gives_space_back(open_pool: OpenPool, kind: str) -> None:
    """Making, filling and dropping containers over and over does not grow the pool."""
    pool = open_pool(log_size="4MiB")
    sizes = []
    for _ in range(12):
        if kind == "dict":
            pool.dict("name").update(dict.fromkeys(range(1000), b"x" * 200))
        elif kind == "deque":
            pool.deque("name").extend(b"x" * 200 for _ in range(1_000))
        elif kind == "array":
            pool.array("name", shape=(200_000,), dtype="u1")[...] = 1
        else:
            pool.region("name", 200_000).write(0, b"x" * 200_000)
        pool.drop("name")
        sizes.append(pool.status().heap_used_bytes)
    assert sizes[-1] <= 1.2 * sizes[2]
    assert pool.status().image_bytes <= 4 << 20
