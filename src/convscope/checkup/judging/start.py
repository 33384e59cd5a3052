"""Whether running statistics are what they started from: mean 0 and variance 1, exactly."""

from torch import Tensor, nn

from convscope.checkup.observed import NormCall, ReferenceNorm


def is_at_start(norm: NormCall | ReferenceNorm) -> bool:
    """Return whether a layer has running statistics, and they are 0 and 1.

    Example:
        >>> from convscope.checkup.measuring.describe import Roster
        >>> from torch import nn
        >>> is_at_start(Roster(nn.Sequential(nn.BatchNorm2d(3))).from_module("0"))
        True
    """
    return _untouched(norm.running_mean, norm.running_variance) is True


def has_moved(norm: NormCall | ReferenceNorm) -> bool:
    """Return whether a layer has running statistics, and they aren't 0 and 1."""
    return _untouched(norm.running_mean, norm.running_variance) is False


def never_ran(model: nn.Module) -> bool:
    """Return whether a network has running statistics, and all of them are 0 and 1.

    Example:
        >>> norm = nn.BatchNorm2d(3)
        >>> never_ran(norm), never_ran(nn.ReLU())
        (True, False)
    """
    every = [dict(module.named_buffers(recurse=False)) for module in model.modules()]
    found = [_untouched(each.get("running_mean"), each.get("running_var")) for each in every]
    known = [each for each in found if each is not None]
    return bool(known) and all(known)


def _untouched(mean_C: Tensor | None, variance_C: Tensor | None) -> bool | None:
    if mean_C is None or variance_C is None:
        return None
    return bool((mean_C == 0).all() and (variance_C == 1).all())
