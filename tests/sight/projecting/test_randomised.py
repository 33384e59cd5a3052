"""Random upper layers: what they are made of, and the score by a copy that really has them."""

import copy

import pytest
import torch
from torch import nn

from convscope.sight import project
from convscope.sight.projecting.randomised import upper_weights
from convscope.tape import record


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


def network(first=nn.Conv2d):
    return nn.Sequential(
        first(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(),
    )  # fmt: skip


@pytest.mark.parametrize("first", [nn.Conv2d, Standardised])
def test_all_weights_but_the_first_layers_are_drawn_with_each_filters_mean_and_deviation(first):
    net = network(first)
    with torch.no_grad():
        net[3].weight.mul_(torch.arange(1, 7).view(-1, 1, 1, 1)).add_(torch.arange(6).view(-1, 1, 1, 1))
    found = upper_weights(net, record(net, (1, 3, 9, 9)))
    assert list(found) == [net[3].weight, net[5].weight]
    drawn, own = found[net[3].weight].flatten(1), net[3].weight.flatten(1)
    assert drawn.shape == own.shape
    assert not torch.equal(drawn, own)
    torch.testing.assert_close(drawn.mean(1), own.mean(1), atol=0.5, rtol=0.3)
    torch.testing.assert_close(drawn.std(1), own.std(1), atol=0, rtol=0.5)
    again = upper_weights(net, record(net, (1, 3, 9, 9)))
    assert all(torch.equal(found[weight], again[weight]) for weight in found)


@pytest.mark.parametrize("rule", ["gradient", "guided"])
def test_the_score_is_that_of_a_copy_with_these_weights(rule):
    """By hand: a copy of the network which really has the random weights, and its own projection."""
    net, image = network().double().eval(), torch.randn(3, 12, 11, dtype=torch.float64)
    other = copy.deepcopy(net)
    drawn = upper_weights(net, record(net, (1, 3, 12, 11)))
    with torch.no_grad():
        other[3].weight.copy_(drawn[net[3].weight])
        other[5].weight.copy_(drawn[net[5].weight])
    view = project(net, image, "6", 2, rule, position=(3, 1))
    random = project(other, image, "6", 2, rule, position=(3, 1)).image
    cosine = torch.cosine_similarity(view.image.flatten(), random.flatten(), dim=0)
    assert view.scores.randomisation == pytest.approx(float(1 - cosine), abs=1e-12)


def test_a_first_layer_has_nothing_below_that_could_be_random():
    assert project(network(), torch.randn(3, 12, 11), "2", 1).scores.randomisation is None


def test_the_users_weights_stay():
    net = network()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    versions = [parameter._version for parameter in net.parameters()]
    project(net, torch.randn(3, 12, 11), "6", 1)
    assert all(map(torch.equal, before, net.parameters()))
    assert versions == [parameter._version for parameter in net.parameters()]
