"""Batch norms that are called as functions in a module's own code: which of them can be skipped.

No module exists only to run such a call, so that none can become an identity. Instead the batch norm's
tensors become neutral: :mod:`convscope.fold.norms.neutral`.

A convolution or linear call without a bias has nowhere to put a shift. Where only this batch norm reads its
result, β is *lent*: the module gives it to that call as its bias (:mod:`convscope.fold.norms.lending`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from convscope.fold.norms.shell import Shell, shell_of
from convscope.fold.norms.units import Unit
from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow, Stays, addresses, has_hooks, path_of
from convscope.fold.recorded.slots import Slot
from convscope.tape import OperatorCall

_TENSORS = ("running_mean", "running_var", "weight", "bias")
_EPS_NAMES = ("eps", "epsilon")
# Layers that a bias can be given to, and where they take their weights.
_BORROWS = {"convolution": "weight", "mm": "mat2"}
# Neutral numbers stay neutral through these: instance norm repeats statistics, mixed precision casts them.
_COPIES = {"_to_copy", "repeat", "view", "_unsafe_view", "reshape", "expand", "clone"}

Held = tuple[tuple[str, Slot], ...]
"""Where a batch norm's tensors are held, by the name of the argument; those that it has."""


@dataclass(frozen=True)
class Skip:
    """A batch norm whose calls can be skipped.

    Attributes:
        held: see :data:`Held`.
        eps: ε.
        callers: paths of the modules in whose own code it is called.
        calls: indices of all operator calls that read its tensors.
        lent_to: where the weights of the layer are held which β is given to, or None.
        layers: indices of that layer's operator calls.
    """

    held: Held
    eps: float
    callers: tuple[str, ...]
    calls: frozenset[int]
    lent_to: Slot | None = None
    layers: frozenset[int] = frozenset()

    @property
    def path(self) -> str:
        """What it is told apart by: the name of its running mean."""
        return dict(self.held)["running_mean"].name


def place_of(flow: Flow, constants: Constants, unit: Unit) -> Shell | Skip:
    """Return what has to change for a batch norm call not to run: its module, or its tensors.

    Raises:
        Stays: neither can be done.
    """
    tensors = _tensors_of(flow, unit)
    for name, value in tensors:
        if flow.is_output(value):
            raise Stays(f"its {name} is an output of the network")
    if unit.last.op != "batch_norm":
        _refuse_others(flow, unit, tensors)
        return shell_of(flow, constants, unit)
    is_own = unit.module is not None and path_of(unit.module) == unit.buffers
    if not is_own:
        return skip_of(flow, unit)
    assert unit.module is not None
    try:
        shell = shell_of(flow, constants, unit)
    except Stays:
        if has_hooks(flow.module_of(unit.module)):
            raise
        return skip_of(flow, unit)
    owners = {call.index for call in flow.calls_of_module(shell.path)}
    return shell if all(call.module in owners for call in _reading(flow, unit)) else skip_of(flow, unit)


def skip_of(flow: Flow, unit: Unit) -> Skip:
    """Return a batch norm call as one of a batch norm whose calls can be skipped.

    Raises:
        Stays: its tensors aren't its own.
    """
    held, eps = _norm(flow, unit.last)
    reading = _readers(flow, unit.last)
    for call in reading:
        if _norm(flow, call) != (held, eps):
            raise Stays(f"{call.address} reads some of its tensors too, but not as it does")
    inside = [flow.tape.modules[call.module] for call in reading if call.module is not None]
    callers = tuple(dict.fromkeys(path_of(module_call) for module_call in inside))
    skip = Skip(held, eps, callers, frozenset(call.index for call in reading))
    return _lending(flow, skip, reading)


def lent_biases(places: Iterable[Shell | Skip]) -> dict[int, Slot]:
    """Return where the bias will be held that layers are given, by the index of their operator calls."""
    skips = [place for place in places if isinstance(place, Skip)]
    return {index: dict(skip.held)["bias"] for skip in skips for index in skip.layers}


def _norm(flow: Flow, call: OperatorCall) -> tuple[Held, float]:
    """Where a batch norm call's tensors are held, and ε."""
    held = []
    for name, value in _tensors(call):
        source = _source(flow, value)
        slots = flow.slots_of(source)
        if not slots or not flow.is_whole(source):
            raise Stays(f"its {name} isn't a parameter or buffer, but computed in every run or a part of one")
        if not flow.is_one_place(slots):
            raise Stays(f"its {name} is one tensor with several names: {', '.join(s.name for s in slots)}")
        if isinstance(slots[0].module_in(flow.model), torch.jit.ScriptModule):
            raise Stays(f"its {name} belongs to a compiled module")
        held.append((name, slots[0]))
    return tuple(held), float(next(call.arguments[name] for name in _EPS_NAMES if name in call.arguments))


def _tensors(call: OperatorCall) -> list[tuple[str, int]]:
    found = [(name, call.tensor(name)) for name in _TENSORS]
    return [(name, value) for name, value in found if value is not None]


def _tensors_of(flow: Flow, unit: Unit) -> list[tuple[str, int]]:
    """The tensors that a batch norm is made of, by their names; of code of its own, those of its module."""
    if unit.last.op == "batch_norm":
        return [(name, _source(flow, value)) for name, value in _tensors(unit.last)]
    assert unit.module is not None
    read = {value for call in flow.operators_of(unit.module) for value in call.inputs}
    held = ((slot, value) for value in sorted(read) for slot in flow.slots_of(value))
    return [(slot.attribute, value) for slot, value in held if slot.path == unit.buffers]


def _refuse_others(flow: Flow, unit: Unit, tensors: list[tuple[str, int]]) -> None:
    """Refuse a batch norm by code of its own whose numbers other code reads."""
    owners = {call.index for call in flow.calls_of_module(unit.buffers or "")}
    for name, value in tensors:
        others = [call for call in flow.readers_of_storage(value) if call.module not in owners]
        if others:
            raise Stays(f"its {name} is also read by {addresses(others)}")


def _source(flow: Flow, value: int) -> int:
    """The value that another one is a cast, a view or a repetition of."""
    producer = flow.tape.producer(value)
    while producer is not None and producer.op in _COPIES and not flow.is_whole(value):
        value = producer.inputs[0]
        producer = flow.tape.producer(value)
    return value


def _reading(flow: Flow, unit: Unit) -> list[OperatorCall]:
    """All calls that read the tensors of a batch norm."""
    found = (_source(flow, value) for _, value in _tensors(unit.last))
    return [call for value in found for call in flow.readers_of_storage(value)]


def _readers(flow: Flow, call: OperatorCall) -> list[OperatorCall]:
    """The batch norm calls which read the tensors of one, in order; nothing else may."""
    found: dict[int, OperatorCall] = {}
    for name, value in _tensors(call):
        pending = list(flow.readers_of_storage(_source(flow, value)))
        while pending:
            reader = pending.pop()
            if reader.op == "batch_norm":
                found[reader.index] = reader
            elif reader.op in _COPIES:
                pending += flow.tape.consumers(reader.output)
            else:
                raise Stays(f"its {name} is also read by {reader.address}")
    return [found[index] for index in sorted(found)]


def _is_within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")


def _lending(flow: Flow, skip: Skip, reading: list[OperatorCall]) -> Skip:
    """The batch norm with the layer whose bias its β becomes, if there is one and every call follows it."""
    bias = dict(skip.held).get("bias")
    layers = [_layer_before(flow, call) for call in reading]
    known = [layer for layer in layers if layer is not None]
    if bias is None or len(known) < len(layers) or len(skip.callers) != 1:
        return skip
    caller = flow.model.get_submodule(skip.callers[0])
    if isinstance(caller, torch.jit.ScriptModule) or "forward" in vars(caller):
        return skip
    weights = [layer.tensor(_BORROWS[layer.op]) for layer in known]
    weight = next(value for value in weights if value is not None)
    slots, indices = flow.slots_of(weight), frozenset(layer.index for layer in known)
    if not slots or not flow.is_one_place(slots):
        return skip
    if not all(_is_within(slot.path, skip.callers[0]) for slot in (slots[0], bias)):
        return skip
    if frozenset(reader.index for reader in flow.readers_of_storage(weight)) != indices:
        return skip
    if slots[0].tensor_in(flow.model).dtype != bias.tensor_in(flow.model).dtype:
        return skip
    return replace(skip, lent_to=slots[0], layers=indices)


def _layer_before(flow: Flow, call: OperatorCall) -> OperatorCall | None:
    """The layer without a bias that the same code calls just before a batch norm, for it alone."""
    before = call.tensor("input")
    layer = None if before is None else flow.tape.producer(before)
    if before is None or layer is None or layer.op not in _BORROWS or layer.outputs[0] != before:
        return None
    alone = flow.tape.consumers(before) == (call,) and layer.module == call.module
    return layer if alone and layer.tensor("bias") is None else None
