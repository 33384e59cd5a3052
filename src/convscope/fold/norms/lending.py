"""Modules whose own code calls a layer without a bias, and a folded batch norm after it that lends it one.

The module's class becomes ``Folded<Name>``, a subclass of the class that it had, whose ``forward`` is that of
the class under a ``TorchFunctionMode``. Being a class, it survives ``deepcopy`` and pickling. The mode gives
the layer its bias and lets the batch norm return what it is given by that very call. Everything is decided
by the tensors themselves, so that neither order, number of calls, threads, exceptions nor modules within
modules matter: where the layer wasn't given its bias, the batch norm adds it.

Limits: every function of torch that runs within such a ``forward``, in submodules too, takes a few
microseconds longer in eager mode.
"""

import copy
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from types import new_class
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convscope.fold.norms.neutral_mean import NORMALISING

_LOANS = "_folded_loans"
_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}
# Functions of (input, weight, bias, …).
_LAYERS = (
    F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.linear,
)  # fmt: skip


@dataclass(frozen=True)
class Loan:
    """A bias that calls of a layer are given; names as in the module that calls it, ``"bn.bias"``.

    Attributes:
        weight: the layer's weights, by which its calls are known.
        bias: the folded batch norm's β.
    """

    weight: str
    bias: str


class FoldedCalls:
    """Mixed into the class of a module whose own code calls layers that are lent a bias."""

    unfolded: Any  # the class without the mixin

    def __reduce_ex__(self, protocol: Any) -> Any:
        own = (self.unfolded.__reduce_ex__, self.unfolded.__reduce__)
        if own != (object.__reduce_ex__, object.__reduce__):
            return super().__reduce_ex__(protocol)  # made anew by its own rules, perhaps without the mixin
        return _empty, (self.unfolded,), self.__getstate__()

    def __prepare_scriptable__(self) -> Any:
        """Return what ``torch.jit.script`` compiles: the code as it was, with neutral batch norms."""
        shared: Any = copy.copy(self)
        shared.__class__ = self.unfolded
        del shared.__dict__[_LOANS]
        return shared


def lend(module: nn.Module, loans: Iterable[Loan]) -> None:
    """Let calls in a module's own code be given biases from now on, in place.

    Args:
        module: its class changes; what it lends already it goes on lending.
        loans: the biases.

    Example:
        >>> import torch
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.kernel, self.shift = nn.Parameter(torch.eye(2)), nn.Parameter(torch.ones(2))
        ...     def forward(self, x):
        ...         return F.linear(x, self.kernel)
        >>> net = Net()
        >>> lend(net, [Loan("kernel", "shift")])
        >>> net(torch.zeros(1, 2)).tolist(), type(net).__name__, isinstance(net, Net)
        ([[1.0, 1.0]], 'FoldedNet', True)
    """
    module.__dict__[_LOANS] = tuple(dict.fromkeys((*module.__dict__.get(_LOANS, ()), *loans)))
    if not isinstance(module, FoldedCalls):
        module.__class__ = folded_class(type(module))


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
        with _Lending(self):
            return module_class.forward(self, *args, **kwargs)

    body = {
        "__module__": module_class.__module__,
        "__qualname__": f"Folded{module_class.__qualname__}",
        "__doc__": f"{module_class.__name__}, whose own code calls folded batch norms.",
        "unfolded": module_class,
        "forward": forward,
    }
    made = new_class(
        f"Folded{module_class.__name__}", (FoldedCalls, module_class), None, lambda ns: ns.update(body)
    )
    return _CLASSES.setdefault(module_class, made)


class _Lending(TorchFunctionMode):
    """Gives layers their biases while a module's ``forward`` runs.

    Tensors are looked up anew each time: to convert, load or export a module puts others in their places.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        loans = module.__dict__[_LOANS]
        self.loans = [(_named(module, loan.weight), _named(module, loan.bias)) for loan in loans]
        self.biased: list[Any] = []  # what layers returned that were given a bias, until it is normalised

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LAYERS:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            given = args[2] if len(args) > 2 else kwargs.get("bias")
            for known, bias in self.loans:
                if known is weight and given is None:
                    return self.biased_result(func, args, kwargs, bias)
        elif func in NORMALISING:
            value = args[0] if args else kwargs.get("input")
            for position, known in enumerate(self.biased):
                if known is value:
                    del self.biased[position]
                    return value
        return func(*args, **kwargs)

    def biased_result(self, func: Any, args: Any, kwargs: Any, bias: Any) -> Any:
        """The result of a layer with a bias that its call lacks."""
        rest = {name: given for name, given in kwargs.items() if name != "bias"}
        if len(args) > 2:
            result = func(args[0], args[1], bias, *args[3:], **rest)
        else:
            result = func(*args, bias=bias, **rest)
        self.biased.append(result)
        return result


def _named(module: nn.Module, name: str) -> Tensor:
    """A tensor of a module, by its dotted name."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


def _empty(module_class: type[nn.Module]) -> nn.Module:
    """Return a module without attributes, for pickle to fill."""
    folded = folded_class(module_class)
    return folded.__new__(folded)
