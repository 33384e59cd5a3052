"""Which models can be recorded or run: the refusals that every reading shares."""

import torch
from torch import nn

from convscope.core.errors import ConvscopeError


def require_module(model: object) -> None:
    """Refuse what isn't a network.

    Raises:
        ConvscopeError: ``model`` isn't an ``nn.Module``.
    """
    if not isinstance(model, nn.Module):
        shown = repr(model) if isinstance(model, str) else f"an object of type {type(model).__name__}"
        raise ConvscopeError(
            f"{shown} as the network",
            "a torch.nn.Module",
            "pass the network itself, or load it by its name with convscope.load(...)",
        )


def require_shapes(model: nn.Module) -> None:
    """Refuse what isn't a network, and a network whose lazy modules have no shapes yet.

    Raises:
        ConvscopeError: the tensor is named.
    """
    require_module(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ConvscopeError(
                f"tensor {name!r} of a lazy module has no shape yet",
                "a model whose lazy modules are initialised",
                "run the model once on a real input",
            )


def require_values(model: nn.Module) -> None:
    """Refuse what can be recorded, but not run: a network with tensors on the meta device.

    Raises:
        ConvscopeError: the tensor is named.
    """
    require_shapes(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ConvscopeError(
                f"tensor {name!r} on the meta device, which holds no numbers",
                "a model on a device that does, such as the CPU",
                "make it there and load its weights",
            )


def require_eager(model: nn.Module) -> None:
    """Refuse a network with TorchScript modules, which can't be looked into.

    Raises:
        ConvscopeError: the module is named.
    """
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ConvscopeError(
                f"module {path or 'self'!r} is a TorchScript module",
                "an eager PyTorch module",
                "pass the model as it was before torch.jit.script or torch.jit.trace",
            )
