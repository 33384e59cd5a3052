"""What a frozen normalisation layer is: its own class, with two doors closed.

The layer's class becomes ``Frozen<Name>``, a subclass of the class that it had. Nothing else changes: its
forward pass (with a subclass's activation), parameters, buffers, hooks, state dict and identity stay, and so
does whatever asks ``isinstance``. Being a class, it survives ``deepcopy``, pickling and reloading. The doors:

- Its mode: ``layer.train()``, on itself or from a network around it, and ``layer.training = True`` leave it
  in evaluation mode. The mode that was asked for last is remembered, for the day it is unfrozen.
- Its statistics: ``reset_running_stats()`` does nothing, and neither does ``momentum = None``; both are what
  ``torch.optim.swa_utils.update_bn`` does to all layers (after an exception it leaves the None behind).

Loading a state dict and writing to the buffers directly still change the statistics.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import new_class
from typing import Any

from torch import nn

from convscope.core.errors import ConvscopeError

AFFINE = ("weight", "bias")
_MODE, _HOLD = "_mode_once_unfrozen", "_held_by"
_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


@dataclass(frozen=True, eq=False)
class Hold:
    """Who holds a layer frozen: made by one call of ``freeze``, told apart by identity.

    Attributes:
        trained: whether gamma (``"weight"``) and beta (``"bias"``) trained before; empty if they are left
            to train.
    """

    trained: dict[str, bool]


class FrozenNorm:
    """Mixed into the class of a frozen layer: closes the two doors."""

    thawed: Any  # the class without the mixin

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # ``type(layer)(…)``, as code that rebuilds layers calls it
        hold(self, Hold({}))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "training":
            self.__dict__[_MODE] = value
        elif name != "momentum" or value is not None:
            super().__setattr__(name, value)

    def reset_running_stats(self) -> None:
        """Leave the statistics as they are."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _empty, (self.thawed,), self.__getstate__()


def frozen_class(layer_class: type[nn.Module]) -> type[nn.Module]:
    """Return ``Frozen<Name>``, always the same for a class.

    It names the module of that class as its own: graph tracers see by it that a layer is PyTorch's.

    Example:
        >>> frozen_class(nn.BatchNorm2d).__name__
        'FrozenBatchNorm2d'
    """
    if layer_class in _CLASSES:
        return _CLASSES[layer_class]
    body = {
        "__module__": layer_class.__module__,
        "__qualname__": f"Frozen{layer_class.__qualname__}",
        "__doc__": f"A frozen {layer_class.__name__}: see convscope.norm.freeze.",
        "thawed": layer_class,
    }
    made = new_class(
        f"Frozen{layer_class.__name__}", (FrozenNorm, layer_class), None, lambda ns: ns.update(body)
    )
    return _CLASSES.setdefault(layer_class, made)


def hold(layer: Any, by: Hold) -> None:
    """Make a layer frozen, if it isn't, and note who holds it."""
    if not isinstance(layer, FrozenNorm):
        layer.__class__ = frozen_class(type(layer))
    if _MODE not in layer.__dict__:
        layer.__dict__[_MODE] = layer.training
        layer.__dict__["training"] = False
    layer.__dict__[_HOLD] = by


def holder(layer: nn.Module) -> Hold | None:
    """Return who holds a layer; None if it isn't frozen."""
    return layer.__dict__.get(_HOLD)


def thaw(layer: nn.Module) -> None:
    """Give a frozen layer its class back, and the mode that was asked for last."""
    layer.__class__ = type(layer).thawed  # type: ignore[attr-defined]
    del layer.__dict__[_HOLD]
    layer.training = layer.__dict__.pop(_MODE)


def trains(layer: nn.Module) -> dict[str, bool]:
    """Return whether gamma and beta have a gradient, for those that the layer has."""
    return {
        name: parameter.requires_grad
        for name in AFFINE
        if (parameter := layer._parameters.get(name)) is not None
    }


def set_trains(layer: nn.Module, trained: dict[str, bool]) -> None:
    """Let gamma and beta have gradients or not; without, a gradient from before goes."""
    for name, wanted in trained.items():
        parameter = layer._parameters.get(name)
        if parameter is None:
            continue
        parameter.requires_grad_(wanted)
        if not wanted:
            parameter.grad = None


def check_own_class(layers: Iterable[tuple[str, nn.Module]]) -> None:
    """Refuse frozen layers whose class was changed again since, as parametrisation and sharding do.

    Raises:
        ConvscopeError: with the first one's path.
    """
    for path, layer in layers:
        if "thawed" not in vars(type(layer)):
            raise ConvscopeError(
                f"{type(layer).__name__} at {path!r}, whose class was changed after it was frozen",
                "a layer as freeze left it",
                "take that change back first (a parametrisation, for example)",
            )


def _empty(layer_class: type[nn.Module]) -> nn.Module:
    """Return a frozen layer without attributes, for pickle to fill."""
    frozen = frozen_class(layer_class)
    return frozen.__new__(frozen)
