"""Writes SVG elements and the HTML page around a picture. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from token_budget.text import display_width, fit, printable

NAME_CELLS = 20
STYLE = (
    "text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#333}"
    ".title{font-size:20px;font-weight:600;fill:#111}.head{font-size:14px;font-weight:600;fill:#111}"
    ".muted{fill:#666}.end{text-anchor:end}.mid{text-anchor:middle}.limit{fill:#A84300;font-weight:600}"
)
PAGE_STYLE = (
    "body{font-family:system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222}"
    "svg{max-width:100%;height:auto}table{border-collapse:collapse;width:100%;font-size:.85rem}"
    "caption{text-align:left;font-weight:600;padding:.5rem 0}"
    "th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #ddd}"
    "th:first-child{text-align:left}thead th{overflow-wrap:anywhere}.wide{overflow-x:auto}"
)


def safe(text: str) -> str:
    """Text as XML has it, without control characters."""
    return escape(printable(text))


def short_name(name: str, cells: int = NAME_CELLS) -> str:
    """A name from a config, harmless and not too long."""
    name = printable(name)
    return name if display_width(name) <= cells else fit(name, cells).rstrip()


def text_at(x: float, y: float, text: str, kind: str = "") -> str:
    """A text at a place, of a class of the style."""
    return f'<text x="{x:.1f}" y="{y:.1f}"' + (f' class="{kind}"' if kind else "") + f">{safe(text)}</text>"


def bar(left: float, bottom: float, size: tuple[float, float], color: str, tip: str) -> str:
    """A bar of a width and height that stands on `bottom` and explains itself under the pointer."""
    width, height = size
    return (
        f'<rect class="bar" x="{left:.2f}" y="{bottom - height:.3f}" width="{width:.2f}" height="{height:.3f}" '
        f'fill="{color}" stroke="#fff" stroke-width=".6"><title>{safe(tip)}</title></rect>'
    )


def picture(title: str, summary: str, size: tuple[int, int], parts: Iterable[str]) -> str:
    """A whole SVG with a title and a summary for those who cannot see it."""
    width, height = size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-labelledby="title desc"><title id="title">{safe(title)}</title>'
        f'<desc id="desc">{safe(summary)}</desc><style>{STYLE}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def page(title: str, svg: str, table: str) -> str:
    """An HTML page with a picture and a table of its figures."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>{safe(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<style>{PAGE_STYLE}</style></head><body>{svg}{table}</body></html>\n"
    )


def figures(caption: str, heads: Iterable[str], rows: Iterable[tuple[str, Iterable[str]]], total: Iterable[str]) -> str:
    """A table of figures with a title for each row and column, and a total line."""
    head = "".join(f'<th scope="col">{safe(one)}</th>' for one in heads)
    body = "".join(_row(title, cells) for title, cells in rows)
    return (
        f'<div class="wide"><table><caption>{safe(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody><tfoot>{_row('total', total)}</tfoot></table></div>"
    )


def _row(title: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{safe(title)}</th>{"".join(f"<td>{safe(cell)}</td>" for cell in cells)}</tr>'
