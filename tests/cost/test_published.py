"""AlexNet and ZFNet, number by number, as published and as the course notes have them."""

import pytest

from convscope.cost import cost
from convscope.networks.alexnet import alexnet
from convscope.networks.zfnet import zfnet
from convscope.tape import TrainingPlan

MIB = 2**20


@pytest.fixture(scope="module")
def notes():
    """The course notes' AlexNet ("Successful Architectures"): one GPU, batch 128, SGD with momentum."""
    return cost(alexnet("notes"), (128, 3, 227, 227), TrainingPlan("sgd-momentum"))


def test_notes_input_and_last_map(notes):
    assert notes.input_shapes == ((128, 3, 227, 227),)
    assert 227 * 227 * 3 == 154_587
    assert notes.row("features.pool5").output_shape == (128, 256, 6, 6)


def test_notes_first_layer(notes):
    conv1 = notes.row("features.conv1")
    assert conv1.output_shape == (128, 96, 55, 55)
    assert conv1.activations // 128 == 290_400
    assert conv1.params == 34_944  # (11·11·3 + 1)·96, "35k"
    assert conv1.forward_flops == 26_986_291_200  # "27 GFlops", per batch
    assert round(2 * conv1.activation_bytes / MIB, 1) == 283.6
    assert round(3 * conv1.parameter_bytes / MIB, 1) == 0.4
    assert conv1.backward_input_flops == 0


def test_notes_first_fully_connected_layer_holds_the_38_million(notes):
    fc6 = notes.row("classifier.fc6")
    assert fc6.params == 37_752_832
    assert round(3 * fc6.parameter_bytes / MIB) == 432
    assert 2 * fc6.activation_bytes / MIB == 4


def test_notes_totals(notes):
    assert notes.totals.params == 62_378_344
    assert notes.totals.macs == 128 * 1_135_256_096
    assert round(notes.totals.forward_flops / 1e9, 1) == 290.6
    assert round(notes.totals.forward_flops / 128 / 1e9, 2) == 2.27


def test_notes_rule_of_thumb(notes):
    estimate = notes.rule_of_thumb
    assert estimate.activations == 128 * 781_736
    assert round(estimate.activation_bytes / MIB) == 763
    assert round(estimate.parameter_bytes / MIB) == 714


def test_notes_trends(notes):
    evidence = {
        (finding.fault, item.name): item.value for finding in notes.findings for item in finding.evidence
    }
    assert round(evidence["fully-connected-share", "share of parameters"], 3) == 0.940
    assert round(evidence["convolution-share", "share of MACs"], 3) == 0.948
    assert evidence["pooling-share", "share of operations"] < 0.001
    # Pools' int64 indices: 8 B · (96·27² + 256·13² + 256·6²) of what a hand count of the saved tensors gives.
    indices = 8 * (96 * 27**2 + 256 * 13**2 + 256 * 6**2)
    floats = 154_587 + 290_400 + 69_984 + 186_624 + 43_264 + 2 * 64_896 + 43_264 + 9_216 + 4 * 4_096 + 1_000
    kept = 128 * (4 * floats + indices + 2 * 4_096) + 128 * 8 + 4  # dropout's masks; targets; their weight
    assert notes.totals.saved_bytes == kept
    assert evidence["pooling-share", "indices"] == 128 * indices
    assert 0.19 < evidence["pooling-share", "share of kept bytes"] < 0.22  # "about a fifth"


def test_activations_and_parameters_are_of_similar_size_in_the_notes_network(notes):
    ratio = notes.rule_of_thumb.activation_bytes / notes.rule_of_thumb.parameter_bytes
    assert 1.0 < ratio < 1.1
    (finding,) = (f for f in notes.findings if f.fault == "activations-against-parameters")
    assert "similar" in finding.why


@pytest.mark.parametrize(
    ("network", "size", "params", "macs"),
    [
        # Krizhevsky et al. 2012, section 3.5 ("60 million parameters"); sums of its layers.
        (lambda: alexnet("published"), 227, 60_965_224, 724_406_816),
        # torchvision's documentation of alexnet: 61,100,840 parameters, 0.71 GFLOPS (multiply–adds).
        (lambda: alexnet("torchvision"), 224, 61_100_840, 714_188_480),
        # Zeiler and Fergus 2013, figure 3; sums of its layers ("1.17 B" multiply–adds in later tables).
        (lambda: zfnet("none"), 224, 62_357_608, 1_168_032_896),
    ],
    ids=["alexnet-published", "alexnet-torchvision", "zfnet"],
)
def test_parameters_and_macs_per_image(network, size, params, macs):
    totals = cost(network(), (1, 3, size, size), plan=None).totals
    assert (totals.params, totals.macs) == (params, macs)


def test_published_network_backward_is_twice_forward_but_for_the_first_input_gradient():
    totals = cost(alexnet("published"), (1, 3, 227, 227)).totals
    conv1 = 55 * 55 * 96 * 11 * 11 * 3
    assert totals.backward_flops == 2 * 1_343_398_432 == 2 * (2 * 724_406_816 - conv1)
    assert totals.step_flops == totals.forward_flops + totals.backward_flops


def test_zfnet_maps():
    found = cost(zfnet("none"), (1, 3, 224, 224), plan=None)
    shapes = [row.output_shape[1:] for row in found.rows if row.op in ("convolution", "max_pool2d")]
    assert shapes[:4] == [(96, 110, 110), (96, 55, 55), (256, 26, 26), (256, 13, 13)]


@pytest.mark.parametrize(
    ("optimizer", "values"), [("sgd", 2), ("sgd-momentum", 3), ("adam", 4), ("adamw", 4)]
)
def test_values_per_parameter(optimizer, values):
    found = cost(alexnet(width=0.25, input_size=67), (1, 3, 67, 67), TrainingPlan(optimizer))
    assert found.rule_of_thumb.parameter_bytes == values * 4 * found.totals.params
