"""How views and rearrangements carry windows on: they move axes, and slices move windows."""

from dataclasses import replace
from math import prod

from convscope.tape.receptive_map import Atom, Axis, Lost, Operation, State, Window, joined, rule


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "view_copy")
def view(operation: Operation) -> State:
    """Atoms are dealt out to the new axes; channels may be split, an image axis may not."""
    given, shape = operation.first, operation.output
    axes = _dealt([atom for axis in given.axes for atom in axis], shape)
    if axes is None:
        return operation.whole(tuple((Atom(size, ""),) for size in shape), "folds the map")
    return replace(given, axes=axes)


def _dealt(atoms: list[Atom], shape: tuple[int, ...]) -> tuple[Axis, ...] | None:
    """The atoms by new axis, in order; None if an axis of the image would be split."""
    rest, axes = atoms[::-1], []
    for size in shape:
        axis: list[Atom] = []
        missing = size
        while missing > 1 and rest:
            atom = rest.pop()
            if missing % atom.size == 0:
                axis.append(atom)
                missing //= atom.size
            elif atom.size % missing == 0 and atom.kind in ("", "n"):
                axis.append(Atom(missing, atom.kind))
                rest.append(Atom(atom.size // missing, atom.kind))
                missing = 1
            else:
                return None
        if size == 1 and rest and rest[-1].size == 1:
            axis.append(rest.pop())
        axes.append(tuple(axis))
    if any(atom.size > 1 for atom in rest):
        return None
    # Axes of one element that are gone: kept with the last axis, so that their windows are.
    if rest and axes:
        axes[-1] = (*axes[-1], *rest[::-1])
    return tuple(axes)


@rule("permute")
def permute(operation: Operation) -> State:
    """Axes in another order."""
    given = operation.first
    return replace(given, axes=tuple(given.axes[dim] for dim in operation.argument("dims")))


@rule("transpose", "t")
def transpose(operation: Operation) -> State:
    """Two axes change places."""
    given = operation.first
    rank = len(given.axes)
    if rank < 2:
        return given
    order = list(range(rank))
    one, other = operation.argument("dim0", 0), operation.argument("dim1", 1)
    order[one], order[other] = order[other], order[one]
    return replace(given, axes=tuple(given.axes[dim] for dim in order))


@rule("unsqueeze")
def unsqueeze(operation: Operation) -> State:
    """A new axis of one element."""
    given = operation.first
    dim = operation.argument("dim") % len(operation.output)
    return replace(given, axes=(*given.axes[:dim], (), *given.axes[dim:]))


@rule("squeeze")
def squeeze(operation: Operation) -> State:
    """Axes of one element go; if one is the image's, so does the meaning of positions along it."""
    given, rank = operation.first, len(operation.first.axes)
    asked = operation.argument("dim", tuple(range(rank)))
    dims = {dim % rank for dim in ([asked] if isinstance(asked, int) else asked)}
    sizes = [prod(atom.size for atom in axis) for axis in given.axes]
    gone = {dim for dim in dims if sizes[dim] == 1}
    axes = tuple(axis for dim, axis in enumerate(given.axes) if dim not in gone)
    if given.kinds(*gone) & {"y", "x"}:
        return operation.whole(axes, "drops an axis of the map")
    return replace(given, axes=axes)


@rule("slice", "narrow")
def sliced(operation: Operation) -> State:
    """Windows start further in, and further apart with a step."""
    dim = operation.argument("dim", 0)
    size = operation.tape.values[operation.call.inputs[0]].shape[dim]
    start = operation.argument("start", 0)
    start = max(start + size, 0) if start < 0 else start
    return _part(operation, dim, start, operation.argument("step", 1), operation.output[dim])


@rule("split", "split_with_sizes", "unsafe_split", "chunk")
def split(operation: Operation) -> list[State | None]:
    """Slices one after another."""
    dim, start = operation.argument("dim", 0), 0
    parts: list[State | None] = []
    for shape in operation.output_shapes:
        assert shape is not None
        parts.append(_part(operation, dim, start, 1, shape[dim]))
        start += shape[dim]
    return parts


def _part(operation: Operation, dim: int, start: int, step: int, size: int) -> State:
    given = operation.first
    axis = given.axes[dim]
    if prod(atom.size for atom in axis) == size:
        return given
    kinds = given.kinds(dim)
    if not kinds & {"y", "x"}:
        return given.with_axis(dim, (Atom(size, "n" if "n" in kinds else ""),))
    if len(axis) != 1:
        return operation.whole(given.with_axis(dim, (Atom(size, ""),)).axes, "cuts a folded map")
    kind = axis[0].kind
    old = given.y if kind == "y" else given.x
    assert old is not None
    new = Window(old.size, old.stride * step, old.offset + start * old.stride)
    part = given.with_axis(dim, (Atom(size, kind),))
    return replace(part, y=new) if kind == "y" else replace(part, x=new)


@rule("select")
def select(operation: Operation) -> State:
    """One sample or channel; one position has no map any more."""
    return _picked(operation)


def _picked(operation: Operation) -> State:
    given = operation.first
    dim = operation.argument("dim", 0) % len(given.axes)
    axes = (*given.axes[:dim], *given.axes[dim + 1 :])
    if given.kinds(dim) & {"y", "x"}:
        return operation.whole(axes, "picks one position")
    return replace(given, axes=axes)


@rule("unbind")
def unbind(operation: Operation) -> list[State | None]:
    """Every slice of one element, without its axis."""
    return [_picked(operation)] * len(operation.call.outputs)


@rule("cat", "concat")
def concatenated(operation: Operation) -> State:
    """The union over maps that are stacked along channels."""
    out = operation.output
    dim = operation.argument("dim", 0) % len(out)
    maps = list(operation.maps.values())
    if any(len(one.axes) != len(out) for one in maps):
        return Lost(f"{operation.call.address} joins maps of different ranks")
    if any(one.kinds(dim) & {"y", "x"} for one in maps):
        return operation.whole(maps[0].with_axis(dim, (Atom(out[dim], ""),)).axes, "lays maps side by side")
    kind = "n" if any("n" in one.kinds(dim) for one in maps) else ""
    return joined(operation, [one.with_axis(dim, (Atom(out[dim], kind),)) for one in maps], out)


@rule("stack")
def stacked(operation: Operation) -> State:
    """The union over maps, with a new axis."""
    out = operation.output
    dim = operation.argument("dim", 0) % len(out)
    new: Axis = (Atom(out[dim], ""),)
    maps = [replace(one, axes=(*one.axes[:dim], new, *one.axes[dim:])) for one in operation.maps.values()]
    return joined(operation, maps, out)
