"""How many groups a layer is split into, for maps of a given size."""

from typing import NamedTuple

from convscope.norm.choose import num_groups as published

_ENOUGH_VALUES = 16
"""A mean and variance of fewer values say little about a sample."""


class GroupSize(NamedTuple):
    """A number of groups, and what it leaves to take statistics of.

    Attributes:
        num_groups: groups.
        group_values: values that share statistics.
        refused: why no group norm is possible; None if one is.
    """

    num_groups: int
    group_values: int
    refused: str | None = None


def group_size(num_channels: int, positions: int, num_groups: int | None = None) -> GroupSize:
    """Return the number of groups for a layer.

    By itself it is the largest number up to :func:`convscope.norm.choose.num_groups` which divides the
    channels and leaves 16 values a group, or one group where none does.

    Args:
        num_channels: C.
        positions: H·W of the layer's smallest map; 1 for features.
        num_groups: a number that divides C, taken as it is; None to choose.

    Returns:
        :class:`GroupSize`, refused where groups are single values, whose x̂ is always 0.

    Example:
        >>> group_size(256, 49).num_groups, group_size(256, 1).num_groups, group_size(8, 1).num_groups
        (32, 16, 1)
        >>> group_size(8, 1, num_groups=8).refused
        'each of the 8 groups would be a single value'
    """
    groups = num_groups or _chosen(num_channels, positions)
    values = num_channels // groups * positions
    if values > 1:
        return GroupSize(groups, values)
    what = "the one group" if groups == 1 else f"each of the {groups} groups"
    return GroupSize(groups, values, f"{what} would be a single value")


def _chosen(num_channels: int, positions: int) -> int:
    candidates = range(published(num_channels), 0, -1)
    dividing = (groups for groups in candidates if num_channels % groups == 0)
    return next((g for g in dividing if num_channels // g * positions >= _ENOUGH_VALUES), 1)
