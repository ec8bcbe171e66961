"""The receiver's status page. Pure."""

from typing import Any, Final

from pmlog import html
from pmlog.sizes import format_size

_STATES: Final = {"receiving": "good", "promoted": "good", "failed": "bad"}


def render(known: dict[str, Any]) -> str:
    """Write the page.

    Args:
        known: As the receiver describes itself.

    Returns:
        HTML.
    """
    state = known["state"]
    behind = behind_bytes(known)
    parts = [
        html.heading(f"{known['name']}: {known['path']}"),
        html.figures(
            {
                "state": html.badge(state, _STATES.get(state, "warn")),
                "copy": _copy(known),
                "epoch": known["epoch"],
                "transaction": known["txn_durable"],
                "durable up to": known["lsn_durable"],
                "primary's log ends at": known["lsn_primary"],
                "lacks": None if behind is None else format_size(behind),
                "failure": known.get("failure"),
            }
        ),
        html.figures(
            {
                "connections": known["connections"],
                "frames": known["frames"],
                "log bytes": format_size(known["raw_bytes"]),
                "on the wire": format_size(known["wire_bytes"]),
                "blocks of a baseline": known["blocks"] or None,
                "last trouble": known["last_error"],
            }
        ),
    ]
    application = known["application"]
    if application is not None:
        exited = application["exit"]
        word = "running" if exited is None else f"ended with {exited}"
        if application["failure"]:
            word = application["failure"]
        bad = application["failure"] or exited
        parts += [
            html.heading("application"),
            html.figures(
                {
                    "state": html.badge(word, "bad" if bad else "good"),
                    "process": None if application["pid"] is None else str(application["pid"]),
                }
            ),
        ]
    return html.page("pmlog receive", parts)


def behind_bytes(known: dict[str, Any]) -> int | None:
    """Tell how far the replica is behind what the primary has said.

    Args:
        known: As the receiver describes itself.

    Returns:
        Bytes of the log; None: it is not known.
    """
    if known["lsn_primary"] is None or known["lsn_durable"] is None:
        return None
    return max(0, int(known["lsn_primary"]) - int(known["lsn_durable"]))


def _copy(known: dict[str, Any]) -> html.Markup:
    if known["epoch"] is None:
        return html.badge("none yet", "warn")
    if known["incomplete"]:
        return html.badge("incomplete", "warn")
    if known["complete"] is False:
        return html.badge("promoted with loss", "bad")
    if known["sealed"] or known["complete"]:
        return html.badge("sealed", "good")
    return html.badge("open", "good")
