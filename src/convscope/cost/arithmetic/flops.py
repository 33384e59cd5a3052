"""Multiply–accumulates of every operator that is a sum of products, forward and backward.

Convolutions, linear layers, matrix products, recurrent layers and attention are counted by the operators
that ran, so functional code, groups, frozen layers and the stem's missing input gradient count as they are.
Biases aren't counted, multiplications with padding are, and causal masks save nothing: the usual
conventions, which the published figures follow.

Not covered: sparse and quantised kernels; they are listed as uncounted.
"""

from dataclasses import dataclass
from math import prod

from convscope.cost.arithmetic.rules import OperatorShapes, RuleTable


@dataclass(frozen=True)
class Gradients:
    """Multiply–accumulates of one backward operator.

    Attributes:
        input: for the gradients with respect to the layer's inputs.
        weight: for the gradients with respect to its weights.
        recomputed: for forward values that it computes again.
        operands: for the gradients with respect to tensor arguments, by name, of an operator without a
            weight; such an argument counts as a weight where it is computed from parameters alone.
    """

    input: int = 0
    weight: int = 0
    recomputed: int = 0
    operands: tuple[tuple[str, int], ...] = ()


_MACS = RuleTable(int)
_BACKWARD = RuleTable(Gradients)

macs_rule = _MACS.register
"""Decorator: make a function ``rule(call: OperatorShapes) -> int`` the MACs of the operators named."""
backward_rule = _BACKWARD.register
"""Decorator: make a function ``rule(call: OperatorShapes) -> Gradients`` the MACs of backward operators."""

# The two factors of every operator that is a matrix product, by argument name.
PRODUCTS: dict[str, tuple[str, str]] = {
    "mm": ("self", "mat2"),
    "_int_mm": ("self", "mat2"),
    "_scaled_mm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "_addmm_activation": ("mat1", "mat2"),
    "bmm": ("self", "mat2"),
    "baddbmm": ("batch1", "batch2"),
    "addbmm": ("batch1", "batch2"),
    "matmul": ("self", "other"),
    "linear": ("input", "weight"),
    "mv": ("self", "vec"),
    "addmv": ("mat", "vec"),
    "dot": ("self", "tensor"),
    "vdot": ("self", "other"),
}


def macs(call: OperatorShapes) -> int | None:
    """Return the multiply–accumulates of an operator call, or None if it has no such rule.

    Raises:
        ConvscopeError: its rule fails.
    """
    return _MACS.apply(call)


def gradients(call: OperatorShapes) -> Gradients | None:
    """Return those of a backward operator call, split, or None if it has no such rule."""
    return _BACKWARD.apply(call)


def has_macs(operator: str) -> bool:
    """Whether an operator is a sum of products."""
    return _MACS.find(operator) is not None


def has_gradients(operator: str) -> bool:
    """Whether a backward operator has a rule that splits it."""
    return _BACKWARD.find(operator) is not None


def factors(operator: str) -> tuple[str, str] | None:
    """Return the argument names of a matrix product's two factors, or None for other operators."""
    return PRODUCTS.get(operator) or PRODUCTS.get(operator.removesuffix("_"))


@macs_rule("convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution", "miopen_convolution")
def convolution(call: OperatorShapes) -> int:
    """Positions times kernel: (output elements) · (input channels / groups) · (kernel area)."""
    return _convolution_macs(call, call.output)


@macs_rule("torchvision_deform_conv2d")
def deformable_convolution(call: OperatorShapes) -> int:
    """As a convolution; finding the values between pixels isn't counted."""
    return call.num_outputs * prod(call.shape("weight")[1:])


@backward_rule("torchvision__deform_conv2d_backward")
def deformable_convolution_backward(call: OperatorShapes) -> Gradients:
    """As much as the forward pass for each kind of gradient; the operator computes both, asked for or not."""
    each = prod(call.shape("grad")) * prod(call.shape("weight")[1:])
    return Gradients(input=each, weight=each)


@macs_rule("conv_tbc")
def time_batch_channels(call: OperatorShapes) -> int:
    """(Output elements) · (kernel length) · (input channels)."""
    return call.num_outputs * prod(call.shape("weight")[:2])


@backward_rule("conv_tbc_backward")
def time_batch_channels_backward(call: OperatorShapes) -> Gradients:
    """Both gradients, as much as the forward pass each."""
    each = prod(call.shape("self")) * prod(call.shape("weight")[:2])
    return Gradients(each, each)


@macs_rule("_trilinear")
def trilinear(call: OperatorShapes) -> int:
    """A bilinear layer, y_o = Σ x_i w_oij z_j: one per term, whose second multiplication isn't counted."""
    sizes: dict[int, int] = {}
    for name, expanded in (("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")):
        axes, shape = set(call.argument(expanded)), list(call.shape(name))
        for axis in range(len(axes) + len(shape)):
            if axis not in axes:
                sizes[axis] = max(sizes.get(axis, 1), shape.pop(0))
    return prod(sizes.values())


@macs_rule("cudnn_convolution_transpose")
def transposed_convolution(call: OperatorShapes) -> int:
    """Every input element is multiplied with its group's whole kernel."""
    return prod(call.inputs[0]) * prod(call.inputs[1][1:])


@backward_rule("convolution_backward")
def convolution_backward(call: OperatorShapes) -> Gradients:
    """Each of the two gradients costs as much as the forward pass; ``output_mask`` says which ran.

    PyTorch 2.13's own counter leaves the groups out of the weight gradient.
    """
    each = _convolution_macs(call, call.shape("grad_output"))
    for_input, for_weight, _ = call.argument("output_mask")
    return Gradients(input=each * for_input, weight=each * for_weight)


def _convolution_macs(call: OperatorShapes, output: tuple[int, ...]) -> int:
    weight = call.shape("weight")
    transposed = bool(call.argument("transposed"))
    positions = call.shape("input") or call.shape("self") if transposed else output
    return prod(positions) * prod(weight[1:])


@macs_rule(*(name for name in PRODUCTS if name != "addbmm"))
def matrix_product(call: OperatorShapes) -> int:
    """(Elements of the product) · (length of the sums)."""
    names = factors(call.call.op)
    assert names is not None
    return call.num_outputs * call.shape(names[0])[-1]


@macs_rule("addbmm")
def summed_products(call: OperatorShapes) -> int:
    """As a batch of products, which are then added up."""
    return prod(call.shape("batch1")) * call.shape("batch2")[-1]
