"""Averages against explicit sums in float64."""

import pytest
import torch
from torch import nn

from convscope.train.learning.average import Average


def _expected(history, decay):
    """The weight that each step's value has, from the definition, without recursion over averages."""
    rates = [min(decay, (1 + n) / (10 + n)) for n in range(1, len(history))]
    total = torch.zeros_like(history[0])
    for index, value in enumerate(history):
        share = 1.0 if index == 0 else 1 - rates[index - 1]
        for rate in rates[index:]:
            share *= rate
        total += share * value
    return total


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.97])
def test_the_average_is_the_weighed_sum_of_all_weights_so_far(decay):
    layer = nn.Linear(3, 2).double()
    layer.bias.requires_grad_(False)
    layer.register_parameter("count", nn.Parameter(torch.tensor(7), requires_grad=False))
    average, history = Average(layer, decay), [layer.weight.detach().clone()]
    for number in range(1, 41):
        with torch.no_grad():
            layer.weight.add_(torch.randn(2, 3, dtype=torch.float64))
        history.append(layer.weight.detach().clone())
        average.update(number)
    state = average.state_dict()
    assert set(state) == {"weight", "bias"}
    torch.testing.assert_close(state["weight"], _expected(history, decay), rtol=0, atol=1e-13)
    assert torch.equal(state["bias"], layer.bias)
    average.write_to_model()
    assert torch.equal(layer.weight, state["weight"])


def test_half_precision_weights_are_averaged_in_float32_and_shared_ones_once():
    layer = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.ones_(layer.weight)
    average = Average(nn.Sequential(layer, layer), 0.999)
    assert [(name, value.dtype) for name, value in average.state_dict().items()] == [
        ("0.weight", torch.float32)
    ]
    with torch.no_grad():
        layer.weight.fill_(2.0)
    average.update(10**6)
    torch.testing.assert_close(average.state_dict()["0.weight"], torch.tensor([[1.001]]))


def test_a_state_goes_on_with_the_same_bits():
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    averages = Average(one, 0.9), Average(other, 0.9)
    averages[1].load_state_dict({name: value.clone() for name, value in averages[0].state_dict().items()})
    other.load_state_dict(one.state_dict())
    for average, layer in zip(averages, (one, other)):
        nn.init.ones_(layer.weight)
        average.update(5)
    first, second = (average.state_dict() for average in averages)
    assert all(torch.equal(first[name], second[name]) for name in first)
