"""Operations of everything that isn't a sum of products: activations, normalisation, pooling, losses.

Each addition, multiplication, division, comparison and each elementary function (exp, log, sqrt, tanh, erf …)
of one element counts as one operation, by the formula beside the rule, whatever a kernel makes of it. These
numbers are for comparing layers; they are never mixed into MACs. Views, allocations and copies do no
arithmetic: zero by rule. Random numbers and reading memory aren't counted. Attention's softmax, recurrent
layers' gates, Fourier transforms and sorting have their rules beside this file.
"""

from collections.abc import Callable
from math import prod

from convscope.cost.arithmetic.rules import OperatorShapes, RuleTable

_OPERATIONS = RuleTable(int)

elementwise_rule = _OPERATIONS.register
"""Decorator: make a function ``rule(call: OperatorShapes) -> int`` the operations of the operators named."""

# Nothing is computed and no data moves: views, shapes, allocations.
_NO_WORK_NAMES = """
    view _unsafe_view reshape _reshape_alias as_strided t transpose permute numpy_T unsqueeze squeeze expand
    expand_as select slice narrow split split_with_sizes unsafe_split chunk unbind diagonal unfold movedim
    swapaxes view_as flatten unflatten view_as_real view_as_complex real imag conj _conj resize set
    empty empty_like empty_strided new_empty new_empty_strided zeros zeros_like new_zeros zero
    ones ones_like new_ones full full_like new_full scalar_tensor arange linspace eye fill tensor
    _efficientzerotensor sym_storage_offset is_same_size result_type promote_types can_cast
    _assert_async _assert_scalar _assert_tensor_metadata _linalg_check_errors
"""
# Data moves, nothing is computed.
_MOVES_NAMES = """
    cat concat stack clone copy _to_copy to contiguous index index_select gather scatter index_put
    _unsafe_index _index_put_impl masked_fill where masked_select take embedding repeat repeat_interleave tile
    roll flip rot90 tril triu constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col max_unpool2d max_unpool3d
    slice_scatter select_scatter as_strided_copy expand_copy permute_copy view_copy complex
    rand rand_like randn randn_like randint randint_like randperm bernoulli uniform normal log_normal
    exponential geometric cauchy random poisson multinomial
"""
_NO_WORK = frozenset(_NO_WORK_NAMES.split())
_MOVES = frozenset(_MOVES_NAMES.split())

# Operations per element of the result.
_PER_RESULT: dict[int, str] = {
    1: """add sub rsub mul div neg abs sign sgn relu threshold clamp_min clamp_max maximum
          minimum fmax fmin exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal square pow tanh erf erfc
          sin cos tan atan atan2 sinh cosh floor ceil round trunc frac eq ne lt le gt ge logical_and
          logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor isnan isinf
          remainder fmod floor_divide true_divide ldexp polar cumsum cumprod cumsum_backward hardshrink
          asin acos asinh acosh atanh erfinv cummax cummin copysign hypot xlogy signbit angle heaviside
          __lshift__ __rshift__ bitwise_left_shift bitwise_right_shift""",
    2: """hardtanh addcmul addcdiv native_dropout leaky_relu _prelu_kernel prelu outer addr softshrink
          logaddexp nan_to_num""",
    # a + w (b − a); compare, exp, subtract
    3: "upsample_linear1d lerp isfinite elu celu selu rrelu_with_noise softsign",
    4: "sigmoid hardsigmoid softplus log_sigmoid_forward",  # 1 / (1 + exp(−x)); x + 3, clamp twice, / 6
    5: "silu gelu hardswish glu",  # x sigmoid(x); x/2 · (1 + erf(x/√2)); x · hardsigmoid(x)
    6: "mish",  # x tanh(log(1 + exp(x)))
    9: "upsample_bilinear2d _upsample_bilinear2d_aa grid_sampler_2d",  # three interpolations a + w (b − a)
    21: "upsample_trilinear3d grid_sampler_3d",  # seven
    35: "upsample_bicubic2d _upsample_bicubic2d_aa",  # five times four products and three sums
}  # fmt: skip


def operations(call: OperatorShapes) -> int | None:
    """Return the elementwise operations of an operator call, or None if it has no rule.

    Raises:
        ConvscopeError: its rule fails.
    """
    operator = call.call.op
    found = _OPERATIONS.apply(call)
    return 0 if found is None and (does_no_work(operator) or moves_only(operator)) else found


def does_no_work(operator: str) -> bool:
    """Whether an operator neither computes nor moves data, as far as no rule says that it does."""
    return _is_listed(operator, _NO_WORK)


def moves_only(operator: str) -> bool:
    """Whether an operator moves data without computing, as far as no rule says that it does."""
    return _is_listed(operator, _MOVES)


def _is_listed(operator: str, names: frozenset[str]) -> bool:
    return {operator, operator.removesuffix("_")} & names != set() and _OPERATIONS.find(operator) is None


def is_known(operator: str) -> bool:
    """Whether an operator has a rule here."""
    return does_no_work(operator) or moves_only(operator) or _OPERATIONS.find(operator) is not None


def _per_result(count: int) -> Callable[[OperatorShapes], int]:
    return lambda call: count * call.num_outputs


for _count, _names in _PER_RESULT.items():
    elementwise_rule(*_names.split())(_per_result(_count))


@elementwise_rule("clamp")
def clamp(call: OperatorShapes) -> int:
    """A comparison per bound."""
    bounds = sum(call.argument(name) is not None for name in ("min", "max"))
    return bounds * call.num_outputs


@elementwise_rule(
    "sum", "mean", "amax", "amin", "max", "min", "prod", "any", "all", "argmax", "argmin", "nansum",
    "count_nonzero",
)  # fmt: skip
def reduction(call: OperatorShapes) -> int:
    """One per element read (two tensors: one per element of the result)."""
    return max(call.num_inputs, call.num_outputs)


@elementwise_rule("var", "var_mean", "std", "std_mean")
def variance(call: OperatorShapes) -> int:
    """Mean (1), then subtract, square and add (3)."""
    return 4 * call.num_inputs


@elementwise_rule("norm", "linalg_vector_norm", "logsumexp")
def norm(call: OperatorShapes) -> int:
    """Square (exp) and add."""
    return 2 * call.num_inputs


@elementwise_rule("batch_norm", "instance_norm")
def batch_norm(call: OperatorShapes) -> int:
    """Subtract, divide, and with γ and β multiply, add; by the batch's own statistics 4 more for them."""
    affine = 2 if call.shape("weight") else 0
    training = bool(call.argument("training")) or call.argument("use_input_stats") is True
    return (2 + affine + 4 * training) * call.num_inputs


@elementwise_rule("convscope_moments")
def moments(call: OperatorShapes) -> int:
    """Mean (1), then subtract, square and add (3), as in ``variance``."""
    return 4 * call.num_inputs


@elementwise_rule("convscope_normalise")
def normalise(call: OperatorShapes) -> int:
    """Subtract, divide, and with γ and β multiply, add: with the moments, as PyTorch's norms."""
    return (2 + (2 if call.shape("weight") else 0)) * call.num_inputs


@elementwise_rule("convscope_normalise_sums")
def normalise_sums(call: OperatorShapes) -> int:
    """Sum; subtract, multiply and add."""
    return 4 * call.num_inputs


@elementwise_rule("layer_norm", "group_norm", "_fused_rms_norm", "rms_norm")
def sample_norm(call: OperatorShapes) -> int:
    """Statistics (4), subtract, divide, and with γ and β multiply, add."""
    return (6 + (2 if call.shape("weight") else 0)) * call.num_inputs


@elementwise_rule("_softmax", "softmax", "_safe_softmax", "_log_softmax", "log_softmax")
def softmax(call: OperatorShapes) -> int:
    """Maximum, subtract, exp, add, divide (or subtract the logarithm)."""
    return 5 * call.num_inputs


@elementwise_rule(
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "avg_pool1d", "avg_pool2d", "avg_pool3d",
)  # fmt: skip
def pool(call: OperatorShapes) -> int:
    """(Window − 1) comparisons per output; (window − 1) additions and a division for averages."""
    kernel, dims = (
        call.argument("kernel_size"),
        1 if "1d" in call.call.op else 3 if "3d" in call.call.op else 2,
    )
    window: int = prod(kernel) if len(kernel) == dims else kernel[0] ** dims
    return (window - ("max" in call.call.op)) * call.num_outputs


@elementwise_rule(
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
)  # fmt: skip
def adaptive_pool(call: OperatorShapes) -> int:
    """Elements read: output i of o reads inputs ⌊i n/o⌋ … ⌈(i+1) n/o⌉ of n along every axis."""
    dims = int(call.call.op.removesuffix("d")[-1])
    sizes = zip(call.inputs[0][-dims:], call.output[-dims:])
    windows = (sum(-(-(i + 1) * n // o) - i * n // o for i in range(o)) for n, o in sizes)
    return prod(call.output[:-dims]) * prod(windows)


@elementwise_rule(
    "nll_loss_forward", "nll_loss2d_forward", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss",
    "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div",
)  # fmt: skip
def loss(call: OperatorShapes) -> int:
    """Four per element compared: difference, function, weight, sum; the log likelihood's one a target."""
    if call.call.op.startswith("nll_loss"):
        return prod(call.shape("target"))
    return 4 * call.num_inputs


@elementwise_rule("col2im")
def overlapping_sum(call: OperatorShapes) -> int:
    """An addition per element read."""
    return call.num_inputs
