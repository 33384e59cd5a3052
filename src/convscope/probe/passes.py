"""What a user's loop is told as: forward passes and runs of layers; who listens, and how that goes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from convscope.core.address import ROOT

NO_BACKWARD = -1  # PyTorch's own number for it


@dataclass(eq=False)
class ForwardPass:
    """A run of the network, or of parts of it that were called on their own, one after another.

    Attributes:
        number: from 0, in order of their beginning.
        parts: paths of the outermost modules that were called, in order: the network's own, or those of parts
            of it, none of which holds another.
        training: the mode of the whole network; where that can't be called itself, as a list of parts, the
            part's.
        has_gradients: whether gradients were enabled when it began.
        backward: number of the backward pass that it runs within, as activation checkpointing has it; −1 in a
            forward pass.
        will_be_recomputed: whether it is the first run of a reentrant checkpoint, in which gradients are off.
        input_trains: whether one of its tensors requires a gradient: an input to be differentiated, or a
            value from another network; not what this network's own parameters have made.
        inputs: its positional arguments; empty again when it is over.
        can_be_reached: whether an output, or a layer's, could be told from which backward would be seen.
        reached_by: number of the last backward pass that has come to it; −1 if none has.
        differentiated_by: number of the last one that has come to its inputs to make a graph of it, as a
            penalty on gradients of the inputs does; −1 if none has.
    """

    number: int
    parts: list[str]
    training: bool
    has_gradients: bool
    backward: int
    will_be_recomputed: bool
    input_trains: bool
    inputs: tuple[Any, ...] = ()
    can_be_reached: bool = False
    reached_by: int = NO_BACKWARD
    differentiated_by: int = NO_BACKWARD

    @property
    def path(self) -> str:
        """Path of the part that runs now, or ran last."""
        return self.parts[-1]

    @property
    def recomputed(self) -> bool:
        """Whether it runs within a backward pass."""
        return self.backward != NO_BACKWARD

    @property
    def trains(self) -> bool:
        """Whether gradients may come of it."""
        return self.has_gradients or self.will_be_recomputed

    def goes_on_with(self, part: "ForwardPass") -> bool:
        """Return whether a call of a part belongs to this pass: run in the same way, through other layers."""
        if part.input_trains or self.recomputed or part.recomputed or ROOT in (self.path, part.path):
            return False
        if self.training != part.training or self.has_gradients != part.has_gradients:
            return False
        if self.will_be_recomputed != part.will_be_recomputed:
            return False
        return not any(_overlap(known, part.path) for known in self.parts)


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


@dataclass(eq=False)
class LayerCall:
    """One run of a layer.

    Attributes:
        path: of the layer.
        layer: the module.
        input: its first argument.
        within: the forward pass that it belongs to.
        recomputed: whether it runs within a backward pass.
    """

    path: str
    layer: nn.Module
    input: Any
    within: ForwardPass
    recomputed: bool


class Listener(Protocol):
    """Is told what happens, in order; what a listener has no method for passes it by."""

    def begins(self, run: ForwardPass) -> None:
        """A forward pass begins, or the next part of one."""
        return

    def layer_begins(self, call: LayerCall) -> None:
        """A layer is about to run."""
        return

    def layer_ends(self, call: LayerCall, output: Any) -> None:
        """A layer has run; its output may be changed in place later on."""
        return

    def ends(self, run: ForwardPass) -> None:
        """A forward pass is over, also by an exception; the call of another part may still go on with it."""
        return

    def reached(self, run: ForwardPass, gradient: Tensor, backward: int) -> None:
        """A backward pass, known by its number, has come to an output of a forward pass, or to a layer's."""
        return

    def differentiated(self, run: ForwardPass) -> None:
        """A backward pass has come to an input of a forward pass, and its gradient has a graph of its own."""
        return

    def step_begins(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step: gradients are final."""
        return

    def step_ends(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped."""
        return


@dataclass(eq=False)
class Hearing:
    """How listening goes.

    Attributes:
        ended_by: what has gone wrong in a listener or in a hook: listening has ended there, the user's loop
            goes on. None while all is well.
        transformed: calls of the network within transforms of torch.func, which aren't followed.
    """

    ended_by: Exception | None = None
    transformed: int = 0


class Guarded:
    """A hook that keeps what goes wrong in it out of the user's loop, and ends listening there.

    Args:
        hook: what is called.
        hearing: where the end is noted.
    """

    def __init__(self, hook: Callable[..., None], hearing: Hearing) -> None:
        self._hook, self._hearing = hook, hearing

    def __call__(self, *args: Any) -> None:
        """Call it, unless listening has ended, or a compiler reads this to make code of it."""
        if torch.compiler.is_compiling():
            return
        if self._hearing.ended_by is not None:
            return
        try:
            self._hook(*args)
        except Exception as error:
            self._hearing.ended_by = error
