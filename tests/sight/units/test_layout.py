import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.sight import project
from convscope.sight.units.layout import channel_axes
from convscope.tape import record


class Net(nn.Module):
    """A convolution whose maps go on in some layout; all axes of equal size would hide a mistake."""

    def __init__(self, after):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 6, 3), nn.LayerNorm(6), nn.Linear(6, 6)
        self.block = Block(after, self)

    def forward(self, x):
        return self.block(self.conv(x))


class Block(nn.Module):
    def __init__(self, after, owner):
        super().__init__()
        self.after, self.owner = after, (owner,)

    def forward(self, x):
        return self.after(self.owner[0], x)


def last(x):
    return x.permute(0, 2, 3, 1)


def windows(x):
    """As in Swin: folded into windows, multiplied, unfolded."""
    n, h, w, c = x.shape
    x = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
    return x.reshape(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)


def tokens(net, x):
    """As in timm's Swin: a block on (n, positions, channels), and maps again."""
    n, h, w, c = x.shape
    x = windows(net.linear(x)).reshape(n, -1, c)
    return (x + net.linear(net.norm(x))).reshape(n, h, w, c)


def tokens_turned(net, x):
    """As in vision transformers' feature maps: tokens become maps with their channels first."""
    n, c, h, w = x.shape
    return net.linear(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(n, c, h, w)


CASES = {
    "a block on tokens": (lambda net, x: tokens(net, last(x)), 3),
    "channels first": (lambda net, x: F.relu(x), 1),
    "moved to the end": (lambda net, x: last(x), 3),
    "there and back": (lambda net, x: net.linear(net.norm(last(x))).permute(0, 3, 1, 2), 1),
    "layer norm at the end": (lambda net, x: net.norm(last(x)) * 2, 3),
    "linear at the end": (lambda net, x: F.gelu(net.linear(last(x))), 3),
    "moved by a transpose": (lambda net, x: x.transpose(1, 3), 3),
    "rows and columns turned": (lambda net, x: x.transpose(2, 3), 1),
    "a residual sum around windows": (lambda net, x: last(x) + windows(net.norm(last(x))), 3),
    "merged patches": (lambda net, x: torch.cat([last(x)[:, ::2, ::2], last(x)[:, 1::2, ::2]], -1), 3),
}


@pytest.mark.parametrize("case", CASES)
def test_the_channels_are_found(case):
    after, axis = CASES[case]
    tape = record(Net(after), (1, 3, 8, 8))
    assert channel_axes(tape)[tape.outputs[0]] == axis


def test_tokens_that_become_maps_have_their_channels_first():
    net = Net(tokens_turned)
    assert project(net, torch.randn(3, 8, 8), "block", 5).position is not None


@pytest.mark.parametrize("case", CASES)
def test_maps_with_channels_at_the_end_are_refused(case):
    after, axis = CASES[case]
    net, image = Net(after), torch.randn(3, 8, 8)
    if axis == 1:
        assert project(net, image, "block", 5).image.shape == (8, 8, 3)
        return
    with pytest.raises(ConvscopeError, match=r"block#1.*channels aren't its second axis; expected maps"):
        project(net, image, "block", 5)


def test_a_vector_unfolded_to_maps_is_not_taken_for_channels_at_the_end():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2 * 5 * 5), nn.Unflatten(1, (2, 5, 5)), nn.ReLU())
    assert project(net, torch.randn(3, 4, 4), "3", 1).position is not None


@pytest.mark.slow
def test_swin_and_convnext_of_torchvision():
    models = pytest.importorskip("torchvision").models
    image = torch.randn(3, 64, 64)
    for path in ("features.0", "features.1", "features.2", "features.1.0"):
        with pytest.raises(ConvscopeError, match="second axis"):
            project(models.swin_t(), image, path, 5)
    assert project(models.convnext_tiny(), image, "features.1", 5).position is not None
