"""Occlusion against a loop written out here, one image and one window at a time."""

import importlib
import math
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import ResidualNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.sight import OcclusionPlan, occlusion, project


class Stem(nn.Module):
    """Odd strides, dilation, groups, in-place and functional ReLUs, a skip, a concatenation, three pools."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(1, 2))
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2, bias=False)
        self.conv3 = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, 2, padding=1, ceil_mode=True)
        y = F.hardswish(self.conv2(x))
        y += x
        x = torch.cat([y, 0.5 * x], 1)
        x = F.avg_pool2d(self.conv3(x).relu_(), 3, 2, padding=1)
        return self.head(x.mean((2, 3)))


def stem(dtype=torch.float64):
    net = Stem()
    nn.init.uniform_(net.bn1.running_mean)
    nn.init.uniform_(net.bn1.running_var, 0.5, 2)
    nn.init.normal_(net.bn1.weight)
    return net.to(dtype).eval()


def starts(size, window, stride, overhang):
    if overhang:
        count = math.ceil(size / stride)
        first = (size - 1 - (count - 1) * stride) // 2
        return [first + k * stride - window // 2 for k in range(count)]
    found = [s for s in range(size) if s % stride == 0 and s + window <= size]
    return found + ([size - window] if found[-1] + window < size else [])


def loop(run, image, window, stride, colour, overhang):
    """``run`` of every occluded image, pixel by pixel."""
    channels, height, width = image.shape
    rows = []
    for top in starts(height, window[0], stride[0], overhang):
        row = []
        for left in starts(width, window[1], stride[1], overhang):
            hidden = image.clone()
            for y in range(max(top, 0), min(top + window[0], height)):
                for x in range(max(left, 0), min(left + window[1], width)):
                    for channel in range(channels):
                        hidden[channel, y, x] = colour[channel]
            with torch.no_grad():
                row.append(run(hidden[None])[0])
        rows.append(torch.stack(row))
    return torch.stack(rows)


def assert_like_loop(net, image, plan, window, stride, colour, tolerance):
    found = occlusion(net, image, 2, [("conv1", 1), ("conv3", 4), ("head", 0)], plan)
    logits = loop(net, image, window, stride, colour, plan.overhang)
    expected = torch.softmax(logits.double(), -1)
    torch.testing.assert_close(found.classes.probability, expected[..., 2], rtol=0, atol=tolerance)
    assert torch.equal(found.classes.labels, logits.argmax(-1))
    assert found.classes.num_changed == int((logits.argmax(-1) != net(image[None]).argmax()).sum())
    first = loop(lambda x: net.conv1(x)[:, 1], image, window, stride, colour, plan.overhang).double()
    conv1, conv3, head = found.units
    torch.testing.assert_close(conv1.total, first.sum((2, 3)), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(conv1.maximum, first.amax((2, 3)), rtol=tolerance, atol=tolerance)
    y, x = divmod(int(net.conv1(image[None])[0, 1].argmax()), first.shape[3])
    assert conv1.position == (y, x)
    torch.testing.assert_close(conv1.place, first[:, :, y, x], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(head.total, logits[..., 0].double(), rtol=10 * tolerance, atol=10 * tolerance)
    assert head.position is None
    assert conv3.total.shape == (found.rows, found.columns)
    return found


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("overhang", [True, False])
@pytest.mark.parametrize("size", [(41, 64), (64, 45)])
def test_every_place_equals_the_loop(size, overhang, reuse):
    net, image = stem(), torch.randn(3, *size, dtype=torch.float64)
    plan = OcclusionPlan((7, 4), (9, 11), (0.1, -2.0, 0.5), overhang, batch_size=5, reuse=reuse)
    found = assert_like_loop(net, image, plan, (7, 4), (9, 11), (0.1, -2.0, 0.5), 1e-13)
    assert found.reuse.used == reuse
    assert found.window == (7, 4)
    assert len(found.boxes) == found.rows * found.columns


def test_reuse_takes_in_skips_concatenations_and_pools():
    plan = OcclusionPlan(5, 16)
    found = occlusion(stem(), torch.randn(3, 96, 112, dtype=torch.float64), plan=plan)
    assert found.reuse.last == "self#1:avg_pool2d.1"
    assert found.reuse.share_of_work < 0.5


def test_single_precision_is_off_by_rounding_only():
    net, image = stem(torch.float32), torch.randn(3, 64, 60)
    colour = tuple(image.double().mean((1, 2)).float().tolist())
    found = assert_like_loop(net, image, OcclusionPlan(9, 13), (9, 9), (13, 13), colour, 1e-5)
    assert found.reuse.used
    plain = occlusion(net, image, 2, plan=OcclusionPlan(9, 13, reuse=False))
    assert (found.classes.probability - plain.classes.probability).abs().max() <= 1e-6


def test_equals_captum_where_windows_do_not_overlap(monkeypatch):
    if importlib.util.find_spec("captum") is None:
        pytest.skip("captum isn't installed")
    # captum imports its plots, which aren't needed here, with its methods.
    if importlib.util.find_spec("matplotlib") is None:
        for name in ("captum.attr._utils.visualization", "captum.attr._core.llm_attr"):
            monkeypatch.setitem(sys.modules, name, MagicMock())
    attr = importlib.import_module("captum.attr")
    net, image = stem(), torch.randn(3, 48, 40, dtype=torch.float64)
    with torch.no_grad():
        expected = attr.Occlusion(lambda x: net(x).softmax(1)).attribute(
            image[None], sliding_window_shapes=(3, 8, 8), strides=(3, 8, 8), target=3
        )[0, 0, ::8, ::8]
    classes = occlusion(net, image, 3, plan=OcclusionPlan(8, 8, "zero", overhang=False)).classes
    drops = classes.clean_probability - classes.probability
    torch.testing.assert_close(drops, expected.double(), rtol=0, atol=1e-7)  # captum sums in float32


def test_the_default_window_and_its_places():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = occlusion(net, torch.zeros(3, 28, 56))
    assert (found.window, found.stride, found.rows, found.columns) == ((4, 4), (2, 2), 14, 28)


@pytest.mark.parametrize("overhang", [True, False])
@pytest.mark.parametrize(("window", "stride"), [(8, 4), (5, 5), (7, 3), (1, 1)])
def test_every_pixel_is_hidden_and_places_are_symmetric(overhang, window, stride):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plan = OcclusionPlan(window, stride, overhang=overhang)
    boxes = occlusion(net, torch.zeros(2, 33, 22), plan=plan).boxes
    hidden = torch.zeros(33, 22)
    for box in boxes:
        hidden[box.top : box.bottom, box.left : box.right] += 1
    assert hidden.min() >= 1
    if overhang:
        centres = [top + window // 2 for top in starts(33, window, stride, True)]
        assert abs(centres[0] - (32 - centres[-1])) <= 1
        assert {box.top for box in boxes} == {max(centre - window // 2, 0) for centre in centres}


def test_a_linear_units_drop_is_what_was_hidden_and_agrees_with_its_projection():
    """For a = Σ w x with x = w, hiding with zeros lowers a by Σ w² over the window: the gradient's energy."""
    weight = torch.randn(1, 2, 12, 15, dtype=torch.float64)
    net = nn.Sequential(nn.Conv2d(2, 1, (12, 15), bias=False), nn.Flatten()).double()
    net[0].weight.data = weight
    plan = OcclusionPlan(3, 2, "zero")
    found = occlusion(net, weight[0], units=[("0", 0)], plan=plan)
    assert found.classes is None
    expected = [
        weight[0, :, box.top : box.bottom, box.left : box.right].square().sum() for box in found.boxes
    ]
    drops = found.units[0].clean_total - found.units[0].total
    torch.testing.assert_close(drops.flatten(), torch.stack(expected), rtol=1e-10, atol=1e-12)
    most = max(range(len(expected)), key=lambda k: expected[k])
    assert found.units[0].drop.box == found.boxes[most]
    assert found.units[0].drop.row * found.columns + found.units[0].drop.column == most
    compared = found.compared_with(project(net, weight[0], "0", 0, "gradient")).agreements[0]
    assert compared.total.linear == pytest.approx(1)
    assert compared.place.rank == pytest.approx(1)
    torch.testing.assert_close(
        compared.energy.flatten(), torch.stack(expected) / weight.square().sum(), rtol=1e-6, atol=1e-9
    )


def test_a_projection_of_another_unit_or_image_is_refused():
    net, image = stem(), torch.randn(3, 32, 32, dtype=torch.float64)
    found = occlusion(net, image, units=[("conv3", 1)], plan=OcclusionPlan(8))
    with pytest.raises(ConvscopeError, match=r"unit 1 of conv3#1"):
        found.compared_with(project(net, image, "conv3", 2, "gradient"))
    with pytest.raises(ConvscopeError, match="a projection of 40 × 32"):
        found.compared_with(project(net, torch.randn(3, 40, 32).double(), "conv3", 1, "gradient"))


def test_the_strongest_unit_is_chosen_by_its_total():
    net, image = stem(), torch.randn(3, 48, 40, dtype=torch.float64)
    found = occlusion(net, image, units=[("conv3", None)], plan=OcclusionPlan(16))
    maps = {}
    net.conv3.register_forward_hook(lambda *args: maps.update(found=args[2][0].clone()))
    with torch.no_grad():
        net(image[None])
    assert found.units[0].unit == int(maps["found"].sum((1, 2)).argmax())
    assert not found.units[0].is_given
    assert found.units[0].clean_total == pytest.approx(float(maps["found"].sum((1, 2)).max()))


def test_a_unit_that_never_fires_drops_by_no_share():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    nn.init.constant_(net[0].bias, -100)
    unit = occlusion(net, torch.rand(1, 12, 12), units=[("1", 0)]).units[0]
    assert not unit.fires
    assert unit.drop.share_of_clean is None
    assert unit.drop.largest == 0


class Picky(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.conv, self.deep = kind, nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        if self.kind == "size":
            assert x.shape[2:] == (64, 64)
        y = self.deep(torch.relu(self.conv(x)))
        if self.kind == "ramp":  # a different number in every column, made for the size it sees
            y = y * torch.linspace(0, 1, x.shape[3])
        if self.kind == "content" and x.mean() > 0:
            y = y + 1
        if self.kind == "view":
            y = y.flatten(2).unflatten(2, (64, 64)).square_()
        return y.mean((2, 3))


@pytest.mark.parametrize("kind", ["size", "ramp", "content", "view"])
def test_networks_that_do_not_run_on_parts_give_the_same(kind):
    net, image = Picky(kind), torch.randn(3, 64, 64)
    plan = OcclusionPlan(8, 20)
    found = occlusion(net, image, 0, plan=plan)
    expected = torch.softmax(loop(net, image, (8, 8), (20, 20), image.mean((1, 2)), True).double(), -1)
    torch.testing.assert_close(found.classes.probability, expected[..., 0], rtol=0, atol=1e-6)
    assert found.reuse.used == (kind == "view")


def test_the_same_conv_called_twice_is_told_apart():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x).relu()).mean((2, 3))

    net, image = Twice().double(), torch.randn(2, 60, 50, dtype=torch.float64)
    found = occlusion(net, image, 1, [("conv#2", 0)], OcclusionPlan(6, 12, "zero"))
    assert found.reuse.used
    expected = torch.softmax(loop(net, image, (6, 6), (12, 12), (0, 0), True), -1)
    torch.testing.assert_close(found.classes.probability, expected[..., 1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_runs_plainly(dtype):
    net, image = stem(dtype), torch.randn(3, 40, 40)
    found = occlusion(net, image, plan=OcclusionPlan(12))
    assert not found.reuse.used
    assert str(dtype) in found.reuse.reason
    assert bool(found.classes.probability.isfinite().all())


class Outputs(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        logits = x.mean((2, 3))
        return {
            "dict": lambda: {"features": x, "scores": logits, "more": 2 * logits},
            "tuple": lambda: (x, logits.softmax(1)),
            "map": lambda: x.mean((2, 3), keepdim=True),
            "none": lambda: x,
        }[self.form]()


@pytest.mark.parametrize(
    ("form", "said"),
    [("dict", "output 2 of 3"), ("tuple", "which is a softmax already"), ("map", "output 1 of 1")],
)
def test_which_output_is_taken_is_said(form, said):
    image = torch.randn(4, 10, 10)
    found = occlusion(Outputs(form), image, 3)
    assert said in found.classes.output
    assert found.classes.clean_probability == pytest.approx(float(image.mean((1, 2)).softmax(0)[3]), rel=1e-6)


def test_what_cannot_be_occluded_is_named():
    net, image = ResidualNet(), torch.randn(3, 17, 13)
    broken = image.clone()
    broken[0, 2, 3] = float("nan")
    cases = {
        "a window of 14 × 14 pixels on an image of 17 × 13": lambda: occlusion(
            net, image, plan=OcclusionPlan(14)
        ),
        "stride=0": lambda: occlusion(net, image, plan=OcclusionPlan(4, 0)),
        "window=2.5": lambda: occlusion(net, image, plan=OcclusionPlan(2.5)),
        "colour 'grey'": lambda: occlusion(net, image, plan=OcclusionPlan(colour="grey")),
        r"colour \(0.0, 1.0\)": lambda: occlusion(net, image, plan=OcclusionPlan(colour=(0.0, 1.0))),
        "batch_size=0": lambda: occlusion(net, image, plan=OcclusionPlan(batch_size=0)),
        "2 images": lambda: occlusion(net, torch.randn(2, 3, 17, 13)),
        "NaN or infinite": lambda: occlusion(net, broken),
        "floating-point": lambda: occlusion(net, image.byte()),
        "aren't scores of at least two classes": lambda: occlusion(Outputs("none"), image),
        "of shape": lambda: occlusion(Outputs("none"), image, label=1),
        "unknown layer 'conv9'": lambda: occlusion(net, image, units=[("conv9", 0)]),
        "unit 6 of stem.0#1": lambda: occlusion(net, image, units=[("stem.0", 6)]),
    }
    for message, given in cases.items():
        with pytest.raises(ConvscopeError, match=message):
            given()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for label in (3, -1, 1.5, True):
        with pytest.raises(ConvscopeError, match=f"class {label!r}"):
            occlusion(head, image, label)
    with pytest.raises(ConvscopeError, match="statistics of a whole batch"):
        occlusion(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), head), image)
    with torch.device("meta"):
        net = ResidualNet()
    with pytest.raises(ConvscopeError, match="meta"):
        occlusion(net, image)


def test_weights_that_are_not_numbers_are_named():
    net = stem()
    with torch.no_grad():
        net.conv3.weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(ConvscopeError, match="NaN or infinite weights"):
        occlusion(net, torch.randn(3, 40, 40))


@pytest.mark.parametrize("fails_at", [None, 1, 2, 4])
def test_the_model_and_the_generators_come_back(fails_at):
    class Trap(nn.Module):
        def forward(self, x):
            if type(x) is torch.Tensor and x.device.type == "cpu":
                calls.append(1)
                torch.rand(1)
                if len(calls) == fails_at:
                    raise KeyboardInterrupt
            return x

    calls = []
    net = nn.Sequential(stem().train(), Trap())
    net[0].bn1.eval()
    net[0].conv1.register_forward_hook(lambda *_: None)
    before, random = state_of(net), torch.get_rng_state()
    image = torch.randn(3, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    image.requires_grad_()
    kept = image.detach().clone()
    if fails_at is None:
        occlusion(net, image, plan=OcclusionPlan(10))
    else:
        with pytest.raises(KeyboardInterrupt):
            occlusion(net, image, plan=OcclusionPlan(10))
    assert state_of(net) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(image.detach(), kept)
    assert image.grad is None


def test_progress_is_told_and_json_holds_the_maps():
    told = []
    plan = OcclusionPlan(4, batch_size=3, progress=lambda done, total: told.append((done, total)))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = occlusion(head, torch.rand(3, 8, 8), plan=plan)
    assert told[-1] == (16, 16)
    assert len(told) == 6
    data = found.to_dict()
    assert data["classes"]["probability"] == found.classes.probability.tolist()
    assert data["boxes"][0] == {"top": 0, "left": 0, "bottom": 2, "right": 2}


@pytest.mark.parametrize(
    "units",
    ["1", ("1", 0), ["1"], [(1, 0)], [("1",)], 5],
    ids=["name", "pair", "names", "number", "short", "5"],
)
def test_units_that_are_no_pairs_are_refused(units):
    with pytest.raises(ConvscopeError, match="expected pairs of a layer and a channel"):
        occlusion(stem(), torch.rand(3, 20, 20, dtype=torch.float64), units=units)


def test_a_plan_is_a_plan_and_numpys_numbers_are_numbers():
    image = torch.rand(3, 20, 20, dtype=torch.float64)
    with pytest.raises(ConvscopeError, match="plan of type int; expected an OcclusionPlan"):
        occlusion(stem(), image, plan=16)
    plan = OcclusionPlan(window=10, stride=10)
    found = occlusion(stem(), image, np.int64(2), [("conv3", np.int64(1))], plan)
    assert (found.classes.label, found.units[0].unit) == (2, 1)
    with pytest.raises(ConvscopeError, match="class True of a network"):
        occlusion(stem(), image, True, plan=plan)
