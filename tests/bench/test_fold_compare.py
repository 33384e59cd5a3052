"""The judge of folding itself: it must see a batch norm that runs, and outputs that differ."""

import torch
from bench.fold_compare import batch_norms_run, functions_run, outputs, relative_error
from bench.fold_statistics import randomise
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3)).eval()


def test_batch_norms_that_run_are_counted_and_those_that_are_only_held_are_not():
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

        def forward(self, x):
            return nn.functional.batch_norm(self.used(x), torch.zeros(4), torch.ones(4))

    assert batch_norms_run(Held().eval(), torch.randn(3, 4)) == 2
    assert batch_norms_run(net(), torch.randn(1, 2, 4, 4)) == 2


def test_other_functions_are_counted_without_batch_norms_and_a_linear_layer_once():
    x = torch.randn(2, 5, 6, 4).transpose(1, 2)  # with a bias, PyTorch dispatches two operators for these
    assert functions_run(net(), torch.randn(1, 2, 4, 4)) == 2
    assert functions_run(nn.Linear(4, 3), x) == functions_run(nn.Linear(4, 3, bias=False), x) == 1
    assert functions_run(lambda y: (y * 2 + 1).relu(), x) == 3


def test_the_error_is_of_the_worst_output_and_infinite_for_another_form():
    y, z = torch.tensor([1.0, -4.0]), torch.tensor([10.0])
    assert relative_error([y, z], [y, z]) == 0.0
    assert relative_error([y, z], [y + torch.tensor([0.0, 2.0]), z + 1]) == 0.5
    assert relative_error([y], [y, z]) == relative_error([y], [z]) == float("inf")
    assert relative_error([y], [y * float("nan")]) == float("inf")


def test_outputs_are_found_in_dictionaries_and_tuples():
    found = outputs(lambda x: {"a": x, "b": (x + 1, "text")}, torch.zeros(2))
    assert [tensor.tolist() for tensor in found] == [[0.0, 0.0], [1.0, 1.0]]


def test_statistics_are_those_of_the_networks_own_values_disturbed():
    """Against plain loops over one layer: the recipe's ranges, distinct channels, the same twice."""
    channels = 4000
    x = torch.randn(2, channels, 9) * 3 + 5
    layers = []
    for _ in range(2):
        layer = nn.BatchNorm1d(channels)
        randomise(nn.Sequential(layer), x)
        layers.append(layer)
    first, again = (layer.state_dict() for layer in layers)
    assert all(torch.equal(first[key], again[key]) for key in first)
    rows = x.transpose(0, 1).reshape(channels, -1)
    ratio = layer.running_var / rows.var(1)
    assert 0.59 < ratio.quantile(0.1) < ratio.quantile(0.9) < 1.61
    moved = (layer.running_mean - rows.mean(1)) / rows.std(1)
    assert 0.18 < moved.std() < 0.22
    assert 0.12 < (layer.weight < 0).float().mean() < 0.18
    assert 0.6 <= layer.weight.abs().min() < layer.weight.abs().max() <= 1.4
    assert 0.23 < layer.bias.std() < 0.27
    assert layer.momentum == 0.1
