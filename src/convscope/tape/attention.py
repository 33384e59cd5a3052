"""Which kernels CUDA runs for scaled dot-product attention, and what they keep for backward.

Flash attention (half precision without a mask) and memory-efficient attention (float32, and masks) keep
their inputs, their result and one float32 number per query; only where neither takes the inputs are the
scores computed and kept. The fused kernels take as many heads of keys as of queries; flash attention alone
takes fewer (grouped queries). A CPU's choice differs: where there is dropout, or a mask that wants gradients,
it keeps the scores.

Source: ``sdp_utils.cpp`` (``can_use_flash_attention``, ``can_use_mem_efficient_attention``) and
``attention.cpp`` under ``aten/src/ATen/native/transformers`` of PyTorch.

Limits: a GPU of compute capability 8.0 or higher is assumed; older ones have no flash attention, and their
memory-efficient kernel keeps as much. On Hopper and later, PyTorch can prefer cuDNN's attention, which keeps
the same but for paddings. Nested tensors aren't covered.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch._decomp
import torch.nn.functional as F
from torch._dispatch.python import enable_python_dispatcher

_HALF = (torch.float16, torch.bfloat16)
_LARGEST_FLASH_HEAD = 256
_FLASH_HEAD_MULTIPLE = 8
_ALIGNMENT_BYTES = 16
_MASK_MULTIPLE = 8


@contextmanager
def attention_in_parts() -> Iterator[None]:
    """Keep ``nn.MultiheadAttention`` from running as one operator in inference: its parts are of interest."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def fused_dropout() -> AbstractContextManager[Any]:
    """Let operators that draw dropout inside, in C++, draw it as CUDA does; the caller's thread alone.

    PyTorch's dispatcher then looks into its decompositions, of which dropout's is CUDA's fused operator.
    """
    manager: AbstractContextManager[Any] = enable_python_dispatcher()
    return manager


def cuda_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Return scaled dot-product attention by the operators that CUDA runs.

    Arguments are those of :func:`torch.nn.functional.scaled_dot_product_attention`: queries of shape
    ``(batch, heads, queries, channels)``, keys and values of shape ``(batch, heads, keys, channels)``.
    """
    fusible = _is_fusible(query, key, value, enable_gqa)
    if fusible and attn_mask is None and _fits_flash(query, key, value, is_causal):
        return _flash(query, key, value, dropout_p, is_causal, scale)
    bias = _additive(attn_mask, query.dtype)
    if fusible and _fits_efficient(query, key, value):
        if bias is not None:
            bias = _aligned(bias).expand(*query.shape[:3], key.shape[2])
        keeps = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
        return torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, keeps, dropout_p, is_causal, scale=scale
        )[0]
    with fused_dropout() if 0 < dropout_p < 1 else nullcontext():
        return torch.ops.aten._scaled_dot_product_attention_math(
            query, key, value, bias, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]


def _is_fusible(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, enable_gqa: bool) -> bool:
    """What both fused kernels ask for."""
    tensors = (query, key, value)
    return (
        all(tensor.dim() == 4 and tensor.dtype is query.dtype for tensor in tensors)
        and all(tensor.shape[0] == query.shape[0] for tensor in tensors)
        and (enable_gqa or all(tensor.shape[1] == query.shape[1] for tensor in tensors))
        and all(tensor.shape[2] > 0 for tensor in tensors)
        and all(tensor.stride(-1) == 1 for tensor in tensors)
    )


def _fits_flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, is_causal: bool) -> bool:
    return (
        torch._C._get_flash_sdp_enabled()
        and query.dtype in _HALF
        and query.shape[-1] == key.shape[-1] == value.shape[-1] <= _LARGEST_FLASH_HEAD
        and (not is_causal or query.shape[-2] == key.shape[-2])
    )


def _fits_efficient(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    multiple = _ALIGNMENT_BYTES // query.dtype.itemsize
    return (
        torch._C._get_mem_efficient_sdp_enabled()
        and query.dtype in (*_HALF, torch.float32)
        and query.shape[1] == key.shape[1] == value.shape[1]
        and query.shape[-1] == key.shape[-1]
        and all(tensor.shape[-1] % multiple == 0 for tensor in (query, key, value))
        and all(int(tensor.storage_offset()) % multiple == 0 for tensor in (query, key, value))
    )


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> Any:
    channels = query.shape[-1]
    missing = -channels % _FLASH_HEAD_MULTIPLE
    if missing:
        query, key, value = (F.pad(tensor, (0, missing)) for tensor in (query, key, value))
    result = torch.ops.aten._scaled_dot_product_flash_attention(
        query,
        key,
        value,
        dropout_p,
        is_causal,
        False,
        scale=1 / math.sqrt(channels) if scale is None else scale,
    )[0]
    return result[..., :channels] if missing else result


def _additive(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """A mask as numbers to be added to the scores."""
    if mask is None or mask.dtype is not torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.scalar_tensor(float("-inf"), dtype=dtype))


def _aligned(mask: torch.Tensor) -> torch.Tensor:
    """A mask whose rows begin where the memory-efficient kernel can read them."""
    aligned = mask.stride(-1) == 1 and all(stride % _MASK_MULTIPLE == 0 for stride in mask.stride()[:-1])
    if aligned:
        return mask
    width = mask.shape[-1]
    return F.pad(mask, (0, _MASK_MULTIPLE - width % _MASK_MULTIPLE))[..., :width]
