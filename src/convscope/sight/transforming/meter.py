"""One layer's distances, gathered while images go by."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.sight.transforming.geometry import Grid
from convscope.sight.transforming.result import FeaturePoint, LayerCurve, LayerInvariance, UnitRanking
from convscope.sight.transforming.running import Between, RunningMean
from convscope.sight.transforming.transformation import Kind, Transformation, sampled
from convscope.sight.units.reading import Place

NUM_RANKED = 9


@dataclass(frozen=True)
class Layer:
    """A layer whose features are compared.

    Attributes:
        name: for the reader.
        place: where it is read.
        shape: of one image's features.
        has_units: whether its channels are its second axis.
        grid: its positions; None for a layer without space.
    """

    name: str
    place: Place
    shape: tuple[int, ...]
    has_units: bool
    grid: Grid | None

    def flat(self, tensor: Tensor) -> Float[Tensor, "n u p"]:
        """Return features by unit and position; all in one unit where channels aren't known."""
        return tensor.reshape(len(tensor), self.shape[0] if self.has_units else 1, -1)


class _Step:
    """What one transformation does to one layer."""

    def __init__(self, layer: Layer, step: Transformation) -> None:
        self.step = step
        self.aligned = None if layer.grid is None else layer.grid.aligned(step)
        self.distance, self.unmoved, self.residual = RunningMean(), RunningMean(), RunningMean()
        units = layer.shape[0] if layer.has_units else 1
        self.squares, self.moved, self.left = (torch.zeros(units, dtype=torch.float64) for _ in range(3))

    @property
    def num_compared(self) -> int:
        return 0 if self.aligned is None else len(self.aligned.indices)


class Meter:
    """Gathers one layer's distances; see :meth:`result`.

    Args:
        layer: which.
        steps: the transformations.
    """

    def __init__(self, layer: Layer, steps: dict[Kind, tuple[Transformation, ...]]) -> None:
        self.layer = layer
        self._steps = {step: _Step(layer, step) for of_kind in steps.values() for step in of_kind}
        self._kinds = steps
        self._between = Between()
        self._clean = torch.empty(0)

    def start(self, tensor: Tensor) -> None:
        """Take in the features of untransformed images; those that follow are of the same images."""
        self._clean = tensor.clone()
        self._between.add(self.layer.flat(self._clean))

    def add(self, step: Transformation, tensor: Tensor) -> None:
        """Take in their features after a transformation."""
        found = self._steps[step]
        clean, changed = self.layer.flat(self._clean).double(), self.layer.flat(tensor).double()
        squares = (changed - clean).square().sum(2)
        found.squares += squares.sum(0).cpu()
        found.distance.add(_relative(squares, clean))
        aligned = found.aligned
        if aligned is None or not found.num_compared:
            return
        indices = aligned.indices.to(clean.device)
        there = clean[:, :, indices]
        moved = (changed[:, :, indices] - there).square().sum(2)
        back = sampled(tensor, aligned.y, aligned.x).double()
        left = (back - there).square().sum(2)
        found.moved += moved.sum(0).cpu()
        found.left += left.sum(0).cpu()
        found.unmoved.add(_relative(moved, there))
        found.residual.add(_relative(left, there))

    def result(self) -> LayerInvariance:
        """Return what was found."""
        layer, between = self.layer, self._between.mean_square()
        whole = None if between is None else float(between.sum().sqrt())
        curves = tuple(
            LayerCurve(
                kind,
                tuple(self._point(self._steps[step], whole) for step in steps),
                self._ranking([self._steps[step] for step in steps], between) if layer.has_units else None,
            )
            for kind, steps in self._kinds.items()
        )
        positions = area = "none"
        if layer.grid is not None:
            positions = "spread evenly" if layer.grid.reach is None else "receptive fields"
            area = "image only" if layer.grid.has_interior else "middles"
        return LayerInvariance(layer.name, layer.place.address, layer.shape, whole, positions, area, curves)

    def _point(self, found: _Step, between: float | None) -> FeaturePoint:
        typical = float((found.squares.sum() / max(self._between.count, 1)).sqrt())
        num_positions = self._clean[0, 0].numel() if self._clean.dim() == 4 else 1
        has_any = found.num_compared > 0
        return FeaturePoint(
            found.step.amount,
            found.distance.result(),
            typical / between if between else None,
            found.unmoved.result() if has_any else None,
            found.residual.result() if has_any else None,
            found.num_compared / num_positions,
        )

    def _ranking(self, steps: list[_Step], between: Tensor | None) -> UnitRanking:
        changed = [found for found in steps if not found.step.is_identity]
        none = torch.full((self.layer.shape[0],), torch.nan, dtype=torch.float64)
        distance, residual = none, none
        if changed and between is not None:
            squares = torch.stack([found.squares for found in changed]).mean(0) / self._between.count
            distance = torch.where(between > 0, (squares / between).sqrt(), none)
        if changed:
            moved = torch.stack([found.moved for found in changed]).sum(0)
            left = torch.stack([found.left for found in changed]).sum(0)
            residual = torch.where(moved > 0, (left / moved).sqrt(), none)
        return UnitRanking(_known(distance), _known(residual), _smallest(distance), _smallest(residual))


def _relative(squares: Float[Tensor, "n u"], clean: Float[Tensor, "n u p"]) -> Float[Tensor, " n"]:
    """Distances as shares of norms; NaN where the norm is zero."""
    return (squares.sum(1) / clean.square().sum((1, 2))).sqrt().nan_to_num(posinf=torch.nan, nan=torch.nan)


def _known(values: Tensor) -> tuple[float | None, ...]:
    return tuple(value if value == value else None for value in values.tolist())


def _smallest(values: Tensor) -> tuple[int, ...]:
    order = values.nan_to_num(nan=torch.inf).argsort(stable=True)[:NUM_RANKED].tolist()
    return tuple(index for index in order if bool(values[index].isfinite()))
