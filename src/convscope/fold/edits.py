"""What a fold does to a network: new numbers in its tensors, other modules in its modules' places."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convscope.fold.recorded.places import places_of_modules
from convscope.fold.recorded.slots import Slot


@dataclass(frozen=True)
class Put:
    """New numbers for a parameter or buffer, or a parameter where there is none yet (a bias).

    Attributes:
        slot: where.
        numbers: float64; cast once to the dtype of what is there, or of ``like``.
        like: the tensor of the same layer whose dtype, device and ``requires_grad`` a new parameter takes.
        own: whether it parts from others that it was one with (tied): it becomes a parameter of its own.
    """

    slot: Slot
    numbers: Tensor
    like: Slot | None = None
    own: bool = False

    def __call__(self, model: nn.Module) -> None:
        """Carry it out on a network, in place."""
        module, name = self.slot.module_in(model), self.slot.attribute
        held = getattr(module, name, None)
        with torch.no_grad():
            if held is not None and not self.own:
                held.copy_(self.numbers)
                return
            like = held
            if like is None:
                assert self.like is not None
                like = self.like.tensor_in(model)
            made = self.numbers.to(device=like.device, dtype=like.dtype, copy=True).contiguous()
        module.register_parameter(name, nn.Parameter(made, requires_grad=like.requires_grad))


@dataclass(frozen=True)
class Swap:
    """Another module in a module's place: under all of its names, and in plain lists that hold it too.

    Attributes:
        path: the module's path.
        make: given the module, returns what takes its place; it may hold parts of it.
    """

    path: str
    make: Callable[[Any], nn.Module]

    def __call__(self, model: nn.Module) -> None:
        """Carry it out on a network, in place."""
        _swap_all(model, [self])


def _swap_all(model: nn.Module, swaps: Iterable[Swap]) -> None:
    """Put modules into others' places, the innermost first."""
    places = places_of_modules(model)
    found = [(swap, model.get_submodule(swap.path)) for swap in swaps]
    for swap, old in sorted(found, key=lambda each: each[0].path.count("."), reverse=True):
        new = swap.make(old)
        new.train(old.training)
        for place in places.get(id(old), ()):
            place.hold(new)


Edit = Callable[[nn.Module], None]
"""One change of a network in place; paths and slots are those of the network before any edit."""


def carry_out(model: nn.Module, edits: Iterable[Edit]) -> None:
    """Change a network in place: all numbers first, then the modules, the innermost first."""
    edits = tuple(edits)
    for edit in edits:
        if not isinstance(edit, Swap):
            edit(model)
    _swap_all(model, [edit for edit in edits if isinstance(edit, Swap)])
