"""Receptive fields: which window of the image a value depends on.

Windows are carried through the recorded forward operators, one rule an operator
(:mod:`convscope.tape.receptive_rules`), so branches, reused modules and functional code need nothing
special. They are upper bounds: a position depends on no pixel outside its window, and for generic weights on
all inside it that exist. In a recorded training step, statistics over the batch count as constants, as they
are at test time; a network that takes them in evaluation too depends on the whole image.

A value has no window (None) where it depends on the whole image (global pools, flattened maps through a
linear layer, squeeze-and-excitation gates, attention, group and instance norm), where windows differ from
position to position (upsampling, branches of different strides), where the image's columns come before its
rows, after writes to parts of it, and after operators without a rule.
"""

from collections.abc import Collection
from dataclasses import dataclass

from convscope.tape import receptive_rules as _rules  # noqa: F401 - registers its rules
from convscope.tape import receptive_views as _views  # noqa: F401 - registers its rules
from convscope.tape.calls import OperatorCall, Tape
from convscope.tape.receptive_map import RULES, SPANS, Atom, Lost, Map, Operation, State, Window


@dataclass(frozen=True)
class ReceptiveField:
    """The window of the image that one position of a map depends on.

    Position ``i`` along an axis depends at most on the image coordinates
    ``offset + i · stride … offset + i · stride + size − 1``.

    Attributes:
        size: (height, width) of the window, in pixels of the network's first image input.
        stride: (height, width) between the windows of neighbouring positions.
        offset: coordinate (y, x) where the first position's window starts; negative in the padding.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    offset: tuple[int, int]


# Operators that find statistics of the whole map and normalise by them, in one.
_SPATIAL_NORMS = {"group_norm", "batch_norm"}


def receptive_fields(tape: Tape, held: Collection[int] = ()) -> dict[int, ReceptiveField | None]:
    """Return the receptive field of every forward value that depends on the image, by value index.

    The image is the first input with four axes, (n, c, h, w). Values that depend on no image aren't there.

    Args:
        tape: the recording.
        held: values that count as constants where they span the whole map, and aren't there then; a norm
            by statistics among them, its second result and third, is elementwise.

    Source:
        Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill 2019,
        for the recurrences of a single path.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> tape = record(nn.Sequential(nn.Conv2d(3, 8, 11, 4), nn.MaxPool2d(3, 2)), (1, 3, 67, 67))
        >>> receptive_fields(tape)[tape.outputs[0]]
        ReceptiveField(size=(19, 19), stride=(8, 8), offset=(0, 0))
    """
    return {value: _field(state) for value, state in _propagate(tape, held).items()}


def fields_and_whole(tape: Tape) -> tuple[dict[int, ReceptiveField | None], frozenset[int]]:
    """Return the receptive fields of values, and which of those without one depend on the whole image.

    The others without one have windows that differ from position to position, or nothing is known of them.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> tape = record(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), (1, 3, 8, 8))
        >>> fields, whole = fields_and_whole(tape)
        >>> fields[tape.outputs[0]], tape.outputs[0] in whole
        (None, True)
    """
    states = _propagate(tape)
    whole = frozenset(
        value for value, state in states.items() if isinstance(state, Map) and state.reason.endswith(SPANS)
    )
    return {value: _field(state) for value, state in states.items()}, whole


def reasons_without_field(tape: Tape) -> dict[int, str]:
    """Return why forward values have no receptive field, by value index.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> tape = record(nn.AdaptiveAvgPool2d(1), (1, 3, 8, 8))
        >>> reasons_without_field(tape)[tape.outputs[0]]
        'self#1:mean.1 spans the whole map'
    """
    states = _propagate(tape)
    return {
        value: getattr(state, "reason", "") or "the image's columns come before its rows"
        for value, state in states.items()
        if _field(state) is None
    }


def _field(state: State) -> ReceptiveField | None:
    if isinstance(state, Lost) or state.y is None or state.x is None or _is_turned(state):
        return None
    y, x = state.y, state.x
    return ReceptiveField((y.size, x.size), (y.stride, x.stride), (y.offset, x.offset))


def _is_turned(state: Map) -> bool:
    kinds = [atom.kind for axis in state.axes for atom in axis if atom.kind in ("y", "x")]
    return kinds == ["x", "y"]


def _propagate(tape: Tape, held: Collection[int] = ()) -> dict[int, State]:
    """The state of every value that depends on the image."""
    states: dict[int, State] = {}
    image = next((value for value in tape.inputs if len(tape.values[value].shape) == 4), None)
    if image is None:
        return states
    states[image] = _image(tape.values[image].shape)
    written = _written(tape)
    for call in tape.in_phase("forward"):
        given = {value: states[value] for value in call.inputs if value in states}
        if given:
            results = zip(call.outputs, _apply(tape, call, given, held))
            states |= {
                value: state
                for value, state in results
                if value is not None
                and state is not None
                and not (value in held and _spans(state, tape.values[value].shape))
            }
            # Tensors of which a part was written in place, through a view.
            part = Lost(f"{call.address} writes to a part of it")
            states |= dict.fromkeys(written.get(call.index, ()), part)
    return states


def _written(tape: Tape) -> dict[int, list[int]]:
    """By call, the values that it changed without returning them."""
    written: dict[int, list[int]] = {}
    for value in tape.values:
        if value.producer is not None and value.index not in tape.calls[value.producer].outputs:
            written.setdefault(value.producer, []).append(value.index)
    return written


def _image(shape: tuple[int, ...]) -> Map:
    axes = tuple((Atom(size, kind),) for size, kind in zip(shape, ("n", "", "y", "x"), strict=True))
    return Map(axes, Window(1, 1, 0), Window(1, 1, 0))


def _spans(state: State, shape: tuple[int, ...]) -> bool:
    """Whether a value is of the whole map; where nothing is known of it, by its having no room for places."""
    if isinstance(state, Lost):
        return sum(size > 1 for size in shape[1:]) <= 1
    return state.y is None or state.x is None


def _apply(
    tape: Tape, call: OperatorCall, given: dict[int, State], held: Collection[int]
) -> list[State | None]:
    """The states of a call's results."""
    lost = next((state for state in given.values() if isinstance(state, Lost)), None)
    if lost is not None:
        return [lost] * len(call.outputs)
    maps = {value: state for value, state in given.items() if isinstance(state, Map)}
    operation = Operation(tape, call, maps)
    rule = RULES.get(call.op) or RULES.get(call.op.removesuffix("_"))
    if rule is None:
        return [Lost(f"{call.address} has no rule")] * len(call.outputs)
    result = rule(operation)
    if isinstance(result, list):
        return list(result)
    if call.op in _SPATIAL_NORMS and len(call.outputs) > 1 and call.outputs[1] in held:
        result = operation.first
    shapes = operation.output_shapes
    # Besides their result, operators return indices and masks of its shape, and statistics of another one.
    return [result if shape == shapes[0] else None for shape in shapes]
