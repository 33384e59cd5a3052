"""How operators that compute change windows: convolutions, pools, elementwise operators, norms, products."""

from convscope.tape.batch_norms import normalises_samples
from convscope.tape.receptive_map import Atom, Axis, Map, Operation, State, joined, rule, slid

_POINTWISE = """
    add sub rsub mul div neg abs sign relu relu6 threshold clamp clamp_min clamp_max hardtanh maximum minimum
    exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal square pow tanh erf sin cos floor ceil round
    trunc eq ne lt le gt ge logical_and logical_or logical_not where masked_fill addcmul addcdiv lerp
    leaky_relu _prelu_kernel prelu elu celu selu rrelu_with_noise sigmoid hardsigmoid softplus
    log_sigmoid_forward silu gelu hardswish mish softshrink hardshrink native_dropout clone contiguous
    _to_copy to expand expand_as isnan nan_to_num fmod remainder
"""
_REDUCTIONS = """
    sum mean amax amin max min prod any all argmax argmin var var_mean std std_mean norm linalg_vector_norm
    logsumexp nansum
"""
# First and second factor of matrix products, by argument name.
_FACTORS = {
    "mm": ("self", "mat2"), "addmm": ("mat1", "mat2"), "bmm": ("self", "mat2"),
    "baddbmm": ("batch1", "batch2"), "linear": ("input", "weight"), "mv": ("self", "vec"),
}  # fmt: skip
_ADDENDS = {"addmm": "self", "baddbmm": "self", "linear": "bias"}


@rule(*_POINTWISE.split())
def pointwise(operation: Operation) -> State:
    """Every element depends on the elements at its own position."""
    return joined(operation, tuple(operation.maps.values()), operation.output)


@rule("copy")
def copied(operation: Operation) -> State | None:
    """The target's old content is gone."""
    source = operation.map_of("src")
    return None if source is None else joined(operation, (source,), operation.output)


@rule("convolution", "_convolution")
def convolution(operation: Operation) -> State:
    """Windows grow by (kernel − 1) · dilation strides; all channels are mixed."""
    given, out = operation.map_of("input"), operation.output
    mixed: Axis = (Atom(out[1], ""),)
    if given is None or len(operation.maps) > 1:
        return operation.whole(tuple((Atom(size, ""),) for size in out), "has weights made from the image")
    kernel = operation.tape.values[operation.call.inputs[1]].shape[2:]
    strides, paddings, dilations = (
        _per_axis(operation.argument(name), len(kernel)) for name in ("stride", "padding", "dilation")
    )
    if given.kinds(1) & {"y", "x"}:
        return operation.whole((given.axes[0], mixed, *(((Atom(size, ""),)) for size in out[2:])))
    result = given.with_axis(1, mixed)
    for i, extent in enumerate(kernel):
        reach, stride, padding = (extent - 1) * dilations[i] + 1, strides[i], paddings[i]
        if operation.argument("transposed"):
            if stride != 1:
                spread = tuple((Atom(size, ""),) for size in out[2:])
                return operation.whole(
                    (given.axes[0], mixed, *spread), "upsamples: windows differ by position"
                )
            padding = reach - 1 - padding
        result = slid(operation, result, i + 2, out[i + 2], (reach, stride, padding))
    return result


@rule(
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool2d",
)
def pool(operation: Operation) -> State:
    """Like a convolution; each channel by itself."""
    given, out = operation.first, operation.output
    dims = int(operation.call.op.split("pool")[1][0])
    kernel = _per_axis(operation.argument("kernel_size"), dims)
    strides = _per_axis(operation.argument("stride") or kernel, dims)
    paddings = _per_axis(operation.argument("padding", 0), dims)
    dilations = _per_axis(operation.argument("dilation", 1), dims)
    for i in range(dims):
        dim = len(out) - dims + i
        window = ((kernel[i] - 1) * dilations[i] + 1, strides[i], paddings[i])
        given = slid(operation, given, dim, out[dim], window)
    return given


@rule("_adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool1d", "_adaptive_avg_pool3d")
def adaptive_pool(operation: Operation) -> State:
    """A pool where sizes divide; windows of different sizes otherwise."""
    given, out = operation.first, operation.output
    dims = int(operation.call.op[-2])
    before = operation.tape.values[operation.call.inputs[0]].shape
    for dim in range(len(out) - dims, len(out)):
        ratio, rest = divmod(before[dim], out[dim])
        if given.kinds(dim) & {"y", "x"} and (rest or (out[dim] == 1 and ratio > 1)):
            why = "has windows that differ by position" if rest else "spans the whole map"
            return operation.whole((*given.axes[:-dims], *((Atom(size, ""),) for size in out[-dims:])), why)
        given = slid(operation, given, dim, out[dim], (ratio, ratio, 0))
    return given


@rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")
def padded(operation: Operation) -> State:
    """The first window starts further out; mirrored pixels lie inside the windows of usual kernels."""
    given, out = operation.first, operation.output
    pads = list(operation.argument("pad") or operation.argument("padding"))
    for i in range(len(pads) // 2):
        dim = len(out) - 1 - i
        if pads[2 * i] or pads[2 * i + 1]:
            given = slid(operation, given, dim, out[dim], (1, 1, pads[2 * i]))
    return given


@rule("batch_norm")
def batch_norm(operation: Operation) -> State:
    """Elementwise with fixed statistics, which those of a training batch count as.

    Instance norm's channels are (samples · channels).
    """
    given, call, tape = operation.first, operation.call, operation.tape
    is_instance_norm = "n" in given.kinds(1) or not normalises_samples(tape, call)
    has_own = operation.argument("training", "no_training" not in call.overload)
    return operation.whole(given.axes) if is_instance_norm or (has_own and not tape.training) else given


@rule("convscope_moments")
def moments(operation: Operation) -> list[State | None]:
    """Over samples, in training: constants. Over space: the whole map. Over channels: of each position."""
    given, dims = operation.first, operation.argument("dims")
    kinds = given.kinds(*dims)
    if "n" in kinds and operation.tape.training:
        return [None] * 4
    axes = tuple(() if dim in dims else axis for dim, axis in enumerate(given.axes))
    found = operation.whole(axes) if kinds & {"y", "x"} else Map(axes, given.y, given.x, given.reason)
    return [found, found, found, None]


@rule("convscope_normalise")
def normalise(operation: Operation) -> State:
    """Elementwise, of the values and of their statistics."""
    return joined(operation, tuple(operation.maps.values()), operation.output)


@rule("layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(operation: Operation) -> State:
    """Elementwise where it normalises channels only."""
    given = operation.first
    dims = range(len(given.axes) - len(operation.argument("normalized_shape")), len(given.axes))
    return operation.whole(given.axes) if given.kinds(*dims) & {"y", "x"} else given


@rule("group_norm", "instance_norm")
def group_norm(operation: Operation) -> State:
    """Its statistics are a sample's own, over the whole map."""
    return operation.whole(operation.first.axes)


@rule("_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod")
def along_axis(operation: Operation) -> State:
    """Every element depends on all along the axis."""
    given = operation.first
    return operation.whole(given.axes) if given.kinds(operation.argument("dim")) & {"y", "x"} else given


@rule(*_REDUCTIONS.split())
def reduction(operation: Operation) -> State | None:
    """Over samples, in training: a statistic of the batch, a constant. Over space: the whole image."""
    if len(operation.call.inputs) > 1:  # maximum of two tensors
        return joined(operation, tuple(operation.maps.values()), operation.output)
    given, rank = operation.first, len(operation.first.axes)
    asked = operation.argument("dim")
    dims = (
        {d % rank for d in ([asked] if isinstance(asked, int) else asked or range(rank))} if rank else set()
    )
    kinds = given.kinds(*dims)
    if "n" in kinds and operation.tape.training:
        return None
    if operation.argument("keepdim", False):
        axes = tuple(() if dim in dims else axis for dim, axis in enumerate(given.axes))
    else:
        axes = tuple(axis for dim, axis in enumerate(given.axes) if dim not in dims)
    if kinds & {"y", "x"}:
        return operation.whole(axes)
    return Map(axes, given.y, given.x, given.reason)


@rule(*_FACTORS)
def product(operation: Operation) -> State:
    """Sums over the first factor's last axis: pointwise over maps whose channels come last."""
    first_name, second_name = _FACTORS[operation.call.op]
    first, second = operation.map_of(first_name), operation.map_of(second_name)
    out = operation.output
    if first is not None and second is None and _is_alone(operation, first):
        kept = first.axes[:-1]
        axes = kept if operation.call.op == "mv" else (*kept, (Atom(out[-1], ""),))
        if first.kinds(-1) & {"y", "x"}:
            return operation.whole(axes)
        return Map(axes, first.y, first.x, first.reason)
    if second is not None and first is None and len(second.axes) == len(out) and _is_alone(operation, second):
        axes = (*second.axes[:-2], (Atom(out[-2], ""),), second.axes[-1])
        if second.kinds(-2) & {"y", "x"}:
            return operation.whole(axes)
        return Map(axes, second.y, second.x, second.reason)
    samples = operation.first.axes[:1] if len(operation.first.axes) == len(out) else ((Atom(out[0], ""),),)
    return operation.whole((*samples, *((Atom(size, ""),) for size in out[1:])))


@rule("attention")
def attention(operation: Operation) -> State:
    """Every position sees all others."""
    return operation.whole(operation.first.axes)


def _is_alone(operation: Operation, factor: Map) -> bool:
    addend = _ADDENDS.get(operation.call.op)
    return addend is None or operation.map_of(addend) in (None, factor)


def _per_axis(setting: int | tuple[int, ...] | list[int], dims: int) -> list[int]:
    numbers = [setting] if isinstance(setting, int) else list(setting)
    return numbers if len(numbers) == dims else numbers[:1] * dims
