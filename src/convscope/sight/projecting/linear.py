"""Which recorded operators are linear in what depends on the image: their backward is one for all images."""

from convscope.sight.projecting.origins import Origins
from convscope.sight.projecting.registering import LINEAR, linear_operators
from convscope.tape import OperatorCall

linear_operators(
    "add", "add_", "sub", "sub_", "rsub", "neg", "neg_", "sum", "mean", "cat", "stack", "clone", "_to_copy",
    "copy_", "view", "_unsafe_view", "_reshape_alias", "reshape", "permute", "transpose", "t", "expand",
    "squeeze", "unsqueeze", "slice", "select", "narrow", "split", "split_with_sizes", "unbind", "unfold",
    "as_strided", "as_strided_", "repeat", "roll", "flip", "index_select", "index", "channel_shuffle",
    "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "im2col", "col2im", "constant_pad_nd",
    "reflection_pad2d", "replication_pad2d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "_adaptive_avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d",
    "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_nearest_exact2d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "movedim", "diagonal", "tril", "triu", "cumsum",
    "view_as_complex", "view_as_real", "_fft_r2c", "_fft_c2r", "_fft_c2c", "real", "imag", "zero_", "fill_",
    "select_scatter", "slice_scatter", "scatter", "scatter_add", "index_add", "slice_backward", "nansum",
)  # fmt: skip
linear_operators(
    "convolution", "addmm", "mm", "bmm", "mv", "dot", "baddbmm", "mul", "mul_", "addcmul", "addcmul_",
    "linear", "grid_sampler_2d", "grid_sampler_3d", "lerp", "where", "masked_fill", "masked_fill_",
    linear_in="each",
)  # fmt: skip
linear_operators("div", "div_", "addcdiv", "addcdiv_", linear_in="first")
_WITH_ADDEND = ("addmm", "baddbmm", "addcmul", "addcmul_", "addcdiv", "addcdiv_")


def is_linear(origins: Origins, call: OperatorCall) -> bool:
    """Return whether an operator is linear in its image-dependent inputs, but for a constant.

    A batch norm is taken for one by given statistics.
    """
    linear_in, places = LINEAR.get(call.op), origins.places(call)
    factors = [place for place in places if place or call.op not in _WITH_ADDEND]
    if linear_in == "each":
        return len(factors) <= 1
    if linear_in == "first":
        return set(factors) <= {1 if call.op in _WITH_ADDEND else 0}
    return linear_in == "all" or call.op == "batch_norm"
