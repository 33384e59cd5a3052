"""What a run of training does: numbers against a bare loop, what it tells, what it gives back."""

import dataclasses
import json
import math
import random
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import convscope as cs
from convscope.core.seeds import derived_seed
from convscope.core.units import GIB
from convscope.train import NoProgress, TrainConfig, read_run
from convscope.train.feeding.order import reseed
from convscope.train.request import _memory_kept
from convscope.train.telling.forecast import Forecast
from train.toy import SETTINGS, RandomImages, StopAt, ToyData, same_bits, toy_model, without_times


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"schedule": "constant", "label_smoothing": 0.1, "clip_grad_norm": 0.5},
        {"optimizer": "adamw", "learning_rate": 0.003, "warmup_epochs": 0.5},
        {"schedule": "step", "step_epochs": 1, "step_factor": 0.3, "momentum": 0.0, "weight_decay": 0.0},
    ],
)
def test_the_weights_equal_those_of_a_bare_pytorch_loop_bit_for_bit(tmp_path, settings):
    data = ToyData(train=RandomImages(42, noisy=False), validation=RandomImages(5, noisy=False))
    config = TrainConfig(**{"epochs": 2, "batch_size": 8, "learning_rate": 0.05, **settings})
    ours, bare = toy_model(dropout=0), toy_model(dropout=0)
    run = cs.train(ours, data, out=tmp_path, config=config)

    weights = [bare[0].weight, bare[5].weight]
    others = [bare[0].bias, bare[1].weight, bare[1].bias, bare[5].bias]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0}]
    if config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=1, fused=True)
    else:
        optimizer = torch.optim.SGD(groups, lr=1, momentum=config.momentum, fused=True)
    order, losses = list(data.train.seen), []
    for step in range(12):  # 42 images: five batches of 8 and one of 2, twice
        start = 42 * (step // 6) + 8 * (step % 6)
        indices = order[start : min(start + 8, 42 * (step // 6 + 1))]
        lr = config.learning_rate
        if config.schedule == "step":
            lr *= 0.3 ** (step // 6)
        elif config.schedule == "cosine":
            warm = 3 if config.warmup_epochs else 0
            lr *= (
                (step + 1) / 3 if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (12 - warm)))
            )
        for group in optimizer.param_groups:
            group["lr"] = lr
        labels = torch.tensor([data.train.labels[i] for i in indices])
        loss = F.cross_entropy(
            bare(data.train.images[indices]), labels, label_smoothing=config.label_smoothing
        )
        optimizer.zero_grad()
        loss.backward()
        if config.clip_grad_norm:
            nn.utils.clip_grad_norm_(bare.parameters(), config.clip_grad_norm)
        optimizer.step()
        losses.append(loss.item())
    assert sorted(order[:42]) == sorted(order[42:84]) == list(range(42))
    assert same_bits(ours, bare)
    assert [record.loss for record in run.steps] == losses
    assert len({record.learning_rate for record in run.steps}) == {"constant": 1, "step": 2}.get(
        config.schedule, 12
    )


def test_records_equal_what_an_observer_computes(tmp_path):
    """Per-step accuracies and the epoch's means, from the steps and by evaluating again."""
    data = ToyData(train=RandomImages(27, noisy=False), validation=RandomImages(9, noisy=False))
    model = toy_model(scores=7)
    run = cs.train(model, data, out=tmp_path / "r", epochs=2, batch_size=8)
    assert [record.step for record in run.steps] == list(range(1, 9))
    assert [record.epoch for record in run.steps] == [1] * 4 + [2] * 4
    sizes = [8, 8, 8, 3]
    for record in run.epochs:
        steps = [step for step in run.steps if step.epoch == record.epoch]
        loss = sum(step.loss * size for step, size in zip(steps, sizes)) / 27
        accuracy = sum(step.accuracy * size for step, size in zip(steps, sizes)) / 27
        assert (record.train_loss, record.train_accuracy) == pytest.approx((loss, accuracy), rel=1e-12)
        assert (record.step, record.learning_rate) == (4 * record.epoch, steps[-1].learning_rate)
        assert record.images_per_second > 0
    scores = model.eval()(data.validation.images)
    labels = torch.tensor(data.validation.labels)
    top5 = (scores.topk(5).indices == labels[:, None]).any(1).double().mean().item()
    assert run.epochs[-1].validation_loss == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-5)
    assert run.validation_accuracy == pytest.approx((scores.argmax(1) == labels).double().mean().item())
    assert run.epochs[-1].validation_top5 == pytest.approx(top5)


def test_a_small_network_with_batch_norm_learns_the_digits(tmp_path):
    digits = load_digits()
    pixels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    samples = [(image, int(label)) for image, label in zip(pixels, digits.target)]
    data = ToyData(samples[:1400], samples[1400:], tuple("0123456789"), "digits")
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16 * 9, 10),
    )  # fmt: skip
    run = cs.train(model, data, out=tmp_path / "r", epochs=5, batch_size=32, learning_rate=0.05)
    assert run.validation_accuracy > 0.9
    assert run.epochs[-1].train_loss < run.epochs[0].train_loss / 3


@pytest.mark.parametrize(("precision", "dtype"), [("amp-bf16", torch.bfloat16), ("amp-fp16", torch.float16)])
def test_autocast_learns_and_keeps_float32_weights_and_the_models_forward(tmp_path, precision, dtype):
    model = toy_model(dropout=0)
    data = ToyData(train=RandomImages(60, noisy=False), validation=RandomImages(40, noisy=False))
    seen = []
    model[5].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    run = cs.train(model, data, out=tmp_path / "r", epochs=4, batch_size=10, precision=precision)
    assert set(seen) == {dtype}
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32, torch.int64}
    assert "forward" not in vars(model)
    assert run.validation_accuracy > 0.8


def test_the_same_seed_gives_the_same_bits_whatever_the_global_generators_say(tmp_path, whole):
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    model = toy_model()
    run = cs.train(model, ToyData(), out=tmp_path / "again", **SETTINGS)
    assert same_bits(model, whole[0])
    assert without_times(run) == without_times(whole[1])
    other = toy_model()
    cs.train(other, ToyData(), out=tmp_path / "other", **SETTINGS, seed=1)
    assert not same_bits(other, whole[0])


def test_generators_modes_and_gradients_are_given_back(tmp_path):
    def draws():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    model = toy_model().eval()
    model[4].train()
    modes = [module.training for module in model.modules()]
    reseed(derived_seed(1))
    expected = draws()
    reseed(derived_seed(1))
    cs.train(model, ToyData(), out=tmp_path / "r", epochs=1)
    assert draws() == expected
    reseed(derived_seed(1))
    with pytest.raises(KeyboardInterrupt):
        cs.train(model, ToyData(), out=tmp_path / "s", epochs=1, progress=StopAt(1))
    assert draws() == expected
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_diverged_run_says_where_and_keeps_the_last_good_checkpoint(tmp_path):
    class Bomb(nn.Module):
        """Multiplies by infinity from its twelfth training step on."""

        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))

        def forward(self, x):
            self.count += self.training
            return x * math.inf if self.count >= 12 else x

    data = ToyData()
    model = nn.Sequential(toy_model(), Bomb())
    run = cs.train(model, data, out=tmp_path / "r", **{**SETTINGS, "log_every": 5})
    assert (run.diverged.step, run.diverged.epoch) == (12, 2)
    assert not math.isfinite(run.diverged.loss)
    assert [record.step for record in run.steps] == list(range(1, 12))
    assert len(run.epochs) == 1
    assert run.weights is None
    assert not (tmp_path / "r" / "final.safetensors").exists()
    kept = load_file(run.checkpoint)
    assert int(kept["model.1.count"]) == 10
    assert all(tensor.isfinite().all() for tensor in kept.values())
    told = read_run(tmp_path / "r")
    assert (told.diverged.step, told.epochs) == (12, run.epochs)
    assert json.loads(run.to_json())["diverged"]["loss"] is None
    resumed = cs.train(nn.Sequential(toy_model(), Bomb()), data, out=tmp_path / "r", resume=True, **SETTINGS)
    assert resumed.diverged.step == 12


def test_without_a_folder_each_run_gets_a_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("Sequential-toy", "Sequential-toy-2"):
        run = cs.train(toy_model(), ToyData(), epochs=1)
        assert run.name == expected
        assert (tmp_path / "runs" / expected / "log.jsonl").exists()


@pytest.mark.slow
def test_a_reference_is_built_for_the_data_and_its_weights_can_be_loaded_again(tmp_path):
    data = ToyData()
    data.train.images, data.validation.images = torch.randn(42, 3, 67, 67), torch.randn(17, 3, 67, 67)
    run = cs.train("alexnet", data, out=tmp_path / "r", epochs=1, batch_size=21)
    assert run.network == "alexnet"
    loaded = cs.load("alexnet", weights=run.best_weights)
    assert loaded.inputs == (1, 3, 67, 67)
    assert loaded.class_names == ("a", "b", "c")
    ours, file = loaded.model.state_dict(), load_file(run.weights)
    assert all(torch.equal(ours[name], file[name]) for name in file)
    given = cs.train(
        cs.load("alexnet", num_classes=3, input_shape=(3, 67, 67)), data, out=tmp_path / "s", epochs=1
    )
    assert given.network == "alexnet"


def test_progress_is_told_the_whole_course(tmp_path):
    class Told(NoProgress):
        def __init__(self):
            self.calls = []

        def start(self, total_steps, first_step, epochs):
            self.calls.append(("start", total_steps, first_step, epochs))

        def step(self, pulse):
            self.calls.append(("step", pulse.step, pulse.epoch, pulse.loss is None))
            assert (pulse.total_steps, pulse.epochs) == (12, 2)
            assert pulse.images_per_second > 0
            assert (pulse.seconds_left == 0) == (pulse.step == 12)

        def epoch(self, record):
            self.calls.append(("epoch", record.epoch))

        def stop(self):
            self.calls.append(("stop",))

    told = Told()
    cs.train(toy_model(), ToyData(), out=tmp_path / "r", epochs=2, batch_size=8, log_every=4, progress=told)
    steps = [("step", n, 1 + (n > 6), n < 4) for n in range(1, 13)]
    assert told.calls == [
        ("start", 12, 0, 2), *steps[:6], ("epoch", 1), *steps[6:], ("epoch", 2), ("stop",)
    ]  # fmt: skip


FORECAST = Forecast("cpu", 32, 2 * GIB, 8 * GIB, "yes", "", None, 0, 10, 1, 0.0)


@pytest.mark.parametrize(
    ("changed", "is_kept"),
    [
        ({}, True), ({"peak_bytes": None}, True), ({"device": "cuda"}, False), ({"fits": "tight"}, False),
        ({"fits": "unknown"}, False), ({"available_bytes": 3 * GIB - 1}, False),
    ],
)  # fmt: skip
def test_memory_is_kept_between_steps_where_a_run_has_room_on_a_cpu(monkeypatch, changed, is_kept):
    library = Mock()
    monkeypatch.setattr("convscope.core.allocator._glibc", lambda: library)
    with _memory_kept(dataclasses.replace(FORECAST, **changed)):
        assert library.mallopt.called == is_kept


class _LargeImages:
    """Images whose first layer's outputs are blocks of 62 MiB."""

    def __init__(self, num_images):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(num_images, 2, 256, 256, generator=generator)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index % 3


def test_the_weights_of_a_run_are_the_same_bits_with_and_without(tmp_path, monkeypatch):
    models = []
    for variable in ("MALLOC_TRIM_THRESHOLD_", "ANOTHER"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            torch.manual_seed(0)
            models.append(nn.Sequential(
                nn.Conv2d(2, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                nn.Linear(64, 3),
            ))  # fmt: skip
            data = ToyData(_LargeImages(32), _LargeImages(4))
            cs.train(models[-1], data, out=tmp_path / variable, epochs=2, batch_size=16, augment="none")
    assert same_bits(*models)
