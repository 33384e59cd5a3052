"""A word about networks without trained weights: what they see is nobody's design."""

from typing import TYPE_CHECKING

from convscope.cli.show import note

if TYPE_CHECKING:
    from convscope.networks import Loaded

_ZOOS = ("timm:", "torchvision:")


def tell_fresh(loaded: "Loaded") -> None:
    """Say on standard error that a network has random weights, where that is known.

    A callable's or a folder's network may have brought its own, and nothing is said of it.
    """
    reference = loaded.reference
    is_fresh = reference in ("alexnet", "zfnet") or reference.startswith(_ZOOS)
    if is_fresh and loaded.weights is None:
        note(f"{reference} has random weights, drawn anew each time: give trained ones with --weights")
