"""The tree of errors: what each answers, how it pickles, and which status of the engine it stands for."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

import pmlog
from pmlog import _engine, errors

TREE = {
    "PmlogError": "Exception",
    "UsageError": "PmlogError",
    "ClosedError": "UsageError",
    "ForkedError": "UsageError",
    "ReadOnlyError": "UsageError",
    "PoolLockedError": "UsageError",
    "PoolNotFoundError": "UsageError",
    "PoolExistsError": "UsageError",
    "TransactionTooLargeError": "UsageError",
    "LevelUnavailableError": "UsageError",
    "EncodeError": "UsageError",
    "ConfigError": "UsageError",
    "CapacityError": "PmlogError",
    "LogFullError": "CapacityError",
    "BacklogError": "LogFullError",
    "PoolFullError": "CapacityError",
    "MediumError": "PmlogError",
    "CorruptionError": "PmlogError",
    "FormatError": "PmlogError",
    "ReplicationError": "PmlogError",
    "WaitTimeoutError": "ReplicationError",
    "PoolFrozenError": "ReplicationError",
    "GapError": "ReplicationError",
    "ForkError": "ReplicationError",
    "FencedError": "ReplicationError",
    "ProtocolError": "ReplicationError",
    "PeerUnavailableError": "ReplicationError",
    "NotPromotableError": "ReplicationError",
    "IncompleteError": "ReplicationError",
    "InvariantViolationError": "PmlogError",
}
CLASSES: list[type[pmlog.PmlogError]] = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.PmlogError)
]
ids: Any = {"ids": lambda value: getattr(value, "__name__", str(value))}


@pytest.mark.parametrize(("name", "parent"), TREE.items())
def test_tree(name: str, parent: str) -> None:
    """The tree is that of the design: each class hangs where it says."""
    assert getattr(errors, name).__bases__[0].__name__ == parent


@pytest.mark.parametrize("kind", CLASSES, **ids)
def test_one_root(kind: type[pmlog.PmlogError]) -> None:
    """Every class derives from the root by way of one branch, and ends in Error."""
    assert issubclass(kind, errors.PmlogError)
    assert kind.__name__.endswith("Error")
    branches = [
        errors.UsageError,
        errors.CapacityError,
        errors.MediumError,
        errors.CorruptionError,
        errors.FormatError,
        errors.ReplicationError,
        errors.InvariantViolationError,
    ]
    assert sum(issubclass(kind, branch) for branch in branches) == (kind is not errors.PmlogError)


@pytest.mark.parametrize("name", [kind.__name__ for kind in CLASSES])
def test_public(name: str) -> None:
    """Every class is a public name of the package."""
    assert getattr(pmlog, name) is getattr(errors, name)
    assert name in pmlog.__all__


@pytest.mark.parametrize("kind", CLASSES, **ids)
def test_answers(kind: type[pmlog.PmlogError]) -> None:
    """Each class answers `changed`, `retryable`, `hint`, and says in its docstring what it means."""
    error = kind("what failed")
    assert error.changed in (True, False, None)
    assert error.retryable in (True, False)
    assert error.hint is None or error.hint
    assert kind.__doc__
    assert "what failed" in str(error)
    assert str(kind())


@pytest.mark.parametrize(
    ("kind", "changed", "retryable"),
    [
        (errors.ClosedError, False, False),
        (errors.PoolLockedError, False, True),
        (errors.EncodeError, False, False),
        (errors.TransactionTooLargeError, False, False),
        (errors.LogFullError, False, True),
        (errors.BacklogError, False, True),
        (errors.PoolFullError, False, True),
        (errors.WaitTimeoutError, True, True),
        (errors.PoolFrozenError, False, True),
        (errors.MediumError, None, False),
        (errors.CorruptionError, None, False),
        (errors.InvariantViolationError, None, False),
    ],
    **ids,
)
def test_changed_and_retryable(
    kind: type[pmlog.PmlogError], changed: bool | None, retryable: bool
) -> None:
    """The answers that a caller decides by are the promised ones."""
    assert (kind("x").changed, kind("x").retryable) == (changed, retryable)


def test_usage_errors_change_nothing() -> None:
    """Every caller's mistake and every want of room leaves things as they were."""
    for kind in CLASSES:
        if issubclass(kind, (errors.UsageError, errors.CapacityError)):
            assert kind("x").changed is False


def _fields(kind: type[pmlog.PmlogError]) -> list[str]:
    names = {name for base in kind.__mro__ for name in getattr(base, "__annotations__", {})}
    return sorted(names - {"changed", "retryable", "hint"})


@pytest.mark.parametrize("kind", CLASSES, **ids)
@pytest.mark.parametrize(
    "how", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deep"]
)
def test_pickles(kind: type[pmlog.PmlogError], how: Any) -> None:
    """An error with all its fields goes through pickle and copy unharmed."""
    fields: dict[str, Any] = {name: n for n, name in enumerate(_fields(kind))}
    if "path" in fields:
        fields["path"] = "/the/path"
    error = kind("what failed", hint="what to do", **fields)
    copied = how(error)
    if isinstance(copied, bytes):
        copied = pickle.loads(copied)  # noqa: S301 - what was pickled two lines above
    assert type(copied) is kind
    assert str(copied) == str(error)
    assert copied.hint == "what to do"
    for name, value in fields.items():
        assert getattr(copied, name) == value


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.PoolNotFoundError, FileNotFoundError),
        (errors.PoolExistsError, FileExistsError),
        (errors.EncodeError, TypeError),
        (errors.ConfigError, ValueError),
        (errors.WaitTimeoutError, TimeoutError),
    ],
    **ids,
)
def test_builtin_counterparts(kind: type[pmlog.PmlogError], builtin: type[Exception]) -> None:
    """Where a builtin exception says the same, `except` for it catches ours."""
    with pytest.raises(builtin):
        raise kind("x")


def test_unknown_field_is_refused() -> None:
    """A field that the class does not declare is a mistake of ours, and shows at once."""
    with pytest.raises(TypeError):
        errors.UsageError("x", no_such_field=1)


# ---- the engine's statuses -------------------------------------------------------------------

STATUSES: dict[int, str] = dict(_engine.ffi.typeof("enum pml_status").elements)
# Answers that the layers above understand; a user who sees one has found a bug of ours.
INTERNAL = {"PML_E_STALE", "PML_E_BUFFER", "PML_E_AGAIN"}


def test_every_status_has_a_class() -> None:
    """Each status of the engine but success maps to one class, and no other number does."""
    assert set(_engine.STATUS_ERRORS) == set(STATUSES) - {0}


def test_every_class_has_one_status() -> None:
    """No two statuses share a class, except those that never leave the library."""
    by_class: dict[type[pmlog.PmlogError], set[str]] = {}
    for status, kind in _engine.STATUS_ERRORS.items():
        by_class.setdefault(kind, set()).add(STATUSES[status])
    internal = by_class.pop(errors.InvariantViolationError)
    assert internal == INTERNAL | {"PML_E_INVARIANT"}
    assert {kind.__name__: names for kind, names in by_class.items() if len(names) != 1} == {}


@pytest.mark.parametrize(("status", "name"), STATUSES.items(), ids=str)
def test_status_names(status: int, name: str) -> None:
    """The engine names each of its statuses, and a failure without detail still says something."""
    known = _engine.ffi.string(_engine.lib.pml_status_name(status)).decode()
    assert name in (f"PML_E_{known}", f"PML_{known}")
    if status:
        error = _engine.failure(status, "/the/pool", "dict 'd'")
        assert type(error) is _engine.STATUS_ERRORS[status]
        assert "/the/pool" in str(error)
        assert "dict 'd'" in str(error)
        assert error.path == "/the/pool"


def test_unknown_status() -> None:
    """A number that is no status is a bug of ours and says so."""
    assert isinstance(_engine.failure(-9_999, "/the/pool"), errors.InvariantViolationError)
