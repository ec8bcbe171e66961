"""The shipper's status page. Pure."""

from typing import Any, Final

from pmlog import html
from pmlog.sizes import format_size

_POWER: Final = {"mains": "good", "saving": "warn", "sealed": "warn", "vaulted": "warn"}


def render(pools: list[dict[str, Any]]) -> str:
    """Write the page.

    Args:
        pools: As `service.describe` tells them.

    Returns:
        HTML.
    """
    parts: list[html.Markup] = []
    for pool in pools:
        parts += _pool(pool)
    return html.page("pmlog ship", parts or [html.note("No pool is shipped.")])


def state_of(pool: dict[str, Any]) -> tuple[str, str]:
    """Say in a word how a pool is.

    Args:
        pool: As `service.describe` tells it.

    Returns:
        The word, and how good it is: good, warn or bad.
    """
    if pool["fenced_epoch"]:
        return f"fenced by epoch {pool['fenced_epoch']}", "bad"
    if pool.get("failure"):
        return "cannot be read", "bad"
    if pool["frozen"]:
        return "frozen", "warn"
    backlog = pool.get("backlog") or {}
    if backlog.get("at_risk"):
        return "at risk", "bad"
    if backlog.get("is_blocked"):
        return "blocked", "bad"
    return "running", "good"


def _pool(pool: dict[str, Any]) -> list[html.Markup]:
    levels = pool["levels"]
    parts = [
        html.heading(pool["path"]),
        html.figures(
            {
                "state": html.badge(*state_of(pool)),
                "epoch": pool["epoch"],
                "log ends at": pool["lsn_durable"],
                f"durable at {pool['require']}": levels["replicated"],
                "commit delay": f"{pool['delay_ns'] / 1e6:.2f} ms",
                "writer": str(pool["writer_pid"] or "none"),
                "failure": pool.get("failure"),
            }
        ),
        *_backlog(pool.get("backlog")),
        *_power(pool.get("power")),
    ]
    if not pool["receivers"]:
        return [*parts, html.note("No receiver has connected yet.")]
    columns = ("receiver", "state", "received", "durable", "applied", "lacks", "required")
    rows = (
        (
            name,
            _peer(one),
            one["received"],
            one["durable"],
            one["applied"],
            format_size(max(0, one["behind_bytes"])),
            one["required"],
        )
        for name, one in pool["receivers"].items()
    )
    return [*parts, html.table(columns, rows)]


def _peer(one: dict[str, Any]) -> html.Markup:
    if one.get("sealed"):
        return html.badge("sealed", "good")
    if one["connected"]:
        return html.badge("connected", "good")
    return html.badge("away", "bad" if one["required"] else "warn")


def _backlog(backlog: dict[str, Any] | None) -> list[html.Markup]:
    if not backlog:
        return []
    limit = backlog["limit_bytes"]
    size = backlog["bytes"]
    values: dict[str, object] = {
        "backlog": format_size(size) if limit is None else html.meter(size, limit),
        "rate": f"{format_size(int(backlog['rate_bytes_per_s'] or 0))}/s",
    }
    if backlog["at_risk"]:
        missing = backlog["missing_bytes"]
        why = f"{format_size(missing)} too much" if missing else "too few receivers"
        values["at risk"] = html.badge(why, "bad")
    return [html.figures(values)]


def _power(power: dict[str, Any] | None) -> list[html.Markup]:
    if not power:
        return []
    left = power["battery_seconds_left"]
    return [
        html.figures(
            {
                "power": html.badge(power["state"], _POWER.get(power["state"], "bad")),
                "source": power["source"] or None,
                "since": None if power["since_s"] is None else f"{power['since_s']:.0f} s",
                "battery left": None if left is None else f"{left:.1f} s",
            }
        )
    ]
