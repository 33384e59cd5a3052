"""Lean networks whose batch norms run by kernels: the same bits, and the same bytes saved."""

import copy

import pytest
import torch
from torch import nn

import convscope as cs


def net(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 24, 3), *layers, nn.Conv2d(24, 24, 3), nn.BatchNorm2d(24), nn.ReLU())


def step(model, images):
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    loss = model(images).square().mean()
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    return [loss.detach(), images.grad, *gradients, *model.buffers()]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [40, 14])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.SiLU, lambda: nn.LeakyReLU(0.1), nn.Identity])
def test_bits_are_equal_and_the_result_is_not_kept(layout, dtype, size, activation):
    plain = net(cs.norm.BatchNormAct2d(24, activation=activation())).to(memory_format=layout)
    images = torch.randn(16, 3, size, size).to(memory_format=layout)
    lean = copy.deepcopy(plain)
    handle = cs.norm.lean(lean)
    with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
        pairs = zip(step(lean, images), step(plain, images), strict=True)
    assert all(torch.equal(got, wanted) for got, wanted in pairs)
    # The second convolution keeps no map: the first norm's input stands for it.
    assert handle.savings.bytes_kept <= 0.75 * handle.savings.bytes_without


def test_a_network_made_fast_and_lean():
    plain = net(nn.BatchNorm2d(24), nn.ReLU(inplace=True))
    images = torch.randn(16, 3, 40, 40)
    both = copy.deepcopy(plain)
    cs.norm.fast(plain, images.shape)
    cs.norm.fast(both, images.shape)
    cs.norm.lean(both)
    for got, wanted in zip(step(both, images), step(plain, images), strict=True):
        assert torch.equal(got, wanted)


def test_kernels_run_in_a_lean_pass():
    model, images = net(cs.norm.BatchNormAct2d(24)), torch.randn(16, 3, 40, 40)
    cs.norm.lean(model)
    nodes = [model(images).grad_fn]
    seen = set()
    while nodes:
        node = nodes.pop()
        seen.add(node.name())
        nodes += [before for before, _ in node.next_functions if before is not None]
    assert "_BatchNormBackward" in seen
