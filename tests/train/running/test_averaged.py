"""The average's own statistics and losses, recomputed from its file by hand."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import convscope as cs
from convscope.train import read_run
from convscope.train.config import TrainConfig
from convscope.train.running.averaged import MOST_IMAGES, TrainingImages
from train.toy import RandomImages, ToyData, toy_model

SETTINGS = {"epochs": 2, "batch_size": 8, "ema_decay": 0.8, "learning_rate": 0.05}


def _data():
    return ToyData(train=RandomImages(42, noisy=False), validation=RandomImages(17, noisy=False))


class _One:
    """Stands for an accelerator of one process among several."""

    device = torch.device("cpu")

    def __init__(self, rank=0, count=1):
        self.process_index, self.num_processes = rank, count


class _Averages:
    """Computes the average from the weights after each step, in float64."""

    def __init__(self, model, decay):
        self.decay = decay
        self.values = {name: p.detach().double().clone() for name, p in model.named_parameters()}

    def after_step(self, model, step):
        rate = min(self.decay, (1 + step) / (10 + step))
        for name, p in model.named_parameters():
            self.values[name] = rate * self.values[name] + (1 - rate) * p.detach().double()


@pytest.mark.parametrize("augment", ["none", "shift"])
def test_the_average_has_its_own_statistics_and_its_record_is_true(tmp_path, augment):
    data, model = _data(), toy_model(dropout=0.3)
    averages = _Averages(model, 0.8)
    run = cs.train(model, data, out=tmp_path, callbacks=[averages], augment=augment, **SETTINGS)
    average = toy_model(dropout=0.3).double()
    stored = load_file(tmp_path / "average.safetensors")
    average.load_state_dict(stored)
    for name, value in averages.values.items():
        torch.testing.assert_close(stored[name].double(), value, rtol=0, atol=1e-6)
    inputs = average[0](data.train.images.double()).transpose(0, 1).flatten(1)  # of every training image
    torch.testing.assert_close(average[1].running_mean, inputs.mean(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(average[1].running_var, inputs.var(1), rtol=1e-6, atol=0)
    labels = torch.tensor(data.validation.labels)
    scores = average.eval()(data.validation.images.double())
    last = run.epochs[-1]
    assert last.average_loss == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-5)
    assert last.average_accuracy == (scores.argmax(1) == labels).double().mean().item()
    assert read_run(tmp_path) == run
    assert not torch.equal(stored["1.running_mean"], model[1].running_mean)


@pytest.mark.parametrize("norm", [True, False])
def test_a_run_with_an_average_is_the_run_without_it(tmp_path, norm):
    plain, averaged = toy_model(norm=norm), toy_model(norm=norm)
    one = cs.train(plain, ToyData(), out=tmp_path / "a", **{**SETTINGS, "ema_decay": None})
    other = cs.train(averaged, ToyData(), out=tmp_path / "b", **SETTINGS)
    for name, value in plain.state_dict().items():
        assert torch.equal(averaged.state_dict()[name], value)
    assert one.epochs[0].average_loss is None
    assert not (tmp_path / "a" / "average.safetensors").exists()
    assert [each.validation_loss for each in one.epochs] == [each.validation_loss for each in other.epochs]
    assert all(each.average_loss is not None for each in other.epochs)


def test_frozen_layers_of_an_average_keep_their_statistics(tmp_path):
    model = toy_model()
    cs.norm.freeze(model)
    model[1].running_mean.fill_(0.5)
    cs.train(model, ToyData(), out=tmp_path, **SETTINGS)
    assert load_file(tmp_path / "average.safetensors")["1.running_mean"].tolist() == [0.5] * 4


@pytest.mark.parametrize("processes", [1, 3])
def test_images_are_spaced_evenly_shared_out_and_the_same_each_time(processes):
    data = ToyData(train=RandomImages(5003, noisy=False))
    seen = []
    for rank in range(processes):
        images = TrainingImages(data, TrainConfig(batch_size=500), _One(rank, processes))
        data.train.seen.clear()
        first, second = list(images), list(images)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        own = data.train.seen
        assert own[: len(own) // 2] == own[len(own) // 2 :]
        seen += own[: len(own) // 2]
    assert sorted(seen) == [place * 5003 // MOST_IMAGES for place in range(MOST_IMAGES)]
    assert seen != sorted(seen)


def test_a_synchronised_network_can_be_averaged(tmp_path):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    plain = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    plain.load_state_dict(model.state_dict())
    runs = [
        cs.train(each, _data(), out=tmp_path / name, sync_batch_norm=sync, **SETTINGS)
        for each, name, sync in ((model, "a", True), (plain, "b", False))
    ]
    assert runs[0].epochs[-1].average_loss == pytest.approx(runs[1].epochs[-1].average_loss, rel=1e-3)
