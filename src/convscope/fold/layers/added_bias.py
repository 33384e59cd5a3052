"""Biases that linear layers add in an operator of their own.

PyTorch multiplies and adds in one operator (``addmm``) where it can, and in two (``mm``, ``add``) where the
input doesn't lie in memory row by row, as behind a transpose. Code may write ``x @ w + b`` as well.
"""

from dataclasses import dataclass

from convscope.fold.recorded.flow import Flow
from convscope.tape import OperatorCall

_VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias"}


@dataclass(frozen=True)
class AddedBias:
    """A parameter that is added to what a matrix product makes, and to nothing else.

    Attributes:
        call: the addition.
        value: the parameter, one number per output channel.
    """

    call: OperatorCall
    value: int


def added_bias(flow: Flow, product: OperatorCall) -> AddedBias | None:
    """Return the bias that is added to a matrix product (N, C) next, in the same module call; or None."""
    value, reader = product.output, _only_reader(flow, product, product.output)
    while reader is not None and reader.op in _VIEWS:
        value, reader = reader.output, _only_reader(flow, product, reader.output)
    if reader is None or reader.op != "add" or reader.arguments.get("alpha", 1) != 1:
        return None
    names = [name for name in ("self", "other") if reader.tensor(name) not in (None, value)]
    bias = reader.tensor(names[0]) if len(names) == 1 else None
    if bias is None or not (flow.is_parameter(bias) and flow.is_whole(bias)):
        return None
    values = flow.tape.values
    channels = values[product.output].shape[-1:]
    fits = values[bias].shape == values[value].shape[-1:] == channels
    return AddedBias(reader, bias) if fits and values[reader.output].shape == values[value].shape else None


def product_behind(flow: Flow, addition: OperatorCall) -> OperatorCall | None:
    """Return the matrix product to which a call adds something, if it is one."""
    for value in addition.inputs:
        maker = flow.tape.producer(value)
        while maker is not None and maker.op in _VIEWS:
            maker = flow.tape.producer(maker.inputs[0])
        if maker is not None and maker.op == "mm":
            return maker
    return None


def _only_reader(flow: Flow, product: OperatorCall, value: int) -> OperatorCall | None:
    readers = flow.tape.consumers(value)
    is_seen = len(readers) != 1 or value in flow.tape.outputs or readers[0].module != product.module
    return None if is_seen else readers[0]
