import math

import pytest
import torch
from torch import nn

from convscope.train.config import TrainConfig
from convscope.train.feeding.batches import SeededImages
from convscope.train.measuring.evaluate import evaluate
from convscope.train.running.engine import running_engine
from train.toy import RandomImages, toy_model


def _evaluated(model, images, classes, **settings):
    config = TrainConfig(**settings)
    with running_engine(config) as accelerator:
        return evaluate(model, SeededImages(images, "validation", classes, 0), config, accelerator)


def _by_hand(model, images):
    """Loss and top-k by explicit loops in float64, one image at a time, in evaluation mode."""
    model = model.eval().double()
    loss, ranks = 0.0, []
    for index in range(len(images)):
        image, label = images[index]
        scores = model(image.double()[None])[0].tolist()
        loss += math.log(sum(math.exp(score) for score in scores)) - scores[label]
        ranks.append(sorted(scores, reverse=True).index(scores[label]))
    return loss / len(ranks), sum(r < 1 for r in ranks) / len(ranks), sum(r < 5 for r in ranks) / len(ranks)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 17, 100])
def test_loss_and_accuracies_equal_explicit_loops_at_every_batch_size(batch_size):
    model, images = toy_model(scores=9), RandomImages(17, classes=5, noisy=False)
    model(torch.randn(32, 2, 6, 5))  # running statistics that aren't the initial ones
    result = _evaluated(model, images, 9, batch_size=batch_size)
    loss, top1, top5 = _by_hand(model, images)
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert (result.accuracy, result.top5) == pytest.approx((top1, top5), abs=1e-12)
    assert 0 < top1 < top5 < 1


def test_modes_and_buffers_are_left_alone_also_after_a_failure():
    model = toy_model().train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert _evaluated(model, RandomImages(5), 3).top5 is None
    with pytest.raises(RuntimeError):
        _evaluated(nn.Sequential(model, nn.Linear(99, 3)), RandomImages(5), 3)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_network_of_nans_has_no_accuracy():
    class NaNs(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 7), math.nan)

    result = _evaluated(NaNs(), RandomImages(5), 7)
    assert (result.accuracy, result.top5) == (0.0, 0.0)
    assert math.isnan(result.loss)


def test_double_networks_are_measured_in_double_precision():
    model, images = toy_model().double(), RandomImages(11, noisy=False)
    assert _evaluated(model, images, 3).loss == pytest.approx(_by_hand(model, images)[0], rel=1e-12)


def _windows(image, side):
    """The ten windows, by indices."""
    height, width = image.shape[-2] - side, image.shape[-1] - side
    for row, column in ((0, 0), (0, width), (height, 0), (height, width), (height // 2, width // 2)):
        cut = image[:, row : row + side, column : column + side]
        yield cut
        yield cut[:, :, list(range(side))[::-1]]


@pytest.mark.parametrize("batch_size", [1, 3, 10, 25, 100])
@pytest.mark.parametrize("mirrors", [True, False])
def test_ten_crops_mean_the_probabilities_in_small_batches(batch_size, mirrors):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 7)).double()
    images, largest = RandomImages(23, classes=5, noisy=False), 0
    for parameter in model.parameters():
        nn.init.normal_(parameter)

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, pixels):
            nonlocal largest
            largest = max(largest, len(pixels))
            return self.model(pixels)

    config = TrainConfig(batch_size=batch_size, crop=4, evaluation="ten-crop")
    with running_engine(config) as accelerator:
        seeded = SeededImages(images, "validation", 5, 0)
        seeded.mirrors = mirrors
        result = evaluate(Watched(), seeded, config, accelerator)

    loss, ranks = 0.0, []
    for index in range(23):
        image, label = images[index]
        windows = list(_windows(image.double(), 4))[:: 1 if mirrors else 2]
        rows = [model(window[None])[0].tolist() for window in windows]
        shares = [[math.exp(s) / sum(map(math.exp, row)) for s in row] for row in rows]
        mean = [sum(column) / len(windows) for column in zip(*shares)]
        loss -= math.log(mean[label])
        ranks.append(sorted(mean, reverse=True).index(mean[label]))
    assert result.loss == pytest.approx(loss / 23, rel=1e-10)
    assert result.accuracy == pytest.approx(sum(r < 1 for r in ranks) / 23, abs=1e-12)
    assert result.top5 == pytest.approx(sum(r < 5 for r in ranks) / 23, abs=1e-12)
    assert largest <= batch_size


def test_a_window_with_a_nan_makes_the_image_wrong():
    class OneNaN(nn.Module):
        def forward(self, pixels):
            scores = torch.zeros(len(pixels), 3)
            scores[:, 0] = 9.0
            scores[0, 1] = math.nan
            return scores

    images = RandomImages(4, noisy=False)
    images.labels = [0] * 4
    settings = {"batch_size": 10, "crop": 4, "evaluation": "ten-crop"}
    # Batches of one image are of ten windows: the first of each is NaN.
    assert _evaluated(OneNaN(), images, 3, **settings).accuracy == 0.0
    assert _evaluated(OneNaN(), images, 3, batch_size=2).accuracy == 0.5
