"""Values of a recorded run that don't depend on its inputs, and their numbers.

Weights that a module standardises, gains that it multiplies by, statistics that it repeats: whatever is
computed from parameters and buffers alone is computed anew here, in float64.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from convscope.fold.flow import Flow, Stays
from convscope.tape import OperatorCall, Ref

_DRAWN = ("rand", "bernoulli", "normal", "uniform", "dropout", "multinomial", "poisson", "empty")


class Constants:
    """The constants of a recorded run.

    Args:
        flow: the recording and the network.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._known: dict[int, bool] = {}
        self._numbers: dict[int, Tensor] = {}

    def holds(self, value: int) -> bool:
        """Whether a value is the same in every run."""
        known = self._known.get(value)
        if known is None:
            maker = self.maker(value)
            if maker is None:
                held = self._flow.tape.values[value]
                role = self._flow.tape.storages[held.storage].role
                known = role in ("parameter", "buffer", "constant") and held.version == 0
            else:
                drawn = any(part in maker.op for part in _DRAWN)
                known = not drawn and all(self.holds(read) for read in maker.inputs)
            self._known[value] = known
        return known

    def maker(self, value: int) -> OperatorCall | None:
        """Return the call that wrote or viewed a value first; None for what was there before, or unknown."""
        index = self._makers.get(value)
        return None if index is None else self._flow.tape.calls[index]

    def numbers(self, value: int) -> Tensor:
        """Return the numbers of a constant, in float64 if they're floating.

        Raises:
            Stays: they aren't known.
        """
        if value not in self._numbers:
            self._numbers[value] = self._compute(value)
        return self._numbers[value]

    def _compute(self, value: int) -> Tensor:
        maker = self.maker(value)
        if maker is None:
            slots = self._flow.slots_of(value)
            if not slots or not self._flow.is_whole(value):
                raise Stays("a constant in the network's code, whose numbers aren't known, takes part")
            shape = self._flow.tape.values[value].shape
            held = next((s.tensor_in(self._flow.model) for s in slots), None)
            if held is None or tuple(held.shape) != shape:
                raise Stays(f"a part of {slots[0].name} takes part")
            return _widened(held.detach())
        arguments = {name: self._argument(argument) for name, argument in maker.arguments.items()}
        with torch.no_grad():
            results = _operator(maker)(**arguments)
        if isinstance(results, Tensor):
            return results
        place = [position for position, output in enumerate(maker.outputs) if output == value]
        found: Tensor = results[place[0]]
        return found

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, Ref):
            numbers = self.numbers(argument.value)
            return numbers.clone()  # it may be written to
        if isinstance(argument, list | tuple):
            return [self._argument(item) for item in argument]
        if isinstance(argument, torch.dtype) and argument.is_floating_point:
            return torch.float64
        if isinstance(argument, torch.device):
            return torch.device("cpu")
        return argument

    @cached_property
    def _makers(self) -> dict[int, int]:
        tape = self._flow.tape
        given = {*tape.inputs}
        makers: dict[int, int] = {}
        for call in tape.calls:
            for output in call.outputs:
                if output is None or output in given or output in makers or output in call.inputs:
                    continue
                held = tape.values[output]
                if held.version == 0 and self._flow.is_whole(output):
                    continue  # a view of a parameter that comes back to the whole of it
                makers[output] = call.index
        return makers


def _operator(call: OperatorCall) -> Any:
    """The ATen operator that ran."""
    namespace, name, overload = call.overload.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.cpu().double() if tensor.is_floating_point() else tensor.cpu()
