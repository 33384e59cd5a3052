"""Train with half of the saved activations, to the same bits.

A convolution keeps its input for its gradient, and batch norm keeps the map that it normalises. In a network
of convolution, norm and activation that is every map twice: what the next convolution keeps can be had from
what the norm keeps, by two cheap operators. A lean network's forward pass doesn't save it; the backward pass
runs those operators again, just before it needs the result, and frees it afterwards. The same goes for pools,
gates, concatenations and, within a stage, for the sums of residual blocks.

It is exact: the same kernels run on the same numbers. In-Place ABN (Rota Bulò and others, arXiv 1712.02616)
saves the output and inverts the activation, so it takes leaky activations only, and approximately.

Limits: what runs in the network's own ``forward`` (``model(x)``); not under ``torch.compile``, which decides
by itself what it saves, nor for TorchScript; a part that ``torch.utils.checkpoint`` runs saves what that
decides. Every operator of the forward pass costs some 30 µs more in Python, so small maps on a fast device
lose time. With ``retain_graph=True`` what was made again stays until the graph goes.
"""

import inspect
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, TracebackType
from typing import Any, Self

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm.lean.accounts import Account
from convscope.norm.lean.recording import Recording, others_hooks
from convscope.norm.lean.result import Savings

_UNDER_WAY = threading.local()


class NothingSavedWarning(UserWarning):
    """A lean network's forward pass has nothing that could be made again rather than saved."""


def lean(model: nn.Module, *, residual: bool = True) -> "Lean":
    """Have a network's forward passes save about half, in place: the rest is made again, bit for bit.

    Losses, gradients, buffers and outputs are the same to the last bit (on CPU; elsewhere as far as an
    operator gives the same bits twice). Works with autocast, gradient accumulation, several backward passes,
    gradients of gradients, ``DistributedDataParallel``, and checkpointed parts.

    Args:
        model: a network, or a part of one; its ``forward`` is replaced on the instance. Its copies are lean,
            too.
        residual: also make the sums of residual blocks again, from the first input of their stage: when its
            backward pass begins, once, all sums of the stage. False keeps the blocks' outputs.

    Returns:
        The handle: what the last forward pass saved (``savings``), ``undo()``; a context manager that undoes
        at its end.

    Raises:
        ConvscopeError: the network or a part of it is compiled or scripted.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> with lean(net) as handle:
        ...     net(torch.ones(2, 3, 18, 18)).sum().backward()
        >>> handle.savings.bytes_without, handle.savings.bytes_kept
        (40608, 24256)
    """
    for path, module in model.named_modules():
        _check(path, module)
    handle = Lean(model, _LeanForward(model, residual=residual))
    vars(model)["forward"] = handle._forward
    return handle


class Lean:
    """A lean network's handle; see :func:`lean`."""

    def __init__(self, model: nn.Module, forward: "_LeanForward") -> None:
        self._model, self._forward = model, forward

    @property
    def savings(self) -> Savings | None:
        """What the last forward pass with gradients saved; None before the first one."""
        return self._forward.savings

    def undo(self) -> None:
        """Give the network its own ``forward`` back. What has run already keeps its recipes."""
        self._forward.is_on = False
        if vars(self._model).get("forward") is self._forward:
            inner = self._forward.inner
            while isinstance(inner, _LeanForward) and not inner.is_on:
                inner = inner.inner
            if inner is None:
                del vars(self._model)["forward"]
            else:
                vars(self._model)["forward"] = inner

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.undo()


class _LeanForward:
    """Stands in for a network's ``forward``: the same, watched.

    Attributes:
        inner: the ``forward`` that stood on the instance before; None for the class's.
        is_on: whether it watches.
        savings: of the last forward pass.
    """

    def __init__(self, model: nn.Module, *, residual: bool) -> None:
        self.inner = vars(model).get("forward")
        self.is_on = True
        self.savings: Savings | None = None
        self._model, self._residual = model, residual

    @property
    def __code__(self) -> CodeType:  # torch.export asks a ``forward`` for it
        code: CodeType = self._own_forward().__code__
        return code

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._own_forward())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = self._own_forward()
        if not self.is_on or torch.compiler.is_exporting():
            return forward(*args, **kwargs)
        if torch.compiler.is_compiling():
            _decline(type(self._model).__name__)
        if not _is_watched():
            return forward(*args, **kwargs)
        account = Account(self._model)
        recording = Recording(account, others_hooks(), residual=self._residual)
        _UNDER_WAY.is_true = True
        try:
            with account.following(), recording.watching():
                result = forward(*args, **kwargs)
        finally:
            _UNDER_WAY.is_true = False
        if not _is_simulated():
            self._told(account.savings())
        return result

    def _told(self, savings: Savings) -> None:
        if self.savings is None and savings.bytes_without and savings.bytes_kept >= savings.bytes_without:
            warnings.warn(
                f"lean({type(self._model).__name__}) saves nothing: no tensor that its forward pass keeps "
                "can be made again from another one that it keeps",
                NothingSavedWarning,
                stacklevel=4,
            )
        self.savings = savings

    def _own_forward(self) -> Any:
        return type(self._model).forward.__get__(self._model) if self.inner is None else self.inner


def is_lean(model: nn.Module) -> bool:
    """Return whether a network, or a part of it, is lean."""
    return any(True for _ in _lean_forwards(model))


@contextmanager
def at_full_size(model: nn.Module) -> Iterator[None]:
    """Have a lean network save everything while the block runs."""
    forwards = list(_lean_forwards(model))
    for forward in forwards:
        forward.is_on = False
    try:
        yield
    finally:
        for forward in forwards:
            forward.is_on = True


def _lean_forwards(model: nn.Module) -> Iterator[_LeanForward]:
    for module in model.modules():
        forward = vars(module).get("forward")
        while isinstance(forward, _LeanForward):
            if forward.is_on:
                yield forward
            forward = forward.inner


@torch.compiler.disable  # type: ignore[untyped-decorator]  # where it is traced, errors can't be raised
def _decline(network: str) -> None:
    raise _compiled(f"torch.compile of a lean {network}")


def _is_watched() -> bool:
    """Whether a forward pass will save tensors, and nobody else decides which."""
    return (
        torch.is_grad_enabled()
        and not getattr(_UNDER_WAY, "is_true", False)
        and torch._C._current_graph_task_id() == -1  # checkpointing runs it again
        and torch._C._functorch.peek_interpreter_stack() is None
        and not _is_checkpointed()
    )


def _is_simulated() -> bool:
    """Whether tensors have no numbers: the network is being recorded, not trained."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None


def _is_checkpointed() -> bool:
    hooks = others_hooks()
    return hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint"


def _check(path: str, module: nn.Module) -> None:
    where = f"{path} ({type(module).__name__})" if path else type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise ConvscopeError(
            f"{where}, made by torch.jit", "eager PyTorch", "make it lean before it is scripted or traced"
        )
    if isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl is not None:
        raise _compiled(f"{where}, compiled")


def _compiled(given: str) -> ConvscopeError:
    return ConvscopeError(
        given,
        "eager PyTorch, since torch.compile decides by itself what is saved and what is made again",
        "use one of the two: the network as it was before torch.compile, or torch.compile without lean",
    )
