"""The network's first operators that can run on regions alone, and whether that saves work.

Such a prefix ends somewhere along the order of execution: at first regions are small, later on they fill the
maps. It is chosen where the estimated work of the whole run is least. Work is counted in
multiply-accumulates, an element that is read or written by other operators as :data:`ELEMENT` of them.

Source: Nakandala, Kumar and Papakonstantinou 2019, "Incremental and approximate inference for faster
occlusion-based deep CNN explanations" (Krypton), section 4, for the projective field of a patch.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

from convscope.sight.occluding.regions import Regions, regions
from convscope.sight.projecting.projection import Box
from convscope.tape import OperatorCall, Tape
from convscope.tape.batch_norms import normalises_samples
from convscope.tape.receptive_field import ReceptiveField, receptive_fields

ELEMENT = 15
LARGEST_SHARE = 0.85
"""Of the plain work, above which reuse isn't worth its trouble."""

Kind = Literal["point", "window", "join"]
"""``point``: each position by itself; ``window``: a convolution or pool; ``join``: several maps, each
position by itself."""

_POINTS = frozenset(
    name + suffix
    for name in (
        "relu", "relu6", "threshold", "clamp", "clamp_min", "clamp_max", "hardtanh", "leaky_relu", "elu",
        "celu", "selu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus",
        "add", "sub", "rsub", "mul", "div", "neg", "abs", "square", "sqrt", "pow", "exp", "clone", "cat",
    )
    for suffix in ("", "_")
)  # fmt: skip
_JOINS = {"add", "add_", "sub", "sub_", "mul", "mul_", "maximum", "minimum", "cat"}

# The factor of a matrix product whose last axis is summed over.
_DEPTH_OF = {"addmm": "mat1", "mm": "self", "bmm": "self", "baddbmm": "batch1", "linear": "input"}


@dataclass(frozen=True)
class Prefix:
    """What runs on regions, and what takes it up.

    Attributes:
        image: the value of the network's input.
        inside: the operators that run on regions, with their kinds, in order.
        readers: the later operators that read one of their results, which is put into its whole map.
        held: values whose clean maps are needed.
        regions: of every value made inside, and of the image.
        share: estimated work of a window, as a share of a plain run's.
    """

    image: int
    inside: tuple[tuple[OperatorCall, Kind], ...]
    readers: tuple[OperatorCall, ...]
    held: frozenset[int]
    regions: dict[int, Regions]
    share: float


def best_prefix(tape: Tape, boxes: tuple[Box, ...], read: frozenset[int]) -> Prefix | None:
    """Return the prefix with the least work, or None where none saves enough.

    Args:
        tape: of a run of one network on images of one size.
        boxes: the windows.
        read: values that are read during the run, whose maps are needed whole.
    """
    image = tape.inputs[0]
    fields = receptive_fields(tape)
    order = [call for call in tape.in_phase("forward") if any(value in fields for value in call.inputs)]
    found: list[tuple[OperatorCall, Kind]] = []
    for call in order:
        kind = kind_of(tape, call, fields)
        if kind is None:
            break
        found.append((call, kind))
    changed = {image: _regions(tape, image, fields, boxes)}
    changed |= {call.output: _regions(tape, call.output, fields, boxes) for call, _ in found}
    plain = sum(_work(tape, call) for call in order)
    cuts = [
        cut
        for end in range(1, len(found) + 1)
        if (cut := _cut(tape, order, found[:end], changed, read, plain)) is not None
    ]
    best = min(cuts, key=lambda cut: cut.share, default=None)
    return best if best is not None and best.share <= LARGEST_SHARE else None


def kind_of(tape: Tape, call: OperatorCall, fields: dict[int, ReceptiveField | None]) -> Kind | None:
    """Return how an operator runs on regions, or None if it can't."""
    if not call.outputs or call.outputs[0] is None:
        return None
    given = [value for value in call.inputs if value in fields]
    shapes = [tape.values[value].shape for value in (*given, call.output)]
    # Values without a field of their own, such as indices, mustn't be needed by anything.
    rest = [value for value in call.outputs[1:] if value is not None]
    if any(len(shape) != 4 for shape in shapes) or any(tape.consumers(value) for value in rest):
        return None
    if any(fields.get(value) is None for value in (*given, call.output)):
        return None
    if _is_window(call) and len(given) == 1 and given[0] == call.inputs[0]:
        return "window"
    where = _place_of(tape, fields, call.output)
    is_first_same = call.inputs[0] in given and _place_of(tape, fields, call.inputs[0]) == where
    same = all(_place_of(tape, fields, value) == where for value in given)
    others = [tape.values[value].shape for value in call.inputs if value not in fields]
    if len(given) == 1 and same:
        is_norm = call.op == "batch_norm" and _is_fixed(tape, call)
        is_point = call.op in _POINTS and all(set(shape[-2:]) <= {1} for shape in others)
        return "point" if is_norm or is_point else None
    if call.op not in _JOINS or others or (call.op.endswith("_") and not is_first_same):
        return None
    is_over_channels = call.op != "cat" or call.arguments.get("dim") in (1, -3)
    return "join" if is_over_channels and len({shape[2:] for shape in shapes}) == 1 else None


def _cut(
    tape: Tape,
    order: list[OperatorCall],
    inside: list[tuple[OperatorCall, Kind]],
    changed: dict[int, Regions],
    read: frozenset[int],
    plain: float,
) -> Prefix | None:
    made = {tape.inputs[0]} | {call.output for call, _ in inside}
    if not made.isdisjoint(tape.outputs):
        return None
    after = order[len(inside) :]
    readers = tuple(call for call in after if not made.isdisjoint(call.inputs))
    if any(_writes_or_views(tape, call, made) for call in readers):
        return None
    boundary = {value for call in readers for value in call.inputs if value in made}
    around = {v for call, kind in inside if kind != "point" for v in call.inputs if v in made}
    spent = sum(_work(tape, call) for call in after)
    for call, kind in inside:
        spent += _work(tape, call) * _share(tape, call.output, changed)
        if kind != "point":  # what is copied around each region, at most twice
            spent += 2 * ELEMENT * sum(_region(tape, v, changed) for v in call.inputs if v in made)
    spent += ELEMENT * sum(_size(tape, value) for value in boundary)
    return Prefix(
        tape.inputs[0],
        tuple(inside),
        readers,
        frozenset(boundary | around | (read & made)),
        {value: changed[value] for value in made},
        spent / plain,
    )


def _regions(
    tape: Tape, value: int, fields: dict[int, ReceptiveField | None], boxes: tuple[Box, ...]
) -> Regions:
    field, shape = fields[value], tape.values[value].shape
    assert field is not None
    return regions(field, (shape[2], shape[3]), boxes)


def _is_window(call: OperatorCall) -> bool:
    if call.op == "convolution":
        return not call.arguments["transposed"]
    if call.op == "avg_pool2d":
        given = call.arguments
        padding = given.get("padding") or (0,)
        is_padded = any([padding] if isinstance(padding, int) else padding)
        return not given.get("ceil_mode") and (not is_padded or given.get("count_include_pad") is not False)
    return call.op == "max_pool2d_with_indices"


def _is_fixed(tape: Tape, call: OperatorCall) -> bool:
    is_fixed = call.arguments.get("training") is False or "no_training" in call.overload
    return is_fixed and normalises_samples(tape, call)


def _place_of(tape: Tape, fields: dict[int, ReceptiveField | None], value: int) -> object:
    return fields[value], tape.values[value].shape[2:]


def _writes_or_views(tape: Tape, call: OperatorCall, values: set[int]) -> bool:
    """Whether a result lies in the memory of one of these values, which then can't be replaced."""
    given = {tape.values[value].storage for value in call.inputs if value in values}
    made = {tape.values[value].storage for value in call.outputs if value is not None}
    return not given.isdisjoint(made)


def _work(tape: Tape, call: OperatorCall) -> float:
    """Of one image."""
    if not call.outputs or call.outputs[0] is None:
        return 0.0
    depth = 0
    if call.op == "convolution":
        depth = prod(tape.values[call.inputs[1]].shape[1:])
    elif call.op in _DEPTH_OF:
        factor = call.tensor(_DEPTH_OF[call.op])
        depth = tape.values[factor].shape[-1] if factor is not None else 0
    return _size(tape, call.output) * (depth + ELEMENT)


def _share(tape: Tape, value: int, changed: dict[int, Regions]) -> float:
    return prod(changed[value].size) / prod(tape.values[value].shape[2:])


def _size(tape: Tape, value: int) -> float:
    return float(prod(tape.values[value].shape[1:]))


def _region(tape: Tape, value: int, changed: dict[int, Regions]) -> float:
    return _size(tape, value) * _share(tape, value, changed)
