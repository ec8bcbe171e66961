"""What `pmlog top` looks at, and how it is written: samples in, rows out. Pure but for `look`."""

import time
from dataclasses import dataclass, field
from typing import Any

from pmlog.addresses import parse_source
from pmlog.cli.request import ask
from pmlog.errors import GapError, PmlogError, PoolNotFoundError, ProtocolError
from pmlog.log import LogReader
from pmlog.logs import plain
from pmlog.security import Security
from pmlog.sizes import format_size

ASK_TIMEOUT_S = 3.0

COLUMNS = ("what", "name", "state", "tx/s", "log/s", "lacks", "backlog", "power")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the view: a pool, a receiver, or one of a shipper's peers."""

    kind: str
    name: str
    state: str
    is_bad: bool = False
    txn: int | None = None
    lsn: int | None = None
    behind_bytes: int | None = None
    backlog: str = ""
    power: str = ""
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """What a target said, and when."""

    at_s: float
    rows: tuple[Row, ...]


@dataclass(slots=True)
class Target:
    """Something to look at: the address of a service, or the folder of a pool."""

    text: str
    has: Security
    _path: str | None = None
    _reader: LogReader | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if "://" in self.text:
            parse_source(self.text, self.has)

    def look(self) -> Sample:
        """Ask it once; whatever is wrong with it becomes a row.

        Returns:
            What it said.
        """
        try:
            rows = self._service() if "://" in self.text else [self._pool()]
        except PmlogError as error:
            rows = [Row("?", self.text, plain(error), is_bad=True)]
        return Sample(time.monotonic(), tuple(rows))

    def _service(self) -> list[Row]:
        if self._path is None:
            try:
                status, answer = self._ask("/v1/status")
            except ProtocolError:
                status = 404
            if status == 404:
                self._path = "/v1/pools"
                return self._service()
            self._path = "/v1/status"
        else:
            _, answer = self._ask(self._path)
        try:
            if self._path == "/v1/status":
                return [receiver_row(answer)]
            return [row for pool in answer["pools"] for row in pool_rows(pool)]
        except (KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(
                f"{self.text} is neither a shipper nor a receiver: {error}"
            ) from None

    def _ask(self, path: str) -> tuple[int, Any]:
        return ask(self.text, path, has=self.has, timeout_s=ASK_TIMEOUT_S)

    def _pool(self) -> Row:
        if self._reader is None:
            self._reader = LogReader(self.text)
        reader = self._reader
        try:
            while reader.read() is not None:
                pass  # to the end of what is durable now
        except GapError:
            reader.seek(None)
        except PoolNotFoundError:
            self._reader = None
            raise
        known = reader.status()
        position = reader.position
        state = "no writer"
        if known is not None and known.live:
            state = f"writer {known.writer_pid}" if known.writer_pid else state
            state = "frozen" if known.frozen else state
            state = f"fenced by epoch {known.fenced_epoch}" if known.fenced_epoch else state
        return Row(
            "pool", self.text, state, state.startswith("f"), position.txn, position.lsn
        )  # fmt: skip


def receiver_row(known: dict[str, Any]) -> Row:
    """Make the row of a receiver.

    Args:
        known: As `GET /v1/status` tells it.

    Returns:
        The row.
    """
    behind = None
    if known["lsn_primary"] is not None and known["lsn_durable"] is not None:
        behind = max(0, known["lsn_primary"] - known["lsn_durable"])
    state = str(known["state"])
    if known["incomplete"]:
        state += ", incomplete"
    if known["sealed"]:
        state += ", sealed"
    is_bad = state.startswith("connecting") or bool(known.get("failure"))
    return Row(
        "receiver", str(known["name"]), state, is_bad, known["txn_durable"], known["lsn_durable"],
        behind,
    )  # fmt: skip


def pool_rows(pool: dict[str, Any]) -> list[Row]:
    """Make the rows of a shipper's pool and of its peers.

    Args:
        pool: As `GET /v1/pools` tells it.

    Returns:
        The rows, the pool's first.
    """
    state, is_bad = "running", False
    backlog, power = pool.get("backlog") or {}, pool.get("power") or {}
    for word, holds in (
        ("blocked", backlog.get("is_blocked")),
        ("at risk", backlog.get("at_risk")),
        ("frozen", pool["frozen"]),
        ("cannot be read", pool.get("failure")),
        (f"fenced by epoch {pool['fenced_epoch']}", pool["fenced_epoch"]),
    ):
        if holds:
            state, is_bad = word, True
    text = ""
    if backlog:
        limit = backlog["limit_bytes"]
        bound = "" if limit is None else f" of {format_size(limit)}"
        text = f"{format_size(backlog['bytes'])}{bound}"
    left = power.get("battery_seconds_left")
    supply = str(power.get("state", "")) + ("" if left is None else f" {left:.0f} s")
    rows = [
        Row(
            "shipper",
            str(pool["path"]),
            state,
            is_bad,
            None,
            pool["lsn_durable"],
            None,
            text,
            supply,
        )
    ]
    for name, one in pool["receivers"].items():
        peer = "connected" if one["connected"] else "away"
        peer = "sealed" if one.get("sealed") else peer
        peer += ", required" if one["required"] else ""
        rows.append(
            Row(
                "peer",
                str(name),
                peer,
                not one["connected"],
                None,
                one["durable"],
                max(0, one["behind_bytes"]),
                depth=1,
            )
        )
    return rows


def rates(row: Row, before: Sample | None, at_s: float) -> tuple[float | None, float | None]:
    """Tell how fast a row moves.

    Args:
        row: The row.
        before: What its target had said the time before.
        at_s: When the row was asked for.

    Returns:
        Transactions and bytes of the log a second; None where that is not known.
    """
    old = next(
        (one for one in before.rows if (one.kind, one.name) == (row.kind, row.name)), None
    ) if before is not None else None  # fmt: skip
    if old is None or before is None or at_s <= before.at_s:
        return None, None
    seconds = at_s - before.at_s

    def rate(now: int | None, then: int | None) -> float | None:
        # A pool that was replaced begins anew.
        return None if now is None or then is None or now < then else (now - then) / seconds

    return rate(row.txn, old.txn), rate(row.lsn, old.lsn)


def cells(row: Row, before: Sample | None, at_s: float) -> tuple[str, ...]:
    """Write a row.

    Args:
        row: The row.
        before: What its target had said the time before.
        at_s: When the row was asked for.

    Returns:
        A text for each of `COLUMNS`.
    """
    txn_rate, lsn_rate = rates(row, before, at_s)
    return (
        "  " * row.depth + row.kind,
        plain(row.name),
        plain(row.state),
        "" if txn_rate is None else f"{txn_rate:,.0f}",
        "" if lsn_rate is None else f"{format_size(int(lsn_rate))}",
        "" if row.behind_bytes is None else format_size(row.behind_bytes),
        row.backlog,
        plain(row.power),
    )
