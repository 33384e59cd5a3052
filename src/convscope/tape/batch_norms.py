"""Which batch norm operators of a tape are batch norms: what they normalise is decided from the data flow.

PyTorch runs its batch norm operator for other purposes too: instance norm lays the samples side by side, as
channels of one sample, and weight standardisation takes a convolution's weights for a sample.

Limits: a batch norm without running statistics of values that the network draws or makes itself, from no
input, is taken for a standardisation.
"""

from convscope.tape.calls import OperatorCall, Tape

_RESHAPES = {"view", "_unsafe_view", "reshape", "_reshape_alias"}


def normalises_samples(tape: Tape, call: OperatorCall) -> bool:
    """Return whether a batch norm call outside of batch norm modules normalises over the network's samples.

    Not if its operand doesn't depend on the network's inputs and no running statistics are kept (weights),
    and not if samples were laid side by side just before (instance norm).

    Args:
        tape: the recording.
        call: one of its ``batch_norm`` calls.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> tape = record(nn.InstanceNorm2d(3), (2, 3, 5, 4))
        >>> [normalises_samples(tape, call) for call in tape.calls if call.op == "batch_norm"]
        [False]
    """
    operand = call.tensor("input")
    assert operand is not None
    if call.tensor("running_mean") is None and not depends_on_inputs(tape, operand):
        return False
    return not _is_side_by_side(tape, call, operand)


def uses_batch_statistics(tape: Tape, call: OperatorCall) -> bool:
    """Return whether a call normalises, or finds the moments, over all samples of the batch at hand.

    Args:
        tape: the recording.
        call: any forward call.
    """
    if call.op == "convscope_moments":
        return 0 in call.arguments["dims"]
    by_constants = call.arguments.get("training") is False or "no_training" in call.overload
    return call.op == "batch_norm" and not by_constants and normalises_samples(tape, call)


def depends_on_inputs(tape: Tape, value: int) -> bool:
    """Return whether a value was computed from the network's inputs, along with whatever else."""
    given = {tape.values[index].storage for index in tape.inputs}
    pending, seen = [value], {value}
    while pending:
        held = tape.values[pending.pop()]
        if held.storage in given:
            return True
        read = () if held.producer is None else tape.calls[held.producer].inputs
        pending += [index for index in read if index not in seen]
        seen.update(read)
    return False


def _is_side_by_side(tape: Tape, call: OperatorCall, operand: int) -> bool:
    """Whether (N, C, …) was viewed as (1, N·C, …), to be normalised by its own or by repeated statistics."""
    shape = tape.values[operand].shape
    mean = call.tensor("running_mean")
    by_constants = not call.arguments.get("training", False) and mean is not None
    if shape[0] != 1 or (by_constants and mean is not None and tape.buffer_of(mean) is not None):
        return False
    # A view of a single sample keeps its shape: it is a call that returns the value which it was given.
    before = [tape.producer(operand), *(read for read in tape.consumers(operand) if read.index < call.index)]
    views = (read for read in before if read is not None and read.op in _RESHAPES)
    return any(_lays_side_by_side(tape, view, operand) for view in views)


def _lays_side_by_side(tape: Tape, view: OperatorCall, operand: int) -> bool:
    if view.output != operand:
        return False
    before = tape.values[view.inputs[0]].shape
    return before[:1] > (1,) or before == tape.values[operand].shape
