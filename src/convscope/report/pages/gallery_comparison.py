"""The page of two galleries: matched units side by side, those that changed most first.

It lies anywhere; the pictures stay in the two galleries' folders, which it names relative to itself.

It asks each gallery's own script for its digest; where that isn't the gallery which was compared, it says so
and shows none of its pictures.

Limits: as of :mod:`convscope.report.pages.gallery`; if a folder is moved, its pictures are missing.
"""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.report.pages.checkup import check_page
from convscope.report.pages.environment import page_environment
from convscope.report.pages.fields import Fields, script_json
from convscope.report.pages.gallery import gallery_styles, joined_script
from convscope.report.pages.offline import policy
from convscope.sight import GalleryComparison
from convscope.sight.picturing.folder import INDEX

_SCRIPTS = ("units", "cards", "shelf", "keys", "compare_cards", "compare_folders", "compare")


def write_gallery_comparison(found: GalleryComparison, path: str | Path) -> Path:
    """Write the page of a comparison; whole or not at all.

    Args:
        found: what to show; the two galleries must lie where they were compared.
        path: a file that ends with ``.html``.

    Raises:
        ConvscopeError: the name ends otherwise, a gallery isn't there any more or has been made anew, or the
            file can't be written.
    """
    path = Path(path)
    check_page(path)
    html = gallery_comparison_html(found, path.resolve().parent)
    with whole_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def gallery_comparison_html(found: GalleryComparison, place: Path) -> str:
    """Return the page as HTML, for a folder in which it will lie."""
    data: dict[str, Any] = {"comparison": found.to_dict()}
    script = joined_script(_SCRIPTS)
    sides = [_pictures(found, side, place) for side in (0, 1)]
    return (
        page_environment(Fields(data))
        .get_template("gallery_comparison.html.j2")
        .render(
            none_worse=f"Nothing changed{'' if found.is_unchanged else ' for the worse'}.",
            css=Markup(gallery_styles()),
            policy=policy((script,), neighbours=True),
            data=script_json(data),
            sides=script_json(sides),
            page_script=Markup(script),
        )
    )


def _pictures(found: GalleryComparison, side: int, place: Path) -> dict[str, Any]:
    """Where one gallery's pictures lie: its folder as an address, and for each layer its sprite."""
    folder, addresses = found.folders[side], [layer.unit_addresses[side] for layer in found.layers]
    try:
        index = json.loads((Path(folder) / INDEX).read_text(encoding="utf-8"))
        layers = {layer["unit_address"]: layer for layer in index["layers"]}
        if index["digest"] != found.digests[side]:
            raise ValueError("made anew")
        sprites = [(layers[address]["sprite"], len(layers[address]["units"])) for address in addresses]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConvscopeError(
            f"{folder!r}, where the gallery that was compared isn't any more",
            "both galleries in their folders",
            "compare them again",
        ) from error
    address = quote(Path(os.path.relpath(Path(folder).resolve(), place)).as_posix())
    return {
        "folder": address,
        "name": folder,
        "digest": found.digests[side],
        "layers": [{"sprite": sprite, "units": {"length": count}} for sprite, count in sprites],
    }
