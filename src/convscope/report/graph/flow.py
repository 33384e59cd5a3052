"""Which layer of a network reads what which other layer made, through all calls that are no layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convscope.tape import ModuleCall, Tape

_KEPT = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Edge:
    """What one layer reads of another.

    Attributes:
        source: position of the node that made it: a layer or an input.
        target: position of the node that reads it.
        shapes: of the tensors, as they are read.
    """

    source: int
    target: int
    shapes: tuple[tuple[int, ...], ...]


def flow(
    tape: Tape, addresses: Sequence[str], layers: Mapping[int, int], inputs: Sequence[int]
) -> tuple[Edge, ...]:
    """Return the edges between the layers of a recorded forward pass, in order of reading.

    What a norm keeps of its batches, which its next call moves on, is no edge.

    Args:
        tape: the recording.
        addresses: of the layers, as they are in the cost table.
        layers: position of the node of each, by its position among the addresses.
        inputs: positions of the nodes of the network's inputs.
    """
    owners = _owners(tape, addresses, layers)
    given: dict[int, tuple[int, ...]] = {
        tape.values[value].storage: (node,) for value, node in zip(tape.inputs, inputs, strict=True)
    }
    made_by: dict[int, tuple[int, ...]] = {}  # by operator call: the nodes whose values its result carries
    kept = {each.storage for each in tape.buffers if each.name.rpartition(".")[2] in _KEPT}
    read: dict[tuple[int, int], dict[int, tuple[int, ...]]] = {}
    for call in tape.in_phase("forward", "loss"):
        owner = owners.get(call.index)
        carried: list[int] = []
        for index in call.inputs:
            value = tape.values[index]
            if value.storage in kept:
                continue
            sources = given.get(value.storage, ())
            if value.producer is not None:
                sources = made_by.get(value.producer, ())
            carried += sources
            for source in sources:
                if owner is not None and source != owner:
                    read.setdefault((source, owner), {})[index] = value.shape
        made_by[call.index] = tuple(dict.fromkeys(carried)) if owner is None else (owner,)
    return tuple(Edge(*ends, tuple(shapes.values())) for ends, shapes in read.items())


def _owners(tape: Tape, addresses: Sequence[str], layers: Mapping[int, int]) -> dict[int, int]:
    """The node of every forward operator call that belongs to a layer."""
    owners: dict[int, int] = {}
    for row, address in enumerate(addresses):
        found = tape.find(address)
        assert found is not None, address
        calls = tape.calls_of(found.index) if isinstance(found, ModuleCall) else (found,)
        owners.update((call.index, layers[row]) for call in calls if call.phase in ("forward", "loss"))
    return owners
