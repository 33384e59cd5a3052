"""The batch norms of a recorded run: y = s · x + t per channel, where they begin and where they end.

A *unit* is one call of PyTorch's batch norm operator by running statistics, or one call of a module that
keeps running statistics and multiplies and adds by what it makes of them (frozen batch norms).
"""

from dataclasses import dataclass

import numpy as np
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.core.address import ROOT
from convscope.fold.gauge.scales import Numbers
from convscope.fold.norms.statistics import WITHOUT, affine
from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow, Stays, path_of
from convscope.fold.recorded.slots import Slot
from convscope.tape import ModuleCall, OperatorCall
from convscope.tape.batch_norms import normalises_samples

_EPS_NAMES = ("eps", "epsilon")
_OPERANDS = ("running_mean", "running_var", "weight", "bias")
_REGISTER = "hold its module in an nn.ModuleList, or its tensors by register_buffer"
_SCALINGS, _SHIFTINGS = {"mul", "div"}, {"add", "sub"}


@dataclass(frozen=True)
class Unit:
    """One batch norm call.

    Attributes:
        address: its name in the ledger.
        first, last: its first and last operator call that reads data; the same one for the operator.
        before, after: the values x and y.
        scale, shift: s and t, float64, of shapes that broadcast to that of x.
        module: the module call in whose own code it runs, or None.
        buffers: the path of the module that holds its running statistics, or None.
        spread: √(v + ε), (C,), or None if it isn't known.
    """

    address: str
    first: OperatorCall
    last: OperatorCall
    before: int
    after: int
    scale: Numbers
    shift: Numbers
    module: ModuleCall | None
    buffers: str | None
    spread: Numbers | None = None


@dataclass(frozen=True)
class Unfit:
    """A batch norm call that isn't y = s · x + t with known s and t.

    Attributes:
        address: its name in the ledger.
        call: the operator call.
        reason: why.
        remedy: what would help; "" if nothing would.
    """

    address: str
    call: OperatorCall
    reason: str
    remedy: str = ""


def units_of(flow: Flow, constants: Constants) -> tuple[Unit | Unfit, ...]:
    """Return the batch norm calls of a recorded run, in order."""
    frozen = {unit.last.index: unit for unit in _frozen(flow, constants)}
    found: list[Unit | Unfit] = []
    for call in flow.tape.in_phase("forward"):
        if call.index in frozen:
            found.append(frozen[call.index])
        elif call.op == "batch_norm" and not _is_weights(call, constants) and _is_batch_norm(flow, call):
            found.append(_operator(flow, constants, call))
    return tuple(found)


def _is_weights(call: OperatorCall, constants: Constants) -> bool:
    operand = call.tensor("input")
    return operand is not None and constants.holds(operand)


def _is_batch_norm(flow: Flow, call: OperatorCall) -> bool:
    """Instance norm runs the same operator: by running statistics it is a batch norm, by samples it isn't."""
    module = None if call.module is None else flow.module_of(flow.tape.modules[call.module])
    by_statistics = call.tensor("running_mean") is not None and not call.arguments.get("training", False)
    return isinstance(module, _BatchNorm) or by_statistics or normalises_samples(flow.tape, call)


def _operator(flow: Flow, constants: Constants, call: OperatorCall) -> Unit | Unfit:
    address = name_of(flow, call)
    value = call.tensor("input")
    assert value is not None
    try:
        scale, shift, spread = affine_of(flow, constants, call)
        if flow.tape.values[value].dtype != flow.tape.values[call.output].dtype:
            raise Stays("it changes the dtype of what it normalises")
    except Stays as reason:
        return Unfit(address, call, str(reason), reason.remedy)
    channels = (-1, *(1,) * (len(flow.tape.values[value].shape) - 2))
    module = None if call.module is None else flow.tape.modules[call.module]
    mean = call.tensor("running_mean")
    assert mean is not None
    slots = flow.slots_of(mean)
    path = _nearest(call, [slot.path for slot in slots]) if slots else None
    path = path_of(module) if path is None and module is not None else path
    scale, shift = scale.reshape(channels), shift.reshape(channels)
    return Unit(address, call, call, value, call.output, scale, shift, module, path, spread)


def affine_of(flow: Flow, constants: Constants, call: OperatorCall) -> tuple[Numbers, Numbers, Numbers]:
    """Return the scale, the shift and the spread √(v + ε) of a batch norm call, float64, (C,).

    Raises:
        Stays: it normalises by the batch, or its constants aren't the network's or make no sense.
    """
    mean, var = call.tensor("running_mean"), call.tensor("running_var")
    if mean is None or var is None:
        raise Stays(
            "has no running statistics, so that it normalises by each batch, at test time too", WITHOUT
        )
    if any(constants.maker(each) is None and not flow.slots_of(each) for each in (mean, var)):
        raise Stays("its statistics aren't in the network (held in a plain list?)", _REGISTER)
    for slot in flow.slots_of(mean):
        if slot.module_in(flow.model).training:
            raise Stays("is in training mode, where it normalises by each batch", "call eval() on it first")
    if call.arguments.get("training", False):
        raise Stays("normalises by each batch, in evaluation mode too")
    operands = {}
    for name in _OPERANDS:
        value = call.tensor(name)
        if value is None:
            continue
        if not constants.holds(value):
            raise Stays(f"its {name} is computed in every run")
        operands[name] = constants.numbers(value).double().numpy()
    eps = float(next(call.arguments[name] for name in _EPS_NAMES if name in call.arguments))
    return affine(operands, eps)


def _frozen(flow: Flow, constants: Constants) -> list[Unit]:
    """Calls of modules with running statistics whose own code only multiplies and adds."""
    units = []
    for module_call in flow.tape.modules:
        module = flow.module_of(module_call)
        held = {name for name, _ in module.named_buffers(recurse=False)}
        if {"running_mean", "running_var"} <= held and not isinstance(module, _BatchNorm):
            unit = _chain(flow, constants, module_call)
            if unit is not None:
                units.append(unit)
    return units


def _chain(flow: Flow, constants: Constants, module_call: ModuleCall) -> Unit | None:
    """The chain of multiplications and additions by constants that a module call makes itself."""
    if module_call.recompute:
        return None
    moving = [
        call
        for call in flow.operators_of(module_call)
        if not all(constants.holds(value) for value in call.inputs)
    ]
    if not moving or not module_call.inputs:
        return None
    value, scale, shift = module_call.inputs[0], np.ones(()), np.zeros(())
    for call in moving:
        step = _step(constants, call, value)
        if step is None:
            return None
        value, (factor, term) = call.output, step
        scale, shift = scale * factor, shift * factor + term
    rank = len(flow.tape.values[value].shape)
    scale, shift = (_ranked(numbers, rank) for numbers in (scale, shift))
    path = path_of(module_call)
    return Unit(
        str(module_call.address), moving[0], moving[-1], module_call.inputs[0], value, scale, shift,
        module_call, path,
    )  # fmt: skip


def _ranked(numbers: Numbers, rank: int) -> Numbers:
    return numbers.reshape((1,) * (rank - numbers.ndim) + numbers.shape)


def _step(
    constants: Constants, call: OperatorCall, value: int
) -> tuple[Numbers | float, Numbers | float] | None:
    """A factor and a term of one operator call, or None if it is none."""
    name = call.op.rstrip("_")
    if name not in _SCALINGS | _SHIFTINGS or value not in call.inputs:
        return None
    operand = call.arguments["other"] if call.tensor("self") == value else call.arguments["self"]
    if call.tensor("self") != value and name in ("div", "sub"):
        return None
    try:
        reference = getattr(operand, "value", None)
        number = constants.numbers(reference).double().numpy() if reference is not None else float(operand)
    except (Stays, TypeError):
        return None
    if name in _SCALINGS:
        return (1.0 / number if name == "div" else number), 0.0
    return 1.0, number * float(call.arguments.get("alpha", 1)) * (-1 if name == "sub" else 1)


def name_of(flow: Flow, call: OperatorCall) -> str:
    """Return the module call's address if the operator is all that the module does itself, else its own."""
    if call.module is not None:
        module_call = flow.tape.modules[call.module]
        own = [operator for operator in flow.operators_of(module_call) if operator.op not in _VIEWS]
        if path_of(module_call) and [operator.index for operator in own] == [call.index]:
            return str(module_call.address)
    return str(call.address)


_VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias", "repeat"}


def _nearest(call: OperatorCall, paths: list[str]) -> str:
    """The path of the module that runs the batch norm, if it is among those that hold its statistics."""
    own = "" if call.address.path == ROOT else call.address.path
    return own if own in paths else paths[0]


def not_called(flow: Flow) -> list[str]:
    """Return the paths of batch norm modules that didn't run, and whose statistics nobody read."""
    read = {flow.tape.values[value].storage for call in flow.tape.calls for value in call.inputs}
    used = {info.name for info in flow.tape.buffers if info.storage in read}
    return [
        path or ROOT
        for path, module in flow.model.named_modules()
        if isinstance(module, _BatchNorm)
        and not flow.calls_of_module(path)
        and Slot(path, "running_mean").name not in used
    ]
