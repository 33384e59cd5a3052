import dataclasses

import pytest
import torch

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.train.recipes import RECIPES, recipe


def test_the_papers_settings_are_theirs():
    """Figures as printed: Krizhevsky et al. 2012, sections 4 and 5; Zeiler and Fergus 2013, section 3."""
    alexnet, zfnet = recipe("alexnet").config, recipe("zfnet").config
    for config in (alexnet, zfnet):
        assert (config.batch_size, config.momentum, config.learning_rate) == (128, 0.9, 0.01)
        assert (config.optimizer, config.schedule, config.evaluation) == (
            "sgd-momentum",
            "plateau",
            "ten-crop",
        )
        assert config.step_factor == 0.1
    assert (alexnet.epochs, zfnet.epochs) == (90, 70)
    assert (alexnet.weight_decay, alexnet.augment, alexnet.crop) == (5e-4, "crop-colour", 227)
    assert (zfnet.renormalise_radius, zfnet.augment, zfnet.crop) == (0.1, "ten-crops", 224)
    assert {each.picture_size for each in RECIPES.values()} == {256}


def test_every_recipe_says_its_source_and_what_differs():
    for name, each in RECIPES.items():
        assert each.name == name
        assert any(year in each.source for year in ("2012", "2013", "2018"))
        assert any("decay" in line for line in (*each.differs, *each.open, each.source))


@pytest.mark.parametrize("name", ["alexnet", "zfnet"])
def test_a_papers_network_starts_with_its_weights_and_sees_its_scale_of_pixels(name):
    chosen = recipe(name)
    loaded = chosen.load(num_classes=4, width=0.1, input_shape=(3, 67, 67))
    convolutions = [m for m in loaded.model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(0.007 < layer.weight.std().item() < 0.013 for layer in convolutions)
    biases = [layer.bias.unique().tolist() for layer in convolutions]
    assert biases == ([[0], [1], [0], [1], [1]] if name == "alexnet" else [[0]] * 5)
    assert [m.p for m in loaded.model.modules() if isinstance(m, torch.nn.Dropout)] == [0.5, 0.5]
    images = chosen.images("digits")
    assert images.size == (256, 256)
    pixels = torch.stack([images.train[i][0] for i in range(60)])
    assert pixels.max() - pixels.min() == pytest.approx(255, abs=0.01)
    assert abs(pixels.mean().item()) < 5


def test_single_settings_replace_those_of_a_recipe_and_a_run_follows_it(tmp_path):
    small = dataclasses.replace(recipe("zfnet").config, epochs=1, crop=8, batch_size=64)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 10))
    images = recipe("zfnet").prepared(cs.data.load_data("digits", size=10, channels=1, per_class=8))
    run = cs.train(network, images, out=tmp_path, config=small, learning_rate=1e-4)
    assert (run.config.learning_rate, run.config.augment, run.config.momentum) == (1e-4, "ten-crops", 0.9)
    assert network[0].weight.square().mean((1, 2, 3)).sqrt().max() <= 0.1 + 1e-6
    assert sum(count for _, _, count in run.confusion.counts) == len(images.validation)


def test_an_unknown_recipe_offers_close_names():
    with pytest.raises(ConvscopeError, match=r"unknown recipe 'zfnett'; .* did you mean 'zfnet'\?"):
        recipe("zfnett")
    with pytest.raises(ConvscopeError, match="one of alexnet, zfnet, modern"):
        recipe("qqq")
    with pytest.raises(ConvscopeError, match="recipe 'modern', which is of no network"):
        recipe("modern").load(10)
