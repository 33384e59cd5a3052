"""Values of a recorded run that don't depend on its inputs, and their numbers.

Weights that a module standardises, gains that it multiplies by, statistics that it repeats: whatever is
computed from parameters and buffers alone is computed anew here, in float64.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from convscope.fold.recorded.flow import Flow, Stays
from convscope.fold.recorded.slots import Slot
from convscope.tape import OperatorCall, Ref

_DRAWN = (
    "rand", "bernoulli", "normal", "uniform", "dropout", "multinomial", "poisson", "exponential", "geometric",
    "cauchy", "empty",
)  # fmt: skip


class Constants:
    """The constants of a recorded run.

    Args:
        flow: the recording and the network.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._numbers: dict[int, Tensor] = {}

    def holds(self, value: int) -> bool:
        """Whether a value is the same in every run."""
        return value in self._constant or (self.maker(value) is None and self._is_given(value))

    def maker(self, value: int) -> OperatorCall | None:
        """Return the call that wrote or viewed a value first; None for what was there before, or unknown."""
        index = self._makers.get(value)
        return None if index is None else self._flow.tape.calls[index]

    def numbers(self, value: int) -> Tensor:
        """Return the numbers of a constant, in float64 if they're floating.

        Raises:
            Stays: they aren't known.
        """
        pending = [value]
        while pending:
            maker = self.maker(pending[-1])
            missing = [read for read in (maker.inputs if maker else ()) if read not in self._numbers]
            if missing and pending[-1] not in self._numbers:
                pending += missing
                continue
            each = pending.pop()
            if each not in self._numbers:
                self._numbers[each] = _widened(self._computed(each, maker) if maker else self._held(each))
        return self._numbers[value]

    def _held(self, value: int) -> Tensor:
        """The tensor of the network that a value is."""
        tape = self._flow.tape
        read, info = tape.values[value], tape.parameter_of(value) or tape.buffer_of(value)
        if info is None:
            raise Stays("a constant in the network's code, whose numbers aren't known, takes part")
        path, _, attribute = info.name.rpartition(".")
        held = Slot(path, attribute).tensor_in(self._flow.model).detach()
        start = read.offset - info.offset + int(held.storage_offset())
        return held.as_strided(read.shape, read.stride, start)

    def _computed(self, value: int, maker: OperatorCall) -> Tensor:
        if any(part in maker.op for part in _DRAWN):
            raise Stays(f"{maker.address} draws random numbers")
        arguments = {name: self._argument(argument) for name, argument in maker.arguments.items()}
        with torch.no_grad():
            results = operator_of(maker)(**arguments)
        found: Tensor = results if isinstance(results, Tensor) else results[maker.outputs.index(value)]
        return found

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, Ref):
            return self._numbers[argument.value].clone()  # it may be written to
        if isinstance(argument, list | tuple):
            return [self._argument(item) for item in argument]
        if isinstance(argument, torch.dtype) and argument.is_floating_point:
            return torch.float64
        if isinstance(argument, torch.device):
            return torch.device("cpu")
        return argument

    def _is_given(self, value: int) -> bool:
        held = self._flow.tape.values[value]
        role = self._flow.tape.storages[held.storage].role
        return role in ("parameter", "buffer", "constant") and held.version == 0

    @cached_property
    def _constant(self) -> frozenset[int]:
        """The values that calls make of constants alone, and not by drawing or counting."""
        tape, found = self._flow.tape, set[int]()
        for call in tape.calls:
            made = [
                value for value in call.outputs if value is not None and self._makers.get(value) == call.index
            ]
            if not made or any(part in call.op for part in _DRAWN):
                continue
            if all(
                read in found or (read not in self._makers and self._is_given(read)) for read in call.inputs
            ):
                found.update(value for value in made if not self._is_kept_state(value))
        return frozenset(found)

    def _is_kept_state(self, value: int) -> bool:
        """Whether a value was written to a parameter or buffer, where the next run finds it."""
        held = self._flow.tape.values[value]
        return held.version > 0 and self._flow.tape.storages[held.storage].role in ("parameter", "buffer")

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


def operator_of(call: OperatorCall) -> Any:
    """Return the ATen operator that ran."""
    namespace, name, overload = call.overload.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.cpu().double() if tensor.is_floating_point() else tensor.cpu()
