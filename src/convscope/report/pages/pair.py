"""The page of two reports side by side; it opens offline, and links to both."""

import os
import re
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from convscope.report.pages.environment import page_environment
from convscope.report.pages.fields import Fields, script_json
from convscope.report.pages.offline import DATA, policy, static_text
from convscope.report.side_by_side.pair import ReportPair
from convscope.report.whole.folder import PAGE

MOST_LAYERS = 60
"""Layers that the page shows; all are in its JSON."""


_STEM = re.compile(
    r'aria-label="The filters of the first layer"[^>]*>'
    r'<img src="(data:image/png;base64,[\w+/=]+)" width="(\d+)" height="(\d+)"'
)


def pair_html(found: ReportPair) -> str:
    """Return the page of a pair as HTML, for the folder of ``found.page``."""
    place = Path(found.page).resolve().parent
    data = {"pair": found.to_dict(), "missing": []}
    links = [quote(os.path.relpath(Path(each).resolve() / PAGE, place)) for each in found.reports]
    script = static_text(DATA) + static_text("downloads.js")
    return (
        page_environment(Fields(data))
        .get_template("pair.html.j2")
        .render(
            css=Markup(static_text("page.css")),
            policy=policy([script]),
            script=Markup(script),
            data=script_json(data),
            links=links,
            stems=_stems(found),
            galleries=quote(os.path.relpath(found.galleries, place)) if found.galleries else "",
            most_layers=MOST_LAYERS,
        )
    )


def _stems(found: ReportPair) -> list[tuple[str, str, str, str]]:
    """Of both networks the name and the picture of the first layer, as their pages have it; all or none."""
    pictures = []
    for name, place in zip(found.names, found.reports, strict=True):
        try:
            page = (Path(place) / PAGE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return []
        if (picture := _STEM.search(page)) is None:
            return []
        pictures.append((name, picture[1], picture[2], picture[3]))
    return pictures
