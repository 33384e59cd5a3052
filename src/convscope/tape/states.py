"""What an optimizer keeps per parameter from its second step on, made without running its first.

Running the first step would record nothing new and takes as long as the second.
"""

from collections.abc import Callable, Iterable

import torch

State = dict[str, torch.Tensor]


def create_states(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor]) -> None:
    """Give an optimizer the state that its first step makes, for every parameter that has a gradient.

    Args:
        optimizer: PyTorch's SGD, Adam, AdamW or RMSprop, as a :class:`TrainingPlan` makes them.
        parameters: its parameters.

    Source: ``_init_group`` of ``torch.optim``'s classes, PyTorch 2.13: values in the layout of their
    parameter; Adam's and RMSprop's step counters are 32-bit scalars in host memory, on the device for fused
    kernels. The tests compare them with what PyTorch makes.
    """
    make = _STATES[type(optimizer)]
    for parameter in parameters:
        if parameter.grad is not None:
            optimizer.state[parameter] = make(optimizer.defaults, parameter)


def _sgd(defaults: dict[str, object], parameter: torch.Tensor) -> State:
    return {"momentum_buffer": _like(parameter)} if defaults["momentum"] else {}


def _adam(defaults: dict[str, object], parameter: torch.Tensor) -> State:
    return {"step": _counter(defaults), "exp_avg": _like(parameter), "exp_avg_sq": _like(parameter)}


def _rmsprop(defaults: dict[str, object], parameter: torch.Tensor) -> State:
    return {"step": _counter(defaults), "square_avg": _like(parameter)}


def _like(parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(parameter, memory_format=torch.preserve_format)


def _counter(defaults: dict[str, object]) -> torch.Tensor:
    double = torch.get_default_dtype() is torch.float64 and not defaults.get("fused")
    return torch.zeros((), dtype=torch.float64 if double else torch.float32)


_STATES: dict[type[torch.optim.Optimizer], Callable[[dict[str, object], torch.Tensor], State]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.RMSprop: _rmsprop,
}
