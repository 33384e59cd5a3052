"""What a watched loop asks of modules: does a batch norm move, has it moved, can it be seen at all?"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from convscope.core.address import ROOT
from convscope.probe.surroundings import is_compiled

_NORMS: tuple[type[nn.Module], ...] = (_BatchNorm,)
_PRODUCTS: tuple[type[nn.Module], ...] = (_ConvNd, nn.Linear)


def watched_kinds(model: nn.Module) -> tuple[type[nn.Module], ...]:
    """Return which layers of a network are watched: batch norms, or of one without any all that multiply."""
    return _NORMS if any(isinstance(module, _NORMS) for module in model.modules()) else _PRODUCTS


def uses_batch(norm: _BatchNorm) -> bool:
    """Return whether a batch norm normalises by the batch: training mode, or no running statistics."""
    return norm.training or norm.running_mean is None


def is_moving(norm: Any) -> bool:
    """Return whether a batch norm's running statistics would move with the next batch."""
    return (
        norm.training
        and bool(norm.track_running_stats)
        and norm.running_mean is not None
        and norm.running_var is not None
        and norm.momentum != 0
    )


@torch.no_grad()
def copied_statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor] | None:
    """Return copies of running mean and variance, (C,) each; None for a layer without."""
    if norm.running_mean is None or norm.running_var is None:
        return None
    return norm.running_mean.clone(), norm.running_var.clone()


@torch.no_grad()
def copied_affine(norm: _BatchNorm) -> tuple[Tensor, ...]:
    """Return copies of γ and β, (C,) each; of those that there are."""
    return tuple(tensor.clone() for tensor in (norm.weight, norm.bias) if tensor is not None)


def version(norm: Any) -> float:
    """Return a number that changes whenever the running statistics move.

    PyTorch counts writes to a tensor, those to the counter of batches among them, so that no value has to be
    read for it. (Its kernel's writes to the running mean itself aren't counted.)

    Example:
        >>> norm = torch.nn.BatchNorm1d(2)
        >>> before, _ = version(norm), norm(torch.randn(4, 2))
        >>> version(norm) != before
        True
    """
    mean, counter = norm.running_mean, norm.num_batches_tracked
    if mean is None:
        return 0
    if counter is None:
        return float(mean.detach().double().sum())
    if mean.is_inference() or counter.is_inference():  # made in inference mode, where writes aren't counted
        return int(counter)
    return mean._version + counter._version  # type: ignore[no-any-return]


def new_weight(norm: Any) -> float:
    """Return the weight that the last batch had in the running averages."""
    momentum = norm.momentum
    if momentum is not None and not getattr(norm, "warm_start", False):
        return float(momentum)
    batches = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
    plain = 1 / batches if batches else 0.0
    return plain if momentum is None else max(plain, float(momentum))


def compiled_parts(model: nn.Module) -> list[str]:
    """Return the paths of a network's outermost compiled modules that hold batch norms.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
        >>> net[1].compile(backend="eager")
        >>> compiled_parts(net)
        ['1']
    """
    found: list[str] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if not inside and is_compiled(module) and any(isinstance(m, _BatchNorm) for m in module.modules()):
            found.append(path or ROOT)
    return found
