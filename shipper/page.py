"""The shipper's status page. Pure."""

from html import escape
from typing import Any, Final

_HEAD: Final = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
    "<title>pmlog ship</title><style>body{font:14px monospace;margin:2em}"
    "td,th{padding:.2em .8em;text-align:left}</style>"
)
_COLUMNS: Final = ("connected", "required", "received", "durable", "applied", "behind_bytes")


def render(pools: list[dict[str, Any]]) -> str:
    """Write the page.

    Args:
        pools: As `service.describe` tells them.

    Returns:
        HTML.
    """
    return _HEAD + "".join(_pool(pool) for pool in pools)


def _pool(pool: dict[str, Any]) -> str:
    state = "frozen" if pool["frozen"] else "running"
    if pool["fenced_epoch"]:
        state = f"fenced: epoch {pool['fenced_epoch']} has taken over"
    lines = [
        f"<h2>{escape(pool['path'])}</h2>",
        f"<p>{escape(state)}, epoch {pool['epoch']}, log ends at {pool['lsn_durable']}, "
        f"delay {pool['delay_ns']} ns</p><table><tr><th>receiver</th>",
        "".join(f"<th>{name}</th>" for name in _COLUMNS),
        "</tr>",
    ]
    for name, figures in pool["receivers"].items():
        cells = "".join(f"<td>{figures[column]}</td>" for column in _COLUMNS)
        lines.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    return "".join(lines) + "</table>"
