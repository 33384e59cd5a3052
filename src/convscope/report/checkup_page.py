"""One check-up as a page that opens offline: findings, pictures, every batch norm, and the faults' pages."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from convscope.checkup.result import Checkup
from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.report.checkup_charts import checkup_charts
from convscope.report.fault_pages import fault_pages
from convscope.report.fields import Fields, script_json
from convscope.report.offline import VEGA, policy, static_text
from convscope.report.page import page_environment

_ENDINGS = (".html", ".htm")


def write_checkup(checkup: Checkup, path: str | Path, network: str = "") -> Path:
    """Write the page of a check-up, of a network or of a watched training loop; whole or not at all.

    Args:
        checkup: what to show.
        path: a file that ends with ``.html``.
        network: its name, for the heading.

    Raises:
        ConvscopeError: the name ends otherwise, or the file can't be written.
    """
    path = Path(path)
    check_page(path)
    html = checkup_html(checkup, network)
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


def checkup_html(checkup: Checkup, network: str = "") -> str:
    """Return the page of a check-up as HTML; every number on it is written from the JSON that it holds."""
    data: dict[str, Any] = {"checkup": checkup.to_dict(), "missing": [], "network": network}
    scripts = [static_text(name) for name in (*VEGA, "page.js")]
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
