"""One check-up as a page that opens offline: findings, pictures, every batch norm, and the faults' pages."""

from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from convscope import __version__
from convscope.checkup import Checkup, Mending
from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.core.result import plain
from convscope.report.charts.checkup import checkup_charts
from convscope.report.pages.environment import page_environment
from convscope.report.pages.fault_links import fault_pages
from convscope.report.pages.fields import Fields, script_json
from convscope.report.pages.offline import chart_scripts, policy, static_text
from convscope.report.wording.dates import written_now
from convscope.report.wording.given import given_facts
from convscope.report.wording.mending_rows import mending_heading, mending_rows

_ENDINGS = (".html", ".htm")


def write_checkup(found: Checkup | Mending, path: str | Path, network: str = "") -> Path:
    """Write the page of a check-up, of a network or of a watched training loop; whole or not at all.

    Args:
        found: what to show; of a mending, the repairs, and the check-up of the mended copy.
        path: a file that ends with ``.html``.
        network: its name, for the heading.

    Raises:
        ConvscopeError: the name ends otherwise, or the file can't be written.
    """
    path = Path(path)
    check_page(path)
    html = checkup_html(found, network)
    with whole_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def check_page(path: str | Path) -> None:
    """Refuse a file whose name doesn't end as a page's.

    Raises:
        ConvscopeError: the ending is another one.
    """
    if Path(path).suffix.lower() not in _ENDINGS:
        raise ConvscopeError(f"page {str(path)!r}", "a name that ends with .html", "choose another name")


def checkup_html(found: Checkup | Mending, network: str = "") -> str:
    """Return the page of a check-up as HTML; every number on it is written from the JSON that it holds."""
    checkup = found.after if isinstance(found, Mending) else found
    data: dict[str, Any] = {
        "checkup": checkup.to_dict(),
        "missing": [],
        "network": network,
        "made_of": [{"name": name, "text": text} for name, text in given_facts(checkup) if text != network],
        "mending": _mending(found) if isinstance(found, Mending) else None,
        "written": written_now(),
        "versions": {"convscope": __version__, "torch": torch.__version__},
    }
    scripts = chart_scripts()
    specs = checkup_charts(data["checkup"])
    return (
        page_environment(Fields(data))
        .get_template("checkup_page.html.j2")
        .render(
            css=Markup(static_text("page.css")),
            policy=policy(scripts),
            scripts=[Markup(script) for script in scripts],
            data=script_json(data),
            charts=specs,
            charts_json=script_json(specs),
            fault_pages=fault_pages(checkup.findings),
        )
    )


def _mending(found: Mending) -> dict[str, Any]:
    """What the page tells of a mending besides the check-up of the copy, as plain values."""
    names = ("name", "before", "after")
    return {
        "heading": mending_heading(found),
        "mended": plain(found.mended),
        "rows": [dict(zip(names, row.texts, strict=True)) for row in mending_rows(found)],
        "gone": [{"fault": fault, "address": address} for fault, address in found.gone],
        "left": plain(found.left),
        "unchanged": None if found.state is None else found.state.unchanged,
    }
