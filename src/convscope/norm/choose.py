"""A member of the family by name, for networks that are built with ``norm=``."""

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm.layers.batch import BatchNorm2d
from convscope.norm.layers.ghost import GhostBatchNorm2d
from convscope.norm.layers.group import GroupNorm
from convscope.norm.layers.instance import InstanceNorm2d
from convscope.norm.layers.renorm import BatchRenorm2d
from convscope.norm.layers.response import LocalResponseNorm
from convscope.norm.layers.sync import SyncBatchNorm

_PUBLISHED_GROUPS = 32


def num_groups(num_channels: int) -> int:
    """Return the number of groups for group norm: 32 as published, or as many as a narrow layer allows.

    That is the largest divisor of ``num_channels`` up to 32 which leaves at least two channels a group (a
    group of one channel would be instance norm); 1 if there is none.

    Source:
        Wu and He, "Group Normalization", arXiv 1803.08494, section 4.1: 32 groups.

    Example:
        >>> [num_groups(channels) for channels in (256, 96, 24, 7, 3)]
        [32, 32, 12, 1, 1]
    """
    most = max(1, min(_PUBLISHED_GROUPS, num_channels // 2))
    return next(groups for groups in range(most, 0, -1) if num_channels % groups == 0)


KINDS: Mapping[str, Callable[[int], nn.Module]] = MappingProxyType(
    {
        "none": lambda _: nn.Identity(),
        "lrn": lambda _: LocalResponseNorm(),
        "batch": BatchNorm2d,
        "layer": lambda num_channels: GroupNorm(1, num_channels),
        "instance": lambda num_channels: InstanceNorm2d(num_channels, affine=True),
        "group": lambda num_channels: GroupNorm(num_groups(num_channels), num_channels),
        "renorm": BatchRenorm2d,
        "ghost": GhostBatchNorm2d,
        "sync": SyncBatchNorm,
    }
)
"""How to build each kind for maps (N, C, H, W), from the number of channels."""


def normalisation(kind: str | None, num_channels: int) -> nn.Module:
    """Return a normalisation layer for maps with ``num_channels`` channels.

    Args:
        kind: ``"none"`` or None (passes maps through), ``"lrn"`` (as published for AlexNet), ``"batch"``,
            ``"layer"`` (over channels and space, γ and β per channel, as Wu and He compare it),
            ``"instance"`` (with γ and β), ``"group"`` (:func:`num_groups` groups), ``"renorm"`` (batch norm
            for its first 5,000 steps, as published), ``"ghost"`` (32 samples at a time) or ``"sync"`` (the
            batch of all processes).
        num_channels: C.

    Returns:
        A new module that maps (N, C, H, W) to the same shape.

    Raises:
        ConvscopeError: another kind; the message offers the nearest one.

    Example:
        >>> normalisation("group", 96).num_groups
        32
    """
    name = "none" if kind is None else kind
    if name not in KINDS:
        near = difflib.get_close_matches(str(name).lower(), KINDS, n=1, cutoff=0.4)
        raise ConvscopeError(
            f"unknown normalisation {name!r}",
            f"one of {', '.join(KINDS)}",
            f"try {near[0]!r}" if near else "choose one of them",
        )
    return KINDS[name](num_channels)
