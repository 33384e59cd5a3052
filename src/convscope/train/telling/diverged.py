"""A divergence in one line: what happened, where it began, and what may help."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convscope.train.run import Divergence

_LESS = "a lower learning_rate, a longer warmup_epochs or clip_grad_norm may help"
_ADVICE = {
    "input": "look at that image, and at how it is prepared",
    "output": f"{_LESS}, if the layer can take such inputs",
    "loss": _LESS,
    "gradient": f"{_LESS}, if the layer's derivative is finite there",
    "weight": _LESS,
    "running statistics": "norm.recalibrate estimates them anew, and convscope checkup says more",
    "buffer": "look at where it is computed",
}
_PLACES = {
    "output": "the output of {address}",
    "gradient": "a gradient from the backward pass of {address}",
    "loss": "the loss itself",
    "weight": "the weight {address}",
    "running statistics": "the running statistic {address}",
    "buffer": "the buffer {address}",
}


def in_words(diverged: "Divergence") -> str:
    """Return one line on a divergence; ``str(run.diverged)`` is that line.

    Example:
        >>> from convscope.train import Divergence
        >>> diverged = Divergence(3, 1, float("inf"), 0.1, "2#1:log.1", "output", "-inf", (0, 4), 7.5)
        >>> happened, value, advice = in_words(diverged).split("; ")
        >>> happened
        'diverged at step 3 (epoch 1, learning rate 0.1): the loss is inf'
        >>> value.removeprefix("the first value that isn't finite is ")
        '-inf at [0, 4] of the output of 2#1:log.1 (magnitudes before it: up to 7.5)'
        >>> advice.partition(" may help")[0]
        'a lower learning_rate, a longer warmup_epochs or clip_grad_norm'
    """
    where = f"step {diverged.step} (epoch {diverged.epoch}, learning rate {diverged.learning_rate:g})"
    happened = f"diverged at {where}: the loss is {diverged.loss:g}"
    if diverged.what is None:
        return f"{happened}; where that began wasn't found; {advice(diverged)}"
    return f"{happened}; the first value that isn't finite is {_value(diverged)}; {advice(diverged)}"


def advice(diverged: "Divergence") -> str:
    """Return what may help."""
    return _ADVICE.get(diverged.what or "", _LESS)


def _value(diverged: "Divergence") -> str:
    place = f" at [{', '.join(map(str, diverged.index))}]" if diverged.index else ""
    where = "beside it" if diverged.what in ("input", "weight", "running statistics") else "before it"
    size = diverged.largest_finite
    largest = "" if size is None else f" (magnitudes {where}: up to {size:.3g})"
    return f"{diverged.value}{place} of {_tensor(diverged)}{largest}{_since(diverged)}"


def _tensor(diverged: "Divergence") -> str:
    if diverged.what == "input":
        return "the images" if diverged.image is None else f"the images (training image {diverged.image})"
    return _PLACES[diverged.what or ""].format(address=diverged.address)


def _since(diverged: "Divergence") -> str:
    """When it appeared, if not in the step whose loss says so."""
    if diverged.appeared_at == 0:
        return ", there from the beginning"
    if diverged.appeared_at in (None, diverged.step) and not math.isfinite(diverged.loss):
        return ""
    return f", computed in step {diverged.appeared_at}, whose loss was finite"
