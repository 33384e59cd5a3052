"""Writers of metrics: TensorBoard, Weights & Biases, accelerate, Lightning's loggers, or any function."""

from collections.abc import Callable
from typing import Any

from convscope.core.errors import ConvscopeError

Values = dict[str, float]
Writer = Callable[[Values, int], object]
"""Is given named numbers and how many optimizer steps had been made."""


def writer_of(writer: Any) -> Writer | None:
    """Return how metrics are handed to a writer; None if there is none.

    Args:
        writer: a ``SummaryWriter`` of TensorBoard (``add_scalar``), a logger of Lightning
            (``log_metrics``), a run of Weights & Biases or an ``Accelerator`` (``log(values, step=…)``), or a
            function of values and step.

    Raises:
        ConvscopeError: it is none of these.

    Example:
        >>> writer_of(print)({"loss": 0.5}, 3)
        {'loss': 0.5} 3
    """
    if writer is None:
        return None
    for method, adapt in _ADAPTERS.items():
        if callable(getattr(writer, method, None)):
            return adapt(writer)
    if not callable(writer):
        raise ConvscopeError(
            f"writer of type {type(writer).__name__}",
            "a SummaryWriter, an object with log(values, step=…), or a function of values and step",
            "pass one of these, or none",
        )
    checked: Writer = writer
    return checked


def _scalars(writer: Any) -> Writer:
    def write(values: Values, step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return write


_ADAPTERS: dict[str, Callable[[Any], Writer]] = {
    "add_scalar": _scalars,
    "log_metrics": lambda writer: lambda values, step: writer.log_metrics(values, step=step),
    "log": lambda writer: lambda values, step: writer.log(values, step=step),
}
