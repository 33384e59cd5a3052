"""A word about networks without trained weights: what they see is nobody's design."""

from typing import TYPE_CHECKING

from convscope.cli.show import note

if TYPE_CHECKING:
    from convscope.networks import Loaded

_OWN = ("alexnet", "zfnet")
_ZOOS = ("timm:", "torchvision:", "hf:")


def tell_fresh(loaded: "Loaded") -> None:
    """Say on standard error that a network has random weights, or those that its own code gave it.

    Nothing is said where weights were loaded.
    """
    reference = loaded.reference
    if loaded.weights is not None:
        return
    if reference in _OWN or reference.startswith(_ZOOS):
        note(f"{reference} has random weights: give trained ones with --weights")
    else:
        note(
            f"{reference} has the weights that its code gave it, random ones unless it loads some: give "
            "trained ones with --weights"
        )
