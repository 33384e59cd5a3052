"""Invariance curves on networks whose answer is known, and against loops written out here."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from cases import state_of
from convscope.core.errors import ConvscopeError
from convscope.sight import ImageSource, InvariancePlan, invariance
from convscope.sight.transforming.transformation import Transformation

ONLY = {"translation": (), "scale": (), "rotation": ()}


def only(**amounts):
    return InvariancePlan(**{**ONLY, **amounts})


def images(count=4, size=(24, 20), channels=2):
    return torch.randn(count, channels, *size, dtype=torch.float64)


def values(curve, name):
    return {point.amount: getattr(point, name) for point in curve.points}


def test_a_circular_network_with_global_pooling_ignores_translation():
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.Conv2d(5, 4, 5, padding=2, padding_mode="circular"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).double()
    found = invariance(net, images(), ["1", "4"], plan=only(translation=(-7, 0, 3, 11), border="wrap"))
    assert all(v.value < 1e-12 for v in values(found.layers[1].curves[0], "distance").values())
    assert values(found.layers[0].curves[0], "distance")[3].value > 0.5
    first = found.answers[0].points
    assert all(abs(p.probability.value - first[1].probability.value) < 1e-12 for p in first)
    assert {p.unchanged for p in first} == {1}


@pytest.mark.parametrize("axis", [(1.0, 0.0), (0.0, 1.0)])
def test_a_convolution_is_equivariant_under_shifts_by_its_stride(axis):
    net = nn.Sequential(nn.Conv2d(2, 3, (5, 4), stride=2), nn.ReLU()).double()
    found = invariance(net, images(), plan=only(translation=(-4, -3, 0, 2, 4), direction=axis))
    curve = found.layers[0].curves[0]
    residual, unmoved = values(curve, "residual"), values(curve, "unmoved")
    assert found.layers[0].area == "image only"
    for amount in (-4, 0, 2, 4):
        assert residual[amount].value < 1e-14
    assert residual[-3].value > 0.1
    assert unmoved[2].value > 0.5
    assert values(curve, "distance")[0].value == 0


def test_padding_and_what_comes_in_at_the_border_are_not_compared():
    net = nn.Conv2d(2, 3, 3, padding=1, bias=True).double()
    found = invariance(net, images(), ["self"], plan=only(translation=(0, 5)))
    point = found.layers[0].curves[0].points[1]
    # Rows whose window lies in the image before (1 … 22) and after the shift sees none of rows 0 … 4.
    assert point.residual.value < 1e-14
    assert point.compared == pytest.approx((17 * 18) / (24 * 20))


def test_quarter_turns_of_pointwise_networks_are_equivariant():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Tanh()).double()
    found = invariance(net, images(size=(15, 15)), plan=only(rotation=(0, 90, 180, 270, 45)))
    residual = values(found.layers[0].curves[0], "residual")
    assert all(residual[amount].value < 1e-14 for amount in (0, 90, 180, 270))
    assert residual[45].value > 0.01
    assert values(found.layers[0].curves[0], "distance")[90].value > 0.5


def test_a_rotation_symmetric_kernel_is_equivariant_and_another_is_not():
    kernels = {"symmetric": torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]), "edge": torch.eye(3)}
    left = {}
    for name, kernel in kernels.items():
        net = nn.Conv2d(1, 1, 3, bias=False).double()
        net.weight.data = kernel[None, None].double()
        data = images(size=(17, 17), channels=1)
        left[name] = invariance(net, data, ["self"], plan=only(rotation=(90,))).layers[0].curves[0].points[0]
    assert left["symmetric"].residual.value < 1e-14
    assert left["edge"].residual.value > 0.3


def test_smooth_maps_are_equivariant_under_scale_up_to_interpolation():
    y, x = torch.meshgrid(*(torch.arange(64, dtype=torch.float64) - 31.5,) * 2, indexing="ij")
    blob = torch.exp(-(y**2 + x**2 / 2) / 200)[None, None] + 0.1
    net = nn.Conv2d(1, 2, 1).double()
    point = invariance(net, blob, ["self"], plan=only(scale=(1.5,))).layers[0].curves[0].points[0]
    assert point.residual.value < 0.01
    assert point.unmoved.value > 0.05


def net_of_two():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(105, 5),
    ).double()


def test_distances_equal_loops_over_images_pairs_and_units():
    net, data = net_of_two(), images(5, (20, 16))
    steps = {
        "translation": (0.0, 2.0, 2.5), "scale": (0.7, 1.0), "rotation": (0.0, 30.0),
    }  # fmt: skip
    found = invariance(net, ImageSource(data, batch_size=2), plan=InvariancePlan(**steps))
    layer = found.layers[1]
    with torch.no_grad():
        clean = [net[:4](x[None])[0] for x in data]
        pairs = [(a - b).square() for a, b in itertools.combinations(clean, 2)]
        between = (sum(p.sum() for p in pairs) / len(pairs)).sqrt()
        assert layer.between_images == pytest.approx(float(between), rel=1e-10)
        for curve in layer.curves:
            squares = torch.zeros(3, dtype=torch.float64)
            for point in curve.points:
                step = Transformation(curve.kind, point.amount)
                changed = [net[:4](step(x[None]))[0] for x in data]
                away = [float((b - a).norm() / a.norm()) for a, b in zip(clean, changed)]
                assert point.distance.value == pytest.approx(sum(away) / 5, rel=1e-10, abs=1e-14)
                squared = sum((b - a).square().sum((1, 2)) for a, b in zip(clean, changed)) / 5
                assert point.against_others == pytest.approx(float(squared.sum().sqrt() / between), abs=1e-12)
                squares += squared
            changing = [p for p in curve.points if p.amount != (1 if curve.kind == "scale" else 0)]
            per_unit = (squares / len(changing) / (sum(p.sum((1, 2)) for p in pairs) / len(pairs))).sqrt()
            assert curve.units.distance == pytest.approx(tuple(per_unit.tolist()), rel=1e-9)
            assert curve.units.most_invariant == tuple(per_unit.argsort().tolist())
        for curve in found.answers:
            for point in curve.points:
                step = Transformation(curve.kind, point.amount)
                before = torch.softmax(net(data), 1)
                after = torch.softmax(net(step(data)), 1)
                expected = after.gather(1, before.argmax(1)[:, None])
                assert point.probability.value == pytest.approx(float(expected.mean()), rel=1e-10)
                same = (before.argmax(1) == after.argmax(1)).double().mean()
                assert point.unchanged == pytest.approx(float(same))


def test_sub_pixel_shifts_of_the_map_are_interpolated():
    """A shift by 1 with stride 2 moves the map by half a position: the residual by hand."""
    net, data = nn.Conv2d(1, 1, 1, stride=2, bias=False).double(), images(1, (16, 12), 1)
    found = invariance(net, data, ["self"], plan=only(translation=(1,))).layers[0].curves[0].points[0]
    weight = net.weight.item()
    clean, moved = weight * data[0, 0, ::2, ::2], weight * data[0, 0].roll(1, 0)[::2, ::2]
    back = (moved[:-1] + moved[1:]) / 2  # of rows 0 … 6, at rows 0.5 … 6.5
    rows = slice(1, 7)  # row 0 would come from what came in at the border
    expected = (back[rows] - clean[:-1][rows]).norm() / clean[:-1][rows].norm()
    assert found.residual.value == pytest.approx(float(expected), rel=1e-12)
    assert found.compared == pytest.approx(6 / 8)


def test_intervals_are_students():
    from scipy import stats

    net, data = net_of_two(), images(12, (20, 16))
    point = invariance(net, data, ["1"], plan=only(translation=(3,))).layers[0].curves[0].points[0]
    with torch.no_grad():
        moved = Transformation("translation", 3)(data)
        away = (net[:2](moved) - net[:2](data)).flatten(1).norm(dim=1) / net[:2](data).flatten(1).norm(dim=1)
    low, high = stats.t.interval(0.95, 11, loc=away.mean(), scale=stats.sem(away))
    assert (point.distance.low, point.distance.high) == pytest.approx((low, high), rel=2e-3)
    assert point.distance.count == 12


def test_units_that_never_fire_or_never_change_are_not_ranked():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()).double()
    with torch.no_grad():
        net[0].weight[1:3] = 0
        net[0].bias[1], net[0].bias[2] = -1, 1
    found = invariance(net, images(3, (12, 12), 1), plan=only(translation=(2,))).layers[0].curves[0]
    assert found.units.distance[1] is found.units.distance[2] is None
    assert found.units.residual[1] is found.units.residual[2] is None
    assert set(found.units.most_invariant) == {0, 3}
    dead = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).double()
    nn.init.constant_(dead[0].bias, -1000)
    point = (
        invariance(dead, images(3, (12, 12), 1), plan=only(translation=(2,))).layers[0].curves[0].points[0]
    )
    assert point.distance.value is None
    assert point.distance.count == 0


def test_deep_layers_compare_where_middles_stay_in_the_image():
    net = nn.Sequential(*[nn.Conv2d(2, 2, 7, padding=3) for _ in range(4)]).double()
    found = invariance(net, images(size=(32, 32)), plan=only(translation=(0, 4)))
    assert [layer.area for layer in found.layers] == ["image only", "image only", "middles", "middles"]
    last = found.layers[3].curves[0].points[1]
    assert last.compared == pytest.approx(28 / 32)
    assert last.residual.value > 0


def test_labels_and_one_image():
    net, data = net_of_two(), images(1, (20, 16))
    found = invariance(net, data, ["1"], labels=[3], plan=only(translation=(0, 2)))
    assert found.label_source == "given"
    assert found.answers[0].points[0].probability.value == pytest.approx(net(data).softmax(1)[0, 3].item())
    assert found.answers[0].points[0].probability.low is None
    assert found.layers[0].between_images is None
    assert found.layers[0].curves[0].points[1].against_others is None
    assert found.layers[0].curves[0].units.distance == (None,) * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_precisions(dtype):
    net = net_of_two().to(dtype)
    found = invariance(net, images(3, (20, 16)).float(), plan=only(translation=(0, 1.5, 4), scale=(0.5, 1)))
    for curve in found.layers[0].curves:
        still = values(curve, "distance")[1 if curve.kind == "scale" else 0]
        assert still.value == 0
    assert values(found.layers[0].curves[0], "residual")[4].value < 0.02


def test_layers_without_space_or_known_channels_have_distances_only():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 6, 4, 4), nn.LayerNorm(6)

        def forward(self, x):
            return self.norm(self.conv(x).flatten(2).transpose(1, 2))

    found = invariance(Tokens().double(), images(), ["norm", "conv"], plan=only(translation=(0, 4)))
    tokens, maps = found.layers
    assert tokens.shape == (30, 6)
    assert (tokens.positions, tokens.area) == ("none", "none")
    assert tokens.curves[0].units is None
    assert tokens.curves[0].points[1].residual is None
    assert maps.curves[0].points[1].residual.value < 1e-14
    assert found.answers == ()
    assert found.output is None


def test_what_cannot_be_measured_is_named():
    net, data = net_of_two(), images(3, (20, 16))
    broken = data.clone()
    broken[1, 0, 2, 3] = float("inf")
    cases = {
        "a translation by 16 pixels": lambda: invariance(net, data, plan=only(translation=(16,))),
        "no transformations": lambda: invariance(net, data, plan=only()),
        "factors from 0.05": lambda: invariance(net, data, plan=only(scale=(0,))),
        "finite numbers": lambda: invariance(net, data, plan=only(rotation=(float("nan"),))),
        "border='mirror'": lambda: invariance(net, data, plan=only(rotation=(1,), border="mirror")),
        "image 1 with NaN": lambda: invariance(net, broken),
        "unknown layer 'conv7'": lambda: invariance(net, data, ["conv7"]),
        "class 5 of": lambda: invariance(net, data, labels=[0, 5, 1]),
        "2 labels": lambda: invariance(net, data, labels=[0, 1]),
        "names of layers": lambda: invariance(net, data, []),
        "statistics of a whole batch": lambda: invariance(
            nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten()).double(), data, ["0"]
        ),
    }
    for message, given in cases.items():
        with pytest.raises(ConvscopeError, match=message):
            given()
    with torch.no_grad():
        net[0].weight[0] = float("nan")
    with pytest.raises(ConvscopeError, match="NaN or infinite weights"):
        invariance(net, data)
    with pytest.raises(ConvscopeError, match="meta"):
        invariance(net_of_two().to("meta"), data)


@pytest.mark.parametrize("fails_at", [None, 1, 3])
def test_the_model_and_the_generators_come_back(fails_at):
    calls = []

    def trap(_, args, output):
        if type(output) is torch.Tensor and output.device.type == "cpu":
            calls.append(torch.rand(1))
            if len(calls) == fails_at:
                raise KeyboardInterrupt

    net = net_of_two().train()
    net[2].eval()
    net[3].register_forward_hook(trap)
    data = images(3, (20, 16)).requires_grad_()
    before, random = state_of(net), torch.get_rng_state()
    if fails_at is None:
        invariance(net, data, plan=only(translation=(1, 2)))
    else:
        with pytest.raises(KeyboardInterrupt):
            invariance(net, data, plan=only(translation=(1, 2)))
    assert state_of(net) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert data.grad is None


def test_progress_and_the_number_of_images():
    told = []
    plan = InvariancePlan((1,), (), (), num_images=4, progress=lambda done, total: told.append((done, total)))
    found = invariance(net_of_two(), ImageSource(images(9, (20, 16)), batch_size=3), plan=plan)
    assert found.num_images == 4
    assert told[-1] == (4, 4)
    assert found.to_dict()["layers"][0]["curves"][0]["points"][0]["amount"] == 1


def scored():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


@pytest.mark.parametrize(
    "labels", ["cats", 3, [1.7] * 4, torch.eye(4), [True] * 4, ["0"] * 4],
    ids=["text", "number", "parts", "matrix", "truths", "texts"],
)  # fmt: skip
def test_labels_are_whole_numbers(labels):
    with pytest.raises(ConvscopeError, match="not all of them whole numbers"):
        invariance(scored(), images(), labels=labels)


def test_labels_may_be_tensors_and_arrays():
    plan = only(rotation=(0,))
    curves = [
        invariance(scored_with, images_, labels=labels, plan=plan).answers[0].points[0].probability.value
        for scored_with, images_ in [(scored(), images())]
        for labels in ([2, 0, 1, 1], torch.tensor([2, 0, 1, 1]), np.array([2, 0, 1, 1]))
    ]
    assert len(set(curves)) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"translation": 5}, "translation=5; expected several finite numbers"),
        ({"scale": torch.ones(2)}, "expected several finite numbers"),
        ({"rotation": "90"}, "rotation='90'; expected several"),
        ({"direction": 1}, "direction=1; expected"),
        ({"direction": (0, 0)}, "expected \\(y, x\\), not both 0"),
        ({"translation": [], "scale": [], "rotation": []}, "no transformations"),
    ],
)  # fmt: skip
def test_amounts_are_several_numbers(words, said):
    with pytest.raises(ConvscopeError, match=said):
        invariance(scored(), images(), plan=InvariancePlan(**words))


def test_a_plan_is_a_plan_and_amounts_may_be_numpys():
    with pytest.raises(ConvscopeError, match="plan of type int; expected an InvariancePlan"):
        invariance(scored(), images(), plan=3)
    found = invariance(scored(), images(), plan=only(translation=tuple(np.arange(3))))
    assert [point.amount for point in found.layers[0].curves[0].points] == [0, 1, 2]
