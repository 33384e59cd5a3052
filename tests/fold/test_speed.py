import pytest
import torch
from torch import nn

from cases import state_of
from convscope.core.errors import ConvscopeError
from convscope.fold import fold, measure_speed

NET = (2, 3, 9, 7)


def test_speed_counts_what_it_says():
    calls = {"before": 0, "after": 0}

    class Counting(nn.Conv2d):
        def forward(self, x):
            assert not self.training
            assert not torch.is_grad_enabled()
            calls[self.name] += 1
            return super().forward(x)

    before, after = Counting(3, 4, 3), Counting(3, 4, 3)
    before.name, after.name = "before", "after"
    kept = state_of(before)
    speed = measure_speed(before, after, NET, repeats=5)
    assert calls == {"before": 7, "after": 7}
    assert speed.repeats == 5
    assert 0 < speed.before.low <= speed.before.median <= speed.before.high
    assert 0 < speed.speedup_low <= speed.speedup <= speed.speedup_high
    assert speed.input_shape == ("(2, 3, 9, 7)",)
    assert state_of(before) == kept


def test_quartiles_by_hand(monkeypatch):
    ticks = iter(
        [0, 9, 0, 9, 0, 9, 0, 9] + [t for pair in [(4, 2), (6, 2), (10, 2)] for d in pair for t in (0, d)]
    )
    monkeypatch.setattr("convscope.fold.speed.time.perf_counter", lambda: next(ticks))
    speed = measure_speed(nn.Identity(), nn.Identity(), NET, repeats=3)
    assert (speed.before.low, speed.before.median, speed.before.high) == (5, 6, 8)
    assert (speed.speedup_low, speed.speedup, speed.speedup_high) == (2.5, 3, 4)


def test_models_come_back_after_an_exception():
    class Failing(nn.Linear):
        def forward(self, x):
            raise ValueError

    net = Failing(3, 3)
    kept = state_of(net)
    with pytest.raises(ValueError):
        measure_speed(net, net, (2, 3))
    assert state_of(net) == kept


def test_too_few_repeats():
    with pytest.raises(ConvscopeError, match="repeats=1"):
        measure_speed(nn.Identity(), nn.Identity(), NET, repeats=1)


def test_fold_measures_when_asked():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    assert fold(net, NET).speed is None
    assert fold(net, NET, measure=True, repeats=2).speed.repeats == 2
