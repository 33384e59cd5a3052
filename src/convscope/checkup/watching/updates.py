"""Updates of running averages per optimizer step, and the batch statistics that can be read off them.

An update moves a running mean r to r' = (1 − w) r + w μ, so that the batch's own mean is
μ = r + (r' − r) / w, and the same goes for the variance: two copies of C numbers instead of a pass over the
batch. (In float32 the rounding of r is magnified by 1/w: 10⁻⁶ of the running mean at momentum 0.1.)

Between two calls of one step, weights are the same; that their batch means differ is chance or a difference
of their inputs. With d the difference in standard deviations of a channel, n the sampled steps, d̄ the mean of
d over them and s² its variance: mean over channels of d̄² − s²/n is the squared difference of the inputs
without what chance contributes. Half the variance of the difference of two means is that of a batch mean, of
which σ² is the effective number of values times as much.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.checkup.observed.run import CallShift
from convscope.checkup.watching.layers import copied_statistics, new_weight, version
from convscope.probe.passes import LayerCall

_FEWEST_STEPS = 3
_MOST_STEPS = 128
_MOST_CALLS = 8

BatchStatistics = tuple[Tensor, Tensor]
"""Mean and unbiased variance of a batch, (C,) each, float64."""


@torch.no_grad()
def read_statistics(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> BatchStatistics | None:
    """Return the statistics of the batch that has just moved a batch norm's running averages.

    Args:
        norm: the layer, after the update.
        mean: its running mean before the update, (C,).
        variance: its running variance before.

    Returns:
        Both in float64; None if the batch had no weight.

    Example:
        >>> norm, x = torch.nn.BatchNorm1d(1), torch.tensor([[1.0], [3.0]])
        >>> before = norm.running_mean.clone(), norm.running_var.clone()
        >>> _ = norm(x)
        >>> [round(float(value), 5) for value in read_statistics(norm, *before)]
        [2.0, 2.0]
    """
    weight, now, now_variance = new_weight(norm), norm.running_mean, norm.running_var
    if not weight or now is None or now_variance is None:
        return None
    old_C, old_variance_C = mean.double(), variance.double()
    batch_C = old_C + (now.double() - old_C) / weight
    return batch_C, (old_variance_C + (now_variance.double() - old_variance_C) / weight).clamp_min(0)


@dataclass(eq=False)
class NormUpdates:
    """One batch norm's updates.

    Attributes:
        path: of the layer.
        num_values, num_images: of its smallest call in training mode; 0 without any.
        kinds: updates in forward and in backward passes of a step, and how many steps had so many.
    """

    path: str
    num_values: int = 0
    num_images: int = 0
    kinds: Counter[tuple[int, int]] = field(default_factory=Counter)
    _forward: int = 0
    _backward: int = 0
    _before: tuple[float, BatchStatistics | None] = (0, None)
    _calls: list[BatchStatistics] = field(default_factory=list)
    _steps: list[tuple[BatchStatistics, ...]] = field(default_factory=list)

    def begins(self, call: LayerCall, norm: _BatchNorm, sampled: bool) -> None:
        """The layer is about to run in training mode."""
        copies = copied_statistics(norm) if sampled and not call.recomputed else None
        self._before = version(norm), copies
        if not call.recomputed and isinstance(call.input, Tensor) and call.input.dim() > 1:
            values = call.input.numel() // call.input.shape[1]
            if not self.num_values or 0 < values < self.num_values:
                self.num_values, self.num_images = values, call.input.shape[0]

    def ends(self, call: LayerCall, norm: _BatchNorm) -> None:
        """The layer has run."""
        then, copies = self._before
        if version(norm) == then or norm.momentum == 0:
            return
        if call.recomputed:
            self._backward += 1
            return
        self._forward += 1
        if copies is not None and len(self._calls) < _MOST_CALLS:
            found = read_statistics(norm, *copies)
            if found is not None:
                self._calls.append(found)

    def step_ends(self) -> None:
        """A step is over."""
        if self._forward or self._backward:
            self.kinds[self._forward, self._backward] += 1
        if len(self._calls) > 1 and len(self._steps) < _MOST_STEPS:
            self._steps.append(tuple(self._calls))
        self._forward = self._backward = 0
        self._calls = []

    @property
    def per_step(self) -> tuple[int, int]:
        """Updates by forward passes and by recomputation, in the most frequent kind of step."""
        return self.kinds.most_common(1)[0][0] if self.kinds else (0, 0)

    def shift(self) -> CallShift | None:
        """Return how the calls of a step differ; None with one call a step, or under 3 sampled steps."""
        calls = Counter(len(step) for step in self._steps).most_common(1)
        if not calls or calls[0][1] < _FEWEST_STEPS:
            return None
        steps = [step for step in self._steps if len(step) == calls[0][0]]
        pairs = [_between(self.path, steps, other) for other in range(1, calls[0][0])]
        return max(pairs, key=lambda pair: pair.shift if math.isfinite(pair.shift) else 0.0)

    def effective_values(self) -> float | None:
        """Return how many independent values a call is worth; None if that can't be told."""
        steps = [step for step in self._steps if len(step) > 1]
        if len(steps) < _FEWEST_STEPS:
            return None
        # The one halfway: inputs of one loss, one after another, may be views of the same images.
        pairs = [(step[0], step[len(step) // 2]) for step in steps]
        apart_SC = torch.stack([second[0] - first[0] for first, second in pairs])
        within_SC = torch.stack([(first[1] + second[1]) / 2 for first, second in pairs])
        between_C = apart_SC.var(0) / 2
        # Of all values: the variance within a batch, and that of batch means.
        variance_C = within_SC.mean(0) * (1 - 1 / max(self.num_values, 1)) + between_C
        varies_C = (variance_C > 0) & variance_C.isfinite()
        share = float((between_C[varies_C] / variance_C[varies_C]).mean()) if bool(varies_C.any()) else 0.0
        return 1 / share if share > 0 else None


def _between(path: str, steps: list[tuple[BatchStatistics, ...]], other: int) -> CallShift:
    apart = [_differences(step, other) for step in steps]
    shift, error = _size(torch.stack([mean_C for mean_C, _ in apart]))
    growth, growth_error = _size(torch.stack([variance_C for _, variance_C in apart]))
    return CallShift(
        path, shift, error, growth, len(steps[0]), growth_error, (1, other + 1), num_steps=len(steps)
    )


def _differences(step: tuple[BatchStatistics, ...], other: int) -> BatchStatistics:
    """Differences of two calls' means, in standard deviations, and of the logarithms of their variances."""
    (mean_C, variance_C), (other_C, other_variance_C) = step[0], step[other]
    tiny = torch.finfo(torch.float32).tiny
    scale_C = ((variance_C + other_variance_C) / 2).clamp_min(tiny).sqrt()
    growth_C = other_variance_C.clamp_min(tiny).log() - variance_C.clamp_min(tiny).log()
    apart_C = torch.where(variance_C + other_variance_C > 0, (other_C - mean_C) / scale_C, 0.0)
    return apart_C, growth_C.where(variance_C + other_variance_C > 0, 0.0)


def _size(apart_SC: Tensor) -> tuple[float, float]:
    """Root mean square over channels of means over steps, without chance, and its jackknife error."""
    number = len(apart_SC)
    whole = _square(apart_SC)
    without = [_square(torch.cat([apart_SC[:step], apart_SC[step + 1 :]])) for step in range(number)]
    left_out = torch.tensor(without, dtype=torch.float64)
    error = math.sqrt((number - 1) * float(left_out.var(correction=0)))
    size = math.sqrt(max(whole, 0.0))
    # √ has no slope to carry the error over at 0.
    return size, min(error / (2 * size), math.sqrt(error)) if size > 0 else math.sqrt(error)


def _square(apart_SC: Tensor) -> float:
    return float((apart_SC.mean(0).square() - apart_SC.var(0) / len(apart_SC)).mean())
