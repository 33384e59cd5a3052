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
