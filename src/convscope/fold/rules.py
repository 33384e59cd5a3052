"""Which layers can take a batch norm's scale and shift into their weights, and how: a table of rules.

A layer is linear: y = W x + b. Batch norm after it, s (y − μ) + β with s = γ / √(v + ε), is the same layer
with W' = s W and b' = s (b − μ) + β, where s multiplies whatever part of W makes an output channel. A rule
says, for one operator, which arguments W and b are, on which axis of the output the channels lie, and which
axis of W they lie on.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv 1712.05877, section 3.2, for the fold as such.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from convscope.tape import OperatorCall

Scaled = Callable[[OperatorCall, Tensor, Tensor], Tensor]
"""Returns the weights (float64) with every output channel multiplied by its scale."""

Unfit = Callable[[OperatorCall], str]
"""Returns why this call can't take a scale and a shift, or ``""``."""


@dataclass(frozen=True)
class Rule:
    """How one operator takes a scale and a shift per output channel into its weights.

    Attributes:
        weight: name of the argument that holds W.
        bias: name of the argument that holds b, or None if the operator has none.
        rank: the rank that the output must have for axis 1 to be the channel axis, or None for any.
        scaled: multiplies the output channels of W; it is given W as the operator reads it.
        unfit: see :data:`Unfit`.
        biased: name of the operator that runs once there is a bias.
    """

    weight: str
    bias: str | None
    rank: int | None
    scaled: Scaled
    unfit: Unfit
    biased: str


RULES: dict[str, Rule] = {}
"""By the operator's name on the tape."""

_S = TypeVar("_S", bound=Scaled)


def fit(call: OperatorCall) -> str:
    """Return "": every call of the operator fits."""
    del call
    return ""


def folds_into(
    op: str,
    *,
    weight: str,
    bias: str | None,
    rank: int | None = None,
    unfit: Unfit = fit,
    biased: str = "",
) -> Callable[[_S], _S]:
    """Register the decorated function as the :attr:`Rule.scaled` of an operator."""

    def register(scaled: _S) -> _S:
        RULES[op] = Rule(weight, bias, rank, scaled, unfit, biased or op)
        return scaled

    return register


@folds_into("convolution", weight="weight", bias="bias")
def scale_convolution(call: OperatorCall, weight: Tensor, scale: Tensor) -> Tensor:
    """Return a convolution's or transposed convolution's weights, scaled per output channel.

    Convolution: W is (C_out, C_in / g, …), whatever the groups g. Transposed: W is (C_in, C_out / g, …), and
    output channel j of group i is computed from the i-th block of C_in / g rows, column j. Sizes that
    happen to be equal tell nothing; the recorded arguments ``transposed`` and ``groups`` do.

    Source:
        PyTorch's documentation of ``Conv2d`` and ``ConvTranspose2d``, "Variables".
    """
    ones = (1,) * (weight.dim() - 2)
    if not call.arguments["transposed"]:
        return weight * scale.view(-1, 1, *ones)
    groups = call.arguments["groups"]
    blocks = weight.view(groups, -1, *weight.shape[1:]) * scale.view(groups, 1, -1, *ones)
    return blocks.flatten(0, 1)


def _plain_sum(call: OperatorCall) -> str:
    weights = {call.arguments["alpha"], call.arguments["beta"]}
    return "" if weights == {1} else f"{call.address} weights its terms by alpha and beta"


@folds_into("addmm", weight="mat2", bias="self", rank=2, unfit=_plain_sum)
@folds_into("mm", weight="mat2", bias=None, rank=2, biased="addmm")
def scale_matrix(call: OperatorCall, weight: Tensor, scale: Tensor) -> Tensor:
    """Return the matrix of a linear layer, scaled per output feature; it is read as (in, out).

    Only for outputs of rank 2, (N, C): an output (N, L, C) of a linear layer reaches a batch norm that takes
    it for (N, C, L), and then no weight belongs to a channel, not even where C = L.
    """
    del call
    return weight * scale
