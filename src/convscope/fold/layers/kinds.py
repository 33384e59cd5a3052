"""Which operators are layers that take gauges into their weights, and how they hold these: a table."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from convscope.tape import OperatorCall

Blocks = Callable[[OperatorCall, Tensor], Tensor]
"""Returns a view of W, as the operator reads it: (groups, outputs per group, inputs per group, taps)."""


@dataclass(frozen=True)
class Kind:
    """How one operator holds its weights.

    Attributes:
        weight: name of the argument that holds W.
        bias: name of the argument that holds b, or None if the operator has none.
        data: name of the argument that holds x.
        blocks: see :data:`Blocks`.
        unfit: returns why a call can't take gauges, or ``""``.
    """

    weight: str
    bias: str | None
    data: str
    blocks: Blocks
    unfit: Callable[[OperatorCall], str] = lambda _: ""


KINDS: dict[str, Kind] = {}
"""By the operator's name on the tape."""


def takes(op: str, kind: Kind) -> None:
    """Let calls of an operator take gauges into their weights; their channels lie on axis 1."""
    KINDS[op] = kind


def _convolution(call: OperatorCall, weight: Tensor) -> Tensor:
    """W is (C_out, C_in / g, …); transposed, it is (C_in, C_out / g, …), and group i has the i-th rows.

    Sizes that happen to be equal tell nothing; the recorded arguments ``transposed`` and ``groups`` do.

    Source: PyTorch's documentation of ``Conv2d`` and ``ConvTranspose2d``, "Variables".
    """
    groups = call.arguments["groups"]
    blocks = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return blocks.transpose(1, 2) if call.arguments["transposed"] else blocks


def _matrix(call: OperatorCall, weight: Tensor) -> Tensor:
    """The matrix of a linear layer is read as (in, out)."""
    del call
    return weight.mT[None, :, :, None]


def _weighted_sum(call: OperatorCall) -> str:
    plain = {call.arguments["alpha"], call.arguments["beta"]} == {1}
    return "" if plain else f"{call.address} weights its terms by alpha and beta"


takes("convolution", Kind("weight", "bias", "input", _convolution))
takes("addmm", Kind("mat2", "self", "mat1", _matrix, _weighted_sum))
takes("mm", Kind("mat2", None, "self", _matrix))
