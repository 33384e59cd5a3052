"""Which recorded operators are linear in what depends on the image: their backward is one for all images."""

from convscope.sight.projecting.origins import Origins
from convscope.tape import OperatorCall

# Linear in all of their tensors together.
_SUMS = {
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
}  # fmt: skip
# Linear in one tensor if the others don't depend on the image, or are frozen.
_PRODUCTS = {
    "convolution", "addmm", "mm", "bmm", "mv", "dot", "baddbmm", "mul", "mul_", "addcmul", "addcmul_",
    "linear", "grid_sampler_2d", "grid_sampler_3d", "lerp", "where", "masked_fill", "masked_fill_",
}  # fmt: skip
_QUOTIENTS = {"div", "div_", "addcdiv", "addcdiv_"}


def is_linear(origins: Origins, call: OperatorCall) -> bool:
    """Return whether an operator is linear in its image-dependent inputs, but for a constant.

    A batch norm is taken for one by given statistics.
    """
    if call.op in _SUMS:
        return True
    places = origins.places(call)
    if call.op in _PRODUCTS:
        has_addend = call.op in ("addmm", "baddbmm", "addcmul", "addcmul_")
        return len([place for place in places if place or not has_addend]) <= 1
    if call.op in _QUOTIENTS:
        return set(places) <= {0} if call.op.startswith("div") else set(places) <= {0, 1}
    return call.op == "batch_norm"
