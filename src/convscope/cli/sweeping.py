"""``--sweep AXIS=VALUES``: which network and inputs each value means."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convscope.cli.options import NetworkOptions
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from convscope.cost import Sweep
    from convscope.tape import TrainingPlan

AXES = ("batch", "resolution", "width")
_EXAMPLES = "write it as batch=1:256 (doubling), batch=1,8,32, resolution=128,160,224 or width=0.25,0.5,1"


def sweep_values(text: str) -> tuple[str, tuple[int | float, ...]]:
    """Return the axis and the values that a text such as ``batch=1:256`` names.

    ``first:last`` doubles from the first value as long as the last isn't passed.

    Raises:
        ConvscopeError: the axis isn't known, or its values aren't positive numbers.

    Example:
        >>> sweep_values("batch=1:8"), sweep_values("width=0.25,1")
        (('batch', (1, 2, 4, 8)), ('width', (0.25, 1.0)))
    """
    axis, _, values = text.partition("=")
    if axis not in AXES:
        raise ConvscopeError(f"sweep {text!r}", f"one over {', '.join(AXES)}", _EXAMPLES)
    kind = float if axis == "width" else int
    try:
        if ":" in values:
            first, last = map(kind, values.split(":"))
            numbers = _doubling(first, last)
        else:
            numbers = tuple(map(kind, values.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        kinds = "positive numbers" if axis == "width" else "whole numbers from 1"
        raise ConvscopeError(f"sweep {text!r}", kinds, _EXAMPLES)
    return axis, numbers


def swept(
    network: str, options: NetworkOptions, text: str, plan: "TrainingPlan | None", reading: dict[str, Any]
) -> "Sweep":
    """Return the sweep of a network over what ``--sweep`` says.

    Args:
        network: its reference.
        options: how it is built and fed.
        text: the flag's value.
        plan: the training step; None for inference.
        reading: keywords of the cost reading.

    Raises:
        ConvscopeError: see :func:`sweep_values`; or no value can be read.
    """
    from convscope.cost import sweep

    axis, values = sweep_values(text)
    loaded = options.load(network) if axis != "width" else None
    if axis == "batch":
        assert loaded is not None
        return sweep(loaded.model, loaded.inputs, axis, values, plan, **reading)

    def make(value: int | float) -> Any:
        if axis == "width":
            return replace(options, width=value).load(network)
        assert loaded is not None
        channels = _channels(network, loaded.inputs)
        return replace(options, input=f"{channels}x{value}x{value}").load(network)

    return sweep(make, None, axis, values, plan, **reading)


def _doubling(first: int | float, last: int | float) -> tuple[int | float, ...]:
    numbers = []
    while 0 < first <= last:
        numbers.append(first)
        first *= 2
    return tuple(numbers)


def _channels(network: str, inputs: Any) -> int:
    if isinstance(inputs, tuple) and len(inputs) == 4 and all(isinstance(size, int) for size in inputs):
        return int(inputs[1])
    raise ConvscopeError(
        f"network {network!r}, which brings its own inputs", "one that takes images", "sweep over batch"
    )
