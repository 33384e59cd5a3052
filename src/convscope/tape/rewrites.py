"""What a GPU does differently from a CPU, rewritten while a step is recorded.

Operators that consist of others choose them by the device. The tape records CUDA's choice:

- dropout: one fused operator keeps a boolean mask (1 byte per element), where the CPU makes and keeps a
  floating noise tensor (4 bytes). In-place, feature and alpha dropout are the same on both.
- scaled dot-product attention: see :mod:`convscope.tape.attention`.
- softmax and log-softmax of float16 into float32: fused, where the CPU makes a float32 copy of the input.

The last two have no kernels for real tensors on the CPU, which are left to the CPU's choice.

Source: ``aten/src/ATen/native/Dropout.cpp`` (``is_fused_kernel_acceptable``) and ``SoftMax.cpp`` of PyTorch.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from convscope.tape.attention import cuda_attention
from convscope.tape.overrides import Overrides, operator_of


def _dropout(input: torch.Tensor, p: float, train: bool) -> Any:
    if train and 0 < p < 1:
        return torch.native_dropout(input, p, True)[0]
    return NotImplemented


def _softmax(input: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
    if _is_widened(input, dtype):
        return torch.ops.aten._softmax.default(input, dim, True)
    return NotImplemented


def _log_softmax(input: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
    if _is_widened(input, dtype):
        return torch.ops.aten._log_softmax.default(input, dim, True)
    return NotImplemented


def _is_widened(input: torch.Tensor, dtype: torch.dtype | None) -> bool:
    return isinstance(input, FakeTensor) and (input.dtype, dtype) == (torch.float16, torch.float32)


def _attention(query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    return cuda_attention(query, *args, **kwargs) if isinstance(query, FakeTensor) else NotImplemented


# PyTorch's own way to make an operator out of others.
_OF_OTHERS = torch._C.DispatchKey.CompositeImplicitAutograd
_REWRITES: dict[str, Callable[..., Any]] = {
    "dropout": _dropout,
    "scaled_dot_product_attention": _attention,
    "softmax.int": _softmax,
    "log_softmax.int": _log_softmax,
}


class DeviceRewrites:
    """A context manager that replaces what consists of other operators on the CPU than on a GPU.

    It acts in the thread that enters it; others compute as they did.
    """

    def __enter__(self) -> "DeviceRewrites":
        self._thread = threading.get_ident()
        kernels = {name: self._kernel(name, rewrite) for name, rewrite in _REWRITES.items()}
        self._overrides = Overrides(kernels, "AutogradCPU")
        return self

    def __exit__(self, *error: object) -> None:
        self._overrides.__exit__(*error)

    def _kernel(self, name: str, rewrite: Callable[..., Any]) -> Callable[..., Any]:
        operator = operator_of(name)

        def kernel(*args: Any, **kwargs: Any) -> Any:
            here = threading.get_ident() == self._thread
            result = rewrite(*args, **kwargs) if here else NotImplemented
            if result is NotImplemented:
                return operator._op_dk(_OF_OTHERS, *args, **kwargs)
            return result

        return kernel
