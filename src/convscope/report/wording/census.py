"""The census of a projection in words: which operators were passed how on the way back."""

from convscope.core.units import counted
from convscope.sight import Census


def census_words(census: Census) -> str:
    """Return how the operators below a unit were passed, in a few words.

    Example:
        >>> census_words(Census(("relu#1",), (), ("gate#1", "gate#2"), (), (), (), 3, 2))
        '1 ReLU rewritten, 2 gates and statistics frozen, 3 linear (of them 2 convolutions)'
    """
    counts = (
        (len(census.rewritten), "ReLU", "ReLUs", "rewritten"),
        (len(census.gated), "activation", "activations", "by their gates"),
        (len(census.frozen), "gate or statistic", "gates and statistics", "frozen"),
        (len(census.switches), "max-pool", "max-pools", "by switches"),
        (len(census.identity), "normalisation", "normalisations", "passed as identities"),
        (len(census.left), "nonlinear operator", "nonlinear operators", "left to their derivatives"),
    )
    words = [f"{counted(count, one, many)} {how}" for count, one, many, how in counts if count]
    if census.linear:
        convolutions = counted(census.convolutions, "convolution", "convolutions")
        words.append(f"{census.linear:,} linear (of them {convolutions})")
    return ", ".join(words) or "none"
