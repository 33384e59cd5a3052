"""Change the kind of a network's normalisation layers in place, with proof that it says what it said.

Converters that build new layers lose what the old ones were: PyTorch's ``convert_sync_batchnorm`` drops the
activation of timm's ``BatchNormAct2d``, and there is no way back. Here a layer stays the object that it is
and changes its class (``changing``); subclasses keep their own code around the new engine (``weaving``).

Limits: code that asks for a layer's exact class (``type(layer) is nn.BatchNorm2d``) sees another one; modules
compiled by ``torch.jit`` can't be changed; networks compiled by ``torch.compile`` before are to be compiled
again.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm.conversion.changing import Undo
from convscope.norm.conversion.comparing import Witness, first_line
from convscope.norm.conversion.kinds import (
    class_of,
    is_same_in_training,
    is_synchronised,
    place_of,
    relation,
    require_target,
    settings_of,
)
from convscope.norm.conversion.planning import Decision, Request, decide, is_candidate
from convscope.norm.conversion.regrouping import Regrouping, fitted, settled
from convscope.norm.conversion.result import Conversion, Converted, Difference
from convscope.norm.selecting import Only, select
from convscope.tape import require_module

_SAME = 1e-3  # outputs of a deep network in half precision; a wrong layer shows above it


def convert(
    model: nn.Module,
    to: str,
    inputs: Any = None,
    *,
    only: Only = None,
    optimizer: torch.optim.Optimizer | None = None,
    data: Any = None,
    **settings: Any,
) -> Conversion:
    """Change the kind of normalisation layers in place, and report what changed and by how much.

    ========================  ==========================================================================
    ``to``                    what layers become
    ========================  ==========================================================================
    ``"torch"``               ``torch.nn``'s batch, instance, group and layer norm; batch norms that were
                              synchronised become ordinary ones
    ``"convscope"``           the same layers, of this library
    ``"batch"``               batch norms: this library's ``BatchNorm1d/2d/3d``
    ``"sync"``                batch norms: this library's ``SyncBatchNorm``
    ``"torch-sync"``          batch norms: ``torch.nn.SyncBatchNorm``
    ``"renorm"``, ``"ghost"`` batch norms: ``BatchRenorm1d/2d/3d``, ``GhostBatchNorm1d/2d/3d``
    ``"group"``               batch norms: ``GroupNorm``, with γ and β fitted again if there is ``data``
    ========================  ==========================================================================

    A layer stays the same object and keeps its parameters, buffers, hooks, mode and every reference to it
    (an optimizer's, a second path's); back again it is the class that it was. Subclasses keep what they do
    around their batch norm. Frozen layers change and stay frozen; group norm leaves them, for it has no
    statistics to use. All checks come before the first change, and after an exception the model is as it was.

    Args:
        model: a network, or one layer; changed in place.
        to: the kind, as above.
        inputs: to run the network on, before and after, in both modes: a tensor, a tuple or dict of tensors,
            or a shape. Also tells the rank of synchronised layers. None compares layers one by one only.
        only: the part to convert, as in :func:`convscope.norm.freeze`; None for the whole network.
        optimizer: gets parameters that group norm adds to layers without γ and β, in the parameter group that
            holds most of the network's parameters. State of parameters that were there stays.
        data: batches on which γ and β of group norm are fitted to the layers' outputs so far, by default with
            one group, which keeps most of what the network does (:func:`convscope.norm.fit_groups` has
            measurements); None leaves them as they are, with up to 32 groups, and the network to be trained
            again.
        **settings: arguments of the new layers: ``process_group``, ``num_groups``, ``ghost_batch_size``,
            ``r_max``, ``d_max``, ``relaxation``, ``warm_start``, each for the kinds that have it.

    Returns:
        What became of each layer, and how far the outputs are from those before.

    Raises:
        ConvscopeError: unknown kind or setting, or a value of one that no layer takes; no layer of the kind
            in the model; ``only`` names nothing; a synchronised layer of unknown rank and no inputs; the
            network doesn't run on the inputs. The model is as it was then.

    Not covered: a training pass with synchronised layers isn't compared while processes are connected, for
    they would exchange statistics. Hooks on the network run in the comparisons too.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        >>> conversion = convert(net, "sync", (2, 3, 8, 8))
        >>> conversion.converted, conversion.differences[0].max_abs, type(net[1]).__name__
        (1, 0.0, 'SyncBatchNorm')
        >>> _ = convert(net, "torch")
        >>> type(net[1])
        <class 'torch.nn.modules.batchnorm.BatchNorm2d'>
    """
    require_module(model)
    target = require_target(to)
    _check_settings(target, settings, data)
    layers = select(model, only, lambda module: is_candidate(target, module), _wanted(target))
    if not layers:
        raise ConvscopeError(
            f"a {type(model).__name__} without a {_wanted(target)}",
            "a network with one",
            "nothing to convert",
        )
    before = {place.kind for layer in layers.values() if (place := place_of(type(layer))) is not None}
    witness = Witness(model, inputs, in_training=not _exchanges({*before, target}))
    request = Request(target, settings, witness.shapes, fits_groups=data is not None)
    decisions = [decide(path, layer, request) for path, layer in layers.items()]
    fits = fitted(model, decisions, data, settings.get("num_groups", 1))
    decisions = [settled(decision, fits.get(decision.entry.path)) for decision in decisions]
    regrouping = Regrouping(model, decisions, fits, optimizer)
    changes = [decision.change for decision in decisions if decision.change is not None]
    undo = Undo([change.layer for change in changes])
    try:
        for change in changes:
            change.make()
        regrouping.make()
        differences = witness.differences(statistics=target != "group")
    except BaseException:
        regrouping.undo()
        undo.undo()
        raise
    notes = (*witness.notes, *regrouping.notes, *_unexpected(target, before, differences))
    entries = tuple(_entry(model, decision) for decision in decisions)
    return Conversion(
        target, entries, relation(target, before), differences, regrouping.new_parameters, notes
    )


def _wanted(target: str) -> str:
    """What a target looks for in a network, for messages."""
    if target == "torch":
        return "batch norm or layer of convscope's"
    return "normalisation layer" if target == "convscope" else "batch norm"


def _check_settings(target: str, settings: Mapping[str, Any], data: Any) -> None:
    known = _settings_of(target)
    unknown = next((name for name in settings if name not in known), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.4)
        raise ConvscopeError(
            f"unknown setting {unknown!r} for {target!r}",
            f"one of {', '.join(known)}" if known else "none",
            f"did you mean {near[0]!r}?" if near else "leave it out",
        )
    if data is not None and target != "group":
        raise ConvscopeError(
            f"data for {target!r}", "data for 'group' alone, whose γ and β are fitted", "give inputs instead"
        )
    groups = settings.get("num_groups")
    if groups is not None and (type(groups) is not int or groups < 1):
        raise ConvscopeError(f"num_groups={groups!r}", "a whole number from 1", "leave it out for up to 32")
    if settings and target != "group":
        _check_values(target, settings)


def _check_values(target: str, settings: Mapping[str, Any]) -> None:
    """Refuse what no layer would take; the constructor's own refusals say what is wrong."""
    try:
        class_of(target, "batch", 2)(1, **settings)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        raise ConvscopeError(
            f"{given} for {target!r} ({first_line(error)})", "values that its layers take", "see their class"
        ) from error


def _settings_of(target: str) -> list[str]:
    if target in ("torch", "convscope"):
        return []
    return ["num_groups"] if target == "group" else sorted(settings_of(class_of(target, "batch", 2)))


def _exchanges(kinds: set[str]) -> bool:
    """Whether a training pass may exchange statistics with other processes."""
    return dist.is_available() and dist.is_initialized() and any(map(is_synchronised, kinds))


def _unexpected(target: str, before: set[str], differences: tuple[Difference, ...]) -> Iterator[str]:
    apart = {each.mode: each.max_relative for each in differences if each.what == "outputs"}
    if target != "group" and not apart.get("evaluation", 0.0) <= _SAME:
        yield (
            "outputs in evaluation mode changed, though no layer's did on its own: the network's code may "
            "ask for a layer's class, or isn't deterministic"
        )
    elif is_same_in_training(target, before) and not apart.get("training", 0.0) <= _SAME:
        yield (
            "outputs in training changed by more than one layer's rounding: batch norms magnify it where a "
            "channel has few values; see whether they do on more samples, or with the network in float64"
        )


def _entry(model: nn.Module, decision: Decision) -> Converted:
    paths = (path for path, module in model.named_modules(remove_duplicate=False) if module is decision.layer)
    return replace(decision.entry, also=tuple(path for path in paths if path != decision.entry.path))
