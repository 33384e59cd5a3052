"""The page of two reports side by side; it opens offline, and links to both."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from convscope.report.charts.pair import charts_once, pair_charts
from convscope.report.pages.environment import page_environment
from convscope.report.pages.fields import Fields, script_json
from convscope.report.pages.offline import DATA, DOWNLOADS, chart_scripts, policy, static_text
from convscope.report.pictures.first_layer import FILE, data_address, read_png
from convscope.report.side_by_side.pair import ReportPair
from convscope.report.whole.folder import PAGE

MOST_LAYERS = 60
"""Layers that the page shows; all are in its JSON."""


def pair_html(found: ReportPair) -> str:
    """Return the page of a pair as HTML, for the folder of ``found.page``."""
    place = Path(found.page).resolve().parent
    data: dict[str, Any] = {"pair": found.to_dict(), "missing": []}
    links = [quote(os.path.relpath(Path(each).resolve() / PAGE, place)) for each in found.reports]
    charts = pair_charts(data["pair"])
    scripts = chart_scripts() if charts else ["".join(map(static_text, (DATA, *DOWNLOADS)))]
    return (
        page_environment(Fields(data))
        .get_template("pair.html.j2")
        .render(
            css=Markup(static_text("page.css")),
            policy=policy(scripts),
            scripts=[Markup(script) for script in scripts],
            charts=charts,
            charts_json=script_json(charts),
            once=charts_once(data["pair"]),
            data=script_json(data),
            links=links,
            stems=_stems(found),
            galleries=quote(os.path.relpath(found.galleries, place)) if found.galleries else "",
            most_layers=MOST_LAYERS,
        )
    )


def _stems(found: ReportPair) -> list[tuple[str, str, int, int]]:
    """Of both networks the name and the picture of the first layer, with its width and height; all or none.

    Reports of older versions have no such file.
    """
    pictures = []
    for name, place in zip(found.names, found.reports, strict=True):
        picture = read_png(Path(place) / FILE)
        if picture is None:
            return []
        content, width, height = picture
        pictures.append((name, data_address(content), width, height))
    return pictures
