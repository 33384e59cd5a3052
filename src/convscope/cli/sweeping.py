"""``--sweep AXIS=VALUES``: which network and inputs each value means."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convscope.cli.options import NetworkOptions, input_shape
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from convscope.cost import Sweep
    from convscope.tape import TrainingPlan

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
    from convscope.cost import AXES

    axis, _, values = text.partition("=")
    if axis not in AXES:
        raise ConvscopeError(f"sweep {text!r}", f"one over {', '.join(AXES)}", _EXAMPLES)
    kind = int if AXES[axis].whole else float
    try:
        if ":" in values:
            first, last = map(kind, values.split(":"))
            numbers = _doubling(first, last)
        else:
            numbers = tuple(map(kind, values.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        kinds = "whole numbers from 1" if AXES[axis].whole else "positive numbers"
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
        ConvscopeError: see :func:`sweep_values`; no value can be read; or a flag says what is swept.
    """
    from convscope.cost import sweep

    axis, values = sweep_values(text)
    _check_alone(axis, options)
    if axis == "batch":
        loaded = options.load(network)
        return sweep(loaded.model, loaded.inputs, axis, values, plan, **reading)
    channels = _channels(network, options) if axis == "resolution" else None

    def make(value: int | float) -> Any:
        varied = {"width": value} if channels is None else {"input": f"{channels}x{value}x{value}"}
        return replace(options, **varied).load(network)

    return sweep(make, None, axis, values, plan, **reading)


def _check_alone(axis: str, options: NetworkOptions) -> None:
    """Refuse a flag that says what the sweep varies; ``--input`` says how many channels images have."""
    if axis in ("batch", "width") and getattr(options, axis) is not None:
        raise ConvscopeError(
            f"--{axis} {getattr(options, axis):g} with --sweep {axis}",
            "flags that go together",
            f"leave --{axis} out: the sweep gives its values",
        )


def _doubling(first: int | float, last: int | float) -> tuple[int | float, ...]:
    numbers = []
    while 0 < first <= last:
        numbers.append(first)
        first *= 2
    return tuple(numbers)


def _channels(network: str, options: NetworkOptions) -> int:
    """How many channels the images have: what ``--input`` says, or else the network's own images."""
    if options.input is not None:
        shape: Any = (1, *input_shape(options.input))
    else:
        shape = options.load(network).inputs
    if isinstance(shape, tuple) and len(shape) == 4 and all(isinstance(size, int) for size in shape):
        return int(shape[1])
    raise ConvscopeError(
        f"resolutions of network {network!r}, whose inputs aren't of the form channels x height x width",
        "one that takes images",
        "sweep over batch",
    )
