"""What CUDA's autocast does with each operator: PyTorch's own lists, as a table.

An operator that isn't in the table runs in the dtypes that it is given.

Source: ``torch/include/ATen/autocast_mode.h`` of PyTorch 2.13.0 (the ``AT_FORALL_…`` lists), and the entries
that ``aten/src/ATen/autocast_mode.cpp`` registers besides: the cuDNN convolutions and the ban.
"""

from typing import Literal

Policy = Literal["lower", "fp32", "fp32-output", "fp32-norm", "promote", "banned"]
"""``lower``: floating inputs are cast to the context's dtype; ``fp32``: to float32; ``fp32-output``: the
output dtype is float32 unless the caller sets one; ``fp32-norm``: likewise, by the overload that has a dtype;
``promote``: inputs are cast to the widest dtype among them; ``banned``: an error."""

VERSION = "2.13.0"
"""The version of PyTorch whose lists these are."""

_LISTS: dict[Policy, str] = {
    "lower": """
        _convolution.deprecated _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d
        conv_transpose2d.input conv_transpose3d.input convolution prelu addmm addmv addr matmul einsum mm mv
        linalg_vecdot linear addbmm baddbmm bmm chain_matmul linalg_multi_dot _thnn_fused_lstm_cell
        _thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
        _scaled_dot_product_flash_attention scaled_dot_product_attention
        cudnn_convolution cudnn_convolution_transpose
    """,
    "fp32": """
        acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar
        pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm rms_norm group_norm
        frobenius_norm.dim nuclear_norm nuclear_norm.dim cosine_similarity poisson_nll_loss
        cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss
        huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss
        multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp
        upsample_nearest1d _upsample_nearest_exact1d upsample_nearest2d _upsample_nearest_exact2d
        upsample_nearest3d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
        _upsample_bilinear2d_aa upsample_trilinear3d upsample_bicubic2d _upsample_bicubic2d_aa
    """,
    "fp32-output": """
        prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm linalg_matrix_norm
        linalg_matrix_norm.str_ord sum sum.dim_IntList
    """,
    "fp32-norm": "norm.Scalar norm.ScalarOpt_dim",
    "promote": """
        addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add
    """,
    "banned": "binary_cross_entropy",
}

POLICIES: dict[str, Policy] = {name: policy for policy, names in _LISTS.items() for name in names.split()}
"""Policy by operator name, overload included (``"conv2d"``, ``"softmax.int"``)."""
