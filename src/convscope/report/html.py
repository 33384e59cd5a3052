"""Grids and facts as HTML that stands on its own: in a notebook's cell, or on a page.

Styles are written into the elements, since notebooks drop style sheets of what they don't trust, and have no
colours of their own, so that light and dark themes both suit. Every text is escaped.
"""

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from convscope.report.wording.cost_grid import Grid

_LINE = "1px solid rgba(127,127,127,.4)"
_TABLE = (
    "border-collapse:collapse;margin:.5em 0;text-align:right;white-space:nowrap;"
    "font-variant-numeric:tabular-nums;"
)
_LEFT = "text-align:left;"
_QUIET = "opacity:.7;"


def html_table(grid: Grid) -> Markup:
    """Return a grid as a table: numbers to the right, the first column as the rows' headings.

    Cells of numbers have no style of their own but take the table's, since tables may have many.
    """
    numeric = [title.endswith("#") for title in grid.columns]
    head = Markup().join(
        Markup('<th scope="col" style="text-align:{}">{}</th>').format(
            "right" if right else "left", title.removesuffix("#")
        )
        for title, right in zip(grid.columns, numeric, strict=True)
    )
    body = Markup().join(_row(row, numeric) for row in grid.rows)
    sums = Markup().join(_row(row, numeric) for row in grid.footer)
    foot = Markup('<tfoot style="border-top:{};font-weight:600">{}</tfoot>').format(_LINE, sums)
    table = Markup(
        '<table cellpadding="4" style="{}"><thead><tr style="border-bottom:{}">{}</tr></thead>'
        "<tbody>{}</tbody>{}</table>"
    ).format(_TABLE, _LINE, head, body, foot if sums else "")
    return _scrolled(table) + (quiet(grid.note) if grid.note else Markup())


def html_facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Return names and texts, one pair a line; nothing for no pairs."""
    lines = [
        Markup('<tr><th scope="row" style="{}">{}</th><td style="{}">{}</td></tr>').format(
            f"{_LEFT}{_QUIET}font-weight:normal;white-space:nowrap;vertical-align:top", name, _LEFT, text
        )
        for name, text in pairs
    ]
    table = Markup(
        '<table cellpadding="4" style="border-collapse:collapse;margin:.5em 0"><tbody>{}</tbody></table>'
    )
    return table.format(Markup().join(lines)) if lines else Markup()


def html_title(text: str) -> Markup:
    """Return a heading."""
    return Markup('<p style="font-weight:600;margin:.8em 0 .3em">{}</p>').format(text)


def quiet(text: str) -> Markup:
    """Return a line of small print."""
    return Markup('<p style="{}font-size:.9em;margin:.3em 0">{}</p>').format(_QUIET, text)


def folded(summary: str, content: Markup) -> Markup:
    """Return content that opens when its summary is clicked."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, content)


def block(*parts: Markup) -> Markup:
    """Return parts below one another in one element."""
    return Markup('<div class="convscope" style="line-height:1.4">{}</div>').format(Markup().join(parts))


def _scrolled(content: Markup) -> Markup:
    """A table that is wider than its place can be scrolled, by keys too."""
    return Markup(
        '<div style="overflow-x:auto" tabindex="0" role="group" aria-label="table">{}</div>'
    ).format(content)


def _row(cells: Sequence[str], numeric: Sequence[bool]) -> Markup:
    first, *others = zip(cells, numeric, strict=True)
    heading = Markup('<th scope="row" style="{}font-weight:inherit">{}</th>').format(
        "" if first[1] else _LEFT, first[0]
    )
    return Markup("<tr>{}{}</tr>").format(heading, Markup().join(_cell(*cell) for cell in others))


def _cell(text: str, right: bool) -> Markup:
    return (Markup("<td>{}</td>") if right else Markup('<td style="text-align:left">{}</td>')).format(text)
