"""Weights whose result a batch norm reads: how large they are, and how far a step turns them.

With batch statistics BN(a w ⋆ x) = BN(w ⋆ x) for every a > 0, so that only the direction of w counts, and a
step's effect is ‖Δw‖ / ‖w‖, about the angle by which it turns. It follows that w · ∇w = 0 (Euler's theorem
for functions of degree 0), which a measured gradient shows to hold. All this goes for every filter by itself,
so that some of them are enough to see it.

A batch norm's weight is found by what made its input: the autograd graph names the convolution or linear
layer that it comes from.
"""

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from convscope.checkup.observed.run import WeightRun

_PRODUCTS = ("ConvolutionBackward", "AddmmBackward", "MmBackward", "LinearBackward", "MkldnnConvolution")
_SAME_VALUES = ("ToCopyBackward", "TBackward", "TransposeBackward", "PermuteBackward")
_MOST_VALUES = 65536  # of a weight that are copied to see a step
_MOST_SAMPLES = 512


@dataclass(eq=False)
class _Weight:
    name: str
    norm: str
    tensor: Tensor
    sizes: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    before: Tensor | None = None
    whole: float = 0.0

    def add(self, size: float, slope: float, step: float, dot: float) -> None:
        """Add a step: of the filters that were kept, ‖w‖, ‖∇w‖, ‖Δw‖ and w · ∇w."""
        self.sizes.append(self.whole)
        if size * slope > 0 and math.isfinite(size * slope):
            self.cosines.append(abs(dot) / (size * slope))
        if size > 0 and math.isfinite(step) and self.rates[-1] > 0:
            self.updates.append(step / size)


class Weights:
    """Follows the weights that batch norms read."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._tried: set[str] = set()
        self._weights: list[_Weight] = []

    def norm(self, path: str, layer_input: Any) -> None:
        """Look for the weight behind a batch norm that uses batch statistics, unless it has been tried."""
        made_by = getattr(layer_input, "grad_fn", None)
        if path in self._tried or made_by is None:
            return
        self._tried.add(path)
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        known = {id(weight.tensor) for weight in self._weights}
        for leaf in multiplied_by(made_by):
            if id(leaf) in names and id(leaf) not in known:
                self._weights.append(_Weight(names[id(leaf)], path, leaf))

    @torch.no_grad()
    def step_begins(self, optimizer: Optimizer) -> None:
        """Keep some filters of each weight, to see in a sampled step how far it moves."""
        rates = {
            id(parameter): float(group.get("lr", math.nan))
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        held = [w for w in self._weights if id(w.tensor) in rates and len(w.sizes) < _MOST_SAMPLES]
        sizes = _norms([weight.tensor.detach() for weight in held]) if held else []
        for weight, size in zip(held, sizes, strict=True):
            weight.before, weight.whole = _part(weight.tensor.detach()).clone(), size
            weight.rates.append(rates[id(weight.tensor)])

    @torch.no_grad()
    def step_ends(self) -> None:
        """Measure weights, steps and gradients; these are there after the step, whoever has run backward."""
        moved = [(w, w.before, w.tensor.grad) for w in self._weights if w.before is not None]
        for weight, _, gradient in moved:
            weight.before = None
            if gradient is None or gradient.is_sparse:
                weight.rates.pop()
        held = [(w, before, g) for w, before, g in moved if g is not None and not g.is_sparse]
        if not held:
            return
        before = [old for _, old, _ in held]
        slopes = [_part(gradient.detach()).to(old.dtype) for _, old, gradient in held]
        steps = [_part(weight.tensor.detach()) - old for weight, old, _ in held]
        dots = [torch.dot(w.reshape(-1), g.reshape(-1)) for w, g in zip(before, slopes, strict=True)]
        columns = (_norms(before), _norms(slopes), _norms(steps), torch.stack(dots).float().tolist())
        for (weight, _, _), size, slope, step, dot in zip(held, *columns, strict=True):
            weight.add(size, slope, step, dot)

    def found(self) -> tuple[WeightRun, ...]:
        """Return how the weights fared, in the order of the batch norms."""
        return tuple(
            WeightRun(
                name=weight.name,
                norm=weight.norm,
                start=weight.sizes[0],
                end=float(weight.tensor.detach().norm()),
                update=_median(weight.updates[len(weight.updates) // 2 :]),
                invariance=_median(weight.cosines),
                chance=_part(weight.tensor).numel() ** -0.5,
                num_steps=len(weight.sizes),
                rate=max(weight.rates),
            )
            for weight in self._weights
            if weight.sizes
        )

    def latest(self) -> dict[str, float]:
        """Return the last relative update of each weight, by the path of its batch norm."""
        return {weight.norm: weight.updates[-1] for weight in self._weights if weight.updates}


def multiplied_by(made_by: Any) -> tuple[Tensor, ...]:
    """Return the leaves, of two dimensions or more, that a product was made of, from its autograd node.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> [leaf is layer.weight for leaf in multiplied_by(layer(torch.ones(4, 3)).grad_fn)]
        [True]
    """
    if not made_by.name().startswith(_PRODUCTS):
        return ()
    leaves = []
    for behind, _ in made_by.next_functions:
        while behind is not None and behind.name().startswith(_SAME_VALUES):
            behind = behind.next_functions[0][0]
        leaves.append(getattr(behind, "variable", None))
    return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() > 1)


def _norms(tensors: list[Tensor]) -> list[float]:
    norms: list[float] = torch.stack([norm.float() for norm in torch._foreach_norm(tensors)]).tolist()
    return norms


def _part(tensor: Tensor) -> Tensor:
    """The first filters of a weight, as many as fit."""
    return tensor[: max(1, _MOST_VALUES * tensor.shape[0] // max(tensor.numel(), 1))]


def _median(values: list[float]) -> float:
    return median(values) if values else math.nan
