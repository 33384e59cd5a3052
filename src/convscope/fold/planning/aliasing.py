"""Memory that a fold makes common: an identity returns its input, so that writes in place reach further.

``relu_`` after a batch norm writes to the batch norm's own output. Where an identity stands instead, it
writes to what the batch norm read, which a skip connection may still need.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from convscope.fold.norms.units import Unit
from convscope.fold.recorded.flow import Flow, path_of
from convscope.tape import OperatorCall


@dataclass(frozen=True)
class Overwrite:
    """A write in place that would reach a value which is read later.

    Attributes:
        writer: the call which writes.
        reader: a call which reads the other value afterwards; None for the user (inputs and outputs).
        storages: the two blocks of memory that become one.
        module: path of the module which is told to write in place by its attribute ``inplace``, or None.
    """

    writer: OperatorCall
    reader: OperatorCall | None
    storages: tuple[int, int]
    module: str | None


def overwrites(flow: Flow, folded: Iterable[Unit]) -> tuple[Overwrite, ...]:
    """Return the writes that would reach values which are read later, if batch norms became identities."""
    common = _common(flow, folded)
    if not common:
        return ()
    values = flow.tape.values
    reads: dict[int, list[tuple[int, int]]] = {}
    for call in flow.tape.calls:
        for value in call.inputs:
            if values[value].storage in common:
                reads.setdefault(values[value].storage, []).append((call.index, value))
    kept = [(len(flow.tape.calls), value) for value in (*flow.tape.outputs, *flow.tape.inputs)]
    for index, value in kept:
        if values[value].storage in common:
            reads.setdefault(values[value].storage, []).append((index, value))
    found = []
    for call in flow.tape.calls:
        output = call.outputs[0] if call.outputs else None
        if output is None or values[output].version == 0 or values[output].storage not in common:
            continue
        if not any(values[read].storage == values[output].storage for read in call.inputs):
            continue
        found += _reached(flow, call, values[output].storage, common, reads)
    return tuple(found)


def _reached(
    flow: Flow,
    writer: OperatorCall,
    storage: int,
    common: dict[int, frozenset[int]],
    reads: dict[int, list[tuple[int, int]]],
) -> list[Overwrite]:
    values, calls = flow.tape.values, flow.tape.calls
    for other in common[storage] - {storage}:
        for index, value in reads.get(other, ()):
            made = values[value].producer
            if index > writer.index and (made is None or made < writer.index):
                reader = calls[index] if index < len(calls) else None
                return [Overwrite(writer, reader, (storage, other), _module(flow, writer))]
    return []


def _module(flow: Flow, call: OperatorCall) -> str | None:
    if call.module is None:
        return None
    module_call = flow.tape.modules[call.module]
    module: nn.Module = flow.module_of(module_call)
    heeds_it = type(module).__module__.startswith(("torch.nn.modules.", "timm.layers."))
    return path_of(module_call) if heeds_it and getattr(module, "inplace", False) is True else None


def _common(flow: Flow, folded: Iterable[Unit]) -> dict[int, frozenset[int]]:
    """For every storage that becomes one with others, all of those."""
    parent: dict[int, int] = {}

    def root(storage: int) -> int:
        while parent.setdefault(storage, storage) != storage:
            parent[storage] = parent[parent[storage]]
            storage = parent[storage]
        return storage

    for unit in folded:
        first, second = (flow.tape.values[value].storage for value in (unit.before, unit.after))
        parent[root(first)] = root(second)
    members: dict[int, set[int]] = {}
    for storage in list(parent):
        members.setdefault(root(storage), set()).add(storage)
    return {storage: frozenset(group) for group in members.values() for storage in group}
