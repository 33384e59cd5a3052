"""Whether a value need not be saved, and what has to be held in its place.

A value goes back to sources: tensors that can't be made again, or that somebody keeps. Of a normalised and
rectified map that is the map before it, which batch norm keeps for its own gradient. Small sources, a number
per channel, are copied, so that later changes of theirs do no harm. Any other source is kept in the value's
place if that costs clearly less: a block of DenseNet concatenates all maps before it, and new is only one.
"""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from convscope.norm.lean.values import Argument, Hooks, Kept, Origin, Value

SMALL = 1 / 16
"""A source with at most this share of the value's bytes is copied."""
_WORTH = 0.75
"""A value isn't saved if what is kept in its place has at most this share of its bytes."""


class Extra(NamedTuple):
    """What is held for values that aren't saved, and wouldn't be if they were.

    Attributes:
        kept: these values.
        copied_bytes: copies of small sources.
    """

    kept: list[Value]
    copied_bytes: int


def secured(value: Value, layer: str, hooks: Hooks | None) -> Extra | None:
    """Hold all that a value goes back to; or, where that isn't worth while, nothing.

    Args:
        value: to be made again; it has an origin.
        layer: that saves it.
        hooks: see :class:`Kept`.

    Returns:
        What is held now for its sake; None if the value had better be kept itself, and nothing is held then.
    """
    assert value.origin is not None
    if value.origin.is_secured:
        return Extra([], 0)
    origins = list(_way_back(value.origin))
    found = _held(origins, value.nbytes, whole_only=hooks is not None)
    if found is None:
        return None
    extra, copied_bytes = [], 0
    for argument, source in found:
        if isinstance(source, Tensor):
            if source.nbytes <= SMALL * value.nbytes:
                source = source.detach().clone()
                copied_bytes += source.nbytes
            elif (kept := argument.value.kept) is not None:  # another argument of the same value
                source = kept
            else:
                source = argument.value.keep(source, layer, hooks)
                extra.append(argument.value)
        argument.hold(source)
    for origin in origins:
        origin.is_secured = True
    return Extra(extra, copied_bytes)


def _way_back(origin: Origin) -> Iterator[Origin]:
    """The operators that have to run again, from the last one to the first."""
    waiting, seen = [origin], {id(origin)}
    while waiting:
        origin = waiting.pop()
        yield origin
        for argument in origin.arguments:
            before = argument.value.origin
            if argument.value.kept is not None or before is None or before.is_secured:
                continue
            if id(before) not in seen:
                seen.add(id(before))
                waiting.append(before)


def _held(
    origins: list[Origin], nbytes: int, *, whole_only: bool
) -> list[tuple[Argument, Kept | Tensor]] | None:
    """Every source with who keeps it, or as it is; None if that costs too much.

    Others' hooks may keep a copy of a view, in which the view's place isn't any more: ``whole_only``.
    """
    found: list[tuple[Argument, Kept | Tensor]] = []
    extra: dict[Value, int] = {}
    for argument in (argument for origin in origins for argument in origin.arguments):
        kept = argument.value.kept
        if kept is None and argument.value.origin is not None:
            continue
        source = kept or argument.tensor
        if source is None or (isinstance(source, Tensor) and source.dtype != argument.value.dtype):
            return None
        found.append((argument, source))
        if isinstance(source, Tensor) and source.nbytes > SMALL * nbytes:
            if whole_only and argument.geometry != argument.value.geometry:
                return None
            extra[argument.value] = argument.value.nbytes
    return found if sum(extra.values()) <= _WORTH * nbytes else None
