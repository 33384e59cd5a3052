"""The arithmetic of every layer, from its forward operators and those that differentiate them."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from convscope.cost.arithmetic.elementwise import is_known, operations
from convscope.cost.arithmetic.flops import gradients, has_gradients, has_macs, macs
from convscope.cost.arithmetic.gradients import ParameterFlow
from convscope.cost.arithmetic.rules import OperatorShapes
from convscope.cost.layers import Layers
from convscope.cost.row import Uncounted
from convscope.tape import OperatorCall, Tape

# Names whose forward operator isn't what is left without "_backward".
_FORWARD_OF = {
    "nll_loss": "nll_loss_forward",
    "nll_loss2d": "nll_loss2d_forward",
    "embedding_dense": "embedding",
    "unfold": "unfold",
}


@dataclass
class Work:
    """Arithmetic of a layer.

    Attributes:
        macs: of the forward pass.
        input_macs: of gradients with respect to its inputs.
        weight_macs: of gradients with respect to its parameters.
        recomputed_macs: of forward values computed again in backward.
        elementwise: operations of the forward pass that aren't multiply–accumulates.
    """

    macs: int = 0
    input_macs: int = 0
    weight_macs: int = 0
    recomputed_macs: int = 0
    elementwise: int = 0


def work_by_layer(tape: Tape, layers: Layers, flow: ParameterFlow) -> dict[int, Work]:
    """Return the arithmetic of every layer, by ``id`` of the layer."""
    work: dict[int, Work] = defaultdict(Work)
    for call in tape.in_phase("forward", "loss", "recompute", "backward"):
        layer = layers.of(call) or (layers.layers[-1] if layers.layers else None)
        if layer is None:
            continue
        share, shapes = work[id(layer)], OperatorShapes(tape, call)
        if call.phase in ("forward", "loss"):
            share.macs += macs(shapes) or 0
            if layers.significant(call):
                share.elementwise += operations(shapes) or 0
        elif call.phase == "recompute":
            share.recomputed_macs += macs(shapes) or 0
        else:
            _add_backward(share, shapes, flow)
    return work


def _add_backward(share: Work, shapes: OperatorShapes, flow: ParameterFlow) -> None:
    found = gradients(shapes)
    if found is not None:
        split = flow.split(shapes.call, found)
        share.input_macs += split.input
        share.weight_macs += split.weight
        share.recomputed_macs += split.recomputed
        return
    product = macs(shapes) or flow.outer_product(shapes.call)
    if product and flow.is_weight_gradient(shapes.call):
        share.weight_macs += product
    else:
        share.input_macs += product


def uncounted(tape: Tape) -> tuple[Uncounted, ...]:
    """Return the operators whose work is in no number, with how often they ran.

    In the forward pass and the loss these are operators without any rule; in backward, those that may hide
    multiply–accumulates. The optimizer's arithmetic isn't looked at.
    """
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    for call in tape.in_phase("forward", "loss", "recompute", "backward"):
        if not _is_counted(call):
            counts[call.op, call.phase] += 1
            first.setdefault((call.op, call.phase), str(call.address))
    return tuple(Uncounted(op, calls, phase, first[op, phase]) for (op, phase), calls in counts.most_common())


def _is_counted(call: OperatorCall) -> bool:
    if has_macs(call.op) or is_known(call.op):
        return True
    if call.phase != "backward":
        return False
    # The backward of an operator without products has none either.
    forward = re.sub(r"_backward(_data|_input|_weight)?$", "", call.op)
    return has_gradients(call.op) or (forward != call.op and is_known(_FORWARD_OF.get(forward, forward)))
