"""Planted faults of running statistics: each found by name and place, and gone after the remedy."""

import pytest
import torch
from torch import nn

from checkup.grown import Small, evidence, faults, grow, images, loader
from checkup.judging.observed import norm, observation, shifted
from convscope import checkup
from convscope.checkup.judging.faults.statistics import stale_statistics
from convscope.norm import recalibrate
from convscope.norm.layers.batch import BatchNorm2d


def _only(found, name):
    return [finding for finding in found.findings if finding.fault == name]


@pytest.mark.parametrize("layers", [nn.BatchNorm2d, pytest.param(BatchNorm2d, marks=pytest.mark.slow)])
@pytest.mark.parametrize("layer", ["bn1", "bn2", "bn3"])
@pytest.mark.parametrize(
    "plant",
    [
        lambda bn: bn.running_mean.add_(2 * bn.running_var.sqrt()),
        lambda bn: bn.running_var.mul_(6),
        lambda bn: bn.running_var.div_(6),
        lambda bn: bn.running_mean[3:4].add_(3 * bn.running_var[3:4].sqrt()),
    ],
    ids=["means", "variances-large", "variances-small", "one-channel"],
)
def test_stale_statistics_are_found_where_they_are(layers, layer, plant):
    model = grow(Small(layers))
    with torch.no_grad():
        plant(model.get_submodule(layer))
    found = checkup(model, loader())
    stale = _only(found, "stale-statistics")
    assert [finding.address for finding in stale] == [f"{layer}#1"]
    assert "cs.norm.recalibrate(model, loader)" in stale[0].remedy
    recalibrate(model, loader(320, 32))
    assert faults(checkup(model, loader())) == []


def test_the_evidence_is_the_planted_shift():
    model = grow(Small())
    with torch.no_grad():
        model.bn2.running_mean[5] -= 4 * (model.bn2.running_var[5] + 1e-5).sqrt()
    (stale,) = _only(checkup(model, loader(192)), "stale-statistics")
    assert evidence(stale, "mean residual") == pytest.approx(
        4, abs=5 * evidence(stale, "its standard error") + 0.05
    )
    assert evidence(stale, "stale channels") == 1


def test_layers_that_are_only_misled_are_counted_not_blamed():
    model = grow(Small())
    with torch.no_grad():
        model.bn1.running_var *= 400
    found = checkup(model, loader())
    (stale,) = _only(found, "stale-statistics")
    assert stale.address == "bn1#1"
    assert evidence(stale, "layers misled") == 2
    assert [row.stale_channels > 0 for row in found.layers] == [True, True, True]


def test_two_causes_are_two_findings():
    model = grow(Small())
    with torch.no_grad():
        model.bn1.running_mean += 3
        model.bn3.running_var *= 9
    assert sorted(f.address for f in _only(checkup(model, loader()), "stale-statistics")) == [
        "bn1#1",
        "bn3#1",
    ]


def test_a_gap_in_the_loss_is_found_and_makes_it_an_error():
    model = grow(Small())
    x = images(192)
    labels = model.eval()(x).argmax(1)
    with torch.no_grad():
        model.head.weight.mul_(8)
        model.head.bias.mul_(8)
        model.bn3.running_mean += 3 * model.bn3.running_var.sqrt()
    found = checkup(model, list(zip(x.split(16), labels.split(16))))
    (gap,) = _only(found, "train-eval-gap")
    assert evidence(gap, "gap") == found.gap > 0
    assert "switching bn3 alone to batch statistics takes" in gap.why
    assert found.attribution[0].path == "bn3"
    assert gap.effect == pytest.approx(found.gap / max(0.1 * found.batch_loss, 0.05))
    assert [f.severity for f in _only(found, "stale-statistics")] == ["error"]


def test_one_mean_loss_is_no_gap():
    model = grow(Small())
    with torch.no_grad():
        model.bn3.running_mean += 9
    found = checkup(model, (images(64), torch.zeros(64)), loss=lambda o, y: o.square().mean())
    assert found.gap_error is None
    assert _only(found, "train-eval-gap") == []
    assert any(note.what == "train-eval-gap" for note in found.unchecked)


@pytest.mark.parametrize("batches", [0, 1, 20])
@pytest.mark.parametrize("depth", ["static", "data"])
def test_young_statistics(batches, depth):
    model = grow(Small(), batches=batches)
    data = None
    if depth == "data":  # inputs far from mean 0 and variance 1 everywhere
        with torch.no_grad():
            for layer in (model.conv1, model.conv2, model.conv3):
                layer.weight.mul_(30)
        model = grow(model, batches=0)
        data = loader()
    young = _only(checkup(model, data), "young-statistics")
    assert [finding.address for finding in young] == ["bn1#1", "bn2#1", "bn3#1"]
    for finding in young:
        # After 20 batches statistics are far from 0 and 1: without data, only the counter calls them young.
        assert finding.severity == ("advice" if (depth, batches) == ("static", 20) else "warning")
        assert ("reset" in finding.why) == (finding.severity == "advice")
        assert evidence(finding, "weight of the starting values") == pytest.approx(0.9**batches)


def test_young_statistics_that_data_shows_right_are_no_finding():
    model = grow(Small())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.fill_(2)
    assert faults(checkup(model, loader())) == []


@pytest.mark.parametrize("data", [None, (2, 3, 11, 9), "four images"], ids=["bare", "flow", "too-few"])
def test_a_reset_counter_is_thought_of(data):
    model = grow(Small())
    data = images(4) if data == "four images" else data
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.add_(2)
            module.running_var.add_(3)
            module.num_batches_tracked.fill_(2)
    young = _only(checkup(model, data), "young-statistics")
    assert [finding.severity for finding in young] == ["advice"] * 3
    assert all("counter was reset" in finding.why for finding in young)


def test_a_start_that_outweighs_a_small_variance_is_youth_not_staleness():
    model = Small()
    with torch.no_grad():
        model.conv2.weight.mul_(0.01)
    grow(model, batches=60)
    found = checkup(model, loader())
    assert faults(found) == [("young-statistics", "bn2#1")]
    assert found.findings[0].severity == "advice"
    assert evidence(found.findings[0], "their share of a running variance") > 0.5


def test_old_statistics_and_unknown_ages_are_not_young():
    model = grow(Small(), batches=44)
    assert faults(checkup(model)) == []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.zero_()
    assert faults(checkup(model)) == []


@pytest.mark.parametrize(
    "plant",
    [lambda bn: bn.running_mean[1:2].fill_(float("nan")), lambda bn: bn.running_var[1:2].fill_(-1e-9)],
)
def test_statistics_that_cannot_be(plant):
    model = grow(Small(), batches=60)
    plant(model.bn2)
    (finding,) = _only(checkup(model), "non-finite-statistics")
    assert (finding.address, finding.severity) == ("bn2#1", "error")
    assert evidence(finding, "channels") == 1
    assert "non-finite-statistics" in {f.fault for f in checkup(model, images(32)).findings}


@pytest.mark.parametrize(
    ("channels", "severity"), [(1, "advice"), (2, "advice"), (3, "error"), (100, "error")]
)
def test_one_channel_in_a_hundred_may_be_off_by_rare_images(channels, severity):
    model = nn.Sequential(nn.Conv2d(3, 200, 1), nn.BatchNorm2d(200, momentum=None), nn.ReLU())
    x = images(64)
    model(x)
    model.eval()[1].running_var[:channels] *= 100
    (finding,) = _only(checkup(model, x), "stale-statistics")
    assert finding.severity == severity


def test_rare_loud_images_that_the_sample_lacks_are_no_alarm():
    """One image in a hundred is 30 times louder: averages hold some, 128 images often none."""
    severities = []
    for _ in range(20):
        layer = nn.BatchNorm1d(32).train()
        data = torch.randn(4000, 6) * torch.where(torch.rand(4000, 1) < 0.01, 30, 1)
        x = data @ torch.randn(6, 32)
        for batch in x[torch.randperm(4000)].split(32)[:62]:
            layer(batch)
        averages = {
            "running_mean": layer.running_mean.double(),
            "running_variance": layer.running_var.double(),
        }
        call = norm(x[torch.randperm(4000)[:128]].split(32), 32, num_batches_tracked=62, **averages)
        severities += [finding.severity for finding in stale_statistics(observation(call))]
    assert "advice" in severities
    assert len([severity for severity in severities if severity != "advice"]) <= 1


@pytest.mark.parametrize(
    ("number", "factor", "severity"),
    [(128, 8.0, "advice"), (128, 1 / 8, "warning"), (128, 100.0, "error"), (320, 8.0, "warning")],
)
def test_what_rare_images_explain(number, factor, severity):
    """Only larger running variances, by what missed images can do, and only while there are few images."""
    call = norm(shifted(number), running_variance=torch.full((3,), factor).double())
    (finding,) = stale_statistics(observation(call))
    assert finding.severity == severity


@pytest.mark.parametrize("number", [1, 4, 7, 8, 64])
def test_few_images_show_nothing(number):
    found = list(stale_statistics(observation(norm(shifted(number, by=0.6)))))
    assert [note.what for note in found] == (["stale-statistics"] if number < 8 else [])
    assert all("at least 8" in note.reason for note in found)
    assert list(stale_statistics(observation(norm(shifted(number), frozen=True)))) == []


class _Function(nn.Module):
    """Batch norm as a function, whose statistics no module holds."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("variance", torch.ones(8))

    def forward(self, x):
        y, statistics = self.conv(x), (self.mean, self.variance)
        return nn.functional.batch_norm(y, *statistics, training=self.training).mean((2, 3))


def test_the_remedy_for_statistics_of_a_function_works():
    """As it says: 50 batches in training mode, without gradients."""
    torch.manual_seed(0)
    model, batches = _Function(), [images(32) for _ in range(12)]
    model.mean += 3
    (finding,) = [each for each in checkup(model, batches).findings if each.fault == "stale-statistics"]
    assert "cs.norm.recalibrate doesn't reach" in finding.remedy
    assert "50 of them" in finding.remedy
    model.train()
    with torch.no_grad():
        for number in range(50):
            model(batches[number % 12])
    assert "stale-statistics" not in [each.fault for each in checkup(model, batches).findings]
