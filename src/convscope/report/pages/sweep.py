"""Write the plot of a sweep: a page that opens offline, or a picture.

The page has the table under the chart. Pictures are drawn by the optional package vl-convert-python, which
needs neither a browser nor a network connection.
"""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.cost import Sweep
from convscope.report.charts.sweep import Spec, sweep_chart
from convscope.report.notebook import sweep_html
from convscope.report.pages.environment import bare_environment
from convscope.report.pages.fields import script_json
from convscope.report.pages.offline import DOWNLOADS, chart_scripts, policy

FORMATS = (".html", ".svg", ".png")
_PNG_SCALE = 2.0


def write_plot(sweep: Sweep, path: str | Path) -> Path:
    """Write the plot of a sweep in the format that the file's name ends with; whole or not at all.

    Args:
        sweep: what to draw.
        path: a file that ends with ``.html``, ``.svg`` or ``.png``.

    Raises:
        ConvscopeError: the ending is another one, a picture is asked for without the package that draws it,
            or the file can't be written.
    """
    path = Path(path)
    check_format(path)
    chart = sweep_chart(sweep)
    content = plot_html(sweep, chart).encode() if path.suffix.lower() == ".html" else _picture(chart, path)
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    return path


def check_format(path: str | Path) -> None:
    """Refuse a file whose name ends with no format that can be drawn.

    Raises:
        ConvscopeError: the ending is another one, or the package that draws it isn't installed.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ConvscopeError(
            f"plot {str(path)!r}", f"a name that ends with {', '.join(FORMATS)}", "choose another name"
        )
    if path.suffix.lower() != ".html":
        _drawer(path)


def plot_html(sweep: Sweep, chart: Spec) -> str:
    """Return the page: chart and table, with scripts and data inside."""
    scripts = chart_scripts((*DOWNLOADS, "plot.js"))
    return (
        bare_environment()
        .get_template("plot.html.j2")
        .render(
            title=f"{sweep.network}: cost over {sweep.axis}",
            policy=policy(scripts),
            scripts=[Markup(script) for script in scripts],
            chart=script_json({**chart, "title": None, "background": "transparent"}),
            table=sweep_html(sweep),
        )
    )


def _picture(chart: Spec, path: Path) -> bytes:
    drawer = _drawer(path)
    if path.suffix.lower() == ".svg":
        return str(drawer.vegalite_to_svg(chart)).encode()
    return bytes(drawer.vegalite_to_png(chart, scale=_PNG_SCALE))


def _drawer(path: Path) -> Any:
    try:
        import vl_convert
    except ImportError as error:
        raise ConvscopeError(
            f"plot {str(path)!r} without the package that draws pictures",
            "vl-convert-python",
            "install convscope[plot], or choose a name that ends with .html",
        ) from error
    return vl_convert
