"""The look of status pages: plain HTML, no scripts, nothing from elsewhere. Pure.

Everything that is shown is escaped here; callers pass values, never markup of their own.
"""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

from pmlog.sizes import format_size

REFRESH_S: Final = 2

_STYLE: Final = (
    ":root{color-scheme:light dark;--line:#8884;--dim:#888;--good:#2a8a4a;--warn:#b7791f;"
    "--bad:#c53030}"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:1.5rem auto;padding:0 1rem}"
    "h1{font-size:1.25rem;margin:0 0 1rem}h2{font-size:1.05rem;margin:1.5rem 0 .5rem;"
    "overflow-wrap:anywhere}"
    "dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.6rem 1.2rem;"
    "margin:0 0 1rem}dt{color:var(--dim);font-size:.8rem}dd{margin:0;overflow-wrap:anywhere}"
    "dd,td{font-variant-numeric:tabular-nums}"
    "div.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:right;padding:.25rem .8rem;border-bottom:1px solid var(--line)}"
    "th:first-child,td:first-child{text-align:left;padding-left:0}"
    "th{color:var(--dim);font-weight:normal;font-size:.8rem}meter{width:100%;height:1rem}"
    "b{border-radius:.3rem;padding:.1rem .5rem;color:#fff;font-weight:600;font-size:.85rem}"
    "b.good{background:var(--good)}b.warn{background:var(--warn)}b.bad{background:var(--bad)}"
    "p.dim{color:var(--dim)}"
)


class Markup(str):
    """Text that is HTML already; made by this module only."""

    __slots__ = ()


def page(title: str, parts: Iterable[Markup]) -> str:
    """Write a page that renews itself.

    Args:
        title: What it is of.
        parts: What stands on it.

    Returns:
        HTML.
    """
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{REFRESH_S}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1>{''.join(parts)}</html>\n"
    )


def heading(text: str) -> Markup:
    """Write a heading.

    Args:
        text: What it says.

    Returns:
        HTML.
    """
    return Markup(f"<h2>{escape(text)}</h2>")


def badge(text: str, kind: str) -> Markup:
    """Write a word that catches the eye.

    Args:
        text: The word.
        kind: good, warn or bad.

    Returns:
        HTML.
    """
    return Markup(f'<b class="{escape(kind)}">{escape(text)}</b>')


def meter(value: int, limit: int) -> Markup:
    """Draw how much of a limit is used.

    Args:
        value: What is used.
        limit: The limit; 0 counts as used up.

    Returns:
        HTML; the figures stand beside it, for those who do not see it.
    """
    share = min(1.0, value / limit) if limit else 1.0
    text = escape(f"{format_size(value)} of {format_size(limit)}")
    return Markup(
        f'<meter min="0" max="1" low="0.5" high="0.75" optimum="0" value="{share:.3f}">{text}'
        f"</meter>{text}"
    )


def figures(values: Mapping[str, object]) -> Markup:
    """Write names with their values.

    Args:
        values: They; None is left out.

    Returns:
        HTML.
    """
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{_cell(value)}</dd></div>"
        for name, value in values.items()
        if value is not None
    )
    return Markup(f"<dl>{''.join(cells)}</dl>")


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Markup:
    """Write a table.

    Args:
        columns: Heads of the columns.
        rows: Values of the rows.

    Returns:
        HTML.
    """
    head = "".join(f"<th>{escape(one)}</th>" for one in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows
    )
    return Markup(f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>')


def note(text: str) -> Markup:
    """Write a sentence that stands back.

    Args:
        text: The sentence.

    Returns:
        HTML.
    """
    return Markup(f'<p class="dim">{escape(text)}</p>')


def _cell(value: object) -> str:
    if isinstance(value, Markup):
        return value
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return escape(str(value))
