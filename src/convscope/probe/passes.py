"""What a user's loop is told as: forward passes and runs of layers; who listens, and how that goes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

NO_BACKWARD = -1  # PyTorch's own number for it


@dataclass(eq=False)
class ForwardPass:
    """A run of the network, or of a part of it that was called on its own.

    Attributes:
        number: from 0, in order of their beginning.
        path: of the outermost module that was called.
        training: the mode of the whole network.
        has_gradients: whether gradients were enabled when it began.
        backward: number of the backward pass that it runs within, as activation checkpointing has it; −1 in a
            forward pass.
        will_be_recomputed: whether it is the first run of a reentrant checkpoint, in which gradients are off.
        input_trains: whether one of its tensors requires a gradient: an input to be differentiated, or a
            value from another network; not what this network's own parameters have made.
        inputs: its positional arguments; empty again when it is over.
        can_be_reached: whether an output, or a layer's, could be told from which backward would be seen.
        reached_by: number of the last backward pass that has come to it; −1 if none has.
    """

    number: int
    path: str
    training: bool
    has_gradients: bool
    backward: int
    will_be_recomputed: bool
    input_trains: bool
    inputs: tuple[Any, ...] = ()
    can_be_reached: bool = False
    reached_by: int = NO_BACKWARD

    @property
    def recomputed(self) -> bool:
        """Whether it runs within a backward pass."""
        return self.backward != NO_BACKWARD

    @property
    def trains(self) -> bool:
        """Whether gradients may come of it."""
        return self.has_gradients or self.will_be_recomputed


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
    """Is told what happens, in order."""

    def begins(self, run: ForwardPass) -> None:
        """A forward pass begins."""

    def layer_begins(self, call: LayerCall) -> None:
        """A layer is about to run."""

    def layer_ends(self, call: LayerCall, output: Any) -> None:
        """A layer has run; its output may be changed in place later on."""

    def ends(self, run: ForwardPass) -> None:
        """A forward pass is over, also by an exception."""

    def reached(self, run: ForwardPass, gradient: Tensor, backward: int, create_graph: bool) -> None:
        """A backward pass, known by its number, has come to an output of a forward pass, or to a layer's."""

    def step_begins(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step: gradients are final."""

    def step_ends(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped."""


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
        """Call it, unless listening has ended."""
        if self._hearing.ended_by is not None:
            return
        try:
            self._hook(*args)
        except Exception as error:
            self._hearing.ended_by = error
