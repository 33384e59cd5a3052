"""Forms in which batch norms and layers come: functions, subclasses, frozen, normalised weights, dtypes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fold.micro.case import FOLDED, KEPT, Micro, Net

IMAGE = (2, 3, 9, 7)


def conv(**options):
    return nn.Conv2d(3, 5, 3, **options)


def after(norm, layer=conv):
    """Return a maker of a convolution and then what ``norm`` makes."""
    return lambda: nn.Sequential(layer(), norm())


def layers_of_timm(name):
    return getattr(pytest.importorskip("timm.layers"), name)


def frozen():
    return pytest.importorskip("torchvision.ops").FrozenBatchNorm2d(5)


class Functional(nn.Module):
    """A convolution and a batch norm as functions on tensors of the network's own."""

    def __init__(self, keywords):
        super().__init__()
        self.keywords = keywords
        self.kernel = nn.Parameter(torch.randn(5, 3, 3, 3) * 0.2)
        self.weight, self.bias = nn.Parameter(torch.ones(5)), nn.Parameter(torch.zeros(5))
        self.register_buffer("running_mean", torch.zeros(5))
        self.register_buffer("running_var", torch.ones(5))

    def forward(self, x):
        if self.keywords:
            y = F.conv2d(input=x, weight=self.kernel, padding=1)
            return F.batch_norm(
                input=y,
                running_mean=self.running_mean,
                running_var=self.running_var,
                weight=self.weight,
                bias=self.bias,
            )
        y = F.conv2d(x, self.kernel)
        return F.batch_norm(y, self.running_mean, self.running_var, self.weight, self.bias)


class OwnForward(nn.BatchNorm2d):
    """A batch norm whose class alone says nothing about what it computes."""

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, 0.25)


class Choosing(nn.Module):
    """A batch norm on every path, and one on the path of bright images only."""

    def __init__(self):
        super().__init__()
        self.stem, self.always = conv(), nn.BatchNorm2d(5)
        self.conv, self.sometimes = nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5)

    def forward(self, x):
        y = self.always(self.stem(x)).relu()
        z = self.conv(y)
        if y.mean() > 0.4:
            z = self.sometimes(z)
        return z


class Named(nn.Module):
    """Returns a dictionary."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = conv(), nn.BatchNorm2d(5)

    def forward(self, x):
        y = self.bn(self.conv(x))
        return {"maps": y, "mean": y.mean((2, 3))}


def zero_gamma(net):
    net[1].weight.data[1:3] = 0


def zero_variance(net):
    net[1].running_var[1:3] = 0


def big_variance(net):
    net[1].running_var.copy_(torch.tensor([7e4, 1e5, 3e6, 9e4, 2e5]))
    net[1].weight.data.mul_(300)


BY_NAME = {"self": FOLDED}

CASES = (
    Micro("functional_conv_bn", lambda: Functional(False), IMAGE, BY_NAME),
    Micro("functional_kwargs_conv_bn", lambda: Functional(True), IMAGE, BY_NAME),
    Micro(
        "kwarg_call_bn(input=)",
        lambda: Net(lambda s, x: s.bn(input=s.conv(input=x)), conv=conv(), bn=nn.BatchNorm2d(5)),
        IMAGE,
        FOLDED,
    ),
    Micro("FrozenBatchNorm2d", after(frozen), IMAGE, FOLDED, gone=("mul", "add", "rsqrt")),
    Micro(
        "timm_FrozenBatchNormAct2d",
        after(lambda: layers_of_timm("FrozenBatchNormAct2d")(5)),
        IMAGE,
        FOLDED,
        gone=("mul", "add", "rsqrt"),
    ),
    Micro("timm_BatchNormAct2d", after(lambda: layers_of_timm("BatchNormAct2d")(5)), IMAGE, FOLDED),
    Micro("SyncBatchNorm", after(lambda: nn.SyncBatchNorm(5)), IMAGE, FOLDED),
    Micro("BN_subclass_custom_forward", after(lambda: OwnForward(5)), IMAGE, FOLDED),
    Micro(
        "StdConv2d_bn",
        after(lambda: nn.BatchNorm2d(5), lambda: layers_of_timm("StdConv2d")(3, 5, 3)),
        IMAGE,
        KEPT,
        materialises=True,
    ),
    Micro(
        "Conv2dSame_bn",
        after(lambda: nn.BatchNorm2d(5), lambda: layers_of_timm("Conv2dSame")(3, 5, 3, stride=2)),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "weight_norm_conv_bn",
        after(lambda: nn.BatchNorm2d(5), lambda: nn.utils.parametrizations.weight_norm(conv())),
        IMAGE,
        KEPT,
        materialises=True,
    ),
    Micro(
        "eval_InstanceNorm_track",
        after(lambda: nn.InstanceNorm2d(5, affine=True, track_running_stats=True)),
        IMAGE,
        FOLDED,
    ),
    Micro(
        "train_mode_bn(keep)",
        after(lambda: nn.BatchNorm2d(5)),
        IMAGE,
        KEPT,
        prepare=lambda net: net[1].train(),
    ),
    Micro(
        "no_running_stats_bn(keep)",
        after(lambda: nn.BatchNorm2d(5, track_running_stats=False)),
        IMAGE,
        KEPT,
    ),
    Micro("gamma0_channel", after(lambda: nn.BatchNorm2d(5)), IMAGE, FOLDED, prepare=zero_gamma),
    Micro("var0_channel", after(lambda: nn.BatchNorm2d(5)), IMAGE, FOLDED, prepare=zero_variance),
    Micro(
        "bf16_conv_fp32_bn",
        after(lambda: nn.BatchNorm2d(5), lambda: conv().bfloat16()),
        IMAGE,
        FOLDED,
        dtype=None,
    ),
    Micro(
        "fp16_conv_bn",
        after(lambda: nn.BatchNorm2d(5).half(), lambda: conv().half()),
        IMAGE,
        FOLDED,
        dtype=None,
    ),
    Micro(  # a variance that float16 has no number for, in a float32 batch norm
        "fp16_bigvar",
        after(lambda: nn.BatchNorm2d(5), lambda: conv().half()),
        IMAGE,
        FOLDED,
        dtype=None,
        prepare=big_variance,
    ),
    # The table asks that it folds; a recorded path proves nothing about another one, so what isn't on all
    # of them stays.
    Micro("data_dependent_control_flow", Choosing, IMAGE, {"always": FOLDED, "sometimes": KEPT}),
    Micro("dict_output", Named, IMAGE, FOLDED),
)
