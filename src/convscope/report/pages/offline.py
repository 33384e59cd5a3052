"""What pages that open offline share: the scripts inside them, and the policy that lets nothing else run."""

import base64
import gzip
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

from markupsafe import Markup

VEGA = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")
"""The scripts that draw charts, in the order in which they load."""
DATA = "data.js"
"""The script that reads a page's data."""
DOWNLOADS = ("columns.js", "downloads.js")
"""The scripts that save tables and the data of charts."""
CHARTS = (*DOWNLOADS, "page.js")
"""The scripts that draw and save the charts of a page with its data, by Vega."""
_LARGE = 256_000  # characters of data from which on they are compressed


def static_text(name: str) -> str:
    """Return the text of one of the package's static files."""
    return files("convscope.report.pages").joinpath("_static", name).read_text(encoding="utf-8")


def chart_scripts(names: Iterable[str] = CHARTS) -> list[str]:
    """Return the scripts of a page with charts: its data, Vega, compressed, and those named."""
    return [static_text(DATA), _packed_vega(), *map(static_text, names)]


@cache
def _vega() -> str:
    return "\n".join(map(static_text, VEGA))


@cache
def _packed_vega() -> str:
    """A script that defines ``unpackedVega()``: 0.5 MB instead of 0.8, and nothing to parse at first."""
    packed = base64.b64encode(gzip.compress(_vega().encode(), mtime=0)).decode()
    return static_text("unpack.js").replace("PACKED", packed)


def data_element(text: str) -> Markup:
    """Return the element with a page's data, which ``pageData()`` reads: compressed where it is large.

    Args:
        text: JSON, safe in a script.
    """
    if len(text) <= _LARGE:
        return Markup('<script type="application/json" id="data">{}</script>').format(Markup(text))
    packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    return Markup('<script type="text/plain" id="data" data-packed="gzip">{}</script>').format(packed)


def scoped_script(names: Iterable[str]) -> str:
    """Return static scripts as one: they share a scope, and leave nothing behind."""
    parts = map(static_text, names)
    return "(function () {\n" + '"use strict";\n' + "\n".join(parts) + "\n})();"


def policy(scripts: Sequence[str], neighbours: bool = False) -> str:
    """Return the content security policy of a page on which only the given scripts, and Vega, run.

    Args:
        scripts: their texts, exactly as they stand in the page.
        neighbours: whether files beside the page may be loaded: a gallery's script and pictures.
    """
    unpacked = [_vega()] if _packed_vega() in scripts else []
    texts = (*scripts, *unpacked)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    beside = " 'self' file:" if neighbours else ""
    return (
        f"default-src 'none'; script-src {hashes}{beside}; style-src 'unsafe-inline'; "
        f"img-src{beside} data: blob:; base-uri 'none'; form-action 'none'"
    )
