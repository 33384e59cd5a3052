"""Projections against a deconvnet written out by hand, and against peers where they are right."""

import importlib
import importlib.util
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm import LocalResponseNorm
from convscope.sight import Box, project


class Layered(nn.Module):
    """AlexNet's pattern: overlapping pools, strides, groups, batch norm at test time."""

    def __init__(self, relu="module"):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 10, 3, padding=1, groups=2)
        self.conv3 = nn.Conv2d(10, 6, (3, 2), dilation=(1, 2))
        self.relu = nn.ReLU()
        self.kind = relu
        with torch.no_grad():
            for tensor in (self.bn1.weight, self.bn1.bias, self.bn1.running_mean):
                tensor.normal_()
            self.bn1.running_var.uniform_(0.3, 2.0)

    def rectify(self, x):
        match self.kind:
            case "module":
                return self.relu(x)
            case "functional":
                return F.relu(x)
            case "in-place":
                return x.relu_()
            case "clamp":
                return x.clamp(min=0)
            case "clamp_min":
                return torch.clamp_min(x, 0.0)
            case "threshold":
                return F.threshold(x, 0.0, 0.0)
            case "where":
                return torch.where(x > 0, x, torch.zeros_like(x))
            case "maximum":
                return torch.maximum(x, torch.zeros_like(x))
            case "max with a number":
                return torch.max(torch.zeros(1, dtype=x.dtype), x)
        raise AssertionError(self.kind)

    def forward(self, x):
        x = F.max_pool2d(self.rectify(self.bn1(self.conv1(x))), 3, 2)
        x = F.max_pool2d(self.rectify(self.conv2(x)), 3, 2, padding=1)
        return self.rectify(self.conv3(x))


def unpooled(signal, below, kernel, stride, padding):
    """Switches by explicit loops; signals that share a switch are summed."""
    result = torch.zeros_like(below)
    _, channels, height, width = below.shape
    for channel in range(channels):
        for y in range(signal.shape[2]):
            for x in range(signal.shape[3]):
                best = None
                for i in range(y * stride - padding, y * stride - padding + kernel):
                    for j in range(x * stride - padding, x * stride - padding + kernel):
                        inside = 0 <= i < height and 0 <= j < width
                        if inside and (best is None or below[0, channel, i, j] > below[0, channel][best]):
                            best = (i, j)
                result[0, channel][best] += signal[0, channel, y, x]
    return result


def transposed(signal, conv, below):
    """Transposed filtering to exactly the size of the map below."""
    sizes = zip(below.shape[2:], signal.shape[2:], conv.stride, conv.padding, conv.dilation, conv.kernel_size)
    rest = [
        size - ((out - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
        for size, out, stride, padding, dilation, kernel in sizes
    ]
    return F.conv_transpose2d(
        signal, conv.weight, None, conv.stride, conv.padding, rest, conv.groups, conv.dilation
    )


def by_hand(net, image, unit, position, rule="deconvnet"):
    """The deconvnet of conv3's rectified output, layer by layer."""

    def rectified(signal, before):
        return signal.clamp(min=0) if rule == "deconvnet" else signal.clamp(min=0) * (before > 0)

    with torch.no_grad():
        scale = net.bn1.weight / (net.bn1.running_var + net.bn1.eps).sqrt()
        shift = net.bn1.bias - net.bn1.running_mean * scale
        before1 = net.conv1(image) * scale[:, None, None] + shift[:, None, None]
        pooled1 = F.max_pool2d(before1.clamp(min=0), 3, 2)
        before2 = net.conv2(pooled1)
        pooled2 = F.max_pool2d(before2.clamp(min=0), 3, 2, padding=1)
        before3 = net.conv3(pooled2)
        signal = torch.zeros_like(before3)
        signal[0, unit][position] = 1
        signal = transposed(rectified(signal, before3), net.conv3, pooled2)
        signal = rectified(unpooled(signal, before2.clamp(min=0), 3, 2, 1), before2)
        signal = transposed(signal, net.conv2, pooled1)
        signal = rectified(unpooled(signal, before1.clamp(min=0), 3, 2, 0), before1)
        return transposed(signal * scale[:, None, None], net.conv1, image)[0].permute(1, 2, 0)


@pytest.fixture
def image():
    return torch.randn(3, 45, 38, dtype=torch.float64)


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize(
    "relu", [
        "module", "functional", "in-place", "clamp", "clamp_min", "threshold", "where", "maximum",
        "max with a number",
    ],
)  # fmt: skip
def test_equals_the_deconvnet_written_out_by_hand(image, relu, rule):
    net = Layered(relu).double()
    with torch.no_grad():
        maps = net.eval()(image[None])[0]
    unit = int(maps.amax((1, 2)).argmax())
    map_ = maps[unit]
    y, x = divmod(int(map_.argmax()), map_.shape[1])
    last = {"in-place": "relu_", "max with a number": "maximum"}.get(
        relu, relu if relu not in ("module", "functional") else "relu"
    )
    layer = {"module": "relu#3"}.get(relu, f"self#1:{last}.3")
    found = project(net, image, layer, unit, rule=rule)
    assert found.position == (y, x)
    assert found.seed_value == float(map_[y, x]) > 0
    expected = by_hand(net, image[None], unit, (y, x), rule)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found.image, expected, rtol=1e-12, atol=1e-14)
    assert len(found.census.rewritten) == 3
    assert len(found.census.switches) == 2
    assert found.census.left == ()


def test_a_chosen_position_is_projected(image):
    net = Layered().double().eval()
    found = project(net, image, "self", 4, rule="deconvnet", position=(2, 1))
    torch.testing.assert_close(found.image, by_hand(net, image[None], 4, (2, 1)), rtol=1e-12, atol=1e-14)


def test_overlapping_pools_sum_where_max_unpool_overwrites():
    """One pixel is the maximum of four windows and gets all four signals."""
    net = nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(1, 1, 2, bias=False)).double()
    with torch.no_grad():
        net[1].weight.fill_(1.0)
    image = torch.zeros(1, 5, 5, dtype=torch.float64)
    image[0, 2, 2] = 1.0
    assert project(net, image, "1", 0).image[2, 2, 0] == 4.0


def test_gradient_is_autograds(image):
    net = Layered("in-place").double().eval()
    leaf = image[None].clone().requires_grad_()
    net(leaf)[0, 3, 1, 1].backward()
    found = project(net, image, "self", 3, rule="gradient", position=(1, 1))
    assert torch.equal(found.image, leaf.grad[0].permute(1, 2, 0))


class PreActivation(nn.Module):
    """x + conv(relu(norm(x))): the ReLU's input has a second reader."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 4, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.relu(x + self.conv(self.relu(x))))


def test_the_skip_of_a_pre_activation_block_keeps_its_signal():
    net = PreActivation().double()
    image = torch.randn(3, 11, 9, dtype=torch.float64)
    signal = torch.zeros(1, 4, 11, 9, dtype=torch.float64)
    signal[0, 1, 5, 4] = 1
    with torch.no_grad():

        def back(g, conv):
            return F.conv_transpose2d(g, conv.weight, None, padding=1)

        joined = back(signal, net.head).clamp(min=0)
        expected = back(joined + back(joined, net.conv).clamp(min=0), net.stem)[0].permute(1, 2, 0)
    found = project(net, image, "head", 1, rule="deconvnet", position=(5, 4))
    torch.testing.assert_close(found.image, expected, rtol=1e-12, atol=1e-14)
    assert found.census.rewritten == ("relu#1:relu.1", "relu#2:relu.1")


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
@pytest.mark.parametrize(("rule", "peer"), [("deconvnet", "Deconvolution"), ("guided", "GuidedBackprop")])
def test_equals_captum_on_module_relus(rule, peer, monkeypatch):
    if importlib.util.find_spec("captum") is None:
        pytest.skip("captum isn't installed")
    # captum imports its plots, which aren't needed here, with its methods.
    if importlib.util.find_spec("matplotlib") is None:
        for name in ("captum.attr._utils.visualization", "captum.attr._core.llm_attr"):
            monkeypatch.setitem(sys.modules, name, MagicMock())
    attr = importlib.import_module("captum.attr")
    net = nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 5 * 4, 5),
    ).double().eval()  # fmt: skip
    image = torch.randn(3, 33, 29, dtype=torch.float64)
    expected = getattr(attr, peer)(net).attribute(image[None].requires_grad_(), target=2)
    found = project(net, image.detach(), "6", 2, rule=rule)
    assert torch.equal(found.image, expected.detach()[0].permute(1, 2, 0))
    assert found.position is None
    assert found.box.height == 33


@pytest.mark.parametrize("composite", ["DeconvNet", "GuidedBackprop"])
def test_equals_zennit_on_module_relus(composite):
    zennit = pytest.importorskip("zennit.composites")
    net = nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(6, 8, 3), nn.ReLU(),
    ).double().eval()  # fmt: skip
    image = torch.randn(3, 33, 29, dtype=torch.float64)
    leaf = image[None].clone().requires_grad_()
    with getattr(zennit, composite)().context(net) as modified:
        out = modified(leaf)
        seed = torch.zeros_like(out)
        seed[0, 3, 1, 2] = 1
        (expected,) = torch.autograd.grad(out, leaf, seed)
    rule = "deconvnet" if composite == "DeconvNet" else "guided"
    found = project(net, image, "4", 3, rule=rule, position=(1, 2))
    torch.testing.assert_close(found.image, expected[0].permute(1, 2, 0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("norm", [nn.LocalResponseNorm(5, alpha=0.5), LocalResponseNorm(5, alpha=0.5)])
def test_local_response_normalisation_is_passed_as_identity(norm):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), norm, nn.MaxPool2d(3, 2), nn.Conv2d(8, 4, 3)).double()
    image = torch.randn(3, 15, 13, dtype=torch.float64)
    with torch.no_grad():
        before = net[:2](image[None])
        normed = norm(before)
        signal = torch.zeros(1, 4, *net(image[None]).shape[2:], dtype=torch.float64)
        signal[0, 1, 2, 1] = 1
        signal = F.conv_transpose2d(signal, net[4].weight)
        signal = unpooled(signal, normed, 3, 2, 0).clamp(min=0)
        expected = F.conv_transpose2d(signal, net[0].weight)[0].permute(1, 2, 0)
    found = project(net, image, "4", 1, rule="deconvnet", position=(2, 1))
    torch.testing.assert_close(found.image, expected, rtol=1e-12, atol=1e-14)
    assert len(found.census.identity) == 1
    assert found.census.left == ()


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize(
    ("activation", "operator"),
    [
        (nn.GELU(), "gelu at 1#1:gelu.1"), (nn.SiLU(), "silu at 1#1:silu.1"),
        (nn.ReLU6(), "hardtanh at 1#1:hardtanh.1"), (nn.LeakyReLU(), "leaky_relu at 1#1:leaky_relu.1"),
        (nn.Threshold(1.0, 0.0), "threshold at 1#1:threshold.1"),
    ],
)  # fmt: skip
def test_the_deconvnet_refuses_other_activations_and_names_the_rule_that_takes_them(
    activation, operator, rule
):
    net = nn.Sequential(nn.Conv2d(1, 3, 3), activation, nn.Conv2d(3, 2, 3))
    with pytest.raises(ConvscopeError, match=rf"{operator}.*ReLU.*use rule='gated'"):
        project(net, torch.randn(1, 9, 9), "2", 0, rule=rule)
    assert project(net, torch.randn(1, 9, 9), "1", 0, rule="gradient").census.left == (operator.split()[2],)
    assert project(net, torch.randn(1, 9, 9), "0", 0, rule=rule).census.convolutions == 1


class Product(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(1, 3, 3), function

    def forward(self, x):
        return self.function(self.conv(x))


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gated"])
@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda y: y * y.flip(1), "mul"), (lambda y: y * y, "mul"),
        (lambda y: torch.sigmoid(y) * 2, "sigmoid"),
        (lambda y: y.softmax(1).cumsum(1), "_softmax"), (lambda y: 1 / (y.square() + 1), "reciprocal"),
        (lambda y: y @ y.transpose(2, 3), "bmm"), (lambda y: y.exp(), "exp"), (lambda y: y.abs(), "abs"),
    ],
)  # fmt: skip
def test_what_has_no_rule_is_refused_by_name(function, operator, rule):
    net = Product(function).double()
    image = torch.randn(1, 9, 9, dtype=torch.float64)
    with pytest.raises(ConvscopeError, match=rf"{operator} at self#1:{operator}.1.*use rule='gradient'"):
        project(net, image, "self", 0, rule=rule)
    leaf = image[None].clone().requires_grad_()
    found = project(net, image, "self", 0, rule="gradient")
    net(leaf)[0, 0][found.position].backward()
    torch.testing.assert_close(found.image, leaf.grad[0].permute(1, 2, 0), rtol=1e-12, atol=1e-15)


class SquaringFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx, signal):
        return signal * (ctx.saved_tensors[0] > 0)


def test_activations_with_a_backward_pass_of_their_own_are_refused():
    with pytest.raises(ConvscopeError, match=r"self#1:relu.1.*torch.autograd.Function"):
        project(Product(SquaringFunction.apply), torch.randn(1, 9, 9), "self", 0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_modules_that_cannot_be_looked_into_are_refused():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), torch.jit.script(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())))
    with pytest.raises(ConvscopeError, match=r"module '1' is a TorchScript module"):
        project(net, torch.randn(1, 9, 9), "1", 0)


@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_compiled_modules_are_run_eagerly():
    block = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())
    image = torch.randn(1, 9, 9)
    expected = project(nn.Sequential(*net, *block), image, "3", 1)
    found = project(nn.Sequential(*net, torch.compile(block, backend="eager")), image, "2", 1)
    assert torch.equal(found.image, expected.image)
    assert len(found.census.gated) == 2


def test_gated_is_guided_bit_for_bit_where_all_activations_are_relus(image):
    for kind in ("module", "functional", "in-place", "clamp", "threshold", "where", "maximum"):
        net = Layered(kind).double()
        guided, gated = (project(net, image, "self", 2, rule=rule) for rule in ("guided", "gated"))
        assert torch.equal(guided.image, gated.image)
        assert guided.census.rewritten == gated.census.gated != ()
        assert guided.census.gated == gated.census.rewritten == ()


def test_a_units_own_sigmoid_changes_the_scale_alone():
    """A squeeze-and-excitation gate's unit: the picture is that of the convolution before it."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.SiLU(), nn.Conv2d(3, 2, 1), nn.Hardsigmoid()).double()
    with torch.no_grad():
        net[2].bias.fill_(9.0)  # saturated: the derivative is 0
    image = torch.randn(2, 9, 8, dtype=torch.float64)
    found = project(net, image, "3", 1, rule="gated", position=(2, 3))
    expected = project(net, image, "2", 1, rule="gated", position=(2, 3))
    assert torch.equal(found.image, expected.image)
    assert found.image.any()


def test_the_rule_is_chosen_for_the_network_and_said():
    image = torch.randn(3, 45, 38)
    found = project(Layered(), image, "conv1", 0)
    assert found.rule == "deconvnet"
    assert "max_pool2d_with_indices at self#1:max_pool2d_with_indices.2" in found.rule_reason
    assert project(Layered(), image, "conv1", 0, rule="guided").rule_reason is None
    assert project(PreActivation(), image, "head", 0).rule == "gated"


def test_without_switches_the_deconvnet_ignores_the_image_and_says_so():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU()).double()
    image, other = torch.randn(2, 3, 17, 17, dtype=torch.float64)
    views = [project(net, picture, "2", 1, rule="deconvnet", position=(1, 1)) for picture in (image, other)]
    assert torch.equal(views[0].image, views[1].image)
    assert views[0].scores.image_dependence == pytest.approx(0, abs=1e-12)
    assert "image-independent-projection" in {finding.fault for finding in views[0].findings}
    guided = project(net, image, "2", 1, rule="guided", position=(1, 1))
    assert guided.scores.image_dependence > 0.05
    assert "image-independent-projection" not in {finding.fault for finding in guided.findings}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_image_dependence_is_exactly_zero_and_never_above_one(dtype):
    net = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU()).to(dtype)
    for picture in torch.randn(5, 3, 37, 53, dtype=dtype):
        assert project(net, picture, "2", 1, rule="deconvnet").scores.image_dependence == 0

    class Opposite(nn.Module):
        """Its gradient is the image itself: −1 where the mirrored one is 1."""

        def forward(self, x):
            return x.square().sum((2, 3), keepdim=True) + 1

    image = torch.ones(1, 4, 4, dtype=dtype)
    image[:, :2, :2] = image[:, 2:, 2:] = -1
    found = project(Opposite(), image, "self", 0, rule="gradient")
    # Mirrored either way it changes its sign, turned round it doesn't: cosines −1, −1 and 1.
    assert found.scores.image_dependence == 1


def test_selectivity_is_one_minus_the_mean_cosine_to_mixtures():
    """Two units with disjoint inputs: a mixture |z| has cosine |z_0| / |z| to the first."""
    net = nn.Conv2d(2, 2, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.eye(2).reshape(2, 2, 1, 1))
    found = project(net, torch.rand(2, 3, 3, dtype=torch.float64), "self", 0, position=(1, 1))
    mixtures = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).abs().double()
    expected = 1 - (mixtures[:, 0] / mixtures.norm(dim=1)).mean()
    assert found.scores.selectivity == pytest.approx(float(expected), abs=1e-12)
    assert found.scores.randomisation is None
    assert "randomisation" in found.not_computed


def test_masking_what_the_projection_points_at_silences_the_unit():
    """A unit that sees one pixel of its 10 × 1 field loses everything; random pixels rarely hit it."""
    net = nn.Conv2d(1, 1, (10, 1), bias=False).double()
    with torch.no_grad():
        net.weight.zero_()
        net.weight[0, 0, 3, 0] = 1
    image = torch.zeros(1, 10, 1, dtype=torch.float64)
    image[0, 3, 0] = 10.0
    found = project(net, image, "self", 0)
    # The masked pixel takes the image's mean colour, 1: the activation falls from 10 to 1.
    generator = torch.Generator().manual_seed(0)
    torch.randn(8, 1, generator=generator)
    hits = sum(int(torch.randperm(10, generator=generator)[0]) == 3 for _ in range(4))
    assert found.scores.masking_drop == pytest.approx(0.9 - 0.9 * hits / 4)


def test_nothing_outside_of_the_box_is_coloured():
    net = Layered()
    found = project(net, torch.randn(3, 61, 53), "conv3", 0, position=(0, 3))
    outside = found.image.clone()
    outside[found.box.top : found.box.bottom, found.box.left : found.box.right] = 0
    assert found.receptive_field is not None
    assert found.box.top == 0
    assert not outside.any()


def test_json_has_the_numbers_but_no_pixels():
    data = project(Layered(), torch.randn(3, 45, 38), "conv3", 0).to_dict()
    assert "image" not in data
    assert set(data["scores"]) == {"selectivity", "image_dependence", "randomisation", "masking_drop"}
    assert data["rule"] == "deconvnet"


@pytest.mark.parametrize(
    ("layer", "unit", "rule", "position", "message"),
    [
        ("conv4", 0, "deconvnet", None, "conv"),
        ("conv3#2", 0, "deconvnet", None, "conv3#2"),
        ("self#1:relu.9", 0, "deconvnet", None, "relu.9"),
        ("conv3", 6, "deconvnet", None, "0 to 5"),
        ("conv3", -1, "deconvnet", None, "0 to 5"),
        ("conv3", 0, "deconv", None, "deconvnet"),
        ("conv3", 0, "deconvnet", (50, 0), "position"),
        ("conv3", 0, "deconvnet", 5, "position 5"),
        ("conv3", 0, "deconvnet", (1.0, 1), "position"),
        ("conv3", 0, "deconvnet", "ab", "position 'ab'"),
        ("conv3", "a", "deconvnet", None, "unit 'a'"),
        ("conv3", 1.0, "deconvnet", None, "unit 1.0"),
        ("conv3", True, "deconvnet", None, "unit True"),
        (2, 0, "deconvnet", None, "layer 2 of type int"),
        (None, 0, "deconvnet", None, "layer None"),
    ],
)
def test_bad_choices_are_named(layer, unit, rule, position, message):
    with pytest.raises(ConvscopeError, match=message):
        project(Layered(), torch.randn(3, 45, 38), layer, unit, rule=rule, position=position)


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(3, 45, 38).to_sparse(), torch.zeros(2, 3, 45, 38), torch.zeros(45, 38),
        torch.zeros(3, 45, 38, dtype=torch.uint8), "a",
    ],
)  # fmt: skip
def test_what_is_not_one_image_is_refused(image):
    with pytest.raises(ConvscopeError, match="one floating-point image"):
        project(Layered(), image, "conv3", 0)


@pytest.mark.parametrize(("shape", "where"), [((1, 45, 38), "conv1"), ((3, 4, 4), "max_pool2d")])
def test_images_that_the_network_does_not_take_are_refused(shape, where):
    with pytest.raises(ConvscopeError, match=where):
        project(Layered(), torch.zeros(shape), "conv3", 0)


def test_works_inside_inference_mode_and_in_half_precision(image):
    net = Layered().to(torch.bfloat16)
    with torch.inference_mode():
        found = project(net, image, "conv3", 0)
    assert found.image.dtype is torch.bfloat16
    assert found.image.isfinite().all()


def test_the_memory_layout_does_not_matter(image):
    net = Layered().double()
    expected = project(net, image, "conv3", 1, position=(0, 1)).image
    net = net.to(memory_format=torch.channels_last)
    layout = image[None].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(project(net, layout, "conv3", 1, position=(0, 1)).image, expected)


def test_a_layer_cut_off_from_the_image_is_refused():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return self.conv(x).detach()

    with pytest.raises(ConvscopeError, match="differentiable"):
        project(Detached(), torch.zeros(1, 5, 5), "self", 0)


def test_where_windows_differ_by_position_the_box_is_this_positions():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(4, 5, 1))
    view = project(net, torch.randn(3, 14, 17), "3", 1, position=(3, 8))
    assert view.receptive_field is None
    assert view.box == Box(1, 4, 4, 7)  # position (1, 4) of the first layer's map
    outside = view.image.clone()
    outside[1:4, 4:7] = 0
    assert view.image.abs().sum() > 0
    assert outside.abs().sum() == 0


def _turned_off():
    """A unit that fires at one pixel of the image, and nowhere in the image turned round."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1), nn.ReLU()).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0)
        net[0].weight[:, 0, 1, 1] = net[2].weight[:] = 1
    image = torch.zeros(1, 8, 7, dtype=torch.float64)
    image[0, 1, 2] = 1
    return net, image


def test_where_a_turned_image_silences_the_unit_its_picture_is_as_unlike_as_can_be():
    """The turned image's projection is empty; with the deconvnet it is the same."""
    net, image = _turned_off()
    assert project(net, image, "3", 0, rule="guided").scores.image_dependence == 1
    assert project(net, image, "3", 0, rule="deconvnet").scores.image_dependence == 0


def test_an_empty_picture_has_no_scores():
    net, image = _turned_off()
    with torch.no_grad():
        net[2].weight.fill_(-1)
        net[2].bias.fill_(5)
    view = project(net, image, "3", 0, rule="guided")
    assert view.seed_value > 0
    assert not view.image.any()
    assert view.not_computed == ("selectivity", "image_dependence", "randomisation", "masking_drop")
    assert "unconfirmed-projection" not in {finding.fault for finding in view.findings}


class Centring(nn.Module):
    """Writes into the image that it is given."""

    def __init__(self, in_place):
        super().__init__()
        self.conv, self.in_place = nn.Conv2d(3, 4, 3), in_place

    def forward(self, x):
        return self.conv(x.sub_(0.5).mul_(2) if self.in_place else (x - 0.5) * 2)


@pytest.mark.parametrize("rule", ["deconvnet", "gated", "gradient"])
def test_a_network_that_writes_into_its_image_is_projected(image, rule):
    net, other = Centring(True).double(), Centring(False).double()
    other.load_state_dict(net.state_dict())
    before = image.clone()
    found, expected = (project(each, image, "conv", 1, rule=rule) for each in (net, other))
    assert torch.equal(found.image, expected.image)
    assert found.scores == expected.scores
    assert torch.equal(image, before)


class Disliking(nn.Module):
    """Takes simulated images only."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        if type(x) is torch.Tensor:
            raise ValueError("no such image")
        return self.conv(x)


@pytest.mark.parametrize("layer", ["1", "1.conv"])
def test_what_the_network_itself_says_is_told_and_nothing_stays_behind(image, layer):
    net = nn.Sequential(nn.BatchNorm2d(3), Disliking()).double().train()
    net[1].conv.weight.requires_grad_(False)
    before, state = torch.get_rng_state(), {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(ValueError, match="no such image"):
        project(net, image, layer, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert [p.requires_grad for p in net.parameters()] == [True, True, False, True]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_numpys_numbers_are_numbers(image):
    net = Layered().double()
    found = project(net, image, "conv3", np.int64(2), position=(np.int32(0), np.int64(1)))
    assert torch.equal(found.image, project(net, image, "conv3", 2, position=(0, 1)).image)
    assert found.to_dict()["unit"] == 2


class Functional(nn.Module):
    """Its activations have no modules; a block runs twice."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return torch.relu(self.conv(x))

    def __init__(self):
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, 4, 3), self.Block()

    def forward(self, x):
        return self.shared(self.shared(torch.tanh(self.stem(x))))


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ("features.relu2", "or an operator's address, such as shared#1:relu.1, shared#2:relu.1;"),
        ("tanh", "or an operator's address, such as self#1:tanh.1;"),
        ("shared.convv", "such as shared.conv, shared, or an operator's address, such as shared#"),
    ],
)
def test_an_unknown_layer_is_told_of_operators_that_have_no_path(layer, told):
    with pytest.raises(ConvscopeError) as caught:
        project(Functional(), torch.rand(3, 8, 8), layer, 0)
    assert told in str(caught.value)
    offered = str(caught.value).partition("operator's address, such as ")[2].partition(";")[0]
    for address in offered.split(", "):
        assert project(Functional(), torch.rand(3, 8, 8), address, 0).address == address


def test_where_every_operator_has_a_path_only_paths_are_told():
    with pytest.raises(
        ConvscopeError, match=r"unknown layer 'b'; expected a module path of this network; see"
    ):
        project(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.rand(3, 8, 8), "b", 0)
