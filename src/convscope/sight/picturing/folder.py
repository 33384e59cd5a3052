"""The folder of a gallery: whether it may be written, and its text files.

``index.json`` is the result, ``gallery.js`` sets ``window.convscopeGallery`` to the same, for pages opened
from a file, and ``index.html`` is such a page; beside them lie ``units.safetensors``, the units' numbers for
programs, and the layers' sprites, which the index names.
"""

import json
from pathlib import Path
from typing import Any

from convscope.core.files import check_replaceable
from convscope.core.result import page_of
from convscope.sight.picturing.album import Gallery
from convscope.sight.picturing.numbers import NUMBERS

INDEX, SCRIPT, PAGE = "index.json", "gallery.js", "index.html"


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an older gallery, which the new one would replace.

    Raises:
        ConvscopeError: it holds other things, can't be read, or is a file.
    """
    check_replaceable(folder, _own_files(folder), "gallery")


def write_index(gallery: Gallery, folder: Path) -> None:
    """Write the index, the script and the page of a gallery into a folder."""
    text = gallery.to_json()
    (folder / INDEX).write_text(text, encoding="utf-8")
    # JSON is JavaScript except for two line separators; "</" would end a script that is pasted into a page.
    script = text.replace("</", "<\\/").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    (folder / SCRIPT).write_text(f"window.convscopeGallery = {script};\n", encoding="utf-8")
    page = page_of(gallery)
    if page is not None:
        (folder / PAGE).write_text(page, encoding="utf-8")


def _own_files(folder: Path) -> set[str]:
    """The files that the gallery in a folder consists of, by its own index; none if there is no gallery."""
    try:
        index: Any = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        sprites = [layer["sprite"] for layer in index["layers"]]
        pictures: set[str] = set()
        for sprite in sprites:
            for names in (sprite["patches"], sprite["projections"]):
                # Galleries of earlier versions had one file each.
                pictures |= {names} if isinstance(names, str) else set(names)
        own = {INDEX, SCRIPT, PAGE, NUMBERS, *pictures}
        return own if (index["index"], index["script"]) == (INDEX, SCRIPT) else set()
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()
