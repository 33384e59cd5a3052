"""The operators whose results need not be saved: much cheaper to run again than a convolution, and exactly.

They are deterministic functions of their arguments, give the same bits when they run again on the same
number of threads, and take a few passes over memory. A batch norm doesn't count its statistics again: it
saves them for its own gradient. What runs in its place takes the means as running averages and the variances
as 1, with γ / √(σ² + ε) for its weight: on CPUs the same kernel then does the same arithmetic.

Limits: a training batch norm whose parameters are in half precision themselves, and one on an accelerator,
are run again as they were, statistics and all.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

_AGAIN = {
    # Activations
    "relu", "leaky_relu", "hardtanh", "relu6", "threshold", "clamp", "clamp_min", "clamp_max", "silu", "mish",
    "gelu", "elu", "celu", "selu", "softplus", "hardswish", "hardsigmoid", "sigmoid", "tanh", "log_sigmoid",
    "_prelu_kernel", "square", "abs", "neg",
    # Gates, shortcuts and scales
    "add", "sub", "mul", "div", "addcmul",
    # Pools, frames and joints
    "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d", "constant_pad_nd",
    "reflection_pad2d", "cat", "clone", "_to_copy", "upsample_nearest2d", "upsample_bilinear2d",
    # Normalisations
    "normalise", "native_group_norm", "native_layer_norm",
}  # fmt: skip
"""Names of operators that are run again as they were."""

_BATCH_NORMS = ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm")
_KERNELS = "batch_norm"
"""Name of batch norm with its activation, by our kernels (``norm.fast``)."""


class Again(NamedTuple):
    """What gives an operator's results again: a function without effects, and its arguments."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@cache
def is_made_again(func: Any) -> bool:
    """Whether an operator's results need not be saved."""
    if func.namespace not in ("aten", "convscope") or any(item.is_out for item in func._schema.arguments):
        return False
    return func._opname in (*_BATCH_NORMS, _KERNELS) or (
        _base_name(func) in _AGAIN and _out_of_place(func) is not None
    )


def again(func: Any, args: Any, kwargs: Any, results: Any) -> Again:
    """Return what gives the results of an operator again that has just run; see :func:`is_made_again`.

    Args:
        func: the operator.
        args: as it was called.
        kwargs: the same.
        results: what it returned.
    """
    if func._opname in _BATCH_NORMS:
        return _batch_norm_again(func, args, results)
    if func._opname == _KERNELS:
        x, weight, bias, *settings = args
        by_statistics = torch.ops.convscope.batch_norm_apply.default
        return Again(by_statistics, (x, weight, bias, list(results[1:]), *settings), {})
    form = _out_of_place(func)
    assert form is not None
    return Again(form, tuple(args), kwargs)


def _batch_norm_again(func: Any, args: Any, results: Any) -> Again:
    x, weight, bias, running_mean, running_var, training, _, eps = args
    if not training:
        return Again(func, (x, weight, bias, running_mean, running_var, False, 0.0, eps), {})
    mean, scale = results[1:3]
    if x.device.type != "cpu" or mean.dtype not in (torch.float32, torch.float64):
        return Again(func, (x, weight, bias, None, None, True, 0.0, eps), {})
    return Again(batch_norm_by_its_statistics, (x, weight, bias, mean, scale), {})


def batch_norm_by_its_statistics(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, scale: Tensor
) -> Tensor:
    """Return what a training batch norm returned, from the mean and the 1 / √(σ² + ε) that it found."""
    return normaliser(weight, bias, mean, scale)(x)


def normaliser(
    weight: Tensor | None, bias: Tensor | None, mean: Tensor, scale: Tensor
) -> Callable[..., Tensor]:
    """Return the function of x in :func:`batch_norm_by_its_statistics`; it may write to ``out``."""
    weight = scale if weight is None else scale * weight.to(scale.dtype)
    bias = None if bias is None else bias.to(scale.dtype)
    settings = (weight, bias, mean, torch.ones_like(mean), False, 0.0, 0.0)
    unused = scale.new_empty(0)

    def normalised(x: Tensor, out: Tensor | None = None) -> Tensor:
        results: tuple[Tensor, ...]
        if out is None:
            results = torch.ops.aten.native_batch_norm.default(x, *settings)
        else:
            results = torch.ops.aten.native_batch_norm.out(
                x, *settings, out=out, save_mean=unused, save_invstd=unused
            )
        return results[0]

    return normalised


@cache
def in_place_form(func: Any) -> Any | None:
    """The form of an operator that writes to its first argument, or None."""
    if not isinstance(func, torch._ops.OpOverload):
        return None
    packet = getattr(getattr(torch.ops, func.namespace), func._opname + "_", None)
    return getattr(packet, func._overloadname, None)


def result_serves_gradient(func: Any, args: Any) -> bool:
    """Whether an operator's gradient, which asks for its argument, has the same bits from its result.

    That of a ReLU6 asks where it has clipped. A result of 0 or 6 says so as well, if the precision at hand
    has the limits as they are.
    """
    return _base_name(func) == "hardtanh" and all(
        float(limit).is_integer() and abs(limit) <= 256 for limit in args[1:]
    )


def joins_maps(func: Any, args: Any) -> bool:
    """Whether an operator joins two maps of one size, as a shortcut does."""
    sizes = [item.numel() for item in args if isinstance(item, Tensor)]
    return _base_name(func) in ("add", "sub", "mul", "div") and len(sizes) == 2 and sizes[0] == sizes[1]


def _base_name(func: Any) -> str:
    name: str = func._opname
    return name.removesuffix("_")


def _out_of_place(func: Any) -> Any | None:
    """The form of an operator that writes to a new tensor."""
    if not func._schema.is_mutable:
        return func
    packet = getattr(getattr(torch.ops, func.namespace), _base_name(func), None)
    return getattr(packet, func._overloadname, None)
