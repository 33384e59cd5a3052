"""Two layers at one path: what the later one has lost, and how far apart their code is.

A layer's code is compared apart from its tensors: both are given the same ones, and inputs as these tensors
expect them. So it shows before and after training on, and without data.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.core.preserved import preserved
from convscope.norm.conversion.changing import class_of_layer
from convscope.norm.conversion.comparing import output_of
from convscope.norm.conversion.kinds import library_class, place_of
from convscope.tape import device_of

STATISTICS = ("running_mean", "running_var")
"""The running statistics of a batch norm, by their names in a state dict."""

NAMES = (*STATISTICS, "num_batches_tracked", "weight", "bias")
"""All tensors of a batch norm."""

_INPUTS = {1: (8, 3), 2: (8, 3, 3), 3: (8, 2, 2, 3), None: (8, 3, 3)}  # images and positions, by rank


def lost(before: nn.Module, now: nn.Module) -> tuple[str, ...]:
    """Return the submodules that do something, tensors, and code of its own, that a layer no longer has.

    Example:
        >>> class Cut(nn.BatchNorm2d):
        ...     def forward(self, x):
        ...         return super().forward(x).relu()
        >>> lost(Cut(3), nn.SyncBatchNorm(3))
        ('Cut.forward',)
    """
    kept = {name for name, child in now.named_children() if not isinstance(child, nn.Identity)}
    children = [name for name, child in before.named_children() if not isinstance(child, nn.Identity)]
    tensors = [
        name
        for name, tensor in (*before._parameters.items(), *before._buffers.items())
        if tensor is not None and name not in NAMES and name not in (*now._parameters, *now._buffers)
    ]
    gone = [name for name in (*children, *tensors) if name not in kept]
    old, new = class_of_layer(before), class_of_layer(now)
    # A converted layer's class is made from the one it had ("recipe"), and keeps what that one does.
    if _has_own_forward(old) and not _has_own_forward(new) and not hasattr(new, "recipe"):
        gone.append(f"{old.__name__}.forward")
    return tuple(gone)


def _has_own_forward(cls: type[nn.Module]) -> bool:
    """Whether ``forward`` is said before the library's batch norm that a class is built on."""
    base = library_class(cls)
    ancestors = cls.__mro__[: cls.__mro__.index(base)] if base is not None else cls.__mro__[:1]
    return any("forward" in vars(ancestor) for ancestor in ancestors)


def difference(before: nn.Module, layer: nn.Module) -> float | None:
    """Return how far two layers' outputs are apart in evaluation mode, given the same tensors, ε and inputs.

    That is the largest |difference| in standard deviations of the first one's outputs, on random inputs of
    the mean and variance that it normalises by. Both layers come back as they were.

    Args:
        before: the layer as it was.
        layer: the one in its place: a batch norm, or ``Identity``.

    Returns:
        None if they can't be compared: of other kinds, without running statistics, or if either doesn't run.

    Example:
        >>> class Cut(nn.BatchNorm2d):
        ...     def forward(self, x):
        ...         return super().forward(x).relu()
        >>> difference(nn.BatchNorm2d(3), nn.SyncBatchNorm(3)), difference(Cut(3), nn.SyncBatchNorm(3)) > 1
        (0.0, True)
    """
    if not (is_batch_norm(layer) or isinstance(layer, nn.Identity)):
        return None
    mean, variance = (getattr(before, name, None) for name in STATISTICS)
    if mean is None or variance is None or (isinstance(layer, _BatchNorm) and layer.running_mean is None):
        return None
    try:
        x = _expected_inputs(before, mean, variance)
        wanted = output_of(before, x)
        with preserved(layer), torch.no_grad():
            _lend(before, layer)
            found = output_of(layer, x.to(device_of(layer)))
    except Exception:
        return None  # a layer of the user's that takes other arguments, or needs what isn't there
    return apart([wanted], [found])


def _expected_inputs(layer: nn.Module, mean: Tensor, variance: Tensor) -> Tensor:
    """Inputs (N, C, …) of the mean and variance that a layer normalises by."""
    place = place_of(type(layer))
    images, *positions = _INPUTS[None if place is None else place.rank]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((images, len(mean), *positions), generator=generator)
    shape = (1, len(mean), *(1 for _ in positions))
    spread, middle = variance.clamp_min(0).double().sqrt().cpu().view(shape), mean.double().cpu().view(shape)
    return (middle + spread * noise).to(mean.device, mean.dtype)


def _lend(before: nn.Module, layer: nn.Module) -> None:
    """Give a layer another one's tensors and ε, so that only its code is its own."""
    tensors = dict((*before.named_parameters(), *before.named_buffers()))
    for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        if name in tensors:
            tensor.copy_(tensors[name])
    if hasattr(layer, "eps") and hasattr(before, "eps"):
        layer.eps = before.eps


def apart(before: list[Tensor], after: list[Tensor]) -> float | None:
    """Return the largest |difference| in units of the standard deviation before; None if shapes differ."""
    if not before or [out.shape for out in before] != [out.shape for out in after]:
        return None
    return max(_deviation(*(out.double().cpu() for out in pair)) for pair in zip(before, after, strict=True))


def _deviation(before: Tensor, after: Tensor) -> float:
    same = (before == after) | (before.isnan() & after.isnan())
    off = float(torch.where(same, 0.0, (after - before).abs()).nan_to_num(nan=float("inf")).max())
    finite = before[before.isfinite()]
    spread = float(finite.std(correction=0)) if finite.numel() else 0.0
    return off / (spread or (float(finite.abs().max()) if finite.numel() else 0.0) or 1.0)


def is_batch_norm(layer: nn.Module) -> bool:
    """Return whether a layer is a batch norm, or normalises by running statistics as frozen ones do."""
    keeps = all(isinstance(getattr(layer, name, None), Tensor) for name in STATISTICS)
    return isinstance(layer, _BatchNorm) or (keeps and family(layer) in (None, "batch"))


def family(layer: nn.Module) -> str | None:
    """Return ``"batch"``, ``"group"``, …; None for what is neither PyTorch's nor convscope's."""
    place = place_of(type(layer))
    return None if place is None else place.family
