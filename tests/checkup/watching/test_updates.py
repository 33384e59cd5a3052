"""Batch statistics from running averages, beside those of the inputs; shifts of calls, beside the truth."""

import math

import pytest
import torch
from torch import nn

from convscope.checkup.watching.updates import NormUpdates, _size, read_statistics
from convscope.norm import BatchNorm2d
from convscope.probe.passes import ForwardPass, LayerCall

LAYERS = {
    "torch": lambda: nn.BatchNorm2d(5),
    "slow": lambda: nn.BatchNorm2d(5, momentum=0.01),
    "cumulative": lambda: nn.BatchNorm2d(5, momentum=None),
    "ours": lambda: BatchNorm2d(5, momentum=0.3),
    "ours, warm": lambda: BatchNorm2d(5, warm_start=True),
    "double": lambda: nn.BatchNorm2d(5).double(),
}


def images(number=6, mean=0.0, scale=1.0):
    return mean + scale * torch.randn(number, 5, 4, 3)


@pytest.mark.parametrize("name", LAYERS)
def test_the_batch_is_read_off_its_update(name):
    layer = LAYERS[name]()
    for _ in range(5):
        x = images(mean=3.0, scale=2.0).to(layer.running_mean.dtype)
        before = layer.running_mean.clone(), layer.running_var.clone()
        layer(x)
        mean, variance = read_statistics(layer, *before)
        torch.testing.assert_close(mean, x.double().mean((0, 2, 3)), rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(variance, x.double().var((0, 2, 3)), rtol=2e-4, atol=2e-4)


def test_a_batch_without_weight_can_not_be_read():
    layer = nn.BatchNorm2d(5, momentum=0.0)
    assert read_statistics(layer, layer.running_mean, layer.running_var) is None


def updates_of(batches, momentum=0.1):
    """What is known of a layer that is called with some batches in each step."""
    layer, updates = nn.BatchNorm2d(5, momentum=momentum).double(), NormUpdates("bn")
    run = ForwardPass(0, ["self"], True, True, -1, False, False)
    for step in batches:
        for x in step:
            call = LayerCall("bn", layer, x, run, recomputed=False)
            updates.begins(call, layer, sampled=True)
            layer(x.double())
            updates.ends(call, layer)
        updates.step_ends()
    return updates


def test_updates_are_counted():
    updates = updates_of([(images(8), images(3)), (images(8), images(4))])
    assert updates.per_step == (2, 0)
    assert (updates.num_values, updates.num_images) == (36, 3)
    assert updates.shift() is None  # two steps leave no error worth the name
    assert updates_of([(images(),)] * 5).shift() is None
    assert NormUpdates("bn").per_step == (0, 0)


def test_a_shift_is_found_as_large_as_it_is():
    """Means 1.2 σ apart in all channels, standard deviations in the ratio 1 : 2, by construction."""
    away = 1.2 * math.sqrt((1 + 4) / 2)
    updates = updates_of([(images(64), images(64, away, 2.0)) for _ in range(24)])
    shift = updates.shift()
    assert (shift.path, shift.calls, shift.between, shift.num_steps) == ("bn", 2, (1, 2), 24)
    assert shift.shift == pytest.approx(1.2, abs=5 * shift.error)
    assert shift.log_variance == pytest.approx(2 * math.log(2), abs=5 * shift.log_variance_error)
    assert 0 < shift.error < 0.05


def test_the_largest_of_several_shifts_is_named():
    updates = updates_of([(images(32), images(32), images(32, 2.0)) for _ in range(6)])
    shift = updates.shift()
    assert (shift.calls, shift.between) == (3, (1, 3))
    assert shift.shift == pytest.approx(2.0, abs=0.1)


def test_calls_of_one_kind_are_no_shift_beyond_doubt():
    """Batch means are 0.14 σ apart by chance; 5 standard errors leave a tenth of what is tolerated."""
    beyond = []
    for seed in range(40):
        torch.manual_seed(seed)
        shift = updates_of([(images(8), images(8)) for _ in range(12)]).shift()
        beyond.append(shift.shift - 5 * shift.error)
    assert max(beyond) < 0.05


def test_the_jackknife_error_is_that_of_repeated_runs():
    found, errors = [], []
    for seed in range(60):
        torch.manual_seed(seed)
        shift = updates_of([(images(8), images(8, 0.8)) for _ in range(8)]).shift()
        found.append(shift.shift)
        errors.append(shift.error)
    assert torch.tensor(found).std() == pytest.approx(sum(errors) / len(errors), rel=0.35)
    assert sum(found) / len(found) == pytest.approx(0.8, abs=0.02)


def test_what_a_call_is_worth():
    """Independent values are worth their number; images of one value each, the number of images."""
    updates = updates_of([(images(8), images(8)) for _ in range(60)])
    assert updates.effective_values() == pytest.approx(8 * 12, rel=0.2)
    flat = [tuple(torch.randn(8, 5, 1, 1).expand(8, 5, 4, 3) for _ in range(2)) for _ in range(60)]
    assert updates_of(flat).effective_values() == pytest.approx(8, rel=0.2)
    assert updates_of([(images(8),)] * 4).effective_values() is None


def test_constant_inputs_are_no_shift():
    shift = updates_of([(torch.ones(4, 5, 2, 2), torch.ones(4, 5, 2, 2))] * 4).shift()
    assert (shift.shift, shift.log_variance) == (0.0, 0.0)


def test_the_jackknife_leaves_out_one_step_after_another():
    apart_SC = torch.randn(7, 3, dtype=torch.float64) + 1.0
    size, error = (float(value) for value in _size(apart_SC[:, None]))

    def square(rows):
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        spreads = [
            sum((value - mean) ** 2 for value in column) / (len(rows) - 1)
            for column, mean in zip(zip(*rows, strict=True), means, strict=True)
        ]
        return sum(m**2 - v / len(rows) for m, v in zip(means, spreads, strict=True)) / len(means)

    rows = apart_SC.tolist()
    left_out = [square(rows[:step] + rows[step + 1 :]) for step in range(7)]
    centre = sum(left_out) / 7
    expected = math.sqrt(6 / 7 * sum((value - centre) ** 2 for value in left_out))
    assert size == pytest.approx(math.sqrt(square(rows)))
    assert error == pytest.approx(min(expected / (2 * size), math.sqrt(expected)))
