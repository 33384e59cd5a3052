"""Modules whose own code calls batch norms that are folded: those calls hand their input through.

The module's class becomes ``Folded<Name>``, a subclass of the class that it had, whose ``forward`` is that of the
class under a ``TorchFunctionMode``. Being a class, it survives ``deepcopy`` and pickling. A call is known by its
running mean, the tensor itself, so that how often and in which order calls are made doesn't matter, and
neither do threads, exceptions and modules within modules: the mode keeps nothing between two forward passes.

The batch norm's own tensors are neutral by then (:mod:`convscope.fold.functional`). Where the mode can't see a call
(another method than ``forward``, ``torch.jit.script``, a copy of the tensor) the batch norm runs and changes nothing.

Limits: every function of torch that runs within such a ``forward``, in submodules too, takes about a microsecond
longer; a part of ``forward`` that is run once more without it, for a checkpoint, runs the batch norm.
"""

import copy
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from types import new_class
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_CALLS = "_folded_calls"
_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}
# Where a batch norm function takes its running mean.
_MEAN_AT = {F.batch_norm: 1, torch.batch_norm: 3, F.instance_norm: 1, torch.instance_norm: 3}
# Functions of (input, weight, bias, …).
_LAYERS = (
    F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.linear,
)  # fmt: skip


@dataclass(frozen=True)
class SkippedCall:
    """A batch norm whose calls in a module's own code hand their input through.

    Tensors are named as in the module, ``"bn.running_mean"``.

    Attributes:
        mean: its running mean, by which its calls are known.
        term: what is still added per channel, or "" for nothing; the running mean itself is subtracted.
        weight: the layer without a bias which is given the term as one, so that nothing is left to add; or "".
    """

    mean: str
    term: str = ""
    weight: str = ""


class FoldedCalls:
    """Mixed into the class of a module whose own code calls folded batch norms."""

    unfolded: Any  # the class without the mixin

    def __reduce_ex__(self, protocol: Any) -> Any:
        if (self.unfolded.__reduce_ex__, self.unfolded.__reduce__) != (
            object.__reduce_ex__,
            object.__reduce__,
        ):
            return super().__reduce_ex__(protocol)  # made anew by its own rules, perhaps without the mixin
        return _empty, (self.unfolded,), self.__getstate__()

    def __prepare_scriptable__(self) -> Any:
        """Return the module that ``torch.jit.script`` compiles: its code as it was, with neutral batch norms."""
        return as_it_was(self)


def skip_calls(module: nn.Module, calls: Iterable[SkippedCall]) -> None:
    """Let a module's own code skip calls of batch norms from now on, in place.

    Args:
        module: its class changes; what it skips already it goes on skipping.
        calls: the batch norms.

    Example:
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.register_buffer("mean", torch.zeros(1))
        ...     def forward(self, x):
        ...         return 2 * F.batch_norm(x, self.mean, self.mean + 4)
        >>> net = Net()
        >>> skip_calls(net, [SkippedCall("mean")])
        >>> net(torch.ones(1, 1)), type(net).__name__, isinstance(net, Net)
        (tensor([[2.]]), 'FoldedNet', True)
    """
    known = module.__dict__.get(_CALLS, ())
    module.__dict__[_CALLS] = (*known, *(call for call in dict.fromkeys(calls) if call not in known))
    if not isinstance(module, FoldedCalls):
        module.__class__ = folded_class(type(module))


def as_it_was(module: Any) -> nn.Module:
    """Return a module of the class that another one had, which shares everything with it."""
    shared = copy.copy(module)
    shared.__class__ = module.unfolded
    del shared.__dict__[_CALLS]
    return shared  # type: ignore[no-any-return]


def folded_class(module_class: type[nn.Module]) -> type[nn.Module]:
    """Return ``Folded<Name>``, always the same for a class.

    Example:
        >>> folded_class(nn.Sequential).__name__
        'FoldedSequential'
    """
    if module_class in _CLASSES:
        return _CLASSES[module_class]

    @functools.wraps(module_class.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _Skipping(self):
            return super(made, self).forward(*args, **kwargs)

    body = {
        "__module__": module_class.__module__,
        "__qualname__": f"Folded{module_class.__qualname__}",
        "__doc__": f"{module_class.__name__}, whose own code skips batch norms that are folded.",
        "unfolded": module_class,
        "forward": forward,
    }
    made = new_class(
        f"Folded{module_class.__name__}", (FoldedCalls, module_class), None, lambda ns: ns.update(body)
    )
    return _CLASSES.setdefault(module_class, made)


class _Skipping(TorchFunctionMode):
    """Hands the inputs of a module's folded batch norms through while its ``forward`` runs.

    Tensors are looked up anew each time: converting, loading and exporting a module puts others in their places.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        calls = module.__dict__[_CALLS]
        self.norms = [(_named(module, call.mean), _named(module, call.term)) for call in calls]
        self.layers = [
            (_named(module, call.weight), _named(module, call.term)) for call in calls if call.weight
        ]
        self.biased: list[Any] = []  # results of layers that were given their bias

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MEAN_AT:
            at = _MEAN_AT[func]
            mean = args[at] if len(args) > at else kwargs.get("running_mean")
            for known, term in self.norms:
                if known is mean and mean is not None:
                    return self.handed_through(args[0] if args else kwargs["input"], mean, term)
        elif self.layers and func in _LAYERS:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            bias = args[2] if len(args) > 2 else kwargs.get("bias")
            for known, term in self.layers:
                if known is weight and bias is None:
                    return self.given_bias(func, args, kwargs, term)
        return func(*args, **kwargs)

    def handed_through(self, value: Any, mean: Any, term: Any) -> Any:
        """The result of a folded batch norm."""
        if term is None:
            return value
        for position, known in enumerate(self.biased):
            if known is value:
                del self.biased[position]
                return value
        rest = term.reshape((-1,) + (1,) * (value.dim() - 2))
        return value - rest if term is mean else value + rest

    def given_bias(self, func: Any, args: Any, kwargs: Any, term: Any) -> Any:
        """The result of a layer with a bias that its call lacks."""
        rest = {name: given for name, given in kwargs.items() if name != "bias"}
        if len(args) > 2:
            result = func(args[0], args[1], term, *args[3:], **rest)
        else:
            result = func(*args, bias=term, **rest)
        self.biased.append(result)
        return result


def _named(module: nn.Module, name: str) -> Tensor | None:
    """A tensor of a module, by its dotted name; None for ""."""
    found: Any = module if name else None
    for part in name.split(".") if name else ():
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


def _empty(module_class: type[nn.Module]) -> nn.Module:
    """Return a module without attributes, for pickle to fill."""
    folded = folded_class(module_class)
    return folded.__new__(folded)
