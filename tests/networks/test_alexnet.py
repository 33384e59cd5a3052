"""AlexNet's published and taught numbers, and torchvision's network as an oracle."""

import pytest
import torch
import torch.nn.functional as F

from convscope.core.errors import ConvscopeError
from convscope.networks import alexnet


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def shapes(model, x):
    found = {}
    for name, layer in model.features.named_children():
        x = layer(x)
        found[name] = tuple(x.shape[1:])
    return found


# Krizhevsky et al. 2012, section 3.5 and figure 2 ("60 million parameters"), layer by layer as in the
# published CaffeNet/bvlc_alexnet files; the ungrouped one is what courses count.
NOTES = {
    "features.conv1": 34_944,
    "features.conv2": 614_656,
    "features.conv3": 885_120,
    "features.conv4": 1_327_488,
    "features.conv5": 884_992,
    "classifier.fc6": 37_752_832,
    "classifier.fc7": 16_781_312,
    "classifier.fc8": 4_097_000,
}
PUBLISHED = NOTES | {"features.conv2": 307_456, "features.conv4": 663_936, "features.conv5": 442_624}


@pytest.mark.parametrize(
    ("variant", "layers", "total"), [("notes", NOTES, 62_378_344), ("published", PUBLISHED, 60_965_224)]
)
def test_parameters_of_every_layer_are_the_published_ones(variant, layers, total):
    with torch.device("meta"):
        model = alexnet(variant)
    assert {name: num_parameters(model.get_submodule(name)) for name in layers} == layers
    assert num_parameters(model) == total


def test_maps_have_the_sizes_of_figure_2():
    found = shapes(alexnet("published", width=1 / 32), torch.zeros(1, 3, 227, 227))
    sides = {name: shape[1:] for name, shape in found.items()}
    assert sides["conv1"] == (55, 55)
    assert sides["pool1"] == (27, 27)
    assert sides["conv2"] == (27, 27)
    assert sides["pool2"] == sides["conv3"] == sides["conv4"] == sides["conv5"] == (13, 13)
    assert sides["pool5"] == (6, 6)


def test_published_order_puts_response_norm_between_relu_and_pool_of_the_first_two_layers():
    names = [name for name, _ in alexnet("published", width=0.05).features.named_children()]
    assert names[:8] == ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]
    assert "norm3" not in names


def test_published_net_has_two_groups_where_the_two_gpus_did_not_talk():
    layers = [
        layer for layer in alexnet("published", width=0.05).features if isinstance(layer, torch.nn.Conv2d)
    ]
    assert [layer.groups for layer in layers] == [1, 2, 1, 2, 2]


def test_torchvision_variant_takes_torchvisions_weights_and_gives_its_outputs():
    theirs = pytest.importorskip("torchvision").models.alexnet(num_classes=10).eval()
    ours = alexnet("torchvision", num_classes=10).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for size in [(224, 224), (127, 96)]:
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_torchvision_variant_has_torchvisions_size():
    # torchvision's own metadata of AlexNet_Weights.IMAGENET1K_V1: num_params 61,100,840 and min_size 63.
    with torch.device("meta"):
        assert num_parameters(alexnet("torchvision")) == 61_100_840
    assert alexnet("torchvision", width=0.02, input_size=63).eval()(torch.zeros(1, 3, 63, 63)).shape == (
        1,
        1000,
    )
    with pytest.raises(ConvscopeError, match="at least 63 pixels"):
        alexnet("torchvision", width=0.02, input_size=62)


def test_forward_is_the_published_formula_written_out():
    model = alexnet("published", width=0.05, num_classes=7, input_size=(67, 83)).double().eval()
    f, c = model.features, model.classifier
    x = torch.randn(2, 3, 67, 83, dtype=torch.float64)

    def respond(x):
        # Section 3.3: b = a / (k + alpha * sum of 5 neighbours' squares)^beta, k=2, alpha=1e-4, beta=0.75.
        out = torch.empty_like(x)
        for i in range(x.shape[1]):
            near = x[:, max(0, i - 2) : i + 3]
            out[:, i] = x[:, i] / (2 + 1e-4 * (near**2).sum(1)) ** 0.75
        return out

    y = F.max_pool2d(respond(F.relu(F.conv2d(x, f.conv1.weight, f.conv1.bias, stride=4))), 3, 2)
    y = F.relu(F.conv2d(y, f.conv2.weight, f.conv2.bias, padding=2, groups=2))
    y = F.max_pool2d(respond(y), 3, 2)
    y = F.relu(F.conv2d(y, f.conv3.weight, f.conv3.bias, padding=1))
    y = F.relu(F.conv2d(y, f.conv4.weight, f.conv4.bias, padding=1, groups=2))
    y = F.max_pool2d(F.relu(F.conv2d(y, f.conv5.weight, f.conv5.bias, padding=1, groups=2)), 3, 2).flatten(1)
    y = F.relu(y @ c.fc6.weight.T + c.fc6.bias)
    y = F.relu(y @ c.fc7.weight.T + c.fc7.bias)
    torch.testing.assert_close(model(x), y @ c.fc8.weight.T + c.fc8.bias, rtol=1e-10, atol=1e-12)


def test_dropout_follows_fc6_and_fc7_and_works_in_training_only():
    model = alexnet(width=0.05, num_classes=3, input_size=67, dropout=0.5)
    x = torch.randn(4, 3, 67, 67)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    names = [name for name, _ in model.classifier.named_children()]
    assert names == ["fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8"]


@pytest.mark.parametrize("norm", ["batch", "layer", "instance", "group"])
def test_norms_come_between_convolution_and_relu_of_all_five_layers(norm):
    model = alexnet(norm=norm, width=0.05, num_classes=3, input_size=67)
    names = [name for name, _ in model.features.named_children()]
    for number in range(1, 6):
        place = names.index(f"conv{number}")
        assert names[place : place + 3] == [f"conv{number}", f"norm{number}", f"relu{number}"]
    model(torch.randn(2, 3, 67, 67)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_bias_that_the_norm_subtracts_is_left_out_and_would_have_no_gradient(norm):
    assert alexnet(norm=norm, width=0.05, input_size=67).features.conv1.bias is None
    kept = alexnet(norm=norm, width=0.05, num_classes=3, input_size=67, bias=True, dropout=0.0).double()
    x = torch.randn(4, 3, 67, 67, dtype=torch.float64)
    F.cross_entropy(kept(x), torch.tensor([0, 1, 2, 0])).backward()
    weight, bias = kept.features.conv2.weight.grad, kept.features.conv2.bias.grad
    assert bias.abs().max() < 1e-10 * weight.abs().max()


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_bias_that_the_norm_keeps_stays(norm):
    # These norms subtract one mean for several channels: the bias has a gradient.
    model = alexnet(norm=norm, width=0.05, num_classes=3, input_size=67, dropout=0.0).double()
    x = torch.randn(4, 3, 67, 67, dtype=torch.float64)
    F.cross_entropy(model(x), torch.tensor([0, 1, 2, 0])).backward()
    weight, bias = model.features.conv2.weight.grad, model.features.conv2.bias.grad
    assert bias.abs().max() > 1e-3 * weight.abs().max()


def test_fc6_is_sized_for_the_map_that_is_left():
    model = alexnet(width=0.05, num_classes=3, input_size=(67, 131)).eval()
    assert model(torch.randn(2, 3, 67, 131)).shape == (2, 3)
    # 67 leaves 1 row, 131 leaves 3 columns (131 -> 31 -> 15 -> 7 -> 3), of 256 * 0.05 -> 12 channels.
    assert model.classifier.fc6.in_features == 12 * 1 * 3


def test_a_grey_input_changes_the_first_layer_alone():
    model = alexnet(width=0.05, in_channels=1, input_size=67, num_classes=3)
    assert model.features.conv1.weight.shape[1] == 1
    assert model(torch.randn(2, 1, 67, 67)).shape == (2, 3)


def test_non_overlapping_pools_are_two_by_two():
    model = alexnet(width=0.05, pool="non-overlapping", num_classes=3)
    pools = [layer for layer in model.features if isinstance(layer, torch.nn.MaxPool2d)]
    assert [(pool.kernel_size, pool.stride) for pool in pools] == [(2, 2)] * 3
    assert model(torch.randn(1, 3, 227, 227)).shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "caffe"}, "one of notes, published, torchvision"),
        ({"norm": "btach"}, "one of none, lrn, batch"),
        ({"norm": ""}, "one of none, lrn, batch"),
        ({"pool": "average"}, "overlapping, non-overlapping"),
        ({"init": "xavier"}, "kaiming, published"),
        ({"input_size": 66}, "at least 67 pixels a side with overlapping pools"),
        ({"input_size": (300, 66)}, "300x66 pixels; expected at least 67"),
        ({"input_size": 0}, "at least one class, channel and pixel"),
        ({"num_classes": 0}, "at least one class"),
        ({"dropout": 1.0}, "less than 1"),
        ({"width": 0.0}, "a positive number"),
        ({"width": float("nan")}, "a positive number"),
    ],
)
def test_options_that_are_not_offered_are_refused(options, message):
    with pytest.raises(ConvscopeError, match=message):
        alexnet(**options)
