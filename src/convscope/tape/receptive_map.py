"""What is known of a value that depends on the image, and the table of rules that carry it on.

A map's axes are kept as products of atoms, so that it is known where the image's height and width are after
permutations and views: (n, c, h, w) viewed as (n, c·h·w) has the axes [n], [c, y, x]. A rule takes an
:class:`Operation` and returns the :class:`Map` of the result, :class:`Lost`, or None for results that don't
depend on the image; a list of these where results differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

from convscope.tape.calls import OperatorCall, Tape


class Window(NamedTuple):
    """Along an axis of the image, position i depends on ``size`` pixels from ``offset + i·stride`` on."""

    size: int
    stride: int
    offset: int


class Atom(NamedTuple):
    """A factor of an axis: ``kind`` is ``"n"`` (samples), ``"y"``, ``"x"`` (image) or ``""`` (channels …)."""

    size: int
    kind: str


Axis = tuple[Atom, ...]
SPANS = "spans the whole map"


@dataclass(frozen=True)
class Map:
    """What is known of a value that depends on the image.

    Attributes:
        axes: its axes as products of atoms; where the windows are gone, no atom is ``"y"`` or ``"x"``.
        y, x: the windows; None if it depends on the whole image.
        reason: why they are None.
    """

    axes: tuple[Axis, ...]
    y: Window | None
    x: Window | None
    reason: str = ""

    def kinds(self, *dims: int) -> set[str]:
        """Return the kinds of atoms in some axes."""
        return {atom.kind for dim in dims for atom in self.axes[dim]}

    def with_axis(self, dim: int, axis: Axis) -> "Map":
        """Return the map with another axis in the place of one."""
        dim %= len(self.axes)
        return replace(self, axes=(*self.axes[:dim], axis, *self.axes[dim + 1 :]))


@dataclass(frozen=True)
class Lost:
    """A value of which nothing is known but that it depends on the image."""

    reason: str


State = Map | Lost


@dataclass(frozen=True)
class Operation:
    """An operator call with what is known of those of its arguments that depend on the image."""

    tape: Tape
    call: OperatorCall
    maps: dict[int, Map]

    @property
    def first(self) -> Map:
        """The first argument that depends on the image."""
        return next(iter(self.maps.values()))

    @property
    def output_shapes(self) -> list[tuple[int, ...] | None]:
        """Shapes of the results."""
        values = self.call.outputs
        return [None if value is None else self.tape.values[value].shape for value in values]

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of the first result."""
        return self.tape.values[self.call.output].shape

    def argument(self, name: str, default: Any = None) -> Any:
        """Return a plain argument."""
        found = self.call.arguments.get(name)
        return default if found is None else found

    def map_of(self, name: str) -> Map | None:
        """Return the map of a tensor argument, or None if it doesn't depend on the image."""
        return self.maps.get(-1 if (value := self.call.tensor(name)) is None else value)

    def whole(self, axes: Sequence[Axis], why: str = SPANS) -> Map:
        """Return a map of these axes that depends on the whole image."""
        blank = tuple(tuple(Atom(a.size, "n" if a.kind == "n" else "") for a in axis) for axis in axes)
        known = next((m.reason for m in self.maps.values() if m.reason), "")
        return Map(blank, None, None, known or f"{self.call.address} {why}")


Rule = Callable[[Operation], "State | list[State | None] | None"]
RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Return a decorator which makes a function the rule of these operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def joined(operation: Operation, maps: Sequence[Map], shape: tuple[int, ...]) -> State:
    """Return the union of maps that are broadcast to one shape."""
    spread = [_broadcast(operation, one, shape) for one in maps]
    gone = next((one for one in spread if one.y is None or one.x is None), None)
    if gone is not None:
        samples = next((one for one in spread if "n" in one.kinds(*range(len(shape)))), gone)
        return operation.whole(samples.axes)
    union = spread[0]
    for one in spread[1:]:
        places = [[a.kind for a in axis if a.kind in ("y", "x")] for axis in one.axes]
        if places != [[a.kind for a in axis if a.kind in ("y", "x")] for axis in union.axes]:
            return Lost(f"{operation.call.address} joins maps whose axes differ")
        y, x = _union(union.y, one.y), _union(union.x, one.x)
        if y is None or x is None:
            return Lost(f"{operation.call.address} joins maps of different strides")
        union = replace(union, y=y, x=x)
    return union


def _union(one: Window | None, other: Window | None) -> Window | None:
    if one is None or other is None or one.stride != other.stride:
        return None
    start = min(one.offset, other.offset)
    end = max(one.offset + one.size, other.offset + other.size)
    return Window(end - start, one.stride, start)


def _broadcast(operation: Operation, one: Map, shape: tuple[int, ...]) -> Map:
    missing = len(shape) - len(one.axes)
    axes = ((),) * missing + one.axes
    spread = any(prod(a.size for a in axis) != size and _in_image(axis) for axis, size in zip(axes, shape))
    fitted = tuple(
        axis if prod(a.size for a in axis) == size else (Atom(size, ""),) for axis, size in zip(axes, shape)
    )
    return operation.whole(fitted, "spreads one position") if spread else replace(one, axes=fitted)


def _in_image(axis: Axis) -> bool:
    return any(atom.kind in ("y", "x") for atom in axis)


def slid(operation: Operation, one: Map, dim: int, size: int, window: tuple[int, int, int]) -> Map:
    """Return a map after a window of (extent, stride, padding) slid along an axis, which now has ``size``."""
    axis = one.axes[dim]
    if not _in_image(axis):
        same = prod(atom.size for atom in axis) == size
        return one if same else one.with_axis(dim, (Atom(size, ""),))
    if window == (1, 1, 0):
        return one
    if len(axis) != 1:
        return operation.whole(one.with_axis(dim, (Atom(size, ""),)).axes, "slides over a folded axis")
    extent, stride, padding = window
    kind = axis[0].kind
    old = one.y if kind == "y" else one.x
    assert old is not None
    new = Window(old.size + (extent - 1) * old.stride, old.stride * stride, old.offset - padding * old.stride)
    moved = one.with_axis(dim, (Atom(size, kind),))
    return replace(moved, y=new) if kind == "y" else replace(moved, x=new)
