"""Freeze batch norm: layers which use their running statistics and never move them, whatever is called.

Fine-tuning on small batches, detection heads and teachers need it, and ``layer.eval()`` isn't enough: the
next ``model.train()`` undoes it. A frozen layer (:mod:`convscope.norm.freezing.frozen`) stays as it is until
:func:`unfreeze`. It is the layer itself, changed in place: optimizers, hooks and other references stay valid.

Limits: a module made by ``torch.jit.script`` from a frozen one obeys ``.train()`` again; converters which
build new layers (``SyncBatchNorm.convert_sync_batchnorm``) build ones that aren't frozen; tools that ask for
a layer's exact class don't find it; a pickled model needs convscope to be loaded.
Code that normalises by the batch without asking for the layer's mode, in a subclass or around the layer,
goes on doing so. Where modes are written down and put back, the one noted is evaluation. Of
``DistributedDataParallel`` only a wrapper inside the given model is noticed: freeze before wrapping.
"""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from convscope.core.errors import ConvscopeError
from convscope.norm.freezing.frozen import (
    AFFINE,
    FrozenNorm,
    Hold,
    check_own_class,
    hold,
    holder,
    set_trains,
    thaw,
    trains,
)
from convscope.norm.freezing.result import Change, Frozen, FrozenLayer
from convscope.norm.selecting import Only, region, select

_KIND = "batch norm (or instance norm with running statistics)"


def freeze(model: nn.Module, only: Only = None, affine: bool = True) -> Frozen:
    """Freeze batch norms in place: running statistics are used and never move, also after ``model.train()``.

    Every subclass of PyTorch's batch norms, and instance norms that keep running statistics. Survives
    ``deepcopy``, pickling, ``torch.save`` and ``update_bn``; state dicts keep their keys. Until it is undone,
    y = γ (x − μ_running) / √(v_running + ε) + β in training too, with gradients for x (and γ, β).

    Args:
        model: a network, or one layer; changed in place.
        only: the part to freeze: a module path such as ``"layer1"`` with all inside it, a pattern such as
            ``"backbone.*"`` or ``"*.bn1"``, or several of them; None for the whole network.
        affine: also stop γ and β from training (``requires_grad=False``) and drop the gradients that they
            have, which an optimizer would still apply. False leaves both as they are.

    Returns:
        The layers' former state, with ``.undo()``; a context manager which undoes at its end. Empty for a
        network without batch norms. Layers that are frozen already stay so.

    Raises:
        ConvscopeError: ``only`` names nothing, or nothing with a batch norm; a layer has no running
            statistics or hasn't seen its first batch (lazy); γ or β is parametrised; with ``affine``, the
            network is wrapped by ``DistributedDataParallel``, whose reducer would wait for their gradients.
            Nothing is changed then.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> with freeze(net):
        ...     net.train()[1].training, net[1].weight.requires_grad
        (False, False)
        >>> net[1].training, net[1].weight.requires_grad
        (True, True)
    """
    layers = select(model, only, _can_freeze, _KIND)
    for path, layer in layers.items():
        _check(path, layer, affine)
    todo = {path: layer for path, layer in layers.items() if _is_to_change(layer, affine)}
    if affine:
        _check_unwrapped(model, "freeze", any(any(trains(layer).values()) for layer in todo.values()))
    rows = tuple(_as_it_is(path, layer) for path, layer in todo.items())
    changes = tuple(_planned(layer, affine) for layer in todo.values())
    already, left = tuple(path for path in layers if path not in todo), _left(model, only)
    for change in changes:
        hold(change.layer, change.now)
        set_trains(change.layer, dict.fromkeys(change.trained, False))
    return Frozen(rows, already, left, affine, changes)


def unfreeze(model: nn.Module, only: Only = None) -> tuple[str, ...]:
    """Unfreeze what :func:`freeze` froze, from the model alone, also after ``deepcopy`` or reloading it.

    Every layer gets its class and its γ's and β's ``requires_grad`` back, and the mode that was asked for
    last.

    Args:
        model: the network, or one layer; changed in place.
        only: the part, as in :func:`freeze`.

    Returns:
        The paths of the layers that were frozen.

    Raises:
        ConvscopeError: ``only`` names nothing, or nothing with a batch norm; γ and β would train again in a
            network that is wrapped by ``DistributedDataParallel``, whose reducer doesn't know them; a
            layer's class was changed since. Nothing is changed then.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(4))
        >>> _ = freeze(net)
        >>> unfreeze(net), net[0].training
        (('0',), True)
    """
    layers = {path: each for path, each in select(model, only, _can_freeze, _KIND).items() if is_frozen(each)}
    check_own_class(layers.items())
    holds = {path: holder(layer) for path, layer in layers.items()}
    trained = {path: by.trained for path, by in holds.items() if by is not None}
    _check_unwrapped(model, "unfreeze", any(any(each.values()) for each in trained.values()))
    for path, layer in layers.items():
        thaw(layer)
        set_trains(layer, trained[path])
    return tuple(layers)


def is_frozen(layer: nn.Module) -> bool:
    """Return whether a layer is frozen by :func:`freeze`.

    Example:
        >>> is_frozen(nn.BatchNorm2d(4))
        False
    """
    return isinstance(layer, FrozenNorm)


def _can_freeze(layer: nn.Module) -> bool:
    if isinstance(layer, _InstanceNorm):
        return bool(layer.track_running_stats) and layer.running_mean is not None
    return isinstance(layer, _BatchNorm)


def _is_to_change(layer: nn.Module, affine: bool) -> bool:
    return not is_frozen(layer) or (affine and any(trains(layer).values()))


def _planned(layer: nn.Module, affine: bool) -> Change:
    trained, before = trains(layer) if affine else {}, holder(layer)
    return Change(layer, Hold((before and before.trained) or trained), before, trained)


def _as_it_is(path: str, layer: Any) -> FrozenLayer:
    trained = trains(layer)
    name = type(layer).__name__
    return FrozenLayer(path, name, layer.num_features, layer.training, *map(trained.get, AFFINE))


def _left(model: nn.Module, only: Only) -> tuple[str, ...]:
    """Modules that keep running statistics but aren't of a class that is known."""
    return tuple(
        path
        for path, module in region(model, only).items()
        if {"running_mean", "running_var"} <= {name for name, _ in module.named_buffers(recurse=False)}
        and not isinstance(module, _NormBase)
    )


def _check(path: str, layer: nn.Module, affine: bool) -> None:
    """Refuse a layer that can't be frozen."""
    called = f"{type(layer).__name__} at {path!r}" if path else type(layer).__name__
    running = [layer._buffers.get(name) for name in ("running_mean", "running_var")]
    known = [buffer for buffer in running if buffer is not None]
    if len(known) < 2:
        raise ConvscopeError(
            f"{called}, which keeps no running statistics (track_running_stats=False)",
            "layers with running statistics to use",
            "build it with track_running_stats=True and train or recalibrate it, or leave it out with only=",
        )
    if any(map(is_lazy, known)):
        raise ConvscopeError(
            f"{called}, which doesn't know its number of channels yet",
            "layers that have seen a batch",
            "run the network once, then freeze it",
        )
    if affine and any(is_parametrized(layer, name) for name in AFFINE):
        raise ConvscopeError(
            f"{called}, whose weight or bias is parametrised",
            "gamma and beta as plain parameters",
            "remove the parametrisation first, or use affine=False",
        )


def _check_unwrapped(model: nn.Module, verb: str, changes_training: bool) -> None:
    """Refuse to change which parameters train under a wrapper that has counted them."""
    if changes_training and any(isinstance(module, DistributedDataParallel) for module in model.modules()):
        raise ConvscopeError(
            f"{verb} given a network wrapped by DistributedDataParallel, in which gamma and beta train",
            "the network before it is wrapped, as the wrapper settles at once whose gradients it exchanges",
            f"{verb} its .module and wrap that again" + (", or use affine=False" if verb == "freeze" else ""),
        )
