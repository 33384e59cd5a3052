"""What a normalisation layer refuses, in one line that says what to do instead."""

from collections.abc import Mapping

from torch import Tensor

from convscope.core.errors import ConvscopeError

_SUFFIX_OF_RANK = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}


def check_floating(layer: str, x: Tensor) -> None:
    """Check that an input is floating point.

    Raises:
        ConvscopeError: it is integer, boolean or complex.
    """
    if not x.is_floating_point():
        raise ConvscopeError(
            f"{layer} given a tensor of {x.dtype}",
            "a floating-point tensor",
            "convert it first, for example with .float()",
        )


def check_rank(layer: str, x: Tensor, shapes: Mapping[int, str]) -> None:
    """Check the rank of an input.

    Args:
        layer: the layer's class name.
        x: its input.
        shapes: how to write the shapes that the layer takes, by rank.

    Raises:
        ConvscopeError: another rank.
    """
    if x.dim() not in shapes:
        suffix = _SUFFIX_OF_RANK.get(x.dim())
        raise ConvscopeError(
            f"{layer} given an input of shape {tuple(x.shape)}",
            f"shape {' or '.join(shapes.values())}",
            f"use the {suffix} form of the layer" if suffix else "reshape the input",
        )


def check_channels(layer: str, x: Tensor, num_channels: int, axis: int = 1) -> None:
    """Check that an input has the layer's number of channels on its channel axis.

    Raises:
        ConvscopeError: another number; the message tells when another axis has it.
    """
    if x.shape[axis] == num_channels:
        return
    elsewhere = [dim for dim, size in enumerate(x.shape) if size == num_channels and dim > axis]
    action = (
        f"permute dimension {elsewhere[0]}, which has that size, to {axis}"
        if elsewhere
        else f"build the layer for {x.shape[axis]} channels"
    )
    raise ConvscopeError(
        f"{layer}({num_channels}) given an input of shape {tuple(x.shape)}",
        f"{num_channels} channels in dimension {axis}",
        action,
    )


def check_several_values(layer: str, x: Tensor, num_values: int, what: str) -> None:
    """Check that each set of values that shares statistics has more than one.

    Args:
        layer: the layer's class name.
        x: its input.
        num_values: how many values share one mean and variance.
        what: what such a set belongs to: "channel", "channel of a sample", …

    Raises:
        ConvscopeError: one value, whose variance is zero whatever it is.
    """
    if num_values == 1:
        raise ConvscopeError(
            f"{layer} given an input of shape {tuple(x.shape)}, one value for each {what}",
            "at least two, for one value has no variance",
            "use larger batches (drop_last=True for the last one) or maps, layer or group normalisation, "
            "or eval() with running statistics",
        )
