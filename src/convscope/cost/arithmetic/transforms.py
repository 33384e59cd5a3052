"""Operations of Fourier transforms, sorting and searching, distances and weight normalisation."""

from math import ceil, log2, prod

from convscope.cost.arithmetic.elementwise import elementwise_rule
from convscope.cost.arithmetic.rules import OperatorShapes


@elementwise_rule("_fft_c2c")
def fourier(call: OperatorShapes) -> int:
    """5 N log₂ N per transform of N complex values.

    Source: Cooley and Tukey 1965; the count which fftw.org's benchmarks report, whatever the algorithm.
    """
    return _transforms(call, call.output, per_value=5.0)


@elementwise_rule("_fft_r2c", "_fft_c2r")
def real_fourier(call: OperatorShapes) -> int:
    """2.5 N log₂ N per transform of, or to, N real values."""
    real = call.inputs[0] if call.call.op == "_fft_r2c" else call.output
    return _transforms(call, real, per_value=2.5)


def _transforms(call: OperatorShapes, shape: tuple[int, ...], per_value: float) -> int:
    length = prod(shape[axis] for axis in call.argument("dim"))
    return ceil(per_value * prod(shape) * log2(length)) if length > 1 else 0


@elementwise_rule("sort", "argsort", "msort", "topk", "kthvalue", "median", "nanmedian", "mode", "_unique2")
def sorting(call: OperatorShapes) -> int:
    """⌈log₂ n⌉ comparisons per element, n the length of the axis sorted (all of it without an axis)."""
    shape, axis = call.inputs[0], call.argument("dim")
    length = prod(shape) if axis is None else shape[axis] if shape else 1
    return prod(shape) * _bisections(length)


@elementwise_rule("searchsorted")
def search(call: OperatorShapes) -> int:
    """⌈log₂ n⌉ comparisons per value sought, n the length of the sorted sequence."""
    return call.num_outputs * _bisections(call.shape("sorted_sequence")[-1])


@elementwise_rule("bucketize")
def buckets(call: OperatorShapes) -> int:
    """⌈log₂ n⌉ comparisons per value, n the number of boundaries."""
    return call.num_outputs * _bisections(call.shape("boundaries")[-1])


def _bisections(length: int) -> int:
    return (max(length, 1) - 1).bit_length()


@elementwise_rule("_cdist_forward", "_pdist_forward")
def distances(call: OperatorShapes) -> int:
    """Per pair of points and coordinate: difference, power, sum."""
    return 3 * call.num_outputs * call.inputs[0][-1]


@elementwise_rule("_weight_norm_interface")
def weight_norm(call: OperatorShapes) -> int:
    """Square, add, multiply with g/‖v‖."""
    return 3 * call.num_inputs


@elementwise_rule("_embedding_bag", "embedding_bag")
def embedding_bag(call: OperatorShapes) -> int:
    """A sum per element read."""
    return prod(call.shape("indices")) * call.output[-1]


@elementwise_rule("bincount", "histc", "scatter_add", "index_add", "scatter_reduce", "put")
def accumulation(call: OperatorShapes) -> int:
    """An addition per element read."""
    source = call.shape("src") or call.shape("source") or call.inputs[0]
    return prod(source)
