"""The network that never had a batch norm: the yardstick for what a folded one may cost at test time.

Every batch norm module becomes an identity, or what the module does besides normalising (the dropout and the
activation of timm's ``BatchNormAct2d``). The twin is there to be timed: its outputs mean nothing.

Limits: a batch norm that a network calls as a function in code of its own can't be taken out; there is no
twin then. Layers before a batch norm that have no bias get none, unlike in the folded network.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.fold.norms.identity import configured
from convscope.fold.proof.settle import copied

# What comes in behind the channels: maps, sequences, features, volumes.
_BEHIND = ((3, 2), (3,), (), (2, 2, 2))
_TOLERANCE = 1e-2


def twin_without_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy of a network, in evaluation mode, with every batch norm module replaced by an identity.

    Batch norms are PyTorch's classes and all that are built on them, and modules that hold running statistics
    and nothing but numbers per channel (frozen batch norms). What such a module does beyond its
    normalisation stays if it is done by its own submodules, one after the other; that this is all is
    checked on random numbers.

    Args:
        model: any network; it stays as it is.

    Raises:
        ConvscopeError: there is no batch norm module, one does more than normalise and run its submodules, or
            the network can't be copied.

    Not covered: batch norm as a function in a module's own code; it is still in the twin.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        >>> twin_without_batch_norm(net)[1]
        Identity()
    """
    twin = copied(model).eval()
    found = {path: module for path, module in twin.named_modules() if is_batch_norm(module)}
    if not found:
        raise ConvscopeError(
            f"{type(model).__name__} without a batch norm module", "a network with one", "there is no twin"
        )
    with preserved_rng():
        stands_in = {module: configured(_without(path, module), module) for path, module in found.items()}
    for parent in list(twin.modules()):
        for name, child in list(parent._modules.items()):
            if child in stands_in:
                parent._modules[name] = stands_in[child]
    return stands_in.get(twin, twin)


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module is a batch norm.

    Example:
        >>> [is_batch_norm(module) for module in (nn.BatchNorm2d(3), nn.InstanceNorm2d(3))]
        [True, False]
    """
    if isinstance(module, _BatchNorm):
        return True
    mean, var = module._buffers.get("running_mean"), module._buffers.get("running_var")
    if mean is None or var is None or isinstance(module, _InstanceNorm):
        return False
    held = (*module._parameters.values(), *module._buffers.values())
    return all(tensor is None or tensor.numel() in (1, mean.numel()) for tensor in held)


def _without(path: str, batch_norm: nn.Module) -> nn.Module:
    """What a batch norm module does besides normalising."""
    parts = OrderedDict(
        (name, child) for name, child in batch_norm.named_children() if not _normalises(child)
    )
    rest = (nn.Sequential(parts) if parts else nn.Identity()).eval()
    if not _is_all(batch_norm, rest):
        raise ConvscopeError(
            f"{path or 'the network'}: {type(batch_norm).__name__} does more than normalise",
            "a batch norm, and then its own submodules one after the other",
            "there is no twin without it",
        )
    return rest


def _normalises(module: nn.Module) -> bool:
    """Whether a batch norm's submodule consists of batch norms, as split ones do."""
    inner = [child for child in module.modules() if not list(child.children())]
    return all(map(is_batch_norm, inner))


@torch.no_grad()
def _is_all(batch_norm: nn.Module, rest: nn.Module) -> bool:
    """Whether a batch norm, and then ``rest``, is all that a module computes."""
    held = [t for t in (*batch_norm.parameters(), *batch_norm.buffers()) if t.is_floating_point()]
    num_channels = getattr(batch_norm, "num_features", held[0].numel() if held else 1)
    like = held[0] if held else torch.empty(0)
    for sizes in _BEHIND:
        x = torch.randn((2, num_channels, *sizes), dtype=torch.float64).to(like)
        try:
            y = batch_norm(x.clone())
        except Exception:
            continue  # a class for another number of dimensions
        expected = rest(_normalised(batch_norm, x))
        return y.shape == expected.shape and torch.allclose(
            y, expected, _TOLERANCE, _TOLERANCE, equal_nan=True
        )
    return False


def _normalised(batch_norm: nn.Module, x: Tensor) -> Tensor:
    mean, var, weight, bias = (
        getattr(batch_norm, name, None) for name in ("running_mean", "running_var", "weight", "bias")
    )
    by_batch = mean is None or var is None
    return F.batch_norm(x, mean, var, weight, bias, training=by_batch, eps=getattr(batch_norm, "eps", 1e-5))
