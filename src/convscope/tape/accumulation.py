"""Gradients that meet where a network branched: autograd adds the second into the first one's memory.

It does so if it holds the only reference to a dense gradient. Simulated tensors are a subclass, for which it
makes a new tensor instead; so does it for any tensor that a recording looks at. The memory is that of a real
run again when the first gradient's block ends as the sum's begins.

Source: ``accumulate`` and ``can_accumulate_inplace`` in ``torch/csrc/autograd/input_buffer.cpp``; the tests
compare with the blocks that real steps take.
"""

import dataclasses
from collections.abc import Sequence

from convscope.tape.calls import OperatorCall, Storage, Value


def summed_in_place(
    calls: Sequence[OperatorCall], values: Sequence[Value], storages: Sequence[Storage]
) -> tuple[Storage, ...]:
    """Return the storages of a recorded step as they live without a recording.

    Args:
        calls: the operator calls; sums of gradients are backward's ``add`` calls whose first operand another
            layer's backward made and nothing else holds.
        values: the values.
        storages: the storages as recorded.
    """
    kept = list(storages)
    for call in calls:
        if call.phase != "backward" or call.op != "add" or len(set(call.inputs)) != 2:
            continue
        first, total = values[call.inputs[0]], values[call.output]
        block = kept[first.storage]
        is_last = block.death == call.index + 1 and block.role == "temporary"
        fills = first.stride == total.stride and first.nbytes == block.nbytes == kept[total.storage].nbytes
        if is_last and fills and not _is_own(calls, first, call):
            kept[block.index] = dataclasses.replace(block, death=call.index)
    return tuple(kept)


def _is_own(calls: Sequence[OperatorCall], first: Value, call: OperatorCall) -> bool:
    """Whether a layer's own backward adds, and not autograd: its operands then come from that layer."""
    return first.producer is None or calls[first.producer].forward == call.forward
