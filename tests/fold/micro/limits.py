"""Statistics and dtypes at their limits: a fold, or a reason; never a NaN that wasn't there."""

import torch
from torch import nn

from fold.micro.case import ANY, FOLDED, KEPT, Micro

IMAGE = (2, 3, 9, 7)


def after(norm=lambda: nn.BatchNorm2d(5), **options):
    return lambda: nn.Sequential(nn.Conv2d(3, 5, 3, **options), norm())


def before():
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3))


def setting(index=1, **numbers):
    """Return what writes numbers into the second channel of a network's batch norm, or into all of them."""

    def prepare(net):
        for name, number in numbers.items():
            tensor = getattr(net[index], name)
            with torch.no_grad():
                tensor.copy_(number) if isinstance(number, torch.Tensor) else tensor[1:2].fill_(number)

    return prepare


def in_half(dtype):
    return lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()).to(dtype)


CASES = (
    Micro("eps_large", after(lambda: nn.BatchNorm2d(5, eps=0.7)), IMAGE, FOLDED),
    Micro("eps_tiny", after(lambda: nn.BatchNorm2d(5, eps=1e-20)), IMAGE, FOLDED),
    Micro(
        "two_eps",
        lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, eps=0.5), nn.BatchNorm2d(5, eps=1e-3)),
        IMAGE,
        FOLDED,
    ),
    Micro("momentum_none", after(lambda: nn.BatchNorm2d(5, momentum=None)), IMAGE, FOLDED),
    Micro("variance_tiny", after(), IMAGE, FOLDED, prepare=setting(running_var=1e-30)),
    Micro("variance_huge", after(), IMAGE, FOLDED, prepare=setting(running_var=1e30)),
    Micro("variance_infinite", after(), IMAGE, ANY, prepare=setting(running_var=float("inf"))),
    # exact in algebra (the layer's weights for that channel become zero), but no scale of a value says it
    Micro("gamma_zero_before", before, IMAGE, ANY, prepare=setting(0, weight=0.0)),
    Micro(
        "gamma_zero_everywhere",
        after(),
        IMAGE,
        FOLDED,
        prepare=setting(weight=torch.zeros(5, dtype=torch.float64)),
    ),
    Micro(
        "gamma_zero_before_zero_padding",
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3, padding=1)),
        IMAGE,
        "partial kept",
        prepare=setting(0, weight=0.0),
    ),
    Micro(  # a batch norm without any shift passes zero padding and ReLU
        "no_shift_before_zero_padding",
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3, padding=1)),
        IMAGE,
        FOLDED,
        prepare=setting(
            0, running_mean=torch.zeros(3, dtype=torch.float64), bias=torch.zeros(3, dtype=torch.float64)
        ),
    ),
    Micro(
        "no_shift_after_relu",
        lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.BatchNorm2d(5)),
        IMAGE,
        FOLDED,
        gammas="positive",
        prepare=setting(
            2, running_mean=torch.zeros(5, dtype=torch.float64), bias=torch.zeros(5, dtype=torch.float64)
        ),
    ),
    Micro("weights_frozen", after(), IMAGE, FOLDED, prepare=lambda net: net.requires_grad_(False)),
    Micro("half_network", in_half(torch.float16), IMAGE, FOLDED, dtype=None),
    Micro("bfloat16_network", in_half(torch.bfloat16), IMAGE, FOLDED, dtype=None),
    Micro("float32_network", in_half(torch.float32), IMAGE, FOLDED, dtype=None),
)

NOT_NUMBERS = (
    Micro("variance_nan", after(), IMAGE, KEPT, prepare=setting(running_var=float("nan"))),
    Micro("variance_negative", after(), IMAGE, KEPT, prepare=setting(running_var=-2.0)),
    Micro("mean_nan", after(), IMAGE, KEPT, prepare=setting(running_mean=float("nan"))),
    Micro("gamma_infinite", after(), IMAGE, KEPT, prepare=setting(weight=float("inf"))),
    Micro("variance_nan_before", before, IMAGE, KEPT, prepare=setting(0, running_var=float("nan"))),
)
"""The outputs are no numbers: equality is that of their bits."""
