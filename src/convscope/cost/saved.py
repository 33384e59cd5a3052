"""What every layer keeps in memory for the backward pass.

A storage is kept for backward if it is alive when the backward pass begins and autograd saved it, or a
backward or recomputing operator reads it (checkpoints and custom functions hold tensors without telling
autograd). Each storage counts once, with its whole size, at the first layer that saves it; one that nobody
is known to save counts where it was made. Parameters, buffers and constants don't count: they are there
anyway. The network's inputs do: the first layer keeps them.
"""

from collections import defaultdict
from dataclasses import dataclass

from convscope.cost.layers import Layer, Layers
from convscope.tape import Storage, Tape

_STANDING = ("parameter", "buffer", "constant")


@dataclass
class Kept:
    """Bytes kept by a layer.

    Attributes:
        nbytes: all of them.
        index_bytes: those of integer tensors.
    """

    nbytes: int = 0
    index_bytes: int = 0


def kept_by_layer(tape: Tape, layers: Layers) -> dict[int, Kept]:
    """Return what every layer keeps, by ``id`` of the layer; layers that keep nothing are absent."""
    kept: dict[int, Kept] = defaultdict(Kept)
    for storage, layer, is_index in _savers(tape, layers):
        share = kept[id(layer)]
        share.nbytes += storage.nbytes
        share.index_bytes += storage.nbytes * is_index
    return dict(kept)


def _savers(tape: Tape, layers: Layers) -> list[tuple[Storage, Layer, bool]]:
    """Every storage that is kept, its layer, and whether it holds integers."""
    begin = next((call.index for call in tape.calls if call.phase == "backward"), None)
    if begin is None:
        return []
    owners: dict[int, tuple[Storage, Layer, bool]] = {}
    for call, value in _kept_values(tape, begin):
        storage = tape.storages[tape.values[value].storage]
        alive = storage.birth < begin and (storage.death is None or storage.death > begin)
        if storage.role in _STANDING or not alive or storage.index in owners:
            continue
        layer = layers.born(call)
        if layer is not None:
            dtype = tape.values[value].dtype
            is_index = not (dtype.is_floating_point or dtype.is_complex or dtype.itemsize == 1)
            owners[storage.index] = (storage, layer, is_index)
    return list(owners.values())


def _kept_values(tape: Tape, begin: int) -> list[tuple[int, int]]:
    """(Forward call, value): what autograd saved, then what backward reads besides."""
    forward = tape.in_phase("forward", "loss")
    saved = [(call.index, value) for call in forward for value in call.saved]
    for call in tape.in_phase("backward", "recompute"):
        for value in call.inputs:
            storage = tape.storages[tape.values[value].storage]
            if 0 <= storage.birth < begin and tape.calls[storage.birth].phase == "forward":
                saved.append((storage.birth, value))
            elif storage.role == "input" and (readers := tape.consumers(value)):
                saved.append((readers[0].index, value))
    return saved
