"""What a GPU does differently from a CPU, rewritten while a step is recorded.

Operators that consist of others choose them by the device. The tape records CUDA's choice:

- dropout: one fused operator keeps a boolean mask (1 byte per element), where the CPU makes and keeps a
  floating noise tensor (4 bytes). In-place, feature and alpha dropout are the same on both. The dropout
  between the layers of an LSTM or GRU is fused, too.
- scaled dot-product attention: see :mod:`convscope.tape.attention`.
- softmax and log-softmax of float16 into float32: fused, where the CPU makes a float32 copy of the input.

The last two have no kernels for real tensors on the CPU, which are left to the CPU's choice.

Calls are caught where Python makes them, in the thread that records. PyTorch turns a function mode off while
it handles a call, so functions of PyTorch that are written in Python (``multi_head_attention_forward``,
``Tensor.backward``) run as copies that don't ask for modes themselves, with the mode on for what they call.

Limits: calls from TorchScript functions, and from operators that a library composes in Python, are the CPU's.

Source: ``aten/src/ATen/native/Dropout.cpp`` (``is_fused_kernel_acceptable``) and ``SoftMax.cpp`` of PyTorch.
"""

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

from convscope.tape.attention import cuda_attention, fused_dropout
from convscope.tape.overrides import operator_of

_Rewrite = Callable[..., Any]
"""Takes a call's arguments; returns its result on CUDA, or NotImplemented where that is the CPU's."""
# Backward runs checkpointed blocks again.
_BACKWARD = frozenset({torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad})
_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})
_OF_OTHERS = torch._C.DispatchKey.CompositeImplicitAutograd


def _dropout(input: torch.Tensor, p: float, train: bool) -> Any:
    return torch.native_dropout(input, p, True)[0] if train and 0 < p < 1 else NotImplemented


def _widening(fused: Any) -> _Rewrite:
    def rewrite(*args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(("self", "dim", "dtype"), args, strict=False)), **kwargs}
        input = given.get("self", given.get("input"))
        dim = given.get("dim", given.get("axis"))
        widened = isinstance(input, FakeTensor) and input.dtype is torch.float16
        if not widened or given.get("dtype") is not torch.float32 or type(dim) is not int or "out" in given:
            return NotImplemented
        return fused(input, dim, True)

    return rewrite


def _attention(query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    return cuda_attention(query, *args, **kwargs) if isinstance(query, FakeTensor) else NotImplemented


def _recurrent(layer: str) -> _Rewrite:
    """Layers given as ``(input, hx, params, has_biases, …)``, or packed ``(data, batch_sizes, hx, …)``."""
    overloads = operator_of(f"{layer}.input"), operator_of(f"{layer}.data")

    def rewrite(*args: Any, **kwargs: Any) -> Any:
        packed = len(args) > 3 and not isinstance(args[3], bool)
        dropout, train = args[5 + packed : 7 + packed] if len(args) == 9 else (0, False)
        if kwargs or not train or not 0 < dropout < 1:
            return NotImplemented
        with fused_dropout():
            return overloads[packed]._op_dk(_OF_OTHERS, *args)

    return rewrite


_softmax = _widening(torch.ops.aten._softmax.default)
_log_softmax = _widening(torch.ops.aten._log_softmax.default)
_OPERATORS: dict[str, _Rewrite] = {
    "dropout": _dropout,
    "softmax.int": _softmax,
    "log_softmax.int": _log_softmax,
    "scaled_dot_product_attention": _attention,
    **{
        f"{layer}.{overload}": _recurrent(layer)
        for layer in ("lstm", "gru", "rnn_tanh", "rnn_relu")
        for overload in ("input", "data")
    },
}
_FUNCTIONS: dict[Callable[..., Any], _Rewrite] = {
    torch.dropout: _dropout,
    torch.softmax: _softmax,
    torch.Tensor.softmax: _softmax,
    torch.special.softmax: _softmax,
    torch.log_softmax: _log_softmax,
    torch.Tensor.log_softmax: _log_softmax,
    torch.special.log_softmax: _log_softmax,
    F.scaled_dot_product_attention: _attention,
    **{getattr(torch, layer): _recurrent(layer) for layer in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    **{operator_of(name): rewrite for name, rewrite in _OPERATORS.items()},
    torch.ops.aten.dropout: _dropout,
    torch.ops.aten.softmax: _softmax,
    torch.ops.aten.log_softmax: _log_softmax,
    torch.ops.aten.scaled_dot_product_attention: _attention,
}


class DeviceRewrites(TorchFunctionMode):
    """A context manager that replaces what consists of other operators on the CPU than on a GPU.

    It acts in the thread that enters it; others compute as they did.
    """

    def __init__(self) -> None:
        super().__init__()
        self._copies: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rewrite = _FUNCTIONS.get(func)
        # Under autocast the others run on what it casts: see operator_on_cuda.
        if rewrite is not None and (rewrite is _dropout or not torch.is_autocast_enabled("cpu")):
            result = rewrite(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if not _PLAIN.issuperset(types) or not _calls_others(func):
            return func(*args, **kwargs)
        if func not in self._copies:
            self._copies[func] = _copy_that_asks_no_mode(func)
        with self:
            return self._copies[func](*args, **kwargs)


def _calls_others(func: Any) -> bool:
    """Whether a function of PyTorch is written in Python and calls operators or a network's own functions."""
    return func in _BACKWARD or (type(func) is FunctionType and func.__globals__ is vars(F))


def _copy_that_asks_no_mode(func: FunctionType) -> Callable[..., Any]:
    """A function of PyTorch that goes on where it would hand the call to a mode."""
    asks = [name for name in func.__globals__ if name.startswith("has_torch_function")]
    names = {**func.__globals__, **dict.fromkeys(asks, lambda *_: False)}
    copy = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


@cache
def operator_on_cuda(name: str) -> Any:
    """Return the ATen operator of a name, to be called with CUDA's choice of the operators it consists of."""
    rewrite = _OPERATORS.get(name)
    return operator_of(name) if rewrite is None else _OnCuda(operator_of(name), rewrite)


class _OnCuda:
    def __init__(self, operator: Any, rewrite: _Rewrite) -> None:
        self._operator, self._rewrite, self._schema = operator, rewrite, operator._schema

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        result = self._rewrite(*args, **kwargs)
        return self._operator(*args, **kwargs) if result is NotImplemented else result
