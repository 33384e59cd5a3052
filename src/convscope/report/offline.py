"""What pages that open offline share: the scripts inside them, and the policy that lets nothing else run."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib.resources import files

VEGA = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")
"""The scripts that draw charts, in the order in which they load."""


def static_text(name: str) -> str:
    """Return the text of one of the package's static files."""
    return files("convscope.report").joinpath("_static", name).read_text(encoding="utf-8")


def scoped_script(names: Iterable[str]) -> str:
    """Return static scripts as one: they share a scope, and leave nothing behind."""
    parts = map(static_text, names)
    return "(function () {\n" + '"use strict";\n' + "\n".join(parts) + "\n})();"


def policy(scripts: Sequence[str], neighbours: bool = False) -> str:
    """Return the content security policy of a page on which only the given scripts run.

    Args:
        scripts: their texts, exactly as they stand in the page.
        neighbours: whether files beside the page may be loaded: a gallery's script and pictures.
    """
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    beside = " 'self' file:" if neighbours else ""
    return (
        f"default-src 'none'; script-src {hashes}{beside}; style-src 'unsafe-inline'; "
        f"img-src{beside} data: blob:; base-uri 'none'; form-action 'none'"
    )
