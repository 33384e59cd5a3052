"""The optimizer of a run, and which parameters have weight decay."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig


def decay_groups(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Return the trainable parameters that have weight decay, and those that have none, by name.

    Without decay: every parameter with at most one axis (biases, the scales and shifts of normalisation
    layers, slopes), those named ``bias``, and those of a layer norm with more axes.

    Decay of a scale before another normalisation only changes its step size, and decay of a shift or a
    bias only moves an output; neither limits what the network can express.

    Example:
        >>> decayed, free = decay_groups(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
        >>> list(decayed), list(free)
        (['0.weight'], ['0.bias', '1.weight', '1.bias'])
    """
    of_norms = {
        id(parameter)
        for module in model.modules()
        if _is_layer_norm(module)
        for parameter in module.parameters(recurse=False)
    }
    decayed: dict[str, nn.Parameter] = {}
    free: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_free = parameter.ndim <= 1 or name.endswith("bias") or id(parameter) in of_norms
        (free if is_free else decayed)[name] = parameter
    return decayed, free


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer for a model's trainable parameters, in two groups: with decay and without.

    Raises:
        ConvscopeError: the model has no trainable parameter.
    """
    decayed, free = decay_groups(model)
    groups = [
        {"params": list(parameters.values()), "names": list(parameters), "weight_decay": decay}
        for parameters, decay in ((decayed, config.weight_decay), (free, 0.0))
        if parameters
    ]
    if not groups:
        raise ConvscopeError(
            f"{type(model).__name__} without a trainable parameter",
            "at least one parameter that requires a gradient",
            "set requires_grad on the parameters to train",
        )
    return _OPTIMIZERS[config.optimizer](groups, config)


def parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of the optimizer's parameters, in the order of its state dict's numbers."""
    return [name for group in optimizer.param_groups for name in group["names"]]


def _is_layer_norm(module: nn.Module) -> bool:
    # Other families keep ``normalized_shape`` too, so the attribute says more than the class.
    return hasattr(module, "normalized_shape")


def _sgd_momentum(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def _adamw(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=config.learning_rate)


_OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], TrainConfig], torch.optim.Optimizer]] = {
    "sgd-momentum": _sgd_momentum,
    "adamw": _adamw,
}
