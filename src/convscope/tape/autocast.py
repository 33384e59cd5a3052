"""CUDA's automatic mixed precision on tensors that lie on the CPU.

Autocast is a layer of PyTorch's dispatcher, above autograd. In a thread where a context is active, the CPU's
entries in that layer give way to CUDA's lists (:mod:`convscope.tape.autocast_policies`), and entries that
only the CPU has are transparent; elsewhere and afterwards the CPU's own kernels run. Meanwhile
``torch.autocast`` contexts for ``"cuda"`` work, and so do those for a tensor's device, which reads ``"cpu"``
in a simulation; a ``GradScaler`` finds no infinities, so that it skips no step.

What concerns the whole process: the first context that a recording enables makes entries in the dispatcher's
layer for CPU autocast, which stay and lead other threads to the kernels that were there before. While they
are made, some 20 ms once in a process, no other thread may run operators under CPU autocast. During a block,
methods of ``torch.autocast`` and ``GradScaler`` are replaced by ones that do as before in other threads.

Limits: recurrent layers (LSTM, GRU) run in float32; cuDNN would run them in the context's dtype. A context
with ``enabled=True`` that was constructed before the recording on a machine without CUDA was disabled by
PyTorch then, and stays so.
"""

import threading
from functools import cache
from typing import Any

import torch
from torch.amp.autocast_mode import autocast
from torch.amp.grad_scaler import GradScaler
from torch.cuda.amp import common

from convscope.tape.autocast_policies import POLICIES, Policy
from convscope.tape.autocast_rules import RULES, eligible
from convscope.tape.overrides import Handler, Overrides
from convscope.tape.rewrites import operator_on_cuda

_DEVICES = ("cuda", "cpu")
_AUTOCAST_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
# On CUDA these run in cuDNN, whose entry isn't among ATen's lists; the CPU's kernels want one dtype.
_RECURRENT = tuple(
    f"{layer}.{overload}"
    for layer in ("lstm", "gru", "rnn_tanh", "rnn_relu")
    for overload in ("input", "data")
)
_POLICIES: dict[str, Policy] = {**dict.fromkeys(_RECURRENT, "fp32"), **POLICIES}
_ONE_AT_A_TIME = threading.RLock()


@cache
def _entries() -> Overrides:
    """The process's entries for autocast on the CPU."""
    own = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCPU")
    return Overrides({*(name.removeprefix("aten::") for name in own), *_POLICIES}, "AutocastCPU")


class CudaAutocast:
    """A context manager: within, ``torch.autocast("cuda")`` acts on CPU tensors as it does on a GPU's.

    No context is active at first, whatever surrounds the block. Blocks of other threads wait for its end.

    Example:
        >>> x, weight = torch.ones(2, 3), torch.ones(4, 3)
        >>> with CudaAutocast(), torch.autocast("cuda"):
        ...     y = torch.nn.functional.linear(x, weight)
        ...     print(y.dtype, y.softmax(1).dtype)
        torch.float16 torch.float32
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._handles = False
        self._handler_before: Handler | None = None
        self._casts: dict[tuple[int, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}
        self._depth = 0

    @property
    def num_cached_casts(self) -> int:
        """How many parameters have a cast that is kept until the outermost context ends."""
        return len(self._casts)

    def __enter__(self) -> "CudaAutocast":
        _ONE_AT_A_TIME.acquire()
        self._before = {device: _state(device) for device in _DEVICES}
        for device in _DEVICES:
            _set_state(device, (False, torch.float16))
        self._patches = _patch(self)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for owner, name, original in self._patches:
                setattr(owner, name, original)
            for device in _DEVICES:
                _set_state(device, self._before[device])
            if self._handles:
                _entries().exchange(self._handler_before)
                self._handles = False
            self._casts.clear()
        finally:
            _ONE_AT_A_TIME.release()

    def covers(self, device: str) -> bool:
        """Return whether a context for ``device``, in the caller's thread, is this block's affair."""
        return device in _DEVICES and threading.get_ident() == self._thread

    def begun(self, device: str) -> None:
        """A ``torch.autocast`` context for ``device`` has begun."""
        self._depth += 1
        self._mirror(device)
        if not self._handles and torch.is_autocast_enabled(device):
            self._handler_before = _entries().exchange(self._run)
            self._handles = True

    def ended(self, device: str) -> None:
        """A ``torch.autocast`` context for ``device`` has ended."""
        self._depth -= 1
        self._mirror(device)
        if self._depth == 0:
            self._casts.clear()

    def _mirror(self, device: str) -> None:
        for other in _DEVICES:
            _set_state(other, _state(device))

    def cast(self, value: Any, dtype: torch.dtype) -> Any:
        """Return an argument in ``dtype`` if it is an eligible tensor or a list of such, else as it is."""
        if isinstance(value, list | tuple):
            return type(value)(self.cast(item, dtype) for item in value)
        if not isinstance(value, torch.Tensor) or value.dtype is dtype or not eligible(value):
            return value
        if not self._is_kept(value, dtype):
            return value.to(dtype)
        key = (id(value), dtype)
        if key not in self._casts:
            self._casts[key] = (value, value.to(dtype))
        return self._casts[key][1]

    def _is_kept(self, value: torch.Tensor, dtype: torch.dtype) -> bool:
        """Whether a cast is cached: that of a parameter, into the context's dtype."""
        return (
            value.requires_grad
            and value.is_leaf
            and value.dtype is torch.float32
            and dtype is torch.get_autocast_dtype("cpu")
            and not value._is_view()
            and torch.is_autocast_cache_enabled()
            and self.covers("cpu")
        )

    def _run(self, name: str, args: Any, kwargs: Any) -> Any:
        """Run an operator by CUDA's policy for it, if it has one; a handler for :class:`Overrides`."""
        policy = _POLICIES.get(name)
        if policy is None:
            return NotImplemented
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST_CPU), torch._C.DisableTorchFunction():
            return RULES[policy](self.cast, operator_on_cuda(name), args, kwargs)


def _patch(block: CudaAutocast) -> list[tuple[Any, str, Any]]:
    """Let PyTorch's context managers act on CPU tensors; return what was replaced."""
    construct: Any = autocast.__init__
    enter: Any = autocast.__enter__
    leave: Any = autocast.__exit__
    unavailable: Any = common.amp_definitely_not_available
    step: Any = GradScaler._maybe_opt_step

    def constructed(
        context: Any, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: Any = None
    ) -> None:
        if block.covers(device_type):
            # An enabled one would ask for a GPU.
            construct(context, "cuda", dtype, False, cache_enabled)
            context._enabled = enabled
        else:
            construct(context, device_type, dtype, enabled, cache_enabled)

    def entered(context: Any) -> Any:
        result = enter(context)
        if block.covers(context.device):
            block.begun(context.device)
        return result

    def left(context: Any, *error: Any) -> Any:
        result = leave(context, *error)
        if block.covers(context.device):
            block.ended(context.device)
        return result

    def stepped(scaler: Any, optimizer: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        if not block.covers("cuda"):
            return step(scaler, optimizer, state, *args, **kwargs)
        return optimizer.step(*args, **kwargs)

    replaced: list[tuple[Any, str, Any, Any]] = [
        (autocast, "__init__", construct, constructed),
        (autocast, "__enter__", enter, entered),
        (autocast, "__exit__", leave, left),
        (GradScaler, "_maybe_opt_step", step, stepped),
        (
            common,
            "amp_definitely_not_available",
            unavailable,
            lambda: not block.covers("cuda") and unavailable(),
        ),
    ]
    for owner, name, _, replacement in replaced:
        setattr(owner, name, replacement)
    return [(owner, name, original) for owner, name, original, _ in replaced]


def _state(device: str) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)


def _set_state(device: str, state: tuple[bool, torch.dtype]) -> None:
    torch.set_autocast_enabled(device, state[0])
    torch.set_autocast_dtype(device, state[1])
