"""Strided operators: every s-th value of the dense map is the network's own map."""

import pytest
import torch
from torch import nn

from convscope.probe import probing
from convscope.sight.stems import strided as module
from convscope.sight.stems.strided import strided_operators
from convscope.tape import record

LAYERS = {
    "11/4": (nn.Conv2d(4, 6, 11, 4, 2), 4),
    "patchify": (nn.Conv2d(4, 6, 4, 4), 4),
    "shortcut": (nn.Conv2d(4, 6, 1, 2, bias=False), 4),
    "groups": (nn.Conv2d(4, 8, 3, (2, 1), (1, 0), (1, 2), groups=2), 4),
    "depthwise": (nn.Conv2d(4, 8, 5, 2, 2, groups=4), 4),
    "max-pool": (nn.MaxPool2d(3, 2, 1), 4),
    "max-pool, ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), 4),
    "max-pool, dilated": (nn.MaxPool2d((2, 3), (2, 3), 1, dilation=(2, 1)), 4),
    "average-pool": (nn.AvgPool2d(2), 4),
    "average-pool, padding": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), 4),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("chunk", [module._CHUNK, 1, 2 * 2 * 23 * 30])
def test_every_sth_value_of_the_dense_map_is_the_networks(name, chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    layer, channels = LAYERS[name]
    layer = layer.double()
    images = torch.randn(2, channels, 23, 30).double()
    (operator,), left_out = strided_operators(record(layer, images))
    assert left_out == ()
    dense, seen = {}, []

    def use(maps, part):
        dense[part.start] = maps
        seen.extend(range(part.start, part.stop))

    operator.dense(images, getattr(layer, "weight", None), use)
    assert seen == list(range(operator.num_channels))
    whole = torch.cat([dense[start] for start in sorted(dense)], 1)
    expected = layer(images).detach()
    if getattr(layer, "bias", None) is not None:
        expected = expected - layer.bias.detach()[:, None, None]
    vertical, horizontal = operator.stride
    subsampled = whole[:, :, ::vertical, ::horizontal]
    height, width = (min(a, b) for a, b in zip(subsampled.shape[2:], expected.shape[2:]))
    assert height * width > 6
    torch.testing.assert_close(subsampled[..., :height, :width], expected[..., :height, :width])


class Others(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.one(x)[:, :, ::2]
        x = nn.functional.interpolate(self.two(x), scale_factor=0.5, mode="bilinear")
        x = nn.functional.adaptive_avg_pool2d(x, 2)
        return nn.functional.adaptive_max_pool2d(x, 1).flatten(1)[:, ::2]


def test_what_subsamples_otherwise_is_named():
    found, left_out = strided_operators(record(Others(), (2, 3, 64, 64)))
    assert [operator.name for operator in found] == ["one"]
    assert [reason.split(": ")[0].split(":")[-1] for reason in left_out] == [
        "slice.1", "upsample_bilinear2d.1", "_adaptive_avg_pool2d.1",
    ]  # fmt: skip


def test_shared_layers_are_several_operators_and_upsampling_is_none():
    shared = nn.Conv2d(3, 3, 3, 2, 1)
    net = nn.Sequential(
        shared, nn.ReLU(inplace=True), shared, nn.ConvTranspose2d(3, 3, 2, 2), nn.MaxPool2d(2, 1)
    )
    found, _ = strided_operators(record(net, (2, 3, 32, 32)))
    assert [(operator.name, operator.activation) for operator in found] == [
        ("0#1:convolution.1", None), ("0#2:convolution.1", None),
    ]  # fmt: skip
    pooled = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2))
    (pool,), _ = strided_operators(record(pooled, (2, 3, 32, 32)))
    assert pool.activation == "1#1:relu_.1"
    with probing(pooled) as probe:
        probe.run_until(pool.address, torch.randn(1, 3, 32, 32))
