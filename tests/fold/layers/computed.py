"""Layers of every kind whose weights are computed in every run, and what each becomes."""

import torch
import torch.nn.functional as F
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as hooked_spectral_norm
from torch.nn.utils import weight_norm as hooked_weight_norm

from convscope.fold.layers.plain_layer import SamePadConv2d
from fold.nets import IMAGE, conv


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


class Masked(nn.Module):
    """A convolution of a user's own: weight = w · mask."""

    def __init__(self, inputs=3, outputs=4, **options):
        super().__init__()
        self.w = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.b = nn.Parameter(torch.randn(outputs))
        self.register_buffer("mask", (torch.rand(outputs, inputs, 3, 3) > 0.3).float())
        self.options = options

    def forward(self, x):
        return F.conv2d(x, self.w * self.mask, self.b * 0.5, **self.options)


class MaskedTransposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 2, 3, 2))

    def forward(self, x):
        return F.conv_transpose2d(x, self.w.tanh(), None, (2, 1), 1, (1, 0), groups=2)


class MaskedLinear(nn.Module):
    def __init__(self, transposed):
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 5))
        self.transposed = transposed

    def forward(self, x):
        weight = self.w.tanh()
        return x @ weight if self.transposed else F.linear(x, weight)


class Reflected(Masked):
    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 2, 2), mode="reflect"), self.w * self.mask)


def standardised(**options):
    return StdConv2d(3, 4, 3, **options)


def both():
    layer = parametrizations.weight_norm(conv())
    parametrize.register_parametrization(layer, "bias", Doubled())
    return layer


LAYERS = {
    "weight norm": (lambda: parametrizations.weight_norm(conv()), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "weight norm of all": (
        lambda: parametrizations.weight_norm(conv(3, 3), dim=None),
        nn.BatchNorm2d(3),
        IMAGE,
        nn.Conv2d,
    ),
    "weight and bias": (both, nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "spectral norm": (lambda: parametrizations.spectral_norm(conv()), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "orthogonal": (
        lambda: parametrizations.orthogonal(conv(bias=False)),
        nn.BatchNorm2d(4),
        IMAGE,
        nn.Conv2d,
    ),
    "linear": (
        lambda: parametrizations.weight_norm(nn.Linear(5, 5)),
        nn.BatchNorm1d(5),
        (5, 5),
        nn.Linear,
    ),
    "transposed": (
        lambda: parametrizations.spectral_norm(nn.ConvTranspose2d(4, 4, 3, groups=2)),
        nn.BatchNorm2d(4),
        (4, 4, 4, 4),
        nn.ConvTranspose2d,
    ),
    "1d": (
        lambda: parametrizations.weight_norm(nn.Conv1d(3, 4, 3)),
        nn.BatchNorm1d(4),
        (2, 3, 7),
        nn.Conv1d,
    ),
    "hooked weight norm": (lambda: hooked_weight_norm(conv()), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "hooked spectral norm": (lambda: hooked_spectral_norm(conv()), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "standardised": (standardised, nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "standardised, stride": (
        lambda: standardised(stride=2, dilation=2, bias=True),
        nn.BatchNorm2d(4),
        (2, 3, 9, 8),
        nn.Conv2d,
    ),
    "standardised, groups": (
        lambda: StdConv2d(4, 4, 3, groups=2),
        nn.BatchNorm2d(4),
        (4, 4, 4, 4),
        nn.Conv2d,
    ),
    "standardised, same": (
        lambda: StdConv2dSame(3, 4, (3, 2), stride=(2, 3), padding="same"),
        nn.BatchNorm2d(4),
        (2, 3, 8, 7),
        SamePadConv2d,
    ),
    "scaled": (lambda: ScaledStdConv2d(3, 4, 3), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "scaled, same": (
        lambda: ScaledStdConv2dSame(3, 4, 3, stride=2, padding="same"),
        nn.BatchNorm2d(4),
        IMAGE,
        SamePadConv2d,
    ),
    "masked": (lambda: Masked(padding=1, stride=2), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "masked, square": (lambda: Masked(4, 4), nn.BatchNorm2d(4), (4, 4, 4, 4), nn.Conv2d),
    "masked, reflected": (Reflected, nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "masked, transposed": (MaskedTransposed, nn.BatchNorm2d(4), (2, 4, 5, 6), nn.ConvTranspose2d),
    "masked linear": (lambda: MaskedLinear(False), nn.BatchNorm1d(5), (5, 5), nn.Linear),
    "masked product": (lambda: MaskedLinear(True), nn.BatchNorm1d(5), (5, 5), nn.Linear),
}


def same(model, twin, shape, tolerance=1e-12):
    for number in (shape[0], 3):
        x = torch.randn(number, *shape[1:], dtype=torch.float64)
        with torch.no_grad():
            y = model(x)
            assert torch.allclose(twin(x), y, rtol=0, atol=tolerance * max(1.0, y.abs().max().item()))
