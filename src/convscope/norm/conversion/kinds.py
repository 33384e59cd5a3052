"""The kinds of layer that a network can be converted between, as a table of classes.

A kind is what a person asks for by name (``"sync"``); a family is the set of classes that share their state
(parameters, buffers, names), so that one can stand for another; a rank is the number of spatial dimensions
that a class is made for, 1 to 3, or None for a class that takes any.
"""

import difflib
import inspect
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm.layers.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d
from convscope.norm.layers.ghost import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d
from convscope.norm.layers.group import GroupNorm
from convscope.norm.layers.instance import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from convscope.norm.layers.layer import LayerNorm
from convscope.norm.layers.renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d
from convscope.norm.layers.sync import SyncBatchNorm

Family = Literal["batch", "instance", "layer", "group"]


class Place(NamedTuple):
    """Where a class stands in the table.

    Attributes:
        kind: ``"torch"``, ``"batch"``, …; ``"convscope"`` for this library's other layers.
        family: the classes that it shares its state with.
        rank: spatial dimensions; None for any.
    """

    kind: str
    family: Family
    rank: int | None


def _ranks(kind: str, family: Family, *classes: type[nn.Module]) -> dict[type[nn.Module], Place]:
    return {cls: Place(kind, family, rank) for rank, cls in enumerate(classes, start=1)}


PLACES: Mapping[type[nn.Module], Place] = MappingProxyType(
    {
        **_ranks("torch", "batch", nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
        **_ranks("batch", "batch", BatchNorm1d, BatchNorm2d, BatchNorm3d),
        **_ranks("renorm", "batch", BatchRenorm1d, BatchRenorm2d, BatchRenorm3d),
        **_ranks("ghost", "batch", GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d),
        nn.SyncBatchNorm: Place("torch-sync", "batch", None),
        SyncBatchNorm: Place("sync", "batch", None),
        **_ranks("torch", "instance", nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
        **_ranks("convscope", "instance", InstanceNorm1d, InstanceNorm2d, InstanceNorm3d),
        nn.LayerNorm: Place("torch", "layer", None),
        LayerNorm: Place("convscope", "layer", None),
        nn.GroupNorm: Place("torch", "group", None),
        GroupNorm: Place("convscope", "group", None),
    }
)
"""Every class that is converted from or to."""

_CLASSES = {place: cls for cls, place in PLACES.items()}

TARGETS: Mapping[str, str] = MappingProxyType(
    {
        "torch": "the same function in both modes, in PyTorch's own arithmetic",
        "batch": "the same function in both modes",
        "convscope": "the same function in both modes",
        "sync": "the same function in evaluation mode, and in training by one process; with several, "
        "statistics are those of all processes' batches together",
        "torch-sync": "the same function in evaluation mode, and in training by one process; with several, "
        "statistics are those of all processes' batches together",
        "renorm": "the same function in evaluation mode; in training, by design, outputs are corrected "
        "towards what the running averages would give",
        "ghost": "the same function in evaluation mode; in training, by design, each part of the batch is "
        "normalised by its own statistics",
        "group": "another function, by design: statistics per sample and group of channels, in both modes",
    }
)
"""What can be converted to, and how the converted network's outputs relate to those before."""

_SYNCHRONISED = ("sync", "torch-sync")
_OTHER_IN_TRAINING = ("renorm", "ghost")


def place_of(cls: type) -> Place | None:
    """Return where a class, or the nearest of its ancestors in the table, stands; None if none is there.

    Example:
        >>> place_of(nn.BatchNorm2d), place_of(nn.Conv2d)
        (Place(kind='torch', family='batch', rank=2), None)
    """
    base = library_class(cls)
    return None if base is None else PLACES[base]


def library_class(cls: type) -> type[nn.Module] | None:
    """Return a class, or the nearest of its ancestors, that is in the table; None if none is there."""
    return next((ancestor for ancestor in cls.__mro__ if ancestor in PLACES), None)


def kind_for(target: str, place: Place) -> str | None:
    """Return the kind that a layer takes under a target; None if the target doesn't speak about its family.

    Example:
        >>> kind_for("convscope", PLACES[nn.SyncBatchNorm]), kind_for("sync", PLACES[nn.LayerNorm])
        ('sync', None)
    """
    if target == "torch":
        return "torch"
    if place.family != "batch":
        return "convscope" if target == "convscope" else None
    if target == "convscope":
        return {"torch": "batch", "torch-sync": "sync"}.get(place.kind, place.kind)
    return target


def is_same_in_training(target: str, before: Collection[str]) -> bool:
    """Whether layers of some kinds, made another, are the same function in training by one process.

    Example:
        >>> is_same_in_training("torch", {"sync"}), is_same_in_training("torch", {"ghost"})
        (True, False)
        >>> is_same_in_training("convscope", {"torch", "ghost"})  # which leaves ghost batch norms
        True
    """
    if target in ("group", *_OTHER_IN_TRAINING):
        return False
    return target == "convscope" or not any(kind in before for kind in _OTHER_IN_TRAINING)


def relation(target: str, before: Collection[str]) -> str:
    """Return how outputs relate to those before, by design, for layers that were of some kinds.

    Example:
        >>> relation("batch", {"torch"})
        'the same function in both modes'
        >>> relation("batch", {"torch", "ghost"})
        'the same function in evaluation mode; in training, by design, another than that of ghost'
    """
    others = [kind for kind in _OTHER_IN_TRAINING if kind in before and kind != target]
    if others and target not in ("group", "convscope"):
        named = " and ".join(others)
        return f"the same function in evaluation mode; in training, by design, another than that of {named}"
    if target in ("torch", "batch") and any(map(is_synchronised, before)):
        return f"{TARGETS[target]}; with several processes, statistics are those of each one's own batch now"
    return TARGETS[target]


def is_synchronised(kind: str) -> bool:
    """Whether layers of a kind exchange statistics between processes; they take inputs of any rank."""
    return kind in _SYNCHRONISED


def class_of(kind: str, family: Family, rank: int | None) -> type[nn.Module]:
    """Return the class of a kind, family and rank; ``"group"`` of the batch family is our group norm."""
    if kind == "group":
        return GroupNorm
    return _CLASSES[Place(kind, family, None if is_synchronised(kind) else rank)]


def settings_of(cls: type[nn.Module]) -> frozenset[str]:
    """Return the arguments of a batch norm's constructor beyond ``torch.nn.BatchNorm2d``'s.

    Example:
        >>> sorted(settings_of(BatchRenorm2d))
        ['d_max', 'r_max', 'relaxation', 'warm_start']
    """
    if PLACES[cls].family != "batch":
        return frozenset()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    constructors = [vars(ancestor)["__init__"] for ancestor in cls.__mro__ if "__init__" in vars(ancestor)]
    arguments = [each for one in constructors for each in inspect.signature(one).parameters.values()]
    shared = inspect.signature(nn.BatchNorm2d.__init__).parameters
    return frozenset(each.name for each in arguments if each.kind in named and each.name not in shared)


def require_target(target: object) -> str:
    """Return the target if there is such a one.

    Raises:
        ConvscopeError: there is none; the message offers the nearest.
    """
    if isinstance(target, str) and target in TARGETS:
        return target
    near = difflib.get_close_matches(str(target).lower(), TARGETS, n=1, cutoff=0.4)
    raise ConvscopeError(
        f"unknown kind of layer {target!r}",
        f"one of {', '.join(TARGETS)}",
        f"did you mean {near[0]!r}?" if near else "choose one of them",
    )


def class_name(cls: type) -> str:
    """Return how a class is called by those who import it.

    Example:
        >>> class_name(nn.BatchNorm2d), class_name(BatchNorm2d)
        ('torch.nn.BatchNorm2d', 'convscope.norm.BatchNorm2d')
    """
    for room in ("torch.nn", "convscope.norm"):
        if cls.__module__.startswith(f"{room}."):
            return f"{room}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"
