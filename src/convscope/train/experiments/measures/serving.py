"""What batch norm costs at test time: as it is, folded into its neighbours, and without any."""

import copy

from torch import nn

from convscope.data import ImageSet
from convscope.fold import fold
from convscope.train.experiments.measures.errors import errors_on


def serving(
    model: nn.Module, validation: ImageSet, batch_size: int = 8, repeats: int = 30
) -> dict[str, float]:
    """Return times of a forward pass relative to a network without batch norm, and what folding changes.

    Args:
        model: has batch norms that fold; it stays as it is.
        validation: images that are passed, and that errors are of.
        batch_size: images of a timed pass.
        repeats: timed passes of each network; they run in turn, and a ratio is the median of neighbours'.

    Returns:
        ``"as it is"`` and ``"folded"``: time relative to the same network without any batch norm;
        ``"largest change"``: of any score by folding in float64, relative to the largest score;
        ``"error change"``: the folded network's error minus the network's, 0 to 1; ``"left"``: batch norms
        that didn't fold.

    Source: the lecture notes: batch norm has no overhead at test time, since it is fused with the previous
    layer.
    """
    pixels, _ = validation.stacked(batch_size)
    network = copy.deepcopy(model).eval()
    folded = fold(network, pixels, measure=True, repeats=repeats)
    found = {
        "largest change": folded.max_error,
        "error change": errors_on(folded.model, validation).error - errors_on(network, validation).error,
        "left": float(folded.ledger.kept + folded.ledger.partial),
    }
    if folded.speed is not None and folded.speed.ratio_to_twin is not None:
        found["folded"] = folded.speed.ratio_to_twin
        found["as it is"] = folded.speed.ratio_to_twin * folded.speed.speedup
    return found
