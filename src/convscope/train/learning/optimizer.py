"""The optimizer of a run, and which parameters have weight decay."""

from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig
from convscope.train.learning.fused import can_fuse, keep_layouts
from convscope.train.setting_rules import OptimizerName


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

    It is PyTorch's fused one where there is one that is right for these parameters.

    Args:
        model: the network, on the training device.
        config: says which; what it doesn't say is PyTorch's default.

    Raises:
        ConvscopeError: the model has no trainable parameter.
    """
    decayed, free = decay_groups(model)
    groups = [
        {"params": list(parameters.values()), "names": list(parameters), "weight_decay": decay}
        for parameters, decay in ((decayed, config.weight_decay), (free, 0.0))
        if parameters
    ]
    require_trainable(model)
    kind, own = _OPTIMIZERS[config.optimizer]
    settings = {name: getattr(config, name) for name in own}
    fused = takes_fused(model, config)
    if fused:
        settings["fused"] = True
    optimizer: torch.optim.Optimizer = kind(groups, lr=config.learning_rate, **settings)
    if fused:
        keep_layouts(optimizer)
    return optimizer


def takes_fused(model: nn.Module, config: TrainConfig) -> bool:
    """Return whether a model's optimizer is PyTorch's fused one."""
    return config.optimizer != "rmsprop" and can_fuse(p for p in model.parameters() if p.requires_grad)


def require_trainable(model: nn.Module) -> None:
    """Refuse a model that has nothing to train.

    Raises:
        ConvscopeError: the model has no trainable parameter.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConvscopeError(
            f"{type(model).__name__} without a trainable parameter",
            "at least one parameter that requires a gradient",
            "set requires_grad on the parameters to train",
        )


def parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of the optimizer's parameters, in the order of its state dict's numbers."""
    return [name for group in optimizer.param_groups for name in group["names"]]


def _is_layer_norm(module: nn.Module) -> bool:
    # Other families keep ``normalized_shape`` too, so the attribute says more than the class.
    return hasattr(module, "normalized_shape")


_OPTIMIZERS: dict[OptimizerName, tuple[type[Any], tuple[str, ...]]] = {
    "sgd": (torch.optim.SGD, ()),
    "sgd-momentum": (torch.optim.SGD, ("momentum", "nesterov")),
    "adam": (torch.optim.Adam, ()),
    "adamw": (torch.optim.AdamW, ()),
    "rmsprop": (torch.optim.RMSprop, ()),
}
"""The classes, and which of the run's settings are theirs."""
