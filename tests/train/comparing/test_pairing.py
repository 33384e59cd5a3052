"""Initial weights agree between arms where shapes do, and nobody's generators move."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from convscope.networks import load
from convscope.train.comparing.pairing import fingerprints, paired_draws, start_of


def small(seed, **options):
    with paired_draws(seed):
        return load("zfnet", width=0.05, input_shape=(3, 48, 48), num_classes=4, **options).model


def test_networks_with_and_without_batch_norm_begin_with_the_same_weights():
    plain, normed = small(1, norm="none"), small(1, norm="batch")
    weights = dict(normed.named_parameters())
    for name, parameter in plain.named_parameters():
        if name in weights:
            assert torch.equal(parameter, weights[name]), name


def test_without_pairing_a_bias_shifts_every_later_draw():
    def built(bias):
        return nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.Linear(4, 4))[1].weight

    torch.manual_seed(1)
    first = built(True)
    torch.manual_seed(1)
    assert not torch.equal(first, built(False))
    with paired_draws(1):
        first = built(True)
    with paired_draws(1):
        assert torch.equal(first, built(False))


def test_initialisations_differ_in_scale_alone():
    kaiming, published = small(2, init="kaiming"), small(2, init="published")
    first, second = kaiming.features.conv2.weight, published.features.conv2.weight
    ratio = first / second
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-4)
    assert not torch.equal(first, second)


def test_seeds_and_layers_of_one_shape_differ():
    model = small(1)
    assert not torch.equal(model.features.conv4.weight[:4], small(2).features.conv4.weight[:4])
    with paired_draws(0):
        twins = nn.Linear(5, 5), nn.Linear(5, 5)
    assert not torch.equal(twins[0].weight, twins[1].weight)


def test_the_draws_are_still_normal():
    with paired_draws(0):
        values = torch.empty(200, 200).normal_(1.0, 2.0)
    assert values.mean().item() == pytest.approx(1.0, abs=0.05)
    assert values.std().item() == pytest.approx(2.0, abs=0.05)


def test_generators_are_as_before_also_after_an_exception():
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    with pytest.raises(KeyError), paired_draws(3):
        torch.randn(3)
        np.random.rand()
        random.random()
        raise KeyError
    assert states() == before


def test_a_given_generator_is_left_alone():
    generator = torch.Generator().manual_seed(5)
    expected = torch.randn(4, generator=torch.Generator().manual_seed(5))
    with paired_draws(0):
        assert torch.equal(torch.randn(4, generator=generator), expected)


def test_where_a_start_cannot_be_the_same_is_said():
    plain = fingerprints(small(1, norm="none"))
    found = start_of("batch", [(fingerprints(small(1, norm="batch")), plain)])
    assert found.drawn_otherwise == ()
    assert found.other_shape
    assert all(name.startswith("features.norm") for name in found.other_shape)
    scaled = start_of("published", [(fingerprints(small(1, init="published")), fingerprints(small(1)))])
    assert "features.conv1.weight" in scaled.drawn_otherwise
