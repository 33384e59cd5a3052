"""What is frozen gets no signal: projections against autograd through the same network, written out with
``detach()`` at every gate, denominator and statistic."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from convscope.sight import project
from convscope.sight.projecting.below import Below
from convscope.tape import record
from sight.gated_blocks import (
    BLOCKS,
    Block,
    group_norm,
    instance_norm,
    layer_norm,
    linear_unit,
    squeeze_excite,
)
from sight.unjudged import unjudged


@pytest.fixture(autouse=True)
def without_scores():
    with unjudged():
        yield


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("rule", ["deconvnet", "gated"])
def test_no_signal_goes_through_what_is_frozen(block, rule):
    net = Block(block).double().eval()
    height, width = (9, 8) if rule == "gated" else (8, 11)
    image = torch.randn(2, height, width, dtype=torch.float64)
    leaf = image[None].clone().requires_grad_()
    net(leaf, stop=torch.Tensor.detach)[0, 1, 2, 3].backward()
    truth = leaf.grad[0].permute(1, 2, 0)
    found = project(net, image, "last", 1, rule=rule, position=(2, 3))
    assert found.seed_value == pytest.approx(float(net(image[None])[0, 1, 2, 3].detach()), rel=1e-12)
    torch.testing.assert_close(found.image, truth, rtol=1e-9, atol=1e-13)
    assert 1 <= len(found.census.frozen) <= 3
    assert found.census.rewritten == found.census.gated == ()
    assert found.census.convolutions <= 2


def test_autograd_itself_would_send_signal_through_the_gate():
    """The test above could fail: with no stop, squeeze-and-excitation colours every pixel."""
    net = Block(squeeze_excite).double().eval()
    image = torch.randn(2, 9, 8, dtype=torch.float64)
    frozen = project(net, image, "last", 1, rule="gated", position=(2, 3)).image
    gradient = project(net, image, "last", 1, rule="gradient", position=(2, 3)).image
    assert not frozen[0].any()
    assert gradient[0].all()


def census(block, rule="gated"):
    tape = record(Block(block), (1, 2, 9, 8))
    return Below(tape).census(tape.outputs[0], rule)


def test_what_only_serves_a_gate_is_not_on_the_way():
    """Neither the gate's SiLU (no ReLU) nor its pooling and matrices are counted."""
    found = census(squeeze_excite, "deconvnet")
    assert (found.frozen, found.linear, found.convolutions) == (("self#1:mul.1",), 2, 2)
    gradient = census(squeeze_excite, "gradient")
    assert gradient.frozen == ()
    assert {address.split(":")[1] for address in gradient.left} == {"mul.1", "silu.1", "sigmoid.1"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("block", [squeeze_excite, group_norm, instance_norm, layer_norm, linear_unit])
def test_half_precision_is_frozen_likewise(block, dtype):
    net = Block(block).to(dtype).eval()
    image = torch.randn(2, 9, 8).to(dtype)
    found = project(net, image, "last", 1, rule="gated", position=(2, 3)).image
    leaf = image.double()[None].requires_grad_()
    net.double()(leaf, stop=torch.Tensor.detach)[0, 1, 2, 3].backward()
    truth = leaf.grad[0].permute(1, 2, 0)
    assert found.dtype is dtype
    assert float((found.double() - truth).norm() / truth.norm()) < 32 * torch.finfo(dtype).eps


def test_a_checkpointed_gate_is_frozen():
    def checkpointed(net, y, stop, _):
        return checkpoint(lambda y: squeeze_excite(net, F.silu(y), stop, True), y, use_reentrant=False)

    def plain(net, y, stop, _):
        return squeeze_excite(net, F.silu(y), stop, True)

    net = Block(checkpointed).double().eval()
    image = torch.randn(2, 9, 8, dtype=torch.float64)
    found = project(net, image, "last", 1, rule="gated", position=(2, 3))
    net.block = plain
    expected = project(net, image, "last", 1, rule="gated", position=(2, 3))
    assert torch.equal(found.image, expected.image)
