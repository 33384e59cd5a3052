"""Results which kernels return in another form than PyTorch's simulation, mended after an operator has run.

- Statistics of batch, layer and group norms over half-precision inputs are float32 on CUDA, and on the CPU
  where a parameter or running statistic is; else they have the input's dtype there. The simulation always
  returns the latter. Source: ``aten/src/ATen/native/cuda/Normalization.cu`` (``save_mean`` in the
  accumulation type), ``cudnn/BatchNorm.cpp`` (in the weight's dtype, which is float32 wherever cuDNN is
  used), ``cuda/layer_norm_kernel.cu``, ``cuda/group_norm_kernel.cu`` and ``cpu/mixed_data_type.h``.
- Group norm's backward returns its input's gradient in the input's dtype on both devices; the simulation
  returns the widest dtype among input and weight. Source: ``aten/src/ATen/native/group_norm.cpp``.
- Convolutions over three dimensions return ``channels_last_3d`` if their input or weight lies so, in every
  dtype on CUDA. The CPU's do where oneDNN runs them; over two dimensions they agree with cuDNN. Source:
  ``torch/include/ATen/native/ConvUtils.h`` (``cudnn_conv_suggest_memory_format``).

Limits: cuDNN's batch norm in ``channels_last`` keeps a reserve for backward whose size only cuDNN tells; it
isn't in the tape.
"""

from typing import Any

import torch

_HALF = (torch.float16, torch.bfloat16)
_ORDER = torch.channels_last_3d


def as_kernels_do(operator: Any, args: Any, result: Any, *, on_cuda: bool) -> Any:
    """Return an operator's result in the form that a device's kernels give it.

    Args:
        operator: the ATen operator that ran.
        args: its positional arguments.
        result: simulated tensors, as it returned them.
        on_cuda: whether the device is a GPU, not the CPU.
    """
    change = (_ON_CUDA if on_cuda else _ON_CPU).get(operator)
    return result if change is None else change(args, result)


def _is_mixed(args: Any) -> bool:
    """Whether a norm of half-precision inputs has parameters or running statistics in float32."""
    return any(isinstance(item, torch.Tensor) and item.dtype is torch.float32 for item in args[1:])


def _statistics(args: Any, result: Any) -> Any:
    output, mean, deviation, *others = result
    if args[0].dtype not in _HALF or mean.dtype not in _HALF:
        return result
    wide = (torch.empty_like(statistic, dtype=torch.float32) for statistic in (mean, deviation))
    return (output, *wide, *others)


def _mixed_statistics(args: Any, result: Any) -> Any:
    return _statistics(args, result) if _is_mixed(args) else result


def _group_norm_backward(args: Any, result: Any) -> Any:
    gradient, *others = result
    if gradient is None or gradient.dtype is args[1].dtype:
        return result
    return (torch.empty_like(gradient, dtype=args[1].dtype), *others)


def _convolution(args: Any, result: Any) -> Any:
    return result.contiguous(memory_format=_ORDER) if _is_channels_last_3d(args[0], args[1]) else result


def _convolution_backward(args: Any, result: Any) -> Any:
    if not _is_channels_last_3d(args[1], args[2]):
        return result
    *gradients, to_bias = result
    return *(None if g is None else g.contiguous(memory_format=_ORDER) for g in gradients), to_bias


def _is_channels_last_3d(input: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        weight.dim() == 5
        and torch.float64 not in (input.dtype, weight.dtype)
        and any(_lies_channels_last(tensor) for tensor in (input, weight))
    )


def _lies_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=_ORDER) and not tensor.is_contiguous()


_STATISTICS = (
    torch.ops.aten.native_batch_norm.default,
    torch.ops.aten.native_layer_norm.default,
    torch.ops.aten.native_group_norm.default,
)
_ON_CPU = {
    **dict.fromkeys(_STATISTICS, _mixed_statistics),
    torch.ops.aten.native_group_norm_backward.default: _group_norm_backward,
}
_ON_CUDA = {
    **_ON_CPU,
    **dict.fromkeys(_STATISTICS, _statistics),
    torch.ops.aten.convolution.default: _convolution,
    torch.ops.aten.convolution_backward.default: _convolution_backward,
}
