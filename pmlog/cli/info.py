"""`pmlog info`: what a pool is and holds."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from pmlog.cli import open_readonly, reported
from pmlog.containers.bytes_view import locate
from pmlog.log import LogReader, LogStatus
from pmlog.pool import Pool
from pmlog.sizes import format_size


def info(
    pool: Annotated[str, typer.Argument(help="The pool's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Tell what a pool is and holds: figures, containers, who writes it, who consumes its log.

    Nothing is changed, and a writer may be at work meanwhile.

    Example: pmlog info /dev/shm/orders
    """
    with reported():
        facts = _facts(pool)
        if as_json:
            print(json.dumps(facts, default=str))
        else:
            _show(facts)


def _facts(path: str) -> dict[str, Any]:
    with open_readonly(path) as pool, LogReader(path) as reader:
        facts = {name: _plain(value) for name, value in asdict(pool.status()).items()}
        facts["containers"] = [
            {"name": name, "type": kind, **_measure(pool, name, kind)}
            for name, kind in pool.types().items()
        ]
        log = reader.status()
    facts["writer_pid"] = log.writer_pid if log is not None and log.live else None
    facts["consumers"] = _consumers(log)
    return facts


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return str(value) if isinstance(value, UUID) else value


def _measure(pool: Pool, name: str, kind: str) -> dict[str, Any]:
    if kind == "dict":
        return {"entries": len(pool.dict(name))}
    if kind == "deque":
        return {"items": len(pool.deque(name))}
    if kind == "array":
        array = pool.array(name)
        return {"shape": list(array.shape), "dtype": str(array.dtype), "bytes": array.nbytes}
    return {"bytes": locate(pool.region(name)._handle)[1]}


def _consumers(log: LogStatus | None) -> list[dict[str, Any]]:
    return [asdict(consumer) for consumer in log.consumers] if log is not None else []


def _show(facts: dict[str, Any]) -> None:
    lines = {
        name: value for name, value in facts.items() if name not in ("containers", "consumers")
    }
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:{width}}  {_text(name, value)}")
    for title in ("containers", "consumers"):
        print(f"{title}:" if facts[title] else f"{title}: none")
        for thing in facts[title]:
            rest = ", ".join(f"{name}={value}" for name, value in thing.items() if name != "name")
            print(f"  {thing['name']}: {rest}")


def _text(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{value} ({format_size(value)})" if name.endswith("bytes") else str(value)
