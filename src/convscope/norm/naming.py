"""Where in the running network is this layer? Asked when an error is about to be raised, and only then.

A layer doesn't know its path. While it runs, however, the modules around it are running too, each in a Python
frame that calls it ``self``. The outermost of them which contains the layer is the network, and knows.

Limits: in a checkpointed block that backward runs again, the path starts at the block, since no network is
running around it. Under ``torch.compile``, ``torch.jit.script``, and around modules whose ``forward`` calls
itself something else than ``self``, the layer may be named by its class alone.
"""

import sys

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def path_of(layer: nn.Module) -> str:
    """Return a layer's path in the outermost network that is running now, such as ``"features.3"``.

    Data-parallel wrappers and ``torch.compile``'s don't count as networks. Of several paths the first is
    returned.

    Args:
        layer: a module, usually the caller.

    Returns:
        The path; ``""`` for a layer that runs on its own, or isn't running.

    Example:
        >>> class Where(nn.Module):
        ...     def forward(self, x):
        ...         print(path_of(self))
        >>> nn.Sequential(nn.Identity(), nn.Sequential(Where()))(None)
        1.0
    """
    if torch.compiler.is_compiling():
        return ""  # the compiler can't follow a walk over frames, and fails in it
    path, frame = "", sys._getframe().f_back
    while frame is not None:
        network = frame.f_locals.get("self")
        if isinstance(network, nn.Module) and not _is_wrapper(network):
            found = (path_inside for path_inside, module in network.named_modules() if module is layer)
            path = next(found, path)
        frame = frame.f_back
    return path


def named(layer: nn.Module) -> str:
    """Return how messages call a layer: its class, and where it is if it runs in a network.

    Example:
        >>> named(nn.BatchNorm2d(3))
        'BatchNorm2d'
    """
    path = path_of(layer)
    return f"{type(layer).__name__} at {path!r}" if path else type(layer).__name__


def _is_wrapper(module: nn.Module) -> bool:
    return isinstance(module, DataParallel | DistributedDataParallel) or "_orig_mod" in module._modules
