"""What ``stem`` says of a trained network's first layers, as numbers that can be compared between designs."""

from torch import nn

from convscope.data import ImageSet
from convscope.sight import stem

_WEAK = 0.1  # of the median filter's RMS


def stem_numbers(model: nn.Module, images: ImageSet, most: int = 500) -> dict[str, float]:
    """Return the diagnosis of a network's stem on held-out images, by name.

    Args:
        model: the first convolution that reads the images is its stem; it stays as it is.
        images: held out from training.
        most: images at most, evenly spaced.

    Returns:
        ``"aliased, images"``, ``"aliased, behind activation"``, ``"aliased, filter alone"``: share of energy
        (0 to 1) beyond the Nyquist frequency that the stem's stride leaves, median over filters;
        ``"mid-frequency gap"``: the index of :class:`convscope.sight.Stem`; ``"dead"``, ``"weak"``,
        ``"copies"``: share of filters that put out nothing, that have less than a tenth of the median
        filter's RMS, that repeat another one; ``"largest over median"``: RMS of filters;
        ``"top-1 kept"``: share of images with the same top-1 class when they move by a pixel;
        ``"lattice"``: how far a lattice of the stride's period stands out of the second layer's projections.
        What can't be measured is left out.

    Source: Zeiler and Fergus 2013 (arXiv 1311.2901), section 4.1 and figure 6, by eye.
    """
    found = stem(model, images.stacked(most)[0])
    filters = found.filters
    projections = next((each.ratio for each in found.lattices if each.of == "projections"), None)
    numbers = {
        "aliased, images": found.aliased_share,
        "aliased, behind activation": found.activated_share,
        "aliased, filter alone": found.filter_share,
        "mid-frequency gap": found.coverage.gap,
        "dead": sum(each.dead for each in filters) / len(filters),
        "weak": sum(each.dominance < _WEAK for each in filters) / len(filters),
        "copies": sum(len(group) - 1 for group in found.duplicates) / len(filters),
        "largest over median": max(each.dominance for each in filters),
        "top-1 kept": None if found.shifts is None else found.shifts.top1_pixel,
        "lattice": projections,
    }
    return {name: float(value) for name, value in numbers.items() if value is not None}
