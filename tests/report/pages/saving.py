"""Every table that a page in a browser gives away, and what is asked of its columns."""

import csv
import io
import math
import re

from browser import until

_NAMES = ("address", "arm", "into", "layer", "name", "path")  # of modules, which may be numbers
_UNIT = re.compile(r"\((?!\))[^()]+\)$")  # at a column's end


def all_saved(page):
    """Yield the name, the header and the rows of each CSV file that a page's buttons save.

    Chromium allows few downloads in a row: their contents are taken before they are saved.
    """
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    for name in page.eval_on_selector_all("[data-chart]", "all => all.map((each) => each.dataset.chart)"):
        page.locator(f"#chart-{name}").scroll_into_view_if_needed()
        until(page, f"document.getElementById('chart-{name}').dataset.drawn === 'yes'")
    page.evaluate(
        """() => {
            window.saved = [];
            HTMLAnchorElement.prototype.click = function () { window.saved.push(this.download); };
            URL.createObjectURL = (blob) => {
                blob.text().then((text) => window.saved.push(text));
                return "blob:";
            };
        }"""
    )
    buttons = page.locator(".save button", has_text="CSV")
    for place in range(buttons.count()):
        page.evaluate("window.saved.length = 0")
        buttons.nth(place).evaluate("each => each.click()")
        until(page, "window.saved.length === 2")
        name, content = page.evaluate("window.saved")
        header, *rows = csv.reader(io.StringIO(content))
        yield name, header, rows


def check_columns(page):
    """Every column of numbers has a unit and a name of its own; returns the files' names."""
    names = []
    for name, header, rows in all_saved(page):
        names.append(name)
        assert len(set(header)) == len(header), name
        assert len({column.split(" (")[0] + column.split(" (")[-1] for column in header}) == len(header), name
        for column, *values in zip(header, *rows, strict=True):
            if column not in _NAMES and any(map(is_number, values)):
                assert _UNIT.search(column), f"{column!r} of {name}"
            assert not any(value.startswith(("{", "[{")) for value in values), f"{column!r} of {name}"
    return names


def is_number(text):
    try:
        return math.isfinite(float(text))
    except ValueError:
        return bool(re.fullmatch(r"-?\d+(x-?\d+)+", text))
