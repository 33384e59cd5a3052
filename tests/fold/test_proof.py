"""The comparison itself: it must see what is wrong."""

import math

import pytest
import torch
from torch import nn

from convscope.fold.proof import NotComparable, Place, compare, difference, tensors_of
from convscope.fold.trials import described

INPUTS = described((2, 3, 6, 5), torch.float32)


def test_difference_by_hand():
    maximum, mean = difference([torch.tensor([1.0, -4.0])], [torch.tensor([1.5, -4.0])])
    assert (maximum, mean) == (0.5 / 4, 0.25 / 4)


def test_tiny_outputs_are_compared_at_their_own_size():
    maximum, _ = difference([torch.ones(2), torch.full((2,), 1e-3)], [torch.ones(2), torch.full((2,), 2e-3)])
    assert maximum == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1.0, math.nan], [1.0, math.nan], 0.0),
        ([1.0, math.inf], [1.0, math.inf], 0.0),
        ([1.0, math.inf], [1.0, -math.inf], math.inf),
        ([1.0, math.nan], [1.0, 2.0], math.inf),
        ([1.0, 2.0], [1.0, math.nan], math.inf),
        ([1.0, 2.0], [1.0], math.inf),
        ([0.0, 0.0], [0.0, 0.5], 0.5),
        ([], [], 0.0),
    ],
)
def test_difference_of_awkward_values(before, after, expected):
    assert difference([torch.tensor(before)], [torch.tensor(after)])[0] == expected


def test_integers_and_flags_are_compared_too():
    assert difference([torch.tensor([1, 2])], [torch.tensor([1, 3])])[0] == 0.5
    assert difference([torch.tensor([True])], [torch.tensor([False])])[0] == 1.0


def test_tensors_of_walks_containers_and_objects():
    class Output:
        def __init__(self):
            self.logits = torch.zeros(1)

    assert len(tensors_of({"a": torch.zeros(1), "b": (torch.zeros(2), None)})) == 2
    assert len(tensors_of(Output())) == 1


def test_no_change_is_no_difference():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)).double()
    comparison = compare(net, lambda network: None, INPUTS, (), torch.float64)
    assert comparison.max_error == comparison.mean_error == 0
    shapes = [shape for trial in comparison.trials for shape in trial.shapes()]
    assert shapes == ["(2, 3, 6, 5)", "(2, 3, 6, 5)", "(2, 3, 10, 9)", "(5, 3, 6, 5)"]


def test_a_small_change_is_seen():
    def change(network):
        with torch.no_grad():
            network[0].weight[0, 0, 0, 0] += 1e-7

    comparison = compare(nn.Sequential(nn.Conv2d(3, 4, 3)).double(), change, INPUTS, (), torch.float64)
    assert not comparison.within(1e-9)
    assert comparison.max_error < 1e-6


def test_a_change_that_breaks_the_network_is_a_failure():
    comparison = compare(
        nn.Sequential(nn.Conv2d(3, 4, 3)).double(),
        lambda net: net.append(nn.Linear(7, 7).double()),
        INPUTS,
        (),
        torch.float64,
    )
    assert comparison.failure.startswith("RuntimeError")
    assert not comparison.within(math.inf)


def test_a_place_that_is_not_reached_is_a_failure():
    comparison = compare(
        nn.Sequential(nn.Conv2d(3, 4, 3)).double(),
        lambda network: network.__setitem__(0, nn.Identity()),
        INPUTS,
        (Place("here", "0#1:convolution.1", "0#1:convolution.1"),),
        torch.float64,
    )
    assert "doesn't come by here" in comparison.failure


def test_a_fixed_input_size_is_tried_with_another_batch():
    net = nn.Sequential(nn.Flatten(), nn.Linear(90, 2)).double()
    comparison = compare(net, lambda network: None, INPUTS, (), torch.float64)
    assert comparison.trials[-1].shapes() == ("(5, 3, 6, 5)",)


def test_random_networks_are_compared_with_the_same_random_numbers():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    before = torch.get_rng_state()
    assert compare(Noisy(), lambda network: None, INPUTS, (), torch.float64).max_error == 0
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32


def test_network_that_runs_on_nothing():
    with pytest.raises(NotComparable, match="RuntimeError"):
        compare(nn.Conv2d(5, 4, 3).double(), lambda network: None, INPUTS, (), torch.float64)
