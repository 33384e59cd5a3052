"""What the inputs of one batch norm call show beside their statistics, gathered batch by batch.

Which axis explains their variance; how far the operator that normalises them in training is off, as they lie
in memory; what padding does to their statistics. Nothing is kept that grows with the batch.

Axis letters: N images, C channels, S positions.
"""

import math

import torch
from torch import Tensor

from convscope.checkup.measuring.padding import PaddedSums
from convscope.checkup.measuring.population import Moments
from convscope.checkup.observed import InputFacts, Population


class Inputs:
    """Gathers :class:`InputFacts` of one call, from the inputs that it has in training.

    Example:
        >>> inputs, batch = Inputs(), Moments()
        >>> batch.merge(2, torch.tensor([2.0]), torch.tensor([2.0]))
        >>> inputs.add(torch.tensor([[1.0], [3.0]]), batch, None)
        >>> inputs.note_variance(torch.tensor([1.1]), batch)
        >>> round(inputs.variance_error, 6)
        0.1
    """

    def __init__(self) -> None:
        self.variance_error: float | None = None
        self._padded = PaddedSums()
        self._sums: list[Tensor] = []
        self._images = 0

    def add(self, x_NCS: Tensor, batch: Moments, mask_NS: Tensor | None) -> None:
        """Take in one batch.

        Args:
            x_NCS: the inputs.
            batch: their moments.
            mask_NS: which positions are content; None if there is no padding.
        """
        self._padded.add(x_NCS, batch, mask_NS)
        wide = torch.float64 if x_NCS.dtype is torch.float64 else torch.float32
        mean_CS = x_NCS.detach().mean(0, dtype=wide).double().cpu()
        sums = [
            mean_CS.mean([other for other in range(mean_CS.dim()) if other != axis]) * len(x_NCS)
            if mean_CS.dim() > 1
            else mean_CS * len(x_NCS)
            for axis in range(mean_CS.dim())
        ]
        if self._sums and [len(new) for new in sums] != [len(old) for old in self._sums]:
            return  # a map of another size: its positions aren't those of the first
        self._sums = [old + new for old, new in zip(self._sums, sums, strict=True)] if self._sums else sums
        self._images += len(x_NCS)

    def note_variance(self, computed_C: Tensor, batch: Moments, eps: float = 0.0) -> None:
        """Take in the biased variance plus ε by which an operator has normalised a batch.

        Args:
            computed_C: what it took for the variance, plus ε.
            batch: the true moments.
            eps: the layer's ε.
        """
        true_C = batch.m2 / batch.count + eps
        counts_C = true_C > 0
        if not bool(counts_C.any()):
            return
        error_C = (computed_C.double().cpu()[counts_C] / true_C[counts_C] - 1).abs()
        error = float(error_C.nan_to_num(nan=math.inf, posinf=math.inf).max())
        self.variance_error = max(error, self.variance_error or 0.0)

    def facts(self, population: Population, eps: float) -> InputFacts:
        """Return what was gathered.

        Args:
            population: of the same inputs.
            eps: the layer's ε.
        """
        spread_C = (population.variance + eps).sqrt()
        return InputFacts(
            axis_shares=self._axis_shares(population),
            axis_roughness=tuple(map(_roughness, self._sums)) if len(self._sums) > 1 else (),
            mean_to_spread=float((population.mean.abs() / spread_C).max()),
            variance_error=self.variance_error,
            padded=self._padded.facts(eps),
        )

    def _axis_shares(self, population: Population) -> tuple[float, ...]:
        """Var(means by index of an axis) / Var(all values); Var(all) is within channels and between them."""
        total = float(population.variance.mean() + population.mean.var(correction=0))
        if len(self._sums) < 2 or not total > 0:
            return ()
        return tuple(float((sums / self._images).var(correction=0)) / total for sums in self._sums)


def _roughness(means: Tensor) -> float:
    """Σ (mᵢ₊₁ − mᵢ)² / (n − 1) over the variance (von Neumann, Annals of Mathematical Statistics, 1941)."""
    spread = float(means.var(correction=0)) if len(means) > 1 else 0.0
    return float(means.diff().square().mean()) / spread if spread > 0 else 0.0
