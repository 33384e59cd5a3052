import math

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm import GroupNorm, InstanceNorm2d, LayerNorm
from norm.four_steps import four_steps, relative
from norm.layers.stand_ins import assert_stands_in


def randomised(layer):
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


SHAPES = [(2, 6), (2, 6, 5), (3, 6, 2, 5), (1, 6, 1, 1), (2, 6, 6, 6), (2, 6, 2, 3, 2)]
CASES = [
    (shape, groups)
    for shape in SHAPES
    for groups in (1, 2, 3, 6)
    if math.prod(shape[1:]) > groups  # one value a group has no variance: ours refuses it
]


@pytest.mark.parametrize(("shape", "groups"), CASES)
@pytest.mark.parametrize("affine", [True, False])
def test_stands_in_for_torch(shape, groups, affine):
    theirs = randomised(nn.GroupNorm(groups, 6, affine=affine)).double()
    ours = GroupNorm(groups, 6, affine=affine).double()
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert repr(ours) == repr(theirs)
    assert_stands_in(ours, theirs, shape)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_against_the_float64_oracle(dtype, tolerance, layout):
    layer = randomised(GroupNorm(3, 6))
    x = (torch.randn(2, 6, 4, 5) * 3 + 5).to(dtype).contiguous(memory_format=layout)
    weight, bias = (p.double().view(1, 3, 2, 1, 1) for p in (layer.weight, layer.bias))
    y, _, _ = four_steps(x.double().reshape(2, 3, 2, 4, 5), weight, bias, (2, 3, 4), layer.eps)
    found = layer(x)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=layout)
    assert relative(found, y.reshape(2, 6, 4, 5)) < tolerance


def test_ends_of_the_family():
    """One group is layer norm, one channel a group is instance norm (Wu & He, section 3)."""
    x = torch.randn(3, 4, 5, 2, dtype=torch.float64)
    layer = LayerNorm((4, 5, 2), elementwise_affine=False)
    assert torch.allclose(GroupNorm(1, 4).double()(x), layer(x), atol=1e-12)
    assert torch.allclose(GroupNorm(4, 4).double()(x), InstanceNorm2d(4)(x), atol=1e-12)


def test_samples_are_independent_in_training():
    layer = randomised(GroupNorm(2, 6))
    x = torch.randn(4, 6, 4, 5)
    assert torch.equal(layer(x)[2], layer(x[2:3])[0])


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: GroupNorm(4, 6), ["GroupNorm(4, 6)", "[1, 2, 3, 6]"]),
        (lambda: GroupNorm(0, 6), ["GroupNorm(0, 6)"]),
        (lambda: GroupNorm(2, 6)(torch.randn(2, 5, 3, 3)), ["(2, 5, 3, 3)", "6 channels"]),
        (lambda: GroupNorm(2, 6)(torch.randn(6)), ["(6,)", "(N, C, …)"]),
        (lambda: GroupNorm(6, 6)(torch.randn(4, 6)), ["one value for each group of a sample"]),
        (lambda: GroupNorm(2, 6)(torch.ones(2, 6, dtype=torch.int32)), ["int32"]),
    ],
)
def test_bad_input_is_refused(make, parts):
    with pytest.raises(ConvscopeError) as caught:
        make()
    assert all(part in str(caught.value) for part in parts)
