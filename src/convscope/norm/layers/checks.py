"""What a normalisation layer refuses, in one line that says what to do instead."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from convscope.core.errors import ConvscopeError
from convscope.norm.naming import named

_SUFFIX_OF_RANK = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}


def check_floating(layer: nn.Module, x: Tensor) -> None:
    """Check that an input is floating point.

    Raises:
        ConvscopeError: it is integer, boolean or complex.
    """
    if not x.is_floating_point():
        raise ConvscopeError(
            f"{named(layer)} given a tensor of {x.dtype}",
            "a floating-point tensor",
            "convert it first, for example with .float()",
        )


def check_rank(layer: nn.Module, x: Tensor, shapes: Mapping[int, str]) -> None:
    """Check the rank of an input.

    Args:
        layer: who is named in the message, with its path.
        x: its input.
        shapes: how to write the shapes that the layer takes, by rank.

    Raises:
        ConvscopeError: another rank.
    """
    if x.dim() not in shapes:
        suffix = _SUFFIX_OF_RANK.get(x.dim())
        form = f"use the {suffix} form of the layer" if suffix else "reshape the input"
        raise ConvscopeError(
            f"{named(layer)} given an input of shape {tuple(x.shape)}",
            f"shape {' or '.join(shapes.values())}",
            f"for a single sample add the batch's dimension, x[None]; or {form}"
            if x.dim() + 1 in shapes
            else form,
        )


def check_channels(layer: nn.Module, x: Tensor, num_channels: int, axis: int = 1) -> None:
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
        f"{named(layer)}, built for {num_channels} channels, given an input of shape {tuple(x.shape)}",
        f"{num_channels} channels in dimension {axis}",
        action,
    )


def check_several_values(layer: nn.Module, x: Tensor, num_values: int, what: str) -> None:
    """Check that each set of values that shares statistics has more than one.

    Args:
        layer: who is named in the message, with its path.
        x: its input.
        num_values: how many values share one mean and variance.
        what: what such a set belongs to: "channel", "channel of a sample", …

    Raises:
        ConvscopeError: one value, whose variance is zero whatever it is.
    """
    if num_values == 1:
        raise ConvscopeError(
            f"{named(layer)} given an input of shape {tuple(x.shape)}, one value for each {what}",
            "at least two, for one value has no variance",
            "use larger batches (drop_last=True for the last one) or maps, layer or group normalisation, "
            "or eval() with running statistics",
        )


def check_counts(layer: nn.Module, x: Tensor, counts: Tensor, what: str) -> None:
    """Check that every set has more than one value left to it; this waits for an accelerator.

    Args:
        layer: who is named in the message, with its path.
        x: its input.
        counts: how many values each set has.
        what: what such a set belongs to.

    Raises:
        ConvscopeError: a set with fewer than two values.
    """
    if not _readable(counts):
        return
    fewest = int(counts.min())
    if fewest < 2:
        raise ConvscopeError(
            f"{named(layer)} given an input of shape {tuple(x.shape)} whose mask or whose processes leave "
            f"{fewest} of the values of a {what}",
            "at least two, for fewer have no variance",
            "leave such batches out, use layer or group normalisation, or eval() with running statistics",
        )


def masked(layer: nn.Module, x: Tensor, mask: Tensor | None, alone: bool = True) -> Tensor | None:
    """Return a mask in the rank of ``x``, checked; None stays None.

    Args:
        layer: who is named in the message, with its path.
        x: its input, (N, C, …).
        mask: boolean, (N, …) without channels, or broadcastable to ``x`` in its rank.
        alone: whether no other process has values that count if there are none here.

    Raises:
        ConvscopeError: another dtype or shape, or nothing that counts; looking waits for an accelerator.
    """
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise ConvscopeError(
            f"{named(layer)} given a mask of {getattr(mask, 'dtype', type(mask).__name__)}",
            "a boolean tensor, True where a value counts",
            "compare, for example mask > 0",
        )
    wide = mask.unsqueeze(1) if mask.dim() == x.dim() - 1 else mask
    fits = wide.dim() == x.dim() and all(a in (1, b) for a, b in zip(wide.shape, x.shape, strict=True))
    if not fits:
        raise ConvscopeError(
            f"{named(layer)} given a mask of shape {tuple(mask.shape)} for an input of {tuple(x.shape)}",
            f"shape {(x.shape[0], *x.shape[2:])}, or one that broadcasts to the input's",
            "give one value for each position of each sample",
        )
    if alone and x.numel() and _readable(mask) and not mask.any():
        raise ConvscopeError(
            f"{named(layer)} given a mask that is False everywhere",
            "a value that counts",
            "leave such batches out; True marks what counts, False is padding",
        )
    return wide


def _readable(values: Tensor) -> bool:
    """Whether values can be looked at: not while compiling, on simulated tensors, nor under vmap."""
    if torch.compiler.is_compiling() or isinstance(values, FakeTensor) or values.is_meta:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(values)
