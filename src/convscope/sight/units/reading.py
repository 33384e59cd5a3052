"""Values that are read while a network runs, at the addresses of its tape."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from convscope.core.address import ROOT, parse_address
from convscope.probe import Probe, Visit
from convscope.tape import Tape


@dataclass(frozen=True)
class Place:
    """Where a value is read.

    Attributes:
        address: of the module call or operator call that returns it.
        value: in the tape.
        result: which of its tensors it is.
    """

    address: str
    value: int
    result: int = 0

    def tell(self, probe: Probe, reader: Callable[[Tensor], object]) -> None:
        """Let ``reader`` have the value in each of the probe's runs; it must copy what it keeps."""

        def tensor(result: Any) -> Tensor:
            found: Tensor = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)][self.result]
            return found

        if parse_address(self.address).op is not None:

            def at_operator(_: Visit, result: Any) -> None:
                reader(tensor(result))

            probe.read(self.address, at_operator)
        else:

            def at_module(_: Any, result: Any) -> None:
                reader(tensor(result))

            probe.at_module(self.address, at_module)


def place_of(tape: Tape, value: int) -> Place:
    """Return where a value is read that an operator makes; of an output written in parts, at the network."""
    call = tape.producer(value)
    outputs = [output for output in call.outputs if output is not None] if call is not None else []
    if call is None or value not in outputs:
        return Place(f"{ROOT}#1", value, tape.outputs.index(value))
    return Place(str(call.address), value, outputs.index(value))
