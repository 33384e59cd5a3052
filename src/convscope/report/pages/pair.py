"""The page of two reports side by side; it opens offline, and links to both."""

import os
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from convscope.report.pages.environment import page_environment
from convscope.report.pages.fields import Fields, script_json
from convscope.report.pages.offline import policy, static_text
from convscope.report.side_by_side.pair import ReportPair
from convscope.report.whole.folder import PAGE

MOST_LAYERS = 60
"""Layers that the page shows; all are in its JSON."""


def pair_html(found: ReportPair) -> str:
    """Return the page of a pair as HTML, for the folder of ``found.page``."""
    place = Path(found.page).resolve().parent
    data = {"pair": found.to_dict(), "missing": []}
    links = [quote(os.path.relpath(Path(each).resolve() / PAGE, place)) for each in found.reports]
    script = static_text("downloads.js")
    return (
        page_environment(Fields(data))
        .get_template("pair.html.j2")
        .render(
            css=Markup(static_text("page.css")),
            policy=policy([script]),
            script=Markup(script),
            data=script_json(data),
            links=links,
            galleries=quote(os.path.relpath(found.galleries, place)) if found.galleries else "",
            most_layers=MOST_LAYERS,
        )
    )
