"""One layer becomes another kind of layer in place: its class changes, and the few attributes that differ.

Identity, parameters, buffers, hooks, ``training`` and ``requires_grad`` stay, and so does whatever refers to
the layer or its parameters: modules that share it, optimizers, distributed wrappers.

What the layer was before its first change is remembered on it where its new class doesn't say so, as a plain
tuple under one private name, and forgotten when it is that again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from convscope.norm.conversion.kinds import (
    PLACES,
    Place,
    class_of,
    is_synchronised,
    library_class,
    settings_of,
)
from convscope.norm.engine.running import WideAverages
from convscope.norm.engine.statistics import accumulated_in
from convscope.norm.freezing.frozen import FrozenNorm, frozen_class

_MEMORY = "_class_before_conversion"
_PYTORCH = ("torch", "torch-sync")


@dataclass(frozen=True, eq=False)
class Origin:
    """What a layer was before it was first converted.

    Attributes:
        layer_class: its class, never one that a conversion made.
        attributes: its attributes beyond those of its family, where they weren't the class's defaults.
    """

    layer_class: type[nn.Module]
    attributes: Mapping[str, Any]

    @property
    def place(self) -> Place:
        """Where the class stands in the table."""
        base = library_class(self.layer_class)
        assert base is not None
        return PLACES[base]


@dataclass(frozen=True, eq=False)
class Change:
    """What one layer is to become.

    Attributes:
        layer: the layer.
        new_class: its class to be; a frozen layer stays frozen.
        attributes: new plain attributes.
        removed: names of attributes and buffers that go.
        averages_dtype: of the running averages to be; None if they stay the buffers that they are.
        memory: what is remembered of the layer as it was; None for nothing.
    """

    layer: nn.Module
    new_class: type[nn.Module]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    averages_dtype: torch.dtype | None = None
    memory: tuple[type, Mapping[str, Any]] | None = None

    def make(self) -> None:
        """Change the layer."""
        attributes = vars(self.layer)
        for name in self.removed:
            attributes.pop(name, None)
            self.layer._buffers.pop(name, None)
        attributes.update(self.attributes)
        for name, buffer in self.layer._buffers.items():
            if self.averages_dtype is not None and buffer is not None and buffer.is_floating_point():
                self.layer._buffers[name] = buffer.to(self.averages_dtype)
        attributes.pop(_MEMORY, None)
        if self.memory is not None:
            attributes[_MEMORY] = self.memory
        frozen = isinstance(self.layer, FrozenNorm)
        self.layer.__class__ = frozen_class(self.new_class) if frozen else self.new_class


class Undo:
    """Puts layers back as they are now: class, attributes, and which parameters and buffers they have."""

    def __init__(self, layers: list[nn.Module]) -> None:
        self._layers = [
            (layer, type(layer), dict(vars(layer)), dict(layer._parameters), dict(layer._buffers))
            for layer in layers
        ]

    def undo(self) -> None:
        """Put them back."""
        for layer, layer_class, attributes, parameters, buffers in self._layers:
            layer.__class__ = layer_class
            vars(layer).clear()
            vars(layer).update(attributes)
            contents: list[tuple[Any, Any]] = [(layer._parameters, parameters), (layer._buffers, buffers)]
            for content, kept in contents:
                content.clear()
                content.update(kept)


def class_of_layer(layer: nn.Module) -> type[nn.Module]:
    """Return a layer's class; of a frozen layer the one that it had before."""
    return type(layer).thawed if isinstance(layer, FrozenNorm) else type(layer)


def origin_of(layer: nn.Module) -> Origin:
    """Return what a layer of the table's classes was before it was first converted."""
    memory = vars(layer).get(_MEMORY)
    if memory is not None:
        return Origin(*memory)
    layer_class = class_of_layer(layer)
    base = library_class(layer_class)
    assert base is not None
    return Origin(layer_class, _own_settings(layer, base))


def change_to(layer: nn.Module, new_class: type[nn.Module], **settings: Any) -> Change:
    """Return the change of a layer's class, with the attributes that it takes.

    Args:
        layer: a layer of the table's classes, or a subclass's.
        new_class: as :func:`convscope.norm.conversion.weaving.engine_under` returns it.
        **settings: arguments of the new class's constructor, beyond those that the family shares.

    Raises:
        ConvscopeError: the new class refuses the layer's settings.
    """
    origin = origin_of(layer)
    old, new = library_class(class_of_layer(layer)), library_class(new_class)
    assert old is not None
    assert new is not None
    before, after = _template(old, layer, {}), _template(new, layer, settings)
    added = {name: value for name, value in vars(after).items() if name not in vars(before)}
    comes, goes = settings_of(new) - settings_of(old), settings_of(old) - settings_of(new)
    added |= {name: value for name, value in origin.attributes.items() if name in comes}
    added |= {name: getattr(after, name) for name in settings}
    gone = vars(before).keys() - vars(after).keys() | before._buffers.keys() - after._buffers.keys()
    return Change(
        layer,
        new_class,
        attributes=added,
        removed=frozenset(gone | goes),
        averages_dtype=_averages_dtype(layer, new),
        memory=_memory(origin, new_class, PLACES[new]),
    )


def _averages_dtype(layer: nn.Module, new: type[nn.Module]) -> torch.dtype | None:
    """The dtype that running averages are to have, if it is another: ours are never of half precision.

    PyTorch's layers take float32 ones beside half-precision values, but not beside half-precision γ.
    """
    average, weight = layer._buffers.get("running_mean"), layer._parameters.get("weight")
    if average is None:
        return None
    wide = accumulated_in(average.dtype)
    if issubclass(new, WideAverages):
        return wide if wide != average.dtype else None
    narrow = weight is not None and accumulated_in(weight.dtype) != weight.dtype
    return weight.dtype if narrow and weight is not None and average.dtype == wide else None


def _memory(
    origin: Origin, new_class: type[nn.Module], place: Place
) -> tuple[type, Mapping[str, Any]] | None:
    """What is to be remembered: nothing that the new class says, nothing of convscope on PyTorch's layers."""
    cls, attributes, was = origin.layer_class, origin.attributes, origin.place
    if new_class is cls or place.family != was.family:
        return None
    if cls in PLACES and place.kind in _PYTORCH and was.kind not in _PYTORCH:
        kind = "torch-sync" if is_synchronised(was.kind) else "torch"
        cls, attributes = class_of(kind, was.family, was.rank), {}
    known = cls in PLACES and not attributes and was.rank == place.rank
    return None if known else (cls, attributes)


def _own_settings(layer: nn.Module, base: type[nn.Module]) -> dict[str, Any]:
    """The settings beyond those of its family that a layer has, where they aren't the class's defaults."""
    template = _template(base, layer, {})
    names = [name for name in settings_of(base) if hasattr(template, name)]
    return {name: vars(layer)[name] for name in names if _differs(layer, template, name)}


def _differs(layer: nn.Module, template: nn.Module, name: str) -> bool:
    return name in vars(layer) and vars(layer)[name] != getattr(template, name)


def _template(cls: type[nn.Module], layer: Any, settings: Mapping[str, Any]) -> nn.Module:
    """A new layer of a class of the table, with another layer's settings and without gamma and beta."""
    tensor = next((t for t in (*layer._buffers.values(), *layer._parameters.values()) if t is not None), None)
    where: dict[str, Any] = {} if tensor is None else {"device": tensor.device}
    where["dtype"] = None if tensor is None else tensor.dtype
    family = PLACES[cls].family
    if family == "layer":
        return cls(layer.normalized_shape, layer.eps, elementwise_affine=False, **where)
    if family == "group":
        groups = settings.get("num_groups", getattr(layer, "num_groups", 1))
        channels = layer.num_channels if hasattr(layer, "num_channels") else layer.num_features
        return cls(groups, channels, layer.eps, affine=False, **where)
    shared = {"eps": layer.eps, "momentum": layer.momentum, "affine": False}
    tracked = {"track_running_stats": layer.track_running_stats}
    return cls(layer.num_features, **shared, **tracked, **where, **settings)
