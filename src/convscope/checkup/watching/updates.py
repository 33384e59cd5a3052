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
_MOST_STEPS = 64
_MOST_CALLS = 8

BatchStatistics = tuple[Tensor, Tensor]
"""Means and unbiased variances, float64; of one batch (C,) each."""


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
    _shift: tuple[int, CallShift | None] = (0, None)  # of so many steps

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
        if self._shift[0] != len(self._steps):
            self._shift = len(self._steps), self._measured_shift()
        return self._shift[1]

    def _measured_shift(self) -> CallShift | None:
        calls = Counter(len(step) for step in self._steps).most_common(1)
        if not calls or calls[0][1] < _FEWEST_STEPS:
            return None
        steps = [step for step in self._steps if len(step) == calls[0][0]]
        means_SPC, variances_SPC = _differences(steps)
        (shift_P, error_P), (growth_P, growth_error_P) = _size(means_SPC), _size(variances_SPC)
        largest = int(shift_P.nan_to_num(nan=0.0, posinf=0.0).argmax())
        return CallShift(
            self.path,
            float(shift_P[largest]),
            float(error_P[largest]),
            float(growth_P[largest]),
            calls[0][0],
            float(growth_error_P[largest]),
            (1, largest + 2),
            num_steps=len(steps),
        )

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


def _differences(steps: list[tuple[BatchStatistics, ...]]) -> BatchStatistics:
    """Differences of each step's first call and its others, (S, P, C), P pairs.

    Returns:
        Of the means, in standard deviations, and of the logarithms of the variances.
    """
    means_SKC, variances_SKC = (
        torch.stack([torch.stack([call[which] for call in step]) for step in steps]) for which in (0, 1)
    )
    tiny = torch.finfo(torch.float32).tiny
    first_S1C, others_SPC = variances_SKC[:, :1], variances_SKC[:, 1:]
    total_SPC = first_S1C + others_SPC
    apart_SPC = (means_SKC[:, 1:] - means_SKC[:, :1]) / (total_SPC / 2).clamp_min(tiny).sqrt()
    growth_SPC = others_SPC.clamp_min(tiny).log() - first_S1C.clamp_min(tiny).log()
    return apart_SPC.where(total_SPC > 0, 0.0), growth_SPC.where(total_SPC > 0, 0.0)


def _size(apart_SPC: Tensor) -> BatchStatistics:
    """Root mean squares over channels of means over steps, without chance, and their jackknife errors."""
    number = len(apart_SPC)
    whole_P = _square(apart_SPC.mean(0), apart_SPC.var(0), number)
    left_out_SP = _square(*_without_each(apart_SPC), number - 1)
    error_P = ((number - 1) * left_out_SP.var(0, correction=0)).sqrt()
    size_P = whole_P.clamp_min(0).sqrt()
    # √ has no slope to carry the error over at 0.
    slope_P = torch.where(size_P > 0, error_P / (2 * size_P), math.inf)
    return size_P, torch.minimum(slope_P, error_P.sqrt())


def _square(mean: Tensor, variance: Tensor, number: int) -> Tensor:
    """Mean over channels, the last axis, of squared means without what chance contributes."""
    return (mean.square() - variance / number).mean(-1)


def _without_each(apart_SPC: Tensor) -> BatchStatistics:
    """Means and unbiased variances over all steps but one, (S, P, C) each."""
    number = len(apart_SPC)
    from_mean_SPC = apart_SPC - apart_SPC.mean(0)
    mean_SPC = -from_mean_SPC / (number - 1)
    squares_SPC = from_mean_SPC.square()
    rest_SPC = squares_SPC.sum(0) - squares_SPC - (number - 1) * mean_SPC.square()
    return apart_SPC.mean(0) + mean_SPC, rest_SPC.clamp_min(0) / (number - 2)
