import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.norm.group_fit.fit import fit_groups
from norm.group_fit.lstsq_oracle import (
    assert_fit,
    batch_norm,
    copy_with,
    group_norm,
    images,
    least_squares,
    net,
    randomised,
    ready,
)


def two_layers(model, x, fits):
    """Both layers' inputs and targets by hand: original network, and with the first layer converted."""
    first = F.conv2d(x, model[0].weight, model[0].bias).detach()
    target = batch_norm(first, model[1])
    later = [
        F.conv2d(F.relu(y), model[3].weight, model[3].bias, stride=2).detach()
        for y in (target, group_norm(first, fits["1"]))
    ]
    return first, target, later[0], later[1], batch_norm(later[0], model[4])


def test_in_sequence_inputs_are_the_converted_networks_and_targets_the_originals():
    x = images().double()
    model = ready(net().double(), x)
    fits = fit_groups(model, ["4", "1"], x)
    assert list(fits) == ["4", "1"]
    first, target, _, later, later_target = two_layers(model, x, fits)
    assert_fit(fits["1"], first, target)
    assert_fit(fits["4"], later, later_target)


def test_in_parallel_inputs_are_the_original_networks():
    x = images().double()
    model = ready(net().double(), x)
    fits = fit_groups(model, ["1", "4"], list(x.split(5)), sweeps=0)
    first, target, later, _, later_target = two_layers(model, x, fits)
    assert_fit(fits["1"], first, target)
    assert_fit(fits["4"], later, later_target)


def test_sweeps_over_batches_come_to_what_one_batch_gives():
    x = images(40)
    model = ready(net(), x)
    whole = fit_groups(model, ["1", "4"], x)
    errors = []
    for sweeps in (1, 2, 5):
        parts = fit_groups(model, ["1", "4"], list(x.split(13)), sweeps=sweeps)
        assert torch.allclose(parts["1"].weight, whole["1"].weight, atol=1e-6)
        errors.append(float((parts["4"].weight - whole["4"].weight).abs().max()))
    assert errors[0] < 0.05
    assert errors[2] < 1e-4


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = self.alias = randomised(nn.BatchNorm2d(8))
        self.other = randomised(nn.BatchNorm2d(8))

    def forward(self, x):
        return self.norm(torch.relu(self.norm(x)) * 2 + 1)


def test_calls_of_one_module_share_a_fit_under_all_its_names():
    model = Twice().double().eval()
    x = torch.randn(6, 8, 4, 4, dtype=torch.float64)
    fits = fit_groups(model, ["alias", "norm", "other"], x, sweeps=0)
    first = batch_norm(x, model.norm)
    second = torch.relu(first) * 2 + 1
    inputs, targets = torch.cat([x, second]), torch.cat([first, batch_norm(second, model.norm)])
    for path in ("alias", "norm"):
        assert fits[path].path == path
        assert_fit(fits[path], inputs, targets)


def test_in_sequence_a_second_call_is_fitted_with_the_first():
    """The first call is fitted alone; what it makes is the second call's input, and both are fitted."""
    model = Twice().double().eval()
    x = torch.randn(6, 8, 4, 4, dtype=torch.float64)
    fit = fit_groups(model, ["norm"], x, 1, sweeps=1)["norm"]
    first = batch_norm(x, model.norm)
    weight, bias, _ = least_squares(x, first, 1, model.norm.eps)
    later = torch.relu(group_norm(x, copy_with(fit, weight, bias))) * 2 + 1
    second = batch_norm(torch.relu(first) * 2 + 1, model.norm)
    assert_fit(fit, torch.cat([x, later]), torch.cat([first, second]))


def test_progress_counts_forward_passes():
    x = images()
    model = ready(net(), x)
    for data, sweeps, expected in (
        (x, 3, 3),  # one batch: the survey and one sweep
        (list(x.split(6)), 1, 5),
        ([x, images(5, 11)], 1, 6),  # two sizes of images
        (list(x.split(6)), 0, 3),
    ):
        told: list[tuple[int, int]] = []
        runs: list[int] = []
        handle = model[0].register_forward_hook(lambda *_, runs=runs: runs.append(1))
        pure = model[:6]
        fit_groups(pure, ["1", "4"], data, sweeps=sweeps, progress=lambda *p, told=told: told.append(p))
        handle.remove()
        assert [done for done, _ in told] == list(range(1, expected + 1))
        assert len({most for _, most in told}) == 1
        assert told[-1][0] <= told[-1][1]
        assert len(runs) == expected


@pytest.mark.parametrize("sweeps", [0, 2])
def test_nan_inside_the_network_names_the_layer(sweeps):
    model = ready(net(), images())
    with torch.no_grad():
        model[3].weight[2] = float("nan")
    with pytest.raises(ConvscopeError, match="4 with NaN or infinite values in batch 0"):
        fit_groups(model, ["1", "4"], images(), sweeps=sweeps)


def test_shapes_that_follow_from_values_are_told():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.limit = 0.0

        def forward(self, x):
            y = self.first(x)
            return self.second(y[y.mean((1, 2, 3)) > float(self.limit)])

    model = Picky().eval()
    x = torch.randn(40, 4, 3, 3) * torch.linspace(0.1, 9, 40).view(-1, 1, 1, 1) + 0.1
    for model.limit in (0.05, float(x.mean((1, 2, 3)).max()) - 1e-3):  # some go another way, or none comes
        with pytest.raises(ConvscopeError, match="second, whose calls or shapes follow from the values"):
            fit_groups(model, ["first", "second"], x, 1)
    assert fit_groups(model, ["first", "second"], x, 1, sweeps=0)["second"].refused is None


def test_wrong_oracles_would_be_seen():
    """The parallel and the sequential fits differ by far more than the tolerances above."""
    x = images().double()
    model = ready(net().double(), x)
    parallel, sequence = (fit_groups(model, ["1", "4"], x, sweeps=sweeps)["4"].weight for sweeps in (0, 3))
    assert float((parallel - sequence).abs().max()) > 1e-3
