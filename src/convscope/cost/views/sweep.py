"""How a network's cost changes with the batch, the resolution, the width, or anything else one can build by.

Every point is a reading of its own; nothing is extrapolated. Points that can't be run, such as an image too
small for the network, are listed with the reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.result import Result
from convscope.cost.reading import cost
from convscope.cost.views.csv_table import csv_text
from convscope.cost.views.summary import SUMMARY_FIELDS, Refused, Summary, summary_cells, summary_of
from convscope.tape import TrainingPlan
from convscope.tape.substrate import Inputs

Value = int | float
Make = Callable[[Any], tuple[nn.Module, Inputs]]

_DEFAULT_PLAN = TrainingPlan()


@dataclass(frozen=True)
class Axis:
    """What a network is varied along.

    Attributes:
        noun: what it is called.
        unit: of its values.
        whole: whether they are whole numbers.
    """

    noun: str
    unit: str
    whole: bool


AXES: Mapping[str, Axis] = {
    "batch": Axis("batch", "inputs", whole=True),
    "resolution": Axis("side", "px", whole=True),
    "width": Axis("width", "factor", whole=False),
}
"""The axes that have a name; any other may be swept by a function."""


@dataclass(frozen=True)
class SweepPoint:
    """The reading at one value.

    Attributes:
        value: of what was varied.
        summary: what the network costs there.
    """

    value: Value
    summary: Summary


@dataclass(frozen=True)
class Sweep(Result):
    """A network's cost along an axis.

    Attributes:
        network: its name.
        axis: what was varied: a name of :data:`AXES`, or the user's own.
        plan: the training plan in words; ``"inference"`` without one.
        device: whose memory rules the forecasts follow.
        points: in the order of the values.
        refused: the values that couldn't be read, and why.
    """

    network: str
    axis: str
    plan: str
    device: str
    points: tuple[SweepPoint, ...]
    refused: tuple[Refused, ...]

    def to_csv(self) -> str:
        """Return one line per point: the value, and the fields of :class:`Summary`."""
        rows = ([point.value, *summary_cells(point.summary)] for point in self.points)
        return csv_text((f"swept_{self.axis}", *SUMMARY_FIELDS), rows)


def sweep(
    model: nn.Module | Make,
    inputs: Inputs,
    axis: str,
    values: Sequence[Value],
    plan: TrainingPlan | None = _DEFAULT_PLAN,
    **reading: Any,
) -> Sweep:
    """Return what a network costs at each of some values.

    Args:
        model: a network, for the axes ``"batch"`` and ``"resolution"``; or, for any axis, a function that
            returns the network and its inputs at a value.
        inputs: as for :func:`convscope.cost.cost`; None where a function makes them.
        axis: what is varied.
        values: where; each is read once.
        plan: the training step; None for inference.
        **reading: further keywords of :func:`convscope.cost.cost`.

    Raises:
        ConvscopeError: no value could be read (the first error is raised), the axis needs a function, or a
            value isn't a positive number. A value at which the function returns anything but a network and
            its inputs is among those that couldn't be read.

    Example:
        >>> found = sweep(nn.Conv2d(3, 8, 3), (1, 3, 32, 32), "batch", (1, 2, 4))
        >>> [(point.value, point.summary.macs) for point in found.points]
        [(1, 194400), (2, 388800), (4, 777600)]
    """
    values = tuple(dict.fromkeys(values))
    _check_values(axis, values)
    make = _maker(model, inputs, axis) if isinstance(model, nn.Module) else model
    points, refused, name, device = [], [], "", ""
    failures: list[ConvscopeError] = []
    for value in values:
        try:
            found = cost(*_made(make, axis, value), plan, **reading)
        except ConvscopeError as error:
            failures.append(error)
            refused.append(Refused(f"{axis} {value}", str(error)))
            continue
        name, device, described = found.network, found.device, found.plan
        points.append(SweepPoint(value, summary_of(found)))
    if not points:
        raise failures[0]
    return Sweep(name, axis, described, device, tuple(points), tuple(refused))


def _made(make: Make, axis: str, value: Value) -> tuple[nn.Module, Inputs]:
    try:
        made = make(value)
    except ConvscopeError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ConvscopeError(
            f"{axis}={value}: {type(error).__name__}: {error}", "a network that can be built", "leave it out"
        ) from error
    if not (isinstance(made, tuple | list) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise ConvscopeError(
            f"{axis}={value}: the function returned {_described(made)}",
            "the network and its inputs",
            "return them both, such as (build(width), (1, 3, 224, 224))",
        )
    return made[0], made[1]


def _described(made: object) -> str:
    if isinstance(made, tuple | list):
        return f"({', '.join(type(each).__name__ for each in made)})"
    return type(made).__name__


def _check_values(axis: str, values: Sequence[Value]) -> None:
    whole = axis in AXES and AXES[axis].whole
    kinds = (int,) if whole else (int, float)
    if not values or any(isinstance(v, bool) or not isinstance(v, kinds) or not v > 0 for v in values):
        raise ConvscopeError(
            f"sweep over {axis}: {', '.join(map(str, values)) or 'no values'}",
            "whole numbers from 1" if whole else "positive numbers",
            "correct the values",
        )


def _maker(model: nn.Module, inputs: Inputs, axis: str) -> Make:
    """The function that returns ``model`` and its inputs at a value."""
    if axis == "batch":
        return lambda value: (model, _resized(inputs, lambda shape: (value, *shape[1:])))
    if axis == "resolution":
        return lambda value: (model, _resized(inputs, lambda shape: (*shape[:-2], value, value)))
    raise ConvscopeError(
        f"sweep over {axis} of a network that is built already",
        "a function that returns the network and its inputs at a value",
        "pass one, such as lambda width: (build(width), (1, 3, 224, 224))",
    )


def _resized(inputs: Inputs, change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Inputs:
    """The inputs with other shapes: shapes stay shapes, tensors become empty ones on no device."""
    if isinstance(inputs, torch.Tensor):
        return torch.empty(change(tuple(inputs.shape)), dtype=inputs.dtype, device="meta")
    if isinstance(inputs, Mapping):
        return {name: _resized(item, change) for name, item in inputs.items()}
    if isinstance(inputs, tuple) and inputs and all(isinstance(size, int) for size in inputs):
        return change(inputs)
    if isinstance(inputs, list | tuple):
        return tuple(_resized(item, change) for item in inputs)
    return inputs
