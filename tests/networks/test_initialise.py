"""First weights: activations keep their size, the first loss is known, the papers' values on request."""

import math

import pytest
import torch
import torch.nn.functional as F

from convscope.networks import alexnet, zfnet


def test_kaiming_keeps_the_size_of_activations_through_the_convolutions():
    model = zfnet("none", width=0.5, input_size=96, num_classes=10).eval()
    x = torch.randn(8, 3, 96, 96)
    deviations = []
    for name, layer in model.features.named_children():
        x = layer(x)
        if name.startswith("conv"):
            deviations.append(x.pow(2).mean().sqrt().item())
    # Pools pick maxima and so enlarge a little; 0.01 everywhere would shrink by factors in each layer.
    assert all(0.5 < deviation < 12 for deviation in deviations)


@pytest.mark.parametrize("builder", [alexnet, zfnet])
def test_the_first_loss_is_that_of_guessing(builder):
    model = builder(norm="batch", width=0.25, num_classes=10, input_size=80).eval()
    loss = F.cross_entropy(model(torch.randn(16, 3, 80, 80)), torch.randint(10, (16,)))
    assert loss.item() == pytest.approx(math.log(10), abs=0.3)


def test_weights_have_the_stated_deviations():
    model = alexnet(width=0.5, input_size=99, num_classes=100)
    conv2, fc7, fc8 = model.features.conv2.weight, model.classifier.fc7.weight, model.classifier.fc8.weight
    assert conv2.std().item() == pytest.approx(math.sqrt(2 / (48 * 25)), rel=0.02)
    assert fc7.std().item() == pytest.approx(math.sqrt(2 / 2048), rel=0.02)
    assert fc8.std().item() == pytest.approx(0.01, rel=0.02)
    assert all(not bias.any() for name, bias in model.named_parameters() if name.endswith("bias"))


def test_published_values_are_the_papers():
    # Krizhevsky et al. 2012, section 5: deviation 0.01; biases 1 in conv 2, 4, 5 and the hidden fully
    # connected layers, 0 in the rest.
    model = alexnet(width=0.25, input_size=99, num_classes=100, init="published")
    assert model.features.conv3.weight.std().item() == pytest.approx(0.01, rel=0.02)
    ones = {name for name, p in model.named_parameters() if name.endswith("bias") and (p == 1).all()}
    zeros = {name for name, p in model.named_parameters() if name.endswith("bias") and (p == 0).all()}
    assert ones == {f"features.conv{n}.bias" for n in (2, 4, 5)} | {f"classifier.fc{n}.bias" for n in (6, 7)}
    assert zeros == {"features.conv1.bias", "features.conv3.bias", "classifier.fc8.bias"}


def test_the_seed_decides():
    def build(seed):
        torch.manual_seed(seed)
        return alexnet(width=0.05, input_size=67).features.conv1.weight

    assert torch.equal(build(1), build(1))
    assert not torch.equal(build(1), build(2))


def test_networks_of_one_seed_share_first_weights_wherever_shapes_agree():
    def build(**options):
        torch.manual_seed(3)
        return dict(zfnet(width=0.125, num_classes=10, input_size=128, **options).named_parameters())

    first = build(norm="none")
    for options in (
        {"norm": "batch"},
        {"norm": "none", "stem": "11x11/4", "second_stride": 1},
        {"removed": (3,)},
    ):
        other = build(**options)
        alike = [n for n in first if n in other and "conv" in n + "fc" and first[n].shape == other[n].shape]
        assert len(alike) >= 5
        assert all(torch.equal(first[name], other[name]) for name in alike if name.endswith("weight"))
    scaled = build(norm="none", init_scale=0.25)
    assert all(torch.equal(0.25 * first[name], scaled[name]) for name in first)


def test_consecutive_networks_differ():
    torch.manual_seed(0)
    first, second = (zfnet(width=0.05, input_size=64).features.conv1.weight for _ in range(2))
    assert not torch.equal(first, second)


def test_a_published_stem_is_small_and_the_rest_is_hes():
    model = zfnet(width=0.5, input_size=64, num_classes=10, init="published-stem")
    assert model.features.conv1.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert model.features.conv2.weight.std().item() == pytest.approx(math.sqrt(2 / (48 * 25)), rel=0.02)
