"""Each measure against explicit loops, closed forms, or planted networks whose answer is known."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from checkup.grown import bits_of
from convscope.checkup.observed.run import Percentiles
from convscope.data import load_data
from convscope.train.experiments.measures.companions import companions
from convscope.train.experiments.measures.errors import errors_on, gap
from convscope.train.experiments.measures.serving import serving
from convscope.train.experiments.measures.shift import shift
from convscope.train.experiments.measures.statistics import precise_statistics
from convscope.train.experiments.measures.stems import stem_numbers

DATA = load_data("digits", size=8, channels=1, per_class=12)


def network(norm=True, dropout=0.0):
    torch.manual_seed(0)
    middle = [nn.BatchNorm2d(6)] if norm else []
    layers = [nn.Conv2d(1, 6, 3), *middle, nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(216, 10)]
    return nn.Sequential(*layers)


def test_errors_are_those_of_a_loop_in_evaluation_mode():
    model = network(dropout=0.5)
    model(torch.randn(64, 1, 8, 8))
    before = bits_of(model)
    found = errors_on(model, DATA.train)
    assert bits_of(model) == before
    assert model.training
    model.eval()
    losses, wrong = [], []
    for index in range(len(DATA.train)):
        image, label = DATA.train[index]
        scores = model(image[None])[0].double()
        losses.append(-F.log_softmax(scores, 0)[label].item())
        wrong.append(scores.argmax().item() != label)
    assert found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert found.error == sum(wrong) / len(wrong)


def test_the_gap_is_validation_minus_training():
    found = gap(network(), DATA.train, DATA.validation)
    assert found["error gap"] == found["validation error"] - found["training error"]
    assert found["loss gap"] == found["validation loss"] - found["training loss"]


def test_companions_matter_to_batch_norm_alone():
    still = companions(network(norm=False, dropout=0.5), DATA.validation, 8)
    assert still == {"deviation": pytest.approx(0, abs=1e-7), "changes": 0.0}  # sums of another order
    small, large = (companions(network(), DATA.validation, size) for size in (4, 32))
    assert small["deviation"] > 1.5 * large["deviation"] > 0


def test_companions_by_a_loop_over_all_pairs():
    """With batches of the whole set there is one batch; with two images there are all pairs to draw from."""
    images = load_data("digits", size=8, channels=1, per_class=1).validation
    whole = companions(network(), images, len(images))
    assert whole["deviation"] == pytest.approx(0, abs=1e-7)
    model, found = network(), companions(network(), images, 2, draws=1000)
    pixels, labels = images.stacked()
    deviations = []
    for own in range(len(labels)):
        others = [other for other in range(len(labels)) if other != own]
        probabilities = []
        for other in others:
            pair = torch.stack([pixels[own], pixels[other]])
            probabilities.append(model(pair)[0].softmax(0)[labels[own]].item())
        deviations.append(torch.tensor(probabilities).std(correction=0).item())
    assert found["deviation"] == pytest.approx(sum(deviations) / len(deviations), rel=0.1)


def test_more_samples_make_statistics_better():
    model = network()
    with torch.no_grad():
        model[1].running_mean.fill_(3.0)
    before = bits_of(model)
    found = precise_statistics(model, DATA.train, DATA.validation, sizes=(2, 96, 5000))
    assert bits_of(model) == before
    assert set(found) == {"running loss", "running error", "loss 2", "error 2", "loss 96", "error 96"}
    exact = network().eval().requires_grad_(False)
    taken = torch.cat([exact[0](image[None]) for image, _ in (DATA.train[i] for i in range(len(DATA.train)))])
    exact[1].running_mean.copy_(taken.mean((0, 2, 3)))
    exact[1].running_var.copy_(taken.var((0, 2, 3)))
    best = errors_on(exact, DATA.validation).loss
    assert abs(found["loss 96"] - best) < abs(found["loss 2"] - best) < abs(found["running loss"] - best)


def test_shift_of_planted_percentiles():
    steps = tuple(range(1, 101))
    still = Percentiles("fc", 0, "output", steps, (-1.0,) * 100, (0.0,) * 100, (1.0,) * 100)
    assert shift([still], ["norm", "fc"]) == {"drift": 0, "step drift": 0, "width": 2, "relative drift": 0}
    medians = tuple(step / 10 for step in steps)
    low, high = (tuple(median + side for median in medians) for side in (-1, 2))
    moving = Percentiles("norm", 0, "output", steps, low, medians, high)
    inputs = Percentiles("norm", 0, "input", steps, (0.0,) * 100, medians, (9.0,) * 100)
    found = shift([still, moving, inputs], ["norm", "fc"])
    # From step 10 on |p(t) − p(100)| is (100 − t) / 10: 9, 8.9, … 0.1.
    assert found["drift"] == pytest.approx(sum(range(1, 91)) / 90 / 10)
    assert found["step drift"] == pytest.approx(0.1)
    assert found["width"] == pytest.approx(3)
    assert found["relative drift"] == pytest.approx(found["drift"] / 3)
    assert shift([still], ["norm"]) == shift([], ["fc"]) == {}
    assert shift([Percentiles("fc", 0, "output", (1, 2), (0, 0), (0, 0), (0, 0))], ["fc"]) == {}


def test_serving_folds_and_leaves_the_network():
    model = network()
    model(torch.randn(64, 1, 8, 8))
    before = bits_of(model)
    found = serving(model, DATA.validation, repeats=3)
    assert bits_of(model) == before
    assert (found["left"], found["error change"]) == (0, 0)
    assert found["largest change"] < 1e-12
    assert found["folded"] > 0
    assert found["as it is"] > 0


def test_the_stems_numbers_are_those_of_stem():
    import convscope as cs

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 7, 4), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    with torch.no_grad():
        model[0].weight[3] = 0
    images = load_data("photos", size=64, per_class=2).validation
    found, whole = stem_numbers(model.eval(), images), cs.stem(model, images.stacked()[0])
    assert found["aliased, images"] == whole.aliased_share
    assert found["dead"] == 1 / 8
    assert found["mid-frequency gap"] == whole.coverage.gap
