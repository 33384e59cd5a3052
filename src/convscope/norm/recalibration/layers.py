"""The batch norms of a model: which ones get new statistics, which ones keep theirs, and why.

Kept are layers that are frozen, and layers which the user put into evaluation mode while the model around
them trains; both normalise by the statistics that they have, in every pass.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from convscope.core.address import ROOT
from convscope.core.errors import ConvscopeError
from convscope.norm.freezing.freeze import is_frozen
from convscope.norm.recalibration.result import Status

_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
# Below this weight, the values that running averages start from no longer count.
_STARTING_WEIGHT = 0.01


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch norm, and whether it is to be recalibrated.

    Attributes:
        path: in the network; ``"self"`` for the network itself.
        layer: the module.
        status: None if it is to be recalibrated.
        reason: why it isn't.
    """

    path: str
    layer: nn.Module
    status: Status | None = None
    reason: str = ""

    @property
    def mean(self) -> Tensor:
        """The running mean, the module's own buffer."""
        assert isinstance(self.layer.running_mean, Tensor)
        return self.layer.running_mean

    @property
    def variance(self) -> Tensor:
        """The running variance, the module's own buffer."""
        assert isinstance(self.layer.running_var, Tensor)
        return self.layer.running_var

    @property
    def eps(self) -> float:
        """ε, added to the variance."""
        return float(self.layer.eps)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Previous:
    """Layers' statistics as they were; call it to put them back, in place.

    Attributes:
        buffers: layer, name of the buffer, a copy of what it held.
    """

    buffers: tuple[tuple[nn.Module, str, Tensor], ...]

    @classmethod
    def of(cls, norms: Iterable[Norm]) -> "Previous":
        """Copy the statistics and counts of some layers."""
        names = ("running_mean", "running_var", "num_batches_tracked")
        buffers = ((norm.layer, name, getattr(norm.layer, name)) for norm in norms for name in names)
        return cls(tuple((layer, name, old.clone()) for layer, name, old in buffers if old is not None))

    @torch.no_grad()
    def __call__(self) -> None:
        """Put them back."""
        for layer, name, old in self.buffers:
            getattr(layer, name).copy_(old)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside wrappers that would exchange buffers or replace the code that runs."""
    while type(model).__name__ in _WRAPPERS:
        inner = getattr(model, _WRAPPERS[type(model).__name__])
        assert isinstance(inner, nn.Module)
        model = inner
    return model


def norms_of(model: nn.Module) -> tuple[Norm, ...]:
    """Return all layers with running statistics, and batch norms without, each once.

    Raises:
        ConvscopeError: there is no batch norm.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False))
        >>> [(norm.path, norm.status) for norm in norms_of(net)]
        [('0', None), ('1', 'untracked')]
    """
    norms = tuple(
        _described(model, path or ROOT, module)
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) or _has_statistics(module)
    )
    if not any(isinstance(norm.layer, _BatchNorm) for norm in norms):
        raise ConvscopeError(
            f"{type(model).__name__} without a batch norm whose statistics could be estimated",
            "a network with torch.nn.BatchNorm layers, or layers derived from them",
            "leave it as it is: other normalisation keeps no running statistics",
        )
    return norms


def fill(norm: Norm, mean: Tensor, variance: Tensor) -> None:
    """Write statistics into a layer's buffers, in place and in their dtype.

    Raises:
        ConvscopeError: they are beyond the range of that dtype.
    """
    for buffer, value in ((norm.mean, mean), (norm.variance, variance)):
        buffer.copy_(value)
        if not bool(buffer.isfinite().all()):
            largest = float(value.abs().max())
            raise ConvscopeError(
                f"{norm.path} whose inputs have a statistic of {largest:.3g}, beyond the range of its "
                f"{str(buffer.dtype).removeprefix('torch.')} buffers",
                "statistics that the buffers can hold",
                "keep batch norms in float32: layer.float()",
            )


def new_count(layer: nn.Module, num_calls: int) -> int:
    """Return what ``num_batches_tracked`` becomes.

    For a cumulative average (``momentum=None``), how many inputs were pooled, so that training on goes on
    averaging. Otherwise at least the age at which an average of this momentum has forgotten its starting
    values, for nothing of them is left.

    Example:
        >>> new_count(nn.BatchNorm1d(1, momentum=None), 7), new_count(nn.BatchNorm1d(1), 7)
        (7, 44)
    """
    momentum, old = layer.momentum, layer.num_batches_tracked
    if not isinstance(momentum, float | int):
        return num_calls
    grown = math.ceil(math.log(_STARTING_WEIGHT) / math.log1p(-momentum)) if 0 < momentum < 1 else 0
    return max(num_calls, grown, int(old) if isinstance(old, Tensor) else 0)


def _has_statistics(module: nn.Module) -> bool:
    """Whether a module that isn't a batch norm of PyTorch's keeps running statistics all the same."""
    found = (getattr(module, name, None) for name in ("running_mean", "running_var"))
    return all(isinstance(each, Tensor) for each in found)


def _described(model: nn.Module, path: str, layer: nn.Module) -> Norm:
    if isinstance(layer, _BatchNorm | _InstanceNorm) and is_frozen(layer):
        return Norm(path, layer, "frozen", "it is frozen")
    if isinstance(layer, _InstanceNorm):
        return Norm(path, layer, "unsupported", "an instance norm's statistics are averages over samples")
    if not isinstance(layer, _BatchNorm):
        kind = type(layer).__name__
        if "frozen" in kind.lower():
            return Norm(path, layer, "frozen", f"a {kind} keeps its statistics")
        return Norm(path, layer, "unsupported", f"{kind} isn't derived from PyTorch's batch norm")
    if not layer.track_running_stats or layer.running_mean is None or layer.running_var is None:
        return Norm(path, layer, "untracked", "it doesn't track running statistics")
    if model.training and not layer.training:
        reason = "it is in evaluation mode while the network is in training mode"
        return Norm(path, layer, "frozen", reason)
    return Norm(path, layer)


def counter_of(norm: Norm) -> Tensor | None:
    """Return a layer's count of batches, if it keeps one."""
    counter = norm.layer.num_batches_tracked
    return counter if isinstance(counter, torch.Tensor) else None
