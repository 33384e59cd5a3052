"""CUDA's autocast lists against the installed PyTorch, and every documented operator's dtype under them."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from convscope.core.errors import ConvscopeError
from convscope.tape import TrainingPlan, record
from convscope.tape.autocast import CudaAutocast
from convscope.tape.autocast_policies import POLICIES, VERSION

HALVES = {"amp-fp16": torch.float16, "amp-bf16": torch.bfloat16}


def _header():
    """Policy by operator, read from the header that ships with the installed PyTorch."""
    text = (Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text()
    lists = {
        "lower": "AT_FORALL_LOWER_PRECISION_FP",
        "fp32": "AT_FORALL_FP32",
        "fp32-output": "AT_FORALL_FP32_SET_OPT_DTYPE",
        "promote": "AT_FORALL_PROMOTE",
    }
    found = {}
    for policy, macro in lists.items():
        body = re.search(rf"#define {macro}\(_\)((?:.*\\\n)*.*\n)", text).group(1)
        for name, overload in re.findall(r"_\((\w+)(?:, (\w+))?\)", body):
            found[f"{name}.{overload}" if overload else name] = policy
    different = re.search(r"#define AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE\(_\)((?:.*\\\n)*.*\n)", text)
    found |= dict.fromkeys(re.findall(r'"(\w+\.\w+)"', different.group(1)), "fp32-norm")
    return found


def test_the_table_is_the_installed_headers():
    assert torch.__version__.startswith(VERSION), "look through the lists again"
    beside = {"cudnn_convolution": "lower", "cudnn_convolution_transpose": "lower"}
    assert _header() | beside | {"binary_cross_entropy": "banned"} == POLICIES


def test_the_table_names_what_the_installed_dispatcher_has():
    registered = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA")
    assert {name.removeprefix("aten::") for name in registered} == POLICIES.keys()


x, y, matrix, batch = (torch.rand(size) for size in ((4,), (4,), (4, 4), (2, 4, 4)))
image, volume, classes = torch.rand(2, 4, 6, 6), torch.rand(2, 4, 6, 6, 6), torch.tensor([1, 2, 0, 3])
sign = torch.tensor([1.0, -1, 1, -1])
# PyTorch's documentation, "Automatic Mixed Precision package", "CUDA Op-Specific Behavior".
TO_HALF = {
    "__matmul__": lambda c: c(matrix) @ c(matrix),
    "addbmm": lambda c: torch.addbmm(c(matrix), c(batch), c(batch)),
    "addmm": lambda c: torch.addmm(c(matrix), c(matrix), c(matrix)),
    "addmv": lambda c: torch.addmv(c(x), c(matrix), c(y)),
    "addr": lambda c: torch.addr(c(matrix), c(x), c(y)),
    "baddbmm": lambda c: torch.baddbmm(c(batch), c(batch), c(batch)),
    "bmm": lambda c: torch.bmm(c(batch), c(batch)),
    "chain_matmul": lambda c: torch.ops.aten.chain_matmul([c(matrix), c(matrix)]),
    "multi_dot": lambda c: torch.linalg.multi_dot([c(matrix), c(matrix), c(matrix)]),
    "conv1d": lambda c: F.conv1d(c(batch), c(torch.rand(4, 4, 1))),
    "conv2d": lambda c: F.conv2d(c(image), c(torch.rand(4, 4, 1, 1))),
    "conv2d, padding by name": lambda c: F.conv2d(c(image), c(torch.rand(4, 4, 3, 3)), padding="same"),
    "conv3d": lambda c: F.conv3d(c(volume), c(torch.rand(4, 4, 1, 1, 1))),
    "conv_transpose1d": lambda c: F.conv_transpose1d(c(batch), c(torch.rand(4, 4, 1))),
    "conv_transpose2d": lambda c: F.conv_transpose2d(c(image), c(torch.rand(4, 4, 1, 1))),
    "conv_transpose3d": lambda c: F.conv_transpose3d(c(volume), c(torch.rand(4, 4, 1, 1, 1))),
    "GRUCell": lambda c: nn.GRUCell(4, 4)(c(matrix)),
    "linear": lambda c: F.linear(c(matrix), c(matrix), c(x)),
    "LSTMCell": lambda c: nn.LSTMCell(4, 4)(c(matrix))[0],
    "matmul": lambda c: torch.matmul(c(batch), c(x)),
    "mm": lambda c: torch.mm(c(matrix), c(matrix)),
    "mv": lambda c: torch.mv(c(matrix), c(x)),
    "prelu": lambda c: F.prelu(c(image), c(x)),
    "RNNCell": lambda c: nn.RNNCell(4, 4)(c(matrix)),
    "scaled_dot_product_attention": lambda c: F.scaled_dot_product_attention(*3 * [c(image)]),
}
TO_FLOAT = {
    "__pow__": lambda c: c(x) ** 2,
    "__rdiv__": lambda c: 1 / c(x),
    "__rpow__": lambda c: 2.0 ** c(x),
    "acos": lambda c: torch.acos(c(x)),
    "asin": lambda c: torch.asin(c(x)),
    "binary_cross_entropy_with_logits": lambda c: F.binary_cross_entropy_with_logits(c(x), c(y)),
    "cosh": lambda c: torch.cosh(c(x)),
    "cosine_embedding_loss": lambda c: F.cosine_embedding_loss(c(matrix), c(matrix), sign),
    "cdist": lambda c: torch.cdist(c(matrix), c(matrix)),
    "cosine_similarity": lambda c: F.cosine_similarity(c(matrix), c(matrix)),
    "cross_entropy": lambda c: F.cross_entropy(c(matrix), classes),
    "cumprod": lambda c: torch.cumprod(c(x), 0),
    "cumsum": lambda c: torch.cumsum(c(x), 0),
    "dist": lambda c: torch.dist(c(x), c(y)),
    "erfinv": lambda c: torch.erfinv(c(x)),
    "exp": lambda c: torch.exp(c(x)),
    "expm1": lambda c: torch.expm1(c(x)),
    "group_norm": lambda c: F.group_norm(c(image), 2),
    "hinge_embedding_loss": lambda c: F.hinge_embedding_loss(c(x), sign),
    "kl_div": lambda c: F.kl_div(c(matrix), c(matrix), reduction="sum"),
    "l1_loss": lambda c: F.l1_loss(c(x), c(y)),
    "layer_norm": lambda c: F.layer_norm(c(image), (6, 6)),
    "log": lambda c: torch.log(c(x)),
    "log10": lambda c: torch.log10(c(x)),
    "log_softmax": lambda c: F.log_softmax(c(matrix), 1),
    "log1p": lambda c: torch.log1p(c(x)),
    "log2": lambda c: torch.log2(c(x)),
    "margin_ranking_loss": lambda c: F.margin_ranking_loss(c(x), c(y), sign),
    "mse_loss": lambda c: F.mse_loss(c(x), c(y)),
    "multilabel_margin_loss": lambda c: F.multilabel_margin_loss(c(x), classes),
    "multi_margin_loss": lambda c: F.multi_margin_loss(c(matrix), classes),
    "nll_loss": lambda c: F.nll_loss(c(matrix), classes),
    "norm": lambda c: torch.norm(c(x)),
    "norm over an axis": lambda c: c(matrix).norm(2, 1),
    "pdist": lambda c: torch.pdist(c(matrix)),
    "poisson_nll_loss": lambda c: F.poisson_nll_loss(c(x), c(y)),
    "pow": lambda c: torch.pow(c(x), c(y)),
    "prod": lambda c: torch.prod(c(x)),
    "reciprocal": lambda c: torch.reciprocal(c(x)),
    "renorm": lambda c: torch.renorm(c(matrix), 2, 0, 1.0),
    "rsqrt": lambda c: torch.rsqrt(c(x)),
    "sinh": lambda c: torch.sinh(c(x)),
    "smooth_l1_loss": lambda c: F.smooth_l1_loss(c(x), c(y)),
    "soft_margin_loss": lambda c: F.soft_margin_loss(c(x), sign),
    "softmax": lambda c: F.softmax(c(matrix), 1),
    "softmin": lambda c: F.softmin(c(matrix), 1),
    "softplus": lambda c: F.softplus(c(x)),
    "sum": lambda c: c(x).sum(),
    "sum over an axis": lambda c: c(matrix).sum(1),
    "tan": lambda c: torch.tan(c(x)),
    "triplet_margin_loss": lambda c: F.triplet_margin_loss(*3 * [c(matrix)]),
    # From here on: in the header, not in the documentation.
    "upsample_bilinear2d": lambda c: F.interpolate(c(image), scale_factor=2, mode="bilinear"),
    "upsample_nearest2d": lambda c: F.interpolate(c(image), scale_factor=2),
    "logsumexp": lambda c: torch.logsumexp(c(matrix), 1),
    "rms_norm": lambda c: F.rms_norm(c(image), (6,)),
}
TO_WIDEST = {
    "addcdiv": lambda a, b: torch.addcdiv(a(x), b(y), a(x)),
    "addcmul": lambda a, b: torch.addcmul(a(x), b(y), a(x)),
    "atan2": lambda a, b: torch.atan2(a(x), b(y)),
    "bilinear": lambda a, b: F.bilinear(a(matrix), a(matrix), b(torch.rand(4, 4, 4))),
    "cross": lambda a, b: torch.cross(a(matrix[:, :3]), b(matrix[:, :3]), 1),
    "dot": lambda a, b: torch.dot(a(x), b(y)),
    "grid_sample": lambda a, b: F.grid_sample(a(image), b(torch.rand(2, 3, 3, 2)), align_corners=False),
    "index_put": lambda a, b: torch.index_put(a(x), (torch.tensor([1]),), b(y[:1])),
    "scatter_add": lambda a, b: torch.scatter_add(a(x), 0, torch.tensor([0, 1, 2, 3]), b(y)),
    "tensordot": lambda a, b: torch.tensordot(a(matrix), b(matrix)),
}
UNLISTED = {
    "relu": lambda c: F.relu(c(x)),
    "batch_norm": lambda c: F.batch_norm(c(image), x, y, y, y, training=True),
    "max_pool2d": lambda c: F.max_pool2d(c(image), 2),
    "max_pool3d": lambda c: F.max_pool3d(c(volume), 2),
    "adaptive_avg_pool3d": lambda c: F.adaptive_avg_pool3d(c(volume), 1),
    "gelu": lambda c: F.gelu(c(x)),
    "mean": lambda c: c(x).mean(),
    "stack": lambda c: torch.stack([c(x), c(y)]),
    "pad": lambda c: F.pad(c(image), (1, 1, 1, 1), mode="reflect"),
}


@pytest.fixture
def autocasting():
    """CUDA's autocast over simulated tensors."""
    with FakeTensorMode(allow_non_fake_inputs=True), CudaAutocast():
        yield


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("name", TO_HALF)
def test_what_is_documented_to_autocast_to_half_does(autocasting, name, half):
    with torch.autocast("cuda", dtype=half):
        assert TO_HALF[name](lambda tensor: tensor.clone()).dtype is half


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("name", TO_FLOAT)
def test_what_is_documented_to_autocast_to_float_does(autocasting, name, half):
    with torch.autocast("cuda", dtype=half):
        assert TO_FLOAT[name](lambda tensor: tensor.to(half)).dtype is torch.float32


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("name", TO_WIDEST)
def test_what_is_documented_to_promote_does(autocasting, name, half):
    def to_half(tensor):
        return tensor.to(half)

    with torch.autocast("cuda", dtype=half):
        assert TO_WIDEST[name](to_half, to_half).dtype is half
        assert TO_WIDEST[name](to_half, torch.clone).dtype is torch.float32
        assert TO_WIDEST[name](torch.clone, to_half).dtype is torch.float32


@pytest.mark.parametrize("name", UNLISTED)
def test_what_is_not_listed_runs_in_what_it_is_given(autocasting, name):
    with torch.autocast("cuda"):
        assert UNLISTED[name](lambda tensor: tensor.half()).dtype is torch.float16
        assert UNLISTED[name](lambda tensor: tensor.clone()).dtype is torch.float32


def test_doubles_and_integers_are_left_alone(autocasting):
    with torch.autocast("cuda"):
        assert (matrix.double() @ matrix.double()).dtype is torch.float64
        assert classes.sum().dtype is torch.int64
        assert torch.addcmul(x.half(), y.half(), y.half().double()).dtype is torch.float64


def test_an_explicit_dtype_is_respected(autocasting):
    with torch.autocast("cuda"):
        assert F.softmax(matrix.half(), 1, dtype=torch.float16).dtype is torch.float16
        assert x.half().sum(dtype=torch.float64).dtype is torch.float64


def test_what_is_unsafe_is_refused_as_on_cuda():
    model = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
    plan = TrainingPlan(
        precision="amp-fp16", loss=lambda out: F.binary_cross_entropy(out, torch.ones_like(out))
    )
    with pytest.raises(ConvscopeError, match="unsafe to autocast"):
        record(model, (2, 3), plan)
