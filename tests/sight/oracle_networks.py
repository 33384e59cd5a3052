"""Small networks, each with one thing in it that rules of projection get wrong, for the oracle's comparison.

``Still`` does nothing. To the oracle it says that what comes out of it is a gate or a statistic, constant on
the way back; to convscope it is an identity.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Still(nn.Identity):
    """Where a gate or a statistic that is written by hand is made."""


class Does(nn.Module):
    """One function of a map, which may use submodules."""

    def __init__(self, function: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function, self.still = function, Still()
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def between(middle: nn.Module, channels: int = 8, out: int | None = None) -> nn.Sequential:
    """Convolution, batch norm, the thing in question, convolution, ReLU-free end: 5 units a map."""
    return nn.Sequential(
        nn.Conv2d(3, channels, (3, 5), stride=(2, 1), padding=(1, 2), bias=False),
        nn.BatchNorm2d(channels),
        middle,
        nn.Conv2d(channels if out is None else out, 5, 3, padding=1),
    )


def _discarded(_: nn.Module, x: Tensor) -> Tensor:
    x.relu_()
    F.max_pool2d(x, 2)
    return x + 0.5


def _shared(own: nn.Module, x: Tensor) -> Tensor:
    first, second = x * 2 - 0.3, -x
    return own.act(first) + own.conv(own.act(second))


def _inner_sum(own: nn.Module, x: Tensor) -> Tensor:
    return x + own.conv(F.relu(x))


def _layer_norm_by_hand(own: nn.Module, x: Tensor) -> Tensor:
    mean = own.still(x.mean(1, keepdim=True))
    variance = own.still((x - mean).pow(2).mean(1, keepdim=True))
    return (x - mean) / torch.sqrt(variance + 1e-6) * own.norm.weight[:, None, None]


def _global_response(own: nn.Module, x: Tensor) -> Tensor:
    size = torch.norm(x, p=2, dim=(2, 3), keepdim=True)
    share = own.still(size / (size.mean(1, keepdim=True) + 1e-6))
    return own.norm.weight[:, None, None] * (x * share) + own.norm.bias[:, None, None] + x


def _squeeze(own: nn.Module, x: Tensor) -> Tensor:
    return x * own.gate(own.up(own.act(own.down(x.mean((2, 3), keepdim=True)))))


def _block_attention(own: nn.Module, x: Tensor) -> Tensor:
    pooled = [own.up(F.relu(own.down(each))) for each in (x.mean((2, 3), True), x.amax((2, 3), True))]
    x = x * torch.sigmoid(pooled[0] + pooled[1])
    where = own.spatial(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1))
    return x * where.sigmoid()


def _efficient_attention(own: nn.Module, x: Tensor) -> Tensor:
    mixed = own.line(F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2))
    return x * torch.sigmoid(mixed.transpose(-1, -2).unsqueeze(-1)).expand_as(x)


def _shuffled(_: nn.Module, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    a, b = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w).chunk(2, 1)
    return torch.cat([F.relu(b), a], 1)


def _dense(own: nn.Module, x: Tensor) -> Tensor:
    maps = [x]
    for conv in (own.first, own.second):
        maps.append(conv(F.relu(torch.cat(maps, 1))))
    return torch.cat(maps, 1)


def _attention(own: nn.Module, x: Tensor, by_hand: bool, bias: Tensor | None = None) -> Tensor:
    n, c, h, w = x.shape
    query, key, value = own.qkv(x).reshape(n, 3, 2, c // 2, h * w).transpose(-2, -1).unbind(1)
    if by_hand:
        made = (query @ key.transpose(-2, -1) * (c // 2) ** -0.5).softmax(-1) @ value
    else:
        made = F.scaled_dot_product_attention(query, key, value, bias)
    return x + made.transpose(-2, -1).reshape(n, c, h, w)


def _selective(own: nn.Module, x: Tensor) -> Tensor:
    branches = torch.stack([own.first(x), own.second(x)], 1)
    share = own.choose(branches.sum(1).mean((2, 3), keepdim=True)).reshape(x.shape[0], 2, -1, 1, 1).softmax(1)
    return (branches * share).sum(1)


class StandardisedConv(nn.Conv2d):
    """Weights with mean 0 and variance 1 per filter, computed at every run."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / torch.sqrt(variance + 1e-5), self.bias, padding=1)


def _in_place_product(_: nn.Module, x: Tensor) -> Tensor:
    x.mul_(x.mean((2, 3), keepdim=True).sigmoid())
    return x


def _own_filters(own: nn.Module, x: Tensor) -> Tensor:
    """A depthwise convolution with filters that the image's mean chooses."""
    filters = own.still(own.make(x.mean((2, 3), keepdim=True))).reshape(8, 1, 3, 3)
    return F.relu(F.conv2d(x, filters, padding=1, groups=8))


def _conv(given: int, made: int) -> nn.Conv2d:
    return nn.Conv2d(given, made, 3, padding=1)


def _point(given: int, made: int) -> nn.Conv2d:
    return nn.Conv2d(given, made, 1)


def _excited(act: nn.Module, gate: nn.Module) -> nn.Sequential:
    return nn.Sequential(Does(_squeeze, down=_point(8, 4), up=_point(4, 8), act=act, gate=gate), nn.ReLU())


# Passed by every rule --------------------------------------------------------------------------------
WITH_RELU: dict[str, Callable[[], nn.Module]] = {
    "module": lambda: between(nn.ReLU()),
    "in place": lambda: between(nn.ReLU(inplace=True)),
    "functional": lambda: between(Does(lambda _, x: F.relu(x))),
    "result discarded": lambda: between(Does(_discarded)),
    "called twice": lambda: between(Does(_shared, act=nn.ReLU(), conv=_conv(8, 8))),
    "called twice in place": lambda: between(Does(_shared, act=nn.ReLU(True), conv=_conv(8, 8))),
    "pre-activation": lambda: between(nn.Sequential(Does(_inner_sum, conv=_conv(8, 8)), nn.ReLU())),
    "clamp": lambda: between(Does(lambda _, x: x.clamp(min=0))),
    "clamp_min_": lambda: between(Does(lambda _, x: x.clamp_min_(0.0))),
    "clip": lambda: between(Does(lambda _, x: torch.clip(x, 0))),
    "threshold": lambda: between(nn.Threshold(0.0, 0.0)),
    "maximum with zero": lambda: between(Does(lambda _, x: torch.maximum(x, torch.zeros_like(x)))),
    "max with zero": lambda: between(Does(lambda _, x: torch.max(x, torch.zeros(())))),
    "where": lambda: between(Does(lambda _, x: torch.where(x > 0, x, 0.0))),
    "maxout": lambda: between(Does(lambda _, x: torch.maximum(x[:, :4], x[:, 4:])), out=4),
    "overlapping pools": lambda: between(nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))),
    "padded pools": lambda: between(nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.ReLU(), nn.AvgPool2d(2, 1))),
    "dilated pools": lambda: between(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, 1, dilation=2))),
    "adaptive pools": lambda: between(nn.Sequential(nn.ReLU(), nn.AdaptiveMaxPool2d((4, 3)))),
    "dilated and grouped": lambda: between(
        nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4), nn.ReLU())
    ),
    "transposed": lambda: between(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(8, 8, 3, 2), nn.ReLU())),
    "bilinear": lambda: between(
        nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"), _conv(8, 8), nn.ReLU())
    ),
    "nearest": lambda: between(nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=3), nn.ReLU())),
    "pixel shuffle": lambda: between(nn.Sequential(nn.ReLU(), nn.PixelShuffle(2), nn.ReLU()), out=2),
    "channel shuffle": lambda: between(Does(_shuffled)),
    "dense": lambda: between(Does(_dense, first=_conv(8, 4), second=_conv(12, 3)), out=15),
    "layer scale": lambda: between(
        Does(lambda own, x: x + F.relu(own.conv(x)) * own.norm.weight[:, None, None],
             conv=_conv(8, 8), norm=nn.BatchNorm2d(8)),
    ),
    "weight standardisation": lambda: between(nn.Sequential(StandardisedConv(8, 8, 3), nn.ReLU())),
    "local response": lambda: between(nn.Sequential(nn.ReLU(), nn.LocalResponseNorm(5, 0.5), nn.ReLU())),
    "squeeze and excitation": lambda: between(_excited(nn.ReLU(True), nn.Sigmoid())),
    "hard excitation": lambda: between(_excited(nn.ReLU(), nn.Hardsigmoid())),
    "another activation before a gate": lambda: between(_excited(nn.SiLU(), nn.Sigmoid())),
    "gate in place": lambda: between(nn.Sequential(Does(_in_place_product), nn.ReLU())),
    "block attention": lambda: between(
        Does(_block_attention, down=_point(8, 2), up=_point(2, 8), spatial=nn.Conv2d(2, 1, 3, padding=1))
    ),
    "efficient channel attention": lambda: between(
        Does(_efficient_attention, line=nn.Conv1d(1, 1, 3, padding=1, bias=False))
    ),
    "selective kernels": lambda: between(
        Does(_selective, first=_conv(8, 8), second=nn.Conv2d(8, 8, 3, padding=2, dilation=2),
             choose=_point(8, 16))
    ),
    "gated linear unit": lambda: between(nn.Sequential(nn.GLU(1), nn.ReLU()), out=4),
    "gated by hand": lambda: between(Does(lambda _, x: F.relu(x[:, :4]) * x[:, 4:].sigmoid()), out=4),
    "global response": lambda: between(Does(_global_response, norm=nn.BatchNorm2d(8))),
    "layer norm": lambda: between(
        Does(lambda own, x: F.relu(own.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), norm=nn.LayerNorm(8))
    ),
    "layer norm by hand": lambda: between(
        nn.Sequential(Does(_layer_norm_by_hand, norm=nn.BatchNorm2d(8)), nn.ReLU())
    ),
    "group norm": lambda: between(nn.Sequential(nn.GroupNorm(4, 8), nn.ReLU())),
    "one group": lambda: between(nn.Sequential(nn.GroupNorm(1, 8), nn.ReLU())),
    "instance norm": lambda: between(nn.Sequential(nn.InstanceNorm2d(8, affine=True), nn.ReLU())),
    "a statistic below": lambda: between(
        Does(lambda own, x: F.relu(x[:, :4]) / own.still(1 + x[:, 4:].abs())), out=4
    ),
    "unit length": lambda: between(Does(lambda _, x: F.relu(F.normalize(x, dim=1)))),
    "root mean square": lambda: between(
        Does(lambda own, x: F.relu(own.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), norm=nn.RMSNorm(8))
    ),
    "filters made of the image": lambda: between(Does(_own_filters, make=_point(8, 72))),
    "attention": lambda: between(Does(lambda own, x: _attention(own, F.relu(x), False), qkv=_point(8, 24))),
    "attention with a bias": lambda: between(
        Does(lambda own, x: _attention(own, F.relu(x), False, own.bias.weight), qkv=_point(8, 24),
             bias=nn.Linear(9 * 14, 9 * 14, bias=False))
    ),
    "attention with a fixed bias": lambda: between(
        Does(lambda own, x: _attention(own, F.relu(x), False, own.bias.weight.detach()), qkv=_point(8, 24),
             bias=nn.Linear(9 * 14, 9 * 14, bias=False))
    ),
    "attention by hand": lambda: between(
        Does(lambda own, x: _attention(own, F.relu(x), True), qkv=_point(8, 24))
    ),
}  # fmt: skip

# Passed by "gated" and "gradient" alone --------------------------------------------------------------
GATED: dict[str, Callable[[], nn.Module]] = {
    "silu": lambda: between(nn.SiLU(inplace=True)),
    "gelu": lambda: between(nn.GELU()),
    "gelu by tanh": lambda: between(nn.GELU("tanh")),
    "hardswish": lambda: between(nn.Hardswish()),
    "mish": lambda: between(nn.Mish()),
    "relu6": lambda: between(nn.ReLU6(inplace=True)),
    "clamp to six": lambda: between(Does(lambda _, x: x.clamp(0, 6))),
    "hardtanh": lambda: between(nn.Hardtanh(-0.3, 0.7)),
    "leaky": lambda: between(nn.LeakyReLU(0.1)),
    "leaky functional in place": lambda: between(Does(lambda _, x: F.leaky_relu_(x, 0.2))),
    "prelu": lambda: between(nn.PReLU(8)),
    "elu": lambda: between(nn.ELU(0.7)),
    "celu": lambda: between(nn.CELU(0.5)),  # PyTorch's derivative rounds other alphas to float32
    "selu": lambda: between(nn.SELU()),
    "tanh": lambda: between(nn.Tanh()),
    "activations mixed": lambda: between(
        nn.Sequential(nn.ReLU(), _conv(8, 8), nn.SiLU(), nn.MaxPool2d(2), _conv(8, 8), nn.GELU())
    ),
    "hard shrinkage": lambda: between(nn.Hardshrink(0.2)),
    "soft shrinkage": lambda: between(nn.Softshrink(0.2)),
    "softsign": lambda: between(nn.Softsign()),
    "rectifying above a threshold": lambda: between(nn.Threshold(0.2, 0.0)),
}

# Activations written out, and the same by their name -------------------------------------------------
TWINS: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module]] = {
    "silu": (lambda x: x * torch.sigmoid(x), nn.SiLU()),
    "silu in place": (lambda x: x.mul_(x.sigmoid()), nn.SiLU()),
    "hardswish": (lambda x: x * F.relu6(x + 3) / 6, nn.Hardswish()),
    "hardswish by clamp": (lambda x: x * ((x + 3).clamp(0, 6) / 6), nn.Hardswish()),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), nn.Mish()),
    "gelu by tanh": (
        lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))), nn.GELU("tanh"),
    ),
    "leaky": (lambda x: torch.where(x > 0, x, 0.1 * x), nn.LeakyReLU(0.1)),
    "softsign": (lambda x: x / (1 + x.abs()), nn.Softsign()),
}  # fmt: skip

# Passed by "gradient" alone --------------------------------------------------------------------------
REFUSED: dict[str, Callable[[], nn.Module]] = {
    "product": lambda: between(Does(lambda _, x: x[:, :4] * x[:, 4:]), out=4),
    "square": lambda: between(Does(lambda _, x: x.square())),
    "softplus": lambda: between(nn.Softplus()),
    "exponential": lambda: between(Does(lambda _, x: x.exp())),
}
