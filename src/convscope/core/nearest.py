"""Names that aren't known, and the nearest that are."""

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(name: Any, names: Iterable[str], otherwise: str = "correct the name, or leave it out") -> str:
    """Return advice that names the entries closest to a misspelt one; ``otherwise`` if none is close.

    Example:
        >>> nearest("alexnte", ["alexnet", "zfnet"]), nearest("bf16", ["fp32", "amp-bf16"])
        ("did you mean 'alexnet'?", "did you mean 'amp-bf16'?")
        >>> nearest(3, ["alexnet"], "choose one")
        'choose one'
    """
    close = difflib.get_close_matches(str(name).lower(), list(names), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else otherwise
