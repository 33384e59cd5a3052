"""Every experiment can be run: its networks take its images, its protocol names its numbers."""

import pytest
import torch

import convscope as cs
from convscope.train.comparing.pairing import fingerprints, paired_draws
from convscope.train.comparing.registry import experiment, experiment_names
from convscope.train.comparing.running import Feed, images_for, network_for

PRESETS = {
    "bn-speed", "bn-speed-sigmoid", "bn-init", "bn-micro-batch", "bn-shift", "bn-shift-noise", "precise-bn",
    "bn-regularise", "pool-overlap", "zf-stem", "zf-ablation", "test-time",
}  # fmt: skip


def test_all_of_the_notes_claims_have_one():
    assert set(experiment_names()) >= PRESETS


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_networks_take_the_images(name):
    asked = experiment(name)
    assert asked.name == name
    assert len(asked.table.seeds) >= 5
    seen = set()
    for arm in asked.table.arms:
        key = (arm.network, str(sorted(arm.options.items(), key=str)))
        if key in seen:
            continue
        seen.add(key)
        images = images_for(arm, Feed(asked.table.data, asked.table.image_size))
        model = network_for(arm, images, 0).model.eval()
        assert model(images.validation[0][0][None]).shape == (1, len(images.classes))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_protocol_says_what_can_be_concluded_and_stands_beside_a_published_figure(name):
    asked = experiment(name)
    assert len(asked.protocol) > 200
    assert asked.published
    assert asked.scale
    assert asked.claims
    assert len({claim.name for claim in asked.claims}) == len(asked.claims)


def test_weights_behind_a_norm_begin_alike():
    asked = experiment("bn-init")
    images = images_for(asked.table.arms[0], Feed(asked.table.data))
    prints = [fingerprints(network_for(arm, images, 3).model) for arm in asked.table.arms]
    weight = "conv6.weight"
    by_scale = {arm.options["init_scale"]: [] for arm in asked.table.arms}
    for arm, found in zip(asked.table.arms, prints, strict=True):
        by_scale[arm.options["init_scale"]].append(found[weight])
    assert all(len({str(each) for each in found}) == 1 for found in by_scale.values())


def test_scales_are_factors_of_the_same_draws():
    def weights(scale):
        with paired_draws(5):
            model = cs.load("convscope.train.experiments.networks:plain_network", init_scale=scale).model
        return model.conv3.weight

    assert torch.allclose(weights(0.5) * 4, weights(2.0))
