"""How a pool in a folder of this host is, whole or not; for `pmlog status`. It changes nothing."""

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pmlog import marks
from pmlog.cli import open_readonly
from pmlog.drill import find_pool
from pmlog.errors import CorruptionError, GapError, IncompleteError, PoolNotFoundError
from pmlog.headers import identity_of
from pmlog.log import LogReader, LogStatus

_SEAL_BYTES_MAX = 1 << 16


def status_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Tell how a pool is.

    Args:
        path: The pool's folder, or that of a receiver.

    Returns:
        Figures, ready for JSON; `fault` says why a damaged pool cannot be read.

    Raises:
        PoolNotFoundError: There is no pool.
        PmlogError: It is not one, or cannot be read.
    """
    place = find_pool(path)
    if not place.is_dir():
        raise PoolNotFoundError(
            f"{place}: there is no pool", hint="a service's address begins with http://"
        )
    stop, incomplete = marks.stop_of(place), marks.incomplete_of(place)
    known: dict[str, Any] = {"path": str(place), "state": "", "pool": None, "fault": None}
    log: LogStatus | None = None
    try:
        with LogReader(place) as reader:
            try:
                while reader.run() is not None:
                    pass  # to the end of what is durable now
            except GapError:
                reader.seek(None)  # the writer was faster: the checkpoint is near enough
            log = reader.status()
            known |= _figures(reader, log)
        if incomplete is None:
            known |= _domain(place)
    except (CorruptionError, IncompleteError) as error:
        known["pool"] = str(identity_of(place).pool_id)
        if incomplete is None:
            known["fault"] = str(error)
    known["frozen"] = bool(log and log.live and log.frozen)
    known["fenced_epoch"] = log.fenced_epoch if log and log.live else None
    known["stop"] = (
        {"why": stop.why, "epoch": stop.epoch, "told": list(stop.told), "source": stop.source}
        if stop is not None
        else None
    )
    known["incomplete"] = incomplete.why if incomplete is not None else None
    known["heard_epoch"] = marks.history_of(place).heard
    known["receiver"] = _beside(place)
    known["state"] = _state(known, known.get("writer_pid"))
    return known


def _state(known: dict[str, Any], writer: int | None) -> str:
    """Choose the word that matters most to who looks."""
    stop = known["stop"]
    why = stop["why"] if stop is not None else None
    for word, holds in (
        ("damaged", known["fault"]),
        ("incomplete", known["incomplete"]),
        ("fenced", why == "fenced" or known["fenced_epoch"]),
        ("stopped for power", why == "power" or known["frozen"]),
        ("replica", why == "replica"),
        (f"written by process {writer}", writer),
    ):
        if holds:
            return word
    return "no writer"


def _figures(reader: LogReader, log: LogStatus | None) -> dict[str, Any]:
    at = reader.position
    is_live = log is not None and log.live
    found: dict[str, Any] = {
        "pool": str(reader.pool_id),
        "position": str(at),
        "epoch": at.epoch,
        "txn": at.txn,
        "lsn_durable": at.lsn,
        "lsn_checkpoint": reader.mark().lsn,
        "session": log.session if log is not None else None,
        "ring_bytes": reader.ring_bytes,
        "writer_pid": log.writer_pid if log is not None and is_live else None,
    }
    if log is None or not is_live:
        return found | {"levels": None, "shipper_age_s": None, "bound": None, "consumers": []}
    return found | {
        "levels": {
            "received": log.lsn_received,
            "replicated": log.lsn_replicated,
            "applied": log.lsn_applied,
        },
        "shipper_age_s": log.shipper_age_s,
        "bound": asdict(log.bound),
        "consumers": [
            asdict(one) | {"behind_bytes": max(0, at.lsn - one.lsn_acked)} for one in log.consumers
        ],
    }


def _domain(place: Path) -> dict[str, Any]:
    try:
        with open_readonly(str(place)) as pool:
            status = pool.status()
    except PoolNotFoundError:
        return {}  # it is being made, or a copy that has not got a record yet
    return {
        "image_bytes": status.image_bytes,
        "domain": status.domain,
        "survives_power_loss": status.survives_power_loss,
    }


def _beside(place: Path) -> dict[str, Any] | None:
    """Look for the marks of a receiver whose replica this is."""
    if place.name != "pool":
        return None
    found = {}
    for name in ("seal", "promotion"):
        with (
            contextlib.suppress(OSError, ValueError),
            open(place.absolute().parent / name, "rb") as file,
        ):
            found[name] = json.loads(file.read(_SEAL_BYTES_MAX))
    return found or None
