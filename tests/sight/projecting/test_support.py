"""Convolutions on the way back, without the zeros around a signal."""

import pytest
import torch
from torch import nn

from convscope.probe import probing
from convscope.sight.projecting.support import convolution_backward

SHAPES = {
    "plain": nn.Conv2d(5, 6, 3, padding=1),
    "few channels": nn.Conv2d(3, 8, 7, stride=2, padding=3),
    "uneven": nn.Conv2d(5, 6, (3, 5), stride=(3, 2), padding=(2, 0), dilation=(1, 2)),
    "grouped": nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3),
    "depthwise": nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6),
    "one by one": nn.Conv2d(5, 6, 1, stride=2),
    "more padding than kernel": nn.Conv2d(5, 6, 1, padding=2),
    "a stem in its padding": nn.Conv2d(3, 8, 3, padding=(5, 4)),
    "transposed": nn.ConvTranspose2d(5, 6, 3, stride=2),
}


@pytest.mark.parametrize("convolution", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("where", ["corner", "end", "middle", "all", "nowhere", "one image"])
def test_it_is_the_operator_of_autograd(convolution, where):
    """Whole numbers: no order of summation shows, so that the difference must be zero."""
    convolution = convolution.double()
    convolution.weight.data = torch.randint(-3, 4, convolution.weight.shape).double()
    images = torch.randint(-3, 4, (3, convolution.in_channels, 17, 20)).double().requires_grad_()
    maps = convolution(images)
    seed = torch.zeros_like(maps)
    middle = tuple(length // 2 for length in maps.shape[2:])
    at = {"corner": (0, 0), "end": (-1, -1), "middle": middle, "one image": middle}.get(where)
    if where == "all":
        seed = torch.randint(-3, 4, maps.shape).double()
    elif at is not None:
        samples = slice(1, 2) if where == "one image" else slice(None)
        seed[samples, 1, at[0], at[1]] = 1
    (expected,) = torch.autograd.grad(maps, images, seed)
    with probing(convolution) as probe:
        probe.around("convolution_backward", convolution_backward)
        (found,) = torch.autograd.grad(convolution(images), images, seed)
    assert torch.equal(found, expected)


def test_weights_still_get_their_gradient():
    convolution, images = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    (expected,) = torch.autograd.grad(convolution(images)[:, 1, 2, 3].sum(), convolution.weight)
    with probing(convolution) as probe:
        probe.around("convolution_backward", convolution_backward)
        (found,) = torch.autograd.grad(convolution(images)[:, 1, 2, 3].sum(), convolution.weight)
    assert torch.equal(found, expected)
