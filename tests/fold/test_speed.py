from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from timm.layers import norm_act
from torch import nn

from cases import FunctionalNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.fold import fold, measure_speed
from convscope.fold.speed import _waiter

NET = (2, 3, 9, 7)


class Counting(nn.Conv2d):
    """Counts its calls by name, in a list that all have in common."""

    calls: ClassVar[list[str]] = []

    def __init__(self, name, seconds=0.0):
        super().__init__(3, 4, 3)
        self.name, self.seconds = name, seconds

    def forward(self, x):
        assert not self.training
        assert not torch.is_grad_enabled()
        Counting.calls.append(self.name)
        return super().forward(x)


@pytest.fixture(autouse=True)
def _no_calls():
    Counting.calls.clear()


def test_speed_counts_what_it_says():
    before, after = Counting("before"), Counting("after")
    kept = state_of(before)
    speed = measure_speed(before, after, NET, repeats=5)
    assert sorted(Counting.calls) == ["after"] * 7 + ["before"] * 7
    assert speed.repeats == 5
    assert 0 < speed.before.low <= speed.before.median <= speed.before.high
    assert 0 < speed.speedup_low <= speed.speedup <= speed.speedup_high
    assert speed.input_shape == ("(2, 3, 9, 7)",)
    assert state_of(before) == kept
    assert (speed.twin, speed.ratio_to_twin, speed.ratio_to_twin_low) == (None, None, None)
    assert speed.no_twin == "Counting without a batch norm module"


def test_three_networks_run_in_turn_and_each_is_first_as_often():
    before = nn.Sequential(Counting("before"), nn.BatchNorm2d(4))
    measure_speed(before, nn.Sequential(Counting("after")), NET, repeats=4)
    # The twin is a copy of `before`, so it has its name; once more it is tried and recorded beforehand.
    timed = Counting.calls[-3 * 6 :]
    assert [timed[i : i + 3].count("after") for i in range(0, 18, 3)] == [1] * 6
    assert [timed[i : i + 3].index("after") for i in range(0, 18, 3)] == [1, 0, 2] * 2


class Ticking(nn.Module):
    """Moves a pretended clock on by as much as it is told to take in each pass."""

    clock = 0.0

    def __init__(self, *seconds):
        super().__init__()
        self.seconds, self.passes = seconds, 0

    def forward(self, x):
        Ticking.clock += self.seconds[self.passes % len(self.seconds)]
        self.passes += 1
        return x


def test_quartiles_by_hand(monkeypatch):
    monkeypatch.setattr("convscope.fold.speed.time.perf_counter", lambda: Ticking.clock)
    before, after = Ticking(9, 9, 4, 6, 10), Ticking(9, 9, 2, 2, 2)
    speed = measure_speed(before, after, NET, repeats=3)
    assert (speed.before.low, speed.before.median, speed.before.high) == pytest.approx((5, 6, 8))
    assert (speed.speedup_low, speed.speedup, speed.speedup_high) == pytest.approx((2.5, 3, 4))


class Pretended(nn.BatchNorm2d):
    """Takes a second more of the pretended clock."""

    def forward(self, x):
        Ticking.clock += 1
        return super().forward(x)


def test_the_ratio_to_the_twin_by_hand(monkeypatch):
    monkeypatch.setattr("convscope.fold.speed.time.perf_counter", lambda: Ticking.clock)
    # One second, and one for each of the two batch norms; after folding, one of them is left.
    before = nn.Sequential(Ticking(1), Pretended(3), Pretended(3))
    after = nn.Sequential(Ticking(1), Pretended(3))
    speed = measure_speed(before, after, NET, repeats=2)
    assert (speed.before.median, speed.after.median, speed.twin.median) == pytest.approx((3, 2, 1))
    assert (speed.ratio_to_twin_low, speed.ratio_to_twin, speed.ratio_to_twin_high) == pytest.approx(
        (2, 2, 2)
    )
    assert speed.speedup == pytest.approx(1.5)
    assert speed.no_twin == ""


def test_the_twin_has_the_folded_weights(monkeypatch, randomised):
    net = randomised(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
    folded = fold(net, NET).model
    seen = []
    monkeypatch.setattr(
        "convscope.fold.speed._in_turn", lambda networks, *_: seen.extend(networks) or [[1.0, 1.0]] * 3
    )
    measure_speed(net, folded, NET)
    assert torch.equal(seen[2][0].weight, folded[0].weight)
    assert not torch.equal(seen[2][0].weight, net[0].weight)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x):
        return F.batch_norm(self.bn(self.conv(x)), self.mean, self.var)


class Borrowing(nn.Module):
    """Normalises by a batch norm module's numbers, in code of its own."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        return F.batch_norm(x, self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias)


class Asking(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.bn, self.what = nn.BatchNorm2d(3), what

    def forward(self, x):
        return self.bn(x) * len(getattr(self.bn, self.what))


def test_a_network_that_asks_how_its_batch_norm_is_configured_has_a_twin():
    class Scaled(Asking):
        def forward(self, x):
            return self.bn(x) * self.bn.eps * self.bn.num_features

    net = Scaled("").eval()
    assert measure_speed(net, net, NET, repeats=2).no_twin == ""


@pytest.mark.parametrize(("net", "why"), [
    (FunctionalNet(), "FunctionalNet without a batch norm module"),
    (Functional(), "its own code calls batch norm as a function (self#1:batch_norm.1)"),
    (Borrowing(), "its own code calls batch norm as a function (self#1:batch_norm.1)"),
    (
        nn.Sequential(Borrowing(), nn.BatchNorm2d(3)),
        "its own code calls batch norm as a function (0#1:batch_norm.1)",
    ),
    (Asking("weight"), "has no attribute 'weight'"),
])  # fmt: skip
def test_why_there_is_no_twin(net, why):
    speed = measure_speed(net, net, NET, repeats=2)
    assert speed.twin is None
    assert why in speed.no_twin


def test_weights_that_are_standardised_by_batch_norm_are_no_obstacle():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = F.batch_norm(self.weight.reshape(1, 4, -1), None, None, training=True)
            return F.conv2d(x, weight.reshape(self.weight.shape))

    net = nn.Sequential(Standardised(3, 4, 3), nn.BatchNorm2d(4)).eval()
    assert measure_speed(net, net, NET, repeats=2).twin is not None


def test_inputs_stay_what_they_are_where_an_activation_works_in_place():
    net = nn.Sequential(norm_act.BatchNormAct2d(3), nn.Conv2d(3, 4, 3)).eval()
    x = torch.randn(NET)
    kept = x.clone()
    assert measure_speed(net, nn.ReLU(inplace=True), x, repeats=2).twin is not None
    assert torch.equal(x, kept)


def test_networks_come_back_in_their_modes_with_a_twin():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    kept = state_of(net)
    measure_speed(net, net, NET, repeats=2)
    assert state_of(net) == kept


def test_models_come_back_after_an_exception():
    class Failing(nn.Linear):
        def forward(self, x):
            raise ValueError

    net = Failing(3, 3)
    kept = state_of(net)
    with pytest.raises(ValueError):
        measure_speed(net, net, (2, 3))
    assert state_of(net) == kept


def test_a_device_s_work_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    _waiter(torch.device("cuda", 1))()
    _waiter(torch.device("cpu"))()
    assert waited == [torch.device("cuda", 1)]


def test_too_few_repeats():
    with pytest.raises(ConvscopeError, match="repeats=1"):
        measure_speed(nn.Identity(), nn.Identity(), NET, repeats=1)


def test_fold_measures_when_asked():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    assert fold(net, NET).speed is None
    speed = fold(net, NET, measure=True, repeats=2).speed
    assert speed.repeats == 2
    assert 0 < speed.ratio_to_twin_low <= speed.ratio_to_twin <= speed.ratio_to_twin_high
