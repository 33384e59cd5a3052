import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm import LayerNorm
from norm.four_steps import four_steps, relative
from norm.layers.stand_ins import assert_stands_in

SHAPES = [
    ((2, 3, 5), 5),
    ((2, 3, 5), (3, 5)),
    ((4, 4, 4, 4), (4, 4, 4)),
    ((7,), 7),
    ((2, 3, 1, 1), (3, 1, 1)),
]


def randomised(layer):
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize(("shape", "normalized"), SHAPES)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"elementwise_affine": False}], ids=str)
def test_stands_in_for_torch(shape, normalized, options):
    theirs = randomised(nn.LayerNorm(normalized, **options)).double()
    ours = LayerNorm(normalized, **options).double()
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert repr(ours) == repr(theirs)
    assert_stands_in(ours, theirs, shape, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_against_the_float64_oracle(dtype, tolerance, layout):
    layer = randomised(LayerNorm((3, 4, 5)))
    x = (torch.randn(2, 3, 4, 5) * 3 + 5).to(dtype).contiguous(memory_format=layout)
    y, _, _ = four_steps(x.double(), layer.weight.double(), layer.bias.double(), (1, 2, 3), layer.eps)
    found = layer(x)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=layout)
    assert relative(found, y) < tolerance


def test_samples_are_independent_in_training():
    layer = randomised(LayerNorm((3, 4, 5)))
    x = torch.randn(4, 3, 4, 5)
    assert torch.equal(layer(x)[2], layer(x[2:3])[0])


@pytest.mark.parametrize("shape", [(2, 5, 3), (3,), ()])
def test_wrong_shape_is_refused(shape):
    with pytest.raises(ConvscopeError, match=r"trailing sizes \(3, 5\)"):
        LayerNorm((3, 5))(torch.randn(shape))


def test_integers_are_refused():
    with pytest.raises(ConvscopeError, match="int64"):
        LayerNorm(3)(torch.ones(2, 3, dtype=torch.int64))
