"""What an export reports: the file, and how far what it computes is from the original network."""

import re
from dataclasses import dataclass
from typing import Any

from convscope.core.result import Result


@dataclass(frozen=True)
class Exported(Result):
    """A folded network in a file, and the check that the file passed before it got its name.

    Attributes:
        path: the file.
        num_bytes: its size.
        any_batch: whether it takes any number of samples; if not, as many as were given. Weights alone take
            what the network takes that they are loaded into.
        sizes: of each input tensor that a program or graph takes, None where any size is taken (the number of
            samples); () for weights alone.
        checked_with: what read the file and ran it, such as ``"onnxruntime 1.32.0"``; "" if nothing that can
            is installed: the file is written unchecked then.
        max_error: largest difference between the file's outputs and the original network's, in its own
            dtype: max|y − y₀| / max|y₀|, over all outputs and trials; None if it wasn't checked.
        own_error: how far the original network's outputs in its own dtype are from those in float64, the
            yardstick; None if it doesn't run in float64, or the file wasn't checked.
        allowed: the largest difference that passes.
        trials: the input shapes that were tried, one text each.
    """

    path: str
    num_bytes: int
    any_batch: bool
    sizes: tuple[tuple[int | None, ...], ...]
    checked_with: str
    max_error: float | None
    own_error: float | None
    allowed: float
    trials: tuple[str, ...]


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class NotExportable(Exception):  # noqa: N818 - no error: a verdict
    """A format can't hold a network, or what reads the file back refuses it; the reason, on one line."""

    @classmethod
    def because(cls, error: BaseException) -> "NotExportable":
        """Return the verdict for another program's exception: its first line and its innermost cause's."""
        return cls(" because of ".join(dict.fromkeys(map(_sentence, _outermost_and_innermost(error)))))


def _outermost_and_innermost(error: BaseException) -> tuple[BaseException, ...]:
    innermost: Any = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    return error, innermost


def _sentence(error: BaseException) -> str:
    text = _COLOURS.sub("", str(error)).partition("Next steps:")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
