"""The receiver's status page. Pure."""

from html import escape
from typing import Any, Final

_HEAD: Final = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
    "<title>pmlog receive</title><style>body{font:14px monospace;margin:2em}"
    "td{padding:.2em .8em}</style><table>"
)


def render(known: dict[str, Any]) -> str:
    """Write the page.

    Args:
        known: As the receiver describes itself.

    Returns:
        HTML.
    """
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>"
        for name, value in known.items()
        if value is not None
    )
    return f"{_HEAD}{rows}</table>"
