import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from norm.four_steps import four_steps, relative
from norm.layers.stand_ins import assert_stands_in

SHAPES = {
    "sequences": (InstanceNorm1d, nn.InstanceNorm1d, (2, 3, 5)),
    "C == L": (InstanceNorm1d, nn.InstanceNorm1d, (3, 3, 3)),
    "one sequence": (InstanceNorm1d, nn.InstanceNorm1d, (3, 5)),
    "maps": (InstanceNorm2d, nn.InstanceNorm2d, (2, 3, 4, 5)),
    "one sample's maps": (InstanceNorm2d, nn.InstanceNorm2d, (3, 4, 5)),
    "volumes": (InstanceNorm3d, nn.InstanceNorm3d, (2, 3, 2, 3, 4)),
}
OPTIONS = [{}, {"affine": True}, {"affine": True, "track_running_stats": True, "momentum": 0.3}]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_stands_in_for_torch(name, options, training):
    ours_type, torch_type, shape = SHAPES[name]
    theirs = torch_type(3, **options).double().train(training)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours = ours_type(3, **options).double().train(training)
    ours.load_state_dict(theirs.state_dict())
    for _ in range(2):
        assert_stands_in(ours, theirs, shape)
    states = ours.state_dict(), theirs.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.allclose(states[0][key], states[1][key], atol=1e-12) for key in states[0])
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_against_the_float64_oracle(dtype, tolerance, layout):
    layer = InstanceNorm2d(3, affine=True)
    nn.init.normal_(layer.weight)
    x = (torch.randn(2, 3, 4, 5) * 3 + 5).to(dtype).contiguous(memory_format=layout)
    weight = layer.weight.double().view(1, 3, 1, 1)
    y, _, _ = four_steps(x.double(), weight, None, (2, 3), layer.eps)
    found = layer(x)
    assert found.is_contiguous(memory_format=layout)
    assert relative(found, y) < tolerance


def test_without_a_momentum_the_running_averages_stay():
    layer = InstanceNorm2d(3, momentum=None, track_running_stats=True)
    layer(torch.randn(2, 3, 4, 5) + 7)
    assert torch.equal(layer.running_mean, torch.zeros(3))


def test_layers_that_hold_nothing_take_any_number_of_channels():
    assert InstanceNorm2d(3)(torch.randn(2, 5, 4, 4)).shape == (2, 5, 4, 4)


@pytest.mark.parametrize(
    ("layer", "shape", "parts"),
    [
        (InstanceNorm2d(3), (2, 3), ["(2, 3)", "(C, H, W) or (N, C, H, W)", "1d"]),
        (InstanceNorm2d(3, affine=True), (2, 5, 4, 4), ["3 channels in dimension 1"]),
        (InstanceNorm2d(3, affine=True), (5, 4, 4), ["3 channels in dimension 0"]),
        (InstanceNorm2d(3), (2, 3, 1, 1), ["one value for each channel of a sample"]),
    ],
)
def test_bad_input_is_refused(layer, shape, parts):
    with pytest.raises(ConvscopeError) as caught:
        layer(torch.randn(shape))
    assert all(part in str(caught.value) for part in parts)
