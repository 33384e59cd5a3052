"""A gallery's own page, ``index.html`` in its folder, and what that shares with the page of a report.

It opens offline: scripts and styles are inside, the units and their pictures lie beside it. The content
security policy allows nothing else.

Limits: as of :mod:`convscope.report.pages.report`. A network given as a module is called by its class.
"""

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from convscope.core.result import renders_page
from convscope.report.pages.environment import page_environment
from convscope.report.pages.fields import Fields, script_json
from convscope.report.pages.offline import policy, scoped_script, static_text
from convscope.report.wording.gallery_standing import standing
from convscope.sight import Gallery

_SCRIPTS = ("units", "cards", "shelf", "keys", "detail", "layers", "gallery")


def gallery_script() -> str:
    """Return the script that draws a gallery."""
    return joined_script(_SCRIPTS)


def joined_script(names: Iterable[str]) -> str:
    """Return parts of the gallery's scripts as one."""
    return scoped_script(f"gallery/{name}.js" for name in names)


def gallery_styles() -> str:
    """Return the styles of a page with a gallery."""
    return static_text("page.css") + static_text("gallery/gallery.css")


def without_units(gallery: dict[str, Any]) -> dict[str, Any]:
    """Return a gallery's plain values without the single units.

    Those lie in the gallery's own script, so that a gallery of any size leaves the page small.
    """
    layers = [
        {name: value for name, value in layer.items() if name != "units"} for layer in gallery["layers"]
    ]
    return {**gallery, "layers": layers}


@renders_page(Gallery)
def gallery_html(gallery: Gallery) -> str:
    """Return the page of a gallery, for the folder in which its files lie."""
    plain = without_units(gallery.to_dict())
    del plain["folder"]  # a page may be moved with its folder
    data: dict[str, Any] = {"gallery": plain, "missing": []}
    script = gallery_script()
    return (
        page_environment(Fields(data))
        .get_template("gallery_page.html.j2")
        .render(
            css=Markup(gallery_styles()),
            policy=policy((script,), neighbours=True),
            data=script_json(data),
            standing=script_json(standing(gallery)),
            gallery_folder=".",
            gallery_script=gallery.script,
            page_script=Markup(script),
        )
    )
