"""ZFNet's published numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.networks import alexnet, zfnet


def test_parameters_of_every_layer_are_the_published_ones():
    # "Computational Analysis and Deep Learning for Medical Care", table 1.4, layer by layer.
    layers = {
        "features.conv1": 14_208,
        "features.conv2": 614_656,
        "features.conv3": 885_120,
        "features.conv4": 1_327_488,
        "features.conv5": 884_992,
        "classifier.fc6": 37_752_832,
        "classifier.fc7": 16_781_312,
        "classifier.fc8": 4_097_000,
    }
    with torch.device("meta"):
        model = zfnet()
    found = {name: sum(p.numel() for p in model.get_submodule(name).parameters()) for name in layers}
    assert found == layers
    assert sum(p.numel() for p in model.parameters()) == 62_357_608


@pytest.mark.parametrize("pool", ["overlapping", "non-overlapping"])
def test_maps_have_the_sizes_of_figure_3(pool):
    # Zeiler and Fergus 2013, figure 3: 110, 55, 26, 13, 13, 13, 13, 6; 2x2 pools reach the same.
    x, sides = torch.zeros(1, 3, 224, 224), {}
    for name, layer in zfnet("none", width=1 / 32, pool=pool).features.named_children():
        x = layer(x)
        sides[name] = tuple(x.shape[2:])
    expected = {
        "conv1": 110,
        "pool1": 55,
        "conv2": 26,
        "pool2": 13,
        "conv3": 13,
        "conv4": 13,
        "conv5": 13,
        "pool5": 6,
    }
    assert {name: sides[name] for name in expected} == {name: (side, side) for name, side in expected.items()}


def test_macs_are_the_published_ones():
    # Published as 1.17 G; exactly: outputs times the window's size, by explicit arithmetic per layer.
    macs, x = 0, torch.zeros(1, 3, 224, 224, device="meta")
    with torch.device("meta"):
        model = zfnet("none")
    for layer in model.features:
        x = layer(x)
        if isinstance(layer, torch.nn.Conv2d):
            macs += x.numel() * layer.weight[0].numel()
    macs += sum(layer.weight.numel() for layer in model.classifier if isinstance(layer, torch.nn.Linear))
    assert macs == 1_168_032_896


def test_contrast_normalisation_follows_the_first_two_pools():
    names = [name for name, _ in zfnet(width=0.05).features.named_children()]
    assert names[:8] == ["conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2"]
    assert "norm3" not in names


def test_forward_is_the_figure_written_out():
    model = zfnet("none", width=0.05, num_classes=5, input_size=(96, 75)).double().eval()
    f, c = model.features, model.classifier
    x = torch.randn(2, 3, 96, 75, dtype=torch.float64)
    y = F.max_pool2d(F.relu(F.conv2d(x, f.conv1.weight, f.conv1.bias, 2, 1)), 3, 2, ceil_mode=True)
    y = F.max_pool2d(F.relu(F.conv2d(y, f.conv2.weight, f.conv2.bias, 2)), 3, 2, ceil_mode=True)
    for layer in (f.conv3, f.conv4, f.conv5):
        y = F.relu(F.conv2d(y, layer.weight, layer.bias, 1, 1))
    y = F.max_pool2d(y, 3, 2, ceil_mode=True).flatten(1)
    y = F.relu(F.linear(F.relu(F.linear(y, c.fc6.weight, c.fc6.bias)), c.fc7.weight, c.fc7.bias))
    torch.testing.assert_close(model(x), F.linear(y, c.fc8.weight, c.fc8.bias), rtol=1e-10, atol=1e-12)


def test_batch_norm_can_be_trained():
    model = zfnet("batch", width=0.1, num_classes=2, input_size=64, dropout=0.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    x, y = torch.randn(8, 3, 64, 64), torch.tensor([0, 1] * 4)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_too_small_an_input_is_refused_with_the_smallest_that_works():
    assert zfnet("none", width=0.02, input_size=47, num_classes=2)(torch.zeros(1, 3, 47, 47)).shape == (1, 2)
    with pytest.raises(ConvscopeError, match="at least 47 pixels"):
        zfnet("none", width=0.02, input_size=46)


def shapes(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters() if name.endswith("weight")}


def test_stem_and_second_stride_are_alexnets_on_request():
    model = zfnet("none", stem="11x11/4", second_stride=1, width=0.25, num_classes=10, input_size=128)
    ours, theirs = (list(net.features.children()) for net in (model, alexnet(width=0.25)))
    for own, other in zip(ours, theirs, strict=True):
        if isinstance(own, nn.Conv2d):
            windows = ("kernel_size", "stride", "padding", "out_channels")
            assert [getattr(own, name) for name in windows] == [getattr(other, name) for name in windows]
    assert model(torch.zeros(1, 3, 128, 128)).shape == (1, 10)


def test_layers_of_table_3_can_be_removed_and_resized():
    options = {"width": 0.125, "num_classes": 10, "input_size": 96}
    whole = shapes(zfnet(**options))
    for removed in ((3, 4), (7,), (6, 7), (3, 4, 6, 7)):
        model = zfnet(removed=removed, **options)
        gone = {f"features.conv{n}.weight" for n in removed} | {f"classifier.fc{n}.weight" for n in removed}
        assert shapes(model).keys() == whole.keys() - gone
        assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 10)
    wide = shapes(zfnet(middle=(512, 1024, 512), hidden=(8192, 2048), **options))
    assert [wide[f"features.conv{n}.weight"][0] for n in (3, 4, 5)] == [64, 128, 64]
    assert [wide[f"classifier.fc{n}.weight"][0] for n in (6, 7)] == [1024, 256]


@pytest.mark.parametrize(
    "options",
    [{"stem": "7x7"}, {"second_stride": 3}, {"middle": (1, 2)}, {"removed": (5,)}, {"hidden": (0, 1)}],
)  # fmt: skip
def test_designs_that_are_not_offered_are_refused(options):
    with pytest.raises(ConvscopeError, match=next(iter(options))):
        zfnet(**options)
