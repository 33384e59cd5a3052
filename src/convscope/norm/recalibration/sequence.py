"""Exact statistics, layer by layer: each is measured behind layers that already have theirs.

Where layers normalise by the latest samples, the statistics found are right up to a few per cent. Repeating
the measurement with these in place doesn't help: every layer then makes up for errors that are no longer
made, and the error moves on by one layer a pass. So layers are taken one at a time, in the order in which
they run, and the network runs only as far as the layer in turn.

A layer that runs several times may be behind itself. Then the whole is repeated as long as it helps.
"""

import math

from convscope.core.errors import ConvscopeError
from convscope.norm.recalibration.feeding import Feed
from convscope.norm.recalibration.layers import Norm
from convscope.norm.recalibration.passes import Passes, Statistics
from convscope.norm.recalibration.pools import Pooled, residual
from convscope.norm.recalibration.result import Residual

_TOLERANCE = 1e-4
_MOST_SWEEPS = 5


def in_sequence(
    passes: Passes, feed: Feed, start: Statistics, norms: tuple[Norm, ...]
) -> tuple[Statistics, dict[str, Residual]]:
    """Return every layer's exact statistics, and what residuals are left.

    Args:
        passes: runs the data.
        feed: the data, which can be read as often as there are layers.
        start: a first estimate, by layer in the order of their first calls.
        norms: the layers.

    Raises:
        ConvscopeError: a layer's inputs aren't finite, or are a single value.
    """
    estimate, left = start, math.inf
    for _ in range(_MOST_SWEEPS):
        for path in start:
            estimate = {**estimate, **statistics_of(passes.deployed(feed, estimate, only=path))}
        off = proof(passes, feed, estimate, norms)
        before, left = left, max((found.size for found in off.values()), default=0.0)
        if not passes.is_any_reused or left <= _TOLERANCE or left > before / 2:
            break
    return estimate, off


def proof(passes: Passes, feed: Feed, estimate: Statistics, norms: tuple[Norm, ...]) -> dict[str, Residual]:
    """Return the residuals of an estimate, from one more pass.

    Raises:
        ConvscopeError: a layer's inputs aren't finite.
    """
    inputs = passes.deployed(feed, estimate)
    statistics_of(inputs)  # for its complaints
    return residuals(norms, inputs)


def statistics_of(inputs: dict[str, Pooled]) -> Statistics:
    """Return the mean and the unbiased variance of layers' inputs.

    Raises:
        ConvscopeError: a layer was given NaN or infinite values, or one value per channel in all.
    """
    for path, found in inputs.items():
        if bool((found.values.count < 2).any()):
            raise ConvscopeError(
                f"{path} given one value per channel in all the data",
                "at least two, for one value has no variance",
                "pass more data",
            )
        if not found.is_finite:
            raise ConvscopeError(
                f"{path} given NaN or infinite values with the new statistics in the layers before it",
                "finite activations",
                "look for overflow in half precision",
            )
    return {path: (found.mean, found.variance) for path, found in inputs.items()}


def residuals(norms: tuple[Norm, ...], inputs: dict[str, Pooled]) -> dict[str, Residual]:
    """Return how far what layers hold is from their inputs, by layer."""
    return {
        norm.path: residual(inputs[norm.path], norm.mean, norm.variance, norm.eps)
        for norm in norms
        if norm.path in inputs
    }
