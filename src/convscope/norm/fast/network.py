"""Kernels for the batch norms of a whole network, and for the activations right behind them.

The layers stay what they are, with their parameters, buffers, hooks and types; only their ``forward`` is
replaced, on the instance. A batch norm takes its activation along where a recording of the network shows that
nothing but this activation reads its result: the activation's module then passes on what it gets.

Limits: layers of exactly PyTorch's or convscope's ``BatchNorm1d``, ``2d`` and ``3d``, in training (at test
time fold them); activations that are modules of their own. A network that takes another path than the one
recorded, on which something else reads a norm's result, would read the activated one.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.norm.fast.activation import IDENTITY, Piecewise, piecewise
from convscope.norm.fast.choosing import beats_torch, is_looked_at, takes
from convscope.norm.fast.function import batch_norm
from convscope.tape import ModuleCall, Tape, TrainingPlan, record

_MARK = "_convscope_activated"


@dataclass(frozen=True)
class FastLayer:
    """What became of a batch norm.

    Attributes:
        path: of the layer.
        activation: path of the activation that is computed on the way, or None.
        reason: why none is; empty where one is.
    """

    path: str
    activation: str | None
    reason: str


def fast(model: nn.Module, inputs: Any = None) -> "Fast":
    """Have a network's batch norms run by kernels in training, in place, wherever those are faster.

    On a CPU (float32, bfloat16; needs numba: the extra ``kernels``) and on NVIDIA GPUs (Triton). What kernels
    don't take runs as before, see ``convscope.norm.kernels``. Results differ in their last bits.

    Args:
        model: a network, or a part of one.
        inputs: its inputs, or their shape such as ``(2, 3, 224, 224)``: to see, by a recording that allocates
            nothing, which activations can be computed on the way. None: norms alone.

    Returns:
        The handle: ``layers``, ``undo()``; a context manager that undoes at its end.

    Raises:
        ConvscopeError: the network has no batch norm that kernels may take, a part of it is compiled or
            scripted, or it doesn't run on these inputs.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> with fast(net, (2, 3, 18, 18)) as handle:
        ...     handle.layers
        (FastLayer(path='1', activation='2', reason=''),)
    """
    norms = {path: layer for path, layer in model.named_modules() if _is_norm(layer)}
    if not norms:
        raise ConvscopeError(
            f"{type(model).__name__} without a batch norm that kernels take",
            "a network with BatchNorm1d, BatchNorm2d or BatchNorm3d layers",
            "nothing is to be done; subclasses with a forward of their own are left alone",
        )
    _check(model)
    found = {} if inputs is None else _activations(model, norms, record(model, inputs, TrainingPlan()))
    unknown = "no inputs were given to see what reads it"
    layers = tuple(FastLayer(path, *found.get(path, (None, unknown))) for path in norms)
    forwards: list[_NormForward | _ActivationForward] = []
    for layer in layers:
        shape = IDENTITY
        if layer.activation is not None:
            activation = model.get_submodule(layer.activation)
            known = piecewise(activation)
            assert known is not None
            shape = known
            forwards.append(_ActivationForward(activation, shape))
        forwards.append(_NormForward(norms[layer.path], shape))
    for forward in forwards:
        vars(forward.module)["forward"] = forward
    return Fast(layers, forwards)


class Fast:
    """The handle of a network whose batch norms run by kernels; see :func:`fast`.

    Attributes:
        layers: what became of each batch norm.
    """

    def __init__(
        self, layers: tuple[FastLayer, ...], forwards: "list[_NormForward | _ActivationForward]"
    ) -> None:
        self.layers = layers
        self._forwards = forwards

    def undo(self) -> None:
        """Give the layers their own ``forward`` back."""
        for forward in reversed(self._forwards):
            forward.is_on = False
            if vars(forward.module).get("forward") is forward:
                if forward.inner is None:
                    del vars(forward.module)["forward"]
                else:
                    vars(forward.module)["forward"] = forward.inner
        self._forwards = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.undo()


class _Forward:
    """Stands in for a module's ``forward``.

    Attributes:
        module: whose.
        inner: the ``forward`` that stood on the instance before; None for the class's.
        is_on: whether it does anything of its own.
    """

    def __init__(self, module: nn.Module, shape: Piecewise) -> None:
        self.module, self.inner, self.is_on = module, vars(module).get("forward"), True
        self._shape = shape

    def _own(self, *args: Any, **kwargs: Any) -> Any:
        if self.inner is not None:
            return self.inner(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)


class _NormForward(_Forward):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.is_on or kwargs or len(args) != 1 or not _is_taken(self.module, args[0]):
            return self._own(*args, **kwargs)
        shape = IDENTITY if is_looked_at(self.module) else self._shape
        y = _normalised(self.module, args[0], shape)
        if shape is not IDENTITY:
            setattr(y, _MARK, shape)
        return y


class _ActivationForward(_Forward):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_on and len(args) == 1 and getattr(args[0], _MARK, None) == self._shape:
            return args[0]
        return self._own(*args, **kwargs)


def _is_norm(layer: nn.Module) -> bool:
    kinds = {"BatchNorm1d", "BatchNorm2d", "BatchNorm3d"}
    kind = type(layer)
    return kind.__name__ in kinds and (
        kind.__module__ == nn.BatchNorm2d.__module__ or hasattr(kind, "_by_kernels")
    )


def _is_taken(layer: Any, x: Any) -> bool:
    if not isinstance(x, Tensor) or not (layer.training or layer.running_mean is None) or not takes(x):
        return False
    if not hasattr(layer, "_by_kernels") and not beats_torch(x):
        return False
    return x.shape[1] == layer.num_features and x.numel() >= 2 * x.shape[1] and _has_rank(layer, x)


def _has_rank(layer: nn.Module, x: Tensor) -> bool:
    return x.dim() in {"1d": (2, 3), "2d": (4,), "3d": (5,)}[type(layer).__name__[-2:]]


def _normalised(layer: Any, x: Tensor, shape: Piecewise) -> Tensor:
    if hasattr(layer, "_by_kernels"):
        y: Tensor = layer._by_kernels(x, shape)
        return y
    y, mean, variance = batch_norm(x, layer.weight, layer.bias, layer.eps, shape)
    if layer.training and layer.track_running_stats:
        with torch.no_grad():
            _move(layer, mean, variance * (x.numel() / (x.numel() - x.shape[1])))
    return y


def _move(layer: Any, mean: Tensor, variance: Tensor) -> None:
    """Move running averages as PyTorch does."""
    weight = layer.momentum
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        weight = 1.0 / float(layer.num_batches_tracked) if weight is None else weight
    for running, value in ((layer.running_mean, mean), (layer.running_var, variance)):
        if running is not None:
            running.copy_(torch.lerp(running.to(value.dtype), value, weight or 0.0))


def _activations(
    model: nn.Module, norms: dict[str, nn.Module], tape: Tape
) -> dict[str, tuple[str | None, str]]:
    """The activation's path that a norm may take along, or None and why not."""
    found: dict[str, tuple[str | None, str]] = {}
    for path in norms:
        calls = [call for call in tape.modules if call.address.path == path and not call.recompute]
        behind = {_behind(model, tape, call) for call in calls}
        if not behind:
            found[path] = (None, "it doesn't run on these inputs")
        elif len(behind) > 1:
            found[path] = (None, "what reads it differs from call to call")
        else:
            found[path] = behind.pop()
    return found


def _behind(model: nn.Module, tape: Tape, norm: ModuleCall) -> tuple[str | None, str]:
    """The activation that alone reads what a call of a norm returns."""
    (result,) = norm.outputs
    readers = [call for call in tape.consumers(result) if call.phase == "forward"]
    if result in tape.outputs or not readers:
        return None, "the network returns its result"
    places = {reader.module for reader in readers}
    place = places.pop()
    reader = None if place is None else tape.modules[place]
    if places or reader is None or not reader.is_leaf or reader.inputs != (result,):
        return None, f"{readers[0].address} reads its result" + (", among others" if len(readers) > 1 else "")
    path = reader.address.path
    activation = model.get_submodule(path)
    if piecewise(activation) in (None, IDENTITY):
        return None, f"kernels don't compute {path} ({type(activation).__name__})"
    return path, ""


def _check(model: nn.Module) -> None:
    for path, module in model.named_modules():
        where = f"{path} ({type(module).__name__})" if path else type(module).__name__
        if isinstance(module, torch.jit.ScriptModule):
            raise ConvscopeError(
                f"{where}, made by torch.jit", "eager PyTorch", "use fast() before torch.jit"
            )
        if isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl is not None:
            raise ConvscopeError(
                f"{where}, compiled",
                "eager PyTorch, since torch.compile makes kernels of its own",
                "use one of the two",
            )
