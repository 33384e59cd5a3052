"""One page that shows a whole report: a single HTML file that opens offline, the gallery's folder beside it.

The page holds the report's JSON, and every number on it is written from that JSON (see
:mod:`convscope.report.pages.fields`). It opens no connection: scripts, styles and the picture of the first
layer are inside, and a content security policy allows nothing else but the gallery's folder. Only scripts
whose hash is in that policy run, so that a name with mark-up in it couldn't do harm even if it were written
raw.

Limits: needs a browser of 2023 or later; without JavaScript the tables are there, charts and gallery aren't.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from convscope.core.files import whole_file
from convscope.report.charts.report import charts, is_once
from convscope.report.pages.environment import page_environment
from convscope.report.pages.fault_links import fault_pages
from convscope.report.pages.fields import Fields, script_json
from convscope.report.pages.gallery import gallery_script, gallery_styles, without_units
from convscope.report.pages.graph import graph_of_page, graph_scripts, graph_styles
from convscope.report.pages.offline import chart_scripts, data_element, policy, scoped_script
from convscope.report.pictures.first_layer import data_address, png_of
from convscope.report.whole.ranking import NAMES
from convscope.report.whole.result import Report
from convscope.report.wording.gallery_standing import standing

SECTIONS = (
    ("findings", "What matters"),
    ("graph", "The network"),
    ("cost", "Cost"),
    ("memory", "Memory"),
    ("training", "Training"),
    ("checkup", "Check-up"),
    ("fold", "Fold"),
    ("stem", "First layer"),
    ("gallery", "Gallery"),
)
ANCHORS = {name: name for name in ("checkup", "training", "fold", "stem", "gallery", "cost")}
ANCHORS["published"] = "cost"


def write_page(report: Report, path: str | Path) -> Path:
    """Write the page of a report; the gallery's folder is linked relative to the page, as it lies there.

    Args:
        report: what to show.
        path: the HTML file; written under a temporary name, then renamed.

    Raises:
        ConvscopeError: the file can't be written.
    """
    path = Path(path)
    html = page_html(report)
    with whole_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def page_html(report: Report, gallery_folder: str = "gallery") -> str:
    """Return the HTML of a report's page.

    Args:
        report: what to show.
        gallery_folder: the gallery's folder, relative to the page.
    """
    data = page_data(report)
    specs = charts(data)
    drawn = graph_of_page(report)
    scripts = [*chart_scripts(), scoped_script(["words.js", "cost_table.js"])]
    scripts += graph_scripts() if report.graph else []
    fields = Fields(data)
    environment = page_environment(fields)
    return environment.get_template("page.html.j2").render(
        sections=[section for section in SECTIONS if _is_there(section[0], data)],
        anchors=ANCHORS,
        names={reading: name[:1].upper() + name[1:] for reading, name in NAMES.items()},
        css=Markup(gallery_styles() + (graph_styles() if report.graph else "")),
        scripts=[Markup(script) for script in scripts],
        page_script=Markup(gallery_script()),
        policy=policy((*scripts, gallery_script()), neighbours=True),
        data=data_element(script_json(data)),
        charts=specs,
        charts_json=script_json(specs),
        fault_pages=fault_pages(report.checkup.findings if report.checkup else ()),
        graph_children=drawn["children"],
        graph_marks=script_json(drawn["marks"]),
        standing=script_json(standing(report.gallery, report.stem) if report.gallery else None),
        gallery_folder=gallery_folder,
        once=bool(data["training"]) and is_once(data["training"]),
        gallery_script=f"{gallery_folder}/{report.gallery.script}" if report.gallery else "",
        stem_image=data_address(png_of(report.stem.grid)) if report.stem else "",
        stem_size=tuple(report.stem.grid.shape[1::-1]) if report.stem else (0, 0),
    )


def page_data(report: Report) -> dict[str, Any]:
    """Return the JSON in the page: the report's, without the gallery's single units."""
    data = report.to_dict()
    return {**data, "gallery": without_units(data["gallery"]) if data["gallery"] else None}


def _is_there(section: str, data: Mapping[str, Any]) -> bool:
    needs = {"memory": "cost", "graph": "graph"}
    return section not in needs or bool(data[needs[section]])
