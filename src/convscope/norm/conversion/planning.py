"""What is to become of each layer of a network that is converted, decided before anything changes."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from convscope.core.errors import ConvscopeError
from convscope.norm.choose import num_groups
from convscope.norm.conversion.around import twin_of
from convscope.norm.conversion.changing import Change, Undo, change_to, class_of_layer, origin_of
from convscope.norm.conversion.comparing import first_line, output_of, random_batch, relative
from convscope.norm.conversion.kinds import (
    Place,
    class_name,
    class_of,
    is_synchronised,
    kind_for,
    library_class,
    place_of,
)
from convscope.norm.conversion.result import Converted
from convscope.norm.conversion.weaving import Unweavable, engine_under
from convscope.norm.freezing.frozen import FrozenNorm
from convscope.norm.group_fit.size import group_size

# Sums taken in another order may differ by this many times the dtype's eps, of the largest output.
_ROUNDING = 64


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        target: one of :data:`convscope.norm.conversion.kinds.TARGETS`.
        settings: arguments for the new layers' constructors.
        shapes: of the results of every module call on the inputs, by path; None without inputs.
        fits_groups: whether the number of groups comes from a fit on data, after the decision.
    """

    target: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[tuple[int, ...]]] | None = None
    fits_groups: bool = False


@dataclass(frozen=True, eq=False)
class Decision:
    """What is to become of a layer: a line of the report, and the change, if there is one."""

    entry: Converted
    layer: nn.Module
    change: Change | None = None


class _Kept(Exception):  # noqa: N818 - no error: a verdict
    """There is nothing to change, or no way to."""


class _Refused(Exception):  # noqa: N818 - no error: a verdict
    """The change would break the layer."""


def is_candidate(target: str, module: nn.Module) -> bool:
    """Whether a target speaks about a module: batch norms always, other layers where they would change."""
    if isinstance(module, _BatchNorm):
        return True
    place = place_of(type(module))
    kind = None if place is None else kind_for(target, place)
    return place is not None and kind is not None and kind != place.kind


def decide(path: str, layer: nn.Module, request: Request) -> Decision:
    """Return what is to become of a layer.

    Raises:
        ConvscopeError: a synchronised layer's new class depends on the rank of its inputs, which isn't known.
    """
    before = class_name(class_of_layer(layer))
    entry = Converted(path, before, before, "kept")
    try:
        change, entry = _planned(layer, request, entry)
    except _Kept as verdict:
        return Decision(replace(entry, reason=str(verdict)), layer)
    except _Refused as verdict:
        return Decision(replace(entry, status="refused", reason=str(verdict)), layer)
    return Decision(replace(entry, status="converted", after=class_name(change.new_class)), layer, change)


def _planned(layer: Any, request: Request, entry: Converted) -> tuple[Change, Converted]:
    _check_own_code(layer)
    place = place_of(type(layer))
    if place is None:
        raise _Kept("a batch norm of a class of its own, built on none of PyTorch's or convscope's")
    kind = kind_for(request.target, place)
    if kind is None or (kind == place.kind and not request.settings):
        raise _Kept(f"already {place.kind}")
    if kind == "group":
        return _regrouped(layer, request, entry)
    rank = _rank(layer, place, kind, request, entry.path)
    try:
        change = change_to(layer, _new_class(layer, kind, rank), **request.settings)
    except ConvscopeError as error:
        raise _Refused(str(error)) from error
    if change.averages_dtype is not None:
        entry = replace(entry, reason=f"running averages are {change.averages_dtype} now")
    return change, _compared(change, rank, entry)


def _check_own_code(layer: nn.Module) -> None:
    if "forward" in vars(layer):
        raise _Kept("its forward was replaced on the layer itself")
    if is_parametrized(layer):
        raise _Kept("a parametrisation holds its class; remove it first")
    if any(is_lazy(tensor) for tensor in layer.parameters()):
        raise _Refused("lazy: its number of channels isn't known before its first batch")


def _rank(layer: nn.Module, place: Place, kind: str, request: Request, path: str) -> int | None:
    """The spatial dimensions of a layer's inputs; None if its new class takes any, and nobody knows."""
    known = place.rank if place.rank is not None else origin_of(layer).place.rank
    if known is not None or place.family != "batch":
        return known
    ranks = {max(1, len(shape) - 2) for shape in (request.shapes or {}).get(path, ())}
    if len(ranks) == 1:
        return ranks.pop()
    if is_synchronised(kind):
        return None
    if request.shapes is None:
        raise ConvscopeError(
            f"{type(layer).__name__} at {path!r} takes inputs of any rank",
            f"to know its rank, for {request.target!r} has a class for each (1d, 2d, 3d)",
            "give convert(..., inputs=...), with which the network is run once",
        )
    raise _Refused(
        "the network took inputs of several ranks to it" if ranks else "the network didn't come by it"
    )


def _new_class(layer: nn.Module, kind: str, rank: int | None) -> type[nn.Module]:
    """The class of a layer of another kind: the one that it once had, a relation's, or one that is made."""
    origin = origin_of(layer)
    target = class_of(kind, origin.place.family, rank)
    base = library_class(origin.layer_class)
    if base is target:
        return origin.layer_class
    twin = twin_of(origin.layer_class, kind, rank)
    if twin is not None:
        return twin
    assert base is not None
    leaves = is_synchronised(origin.place.kind) and not issubclass(target, base)
    how = "transplanted" if leaves or issubclass(base, target) else "woven"
    return _made(origin.layer_class, target, how)


def _made(cls: type[nn.Module], target: type[nn.Module], how: Any) -> type[nn.Module]:
    try:
        return engine_under(cls, target, how)
    except (Unweavable, TypeError) as verdict:
        raise _Kept(str(verdict)) from verdict


def _compared(change: Change, rank: int | None, entry: Converted) -> Converted:
    """The entry with the difference of the layer's output in evaluation mode."""
    layer = change.layer
    if _is_meta(layer):
        return _noted(entry, "not compared: on the meta device, without numbers")
    x = random_batch(layer, rank)
    try:
        before = output_of(layer, x)
    except Exception as error:
        return _noted(entry, f"not compared: it doesn't run on a random batch ({first_line(error)})")
    after = _after(change, functools.partial(output_of, layer, x))
    apart = relative(before, after) if before.shape == after.shape else math.inf
    if not apart <= _ROUNDING * torch.finfo(x.dtype).eps:
        raise _Refused(f"in evaluation mode its output would differ by {apart:.1e}")
    return replace(entry, difference=apart)


def _noted(entry: Converted, note: str) -> Converted:
    return replace(entry, reason="; ".join(filter(None, (entry.reason, note))))


def _is_meta(layer: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in (*layer.parameters(), *layer.buffers()))


def _after(change: Change, ask: Any) -> Any:
    """What a layer answers once it is changed; then it is what it was."""
    undo = Undo([change.layer])
    try:
        change.make()
        return ask()
    except Exception as error:
        raise _Refused(f"it wouldn't run ({first_line(error)})") from error
    finally:
        undo.undo()


def _regrouped(layer: Any, request: Request, entry: Converted) -> tuple[Change, Converted]:
    """The change to group norm."""
    if isinstance(layer, FrozenNorm):
        raise _Kept("frozen: it uses its running statistics, which group norm hasn't; unfreeze it first")
    groups = _num_groups(layer.num_features, request, entry.path)
    target = class_of("group", "batch", None)
    new_class = _made(origin_of(layer).layer_class, target, "transplanted")
    change = change_to(layer, new_class, num_groups=groups)
    if new_class is not target and not _is_meta(layer):
        x = random_batch(layer, place_of(type(layer)).rank)  # type: ignore[union-attr]  # it is in the table
        _after(change, functools.partial(output_of, layer, x))
    return change, replace(entry, num_groups=groups)


def _num_groups(channels: int, request: Request, path: str) -> int:
    """The number of groups; with data only for now."""
    wanted = request.settings.get("num_groups")
    if wanted and channels % wanted:
        raise _Refused(f"{wanted} groups don't divide {channels} channels")
    if request.fits_groups:
        return wanted or 1
    positions = [math.prod(shape[2:]) for shape in (request.shapes or {}).get(path, ())]
    if not positions:  # unknown: one place is the least that there can be
        size = group_size(channels, 1, wanted or num_groups(channels))
        advice = "; that is, if maps have a single place: give inputs to see"
    else:
        size, advice = group_size(channels, min(positions), wanted), ""
    if size.refused:
        raise _Refused(f"{size.refused}, and the output zero whatever the input{advice}")
    return size.num_groups
