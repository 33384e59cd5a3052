"""Every state of a run is the same bits after it was interrupted in the middle of an epoch and resumed."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import convscope as cs
from convscope.core.errors import ConvscopeError
from train.toy import RandomImages, StopAt, ToyData, same_bits, toy_model

SETTINGS = {"epochs": 4, "batch_size": 12, "learning_rate": 0.05, "checkpoint_every": 2, "log_every": 3}
STATES = {
    "adam": {"optimizer": "adam", "learning_rate": 0.01},
    "rmsprop": {"optimizer": "rmsprop", "learning_rate": 0.003},
    "nesterov": {"nesterov": True},
    "sgd": {"optimizer": "sgd"},
    "accumulation": {"accumulation": 3},
    "average": {"ema_decay": 0.9},
    "plateau": {"schedule": "plateau", "patience_epochs": 1, "step_factor": 0.3},
    "fp16": {"precision": "amp-fp16"},
    "renormalised": {"renormalise_radius": 0.1},
    "synchronised": {"sync_batch_norm": True},
    "all": {
        "optimizer": "adamw", "learning_rate": 0.01, "accumulation": 2, "ema_decay": 0.9,
        "schedule": "plateau", "patience_epochs": 1, "warmup_epochs": 0.5, "precision": "amp-fp16",
        "clip_grad_norm": 0.5, "renormalise_radius": 0.15, "sync_batch_norm": True, "augment": "shift",
    },
}  # fmt: skip


class _Overflow(nn.Module):
    """Multiplies its input so that gradients overflow in float16, but not the output, in some steps."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.count += self.training
        return _Exploding.apply(x) if self.training and int(self.count) in (2, 3, 9) else x


class _Exploding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 1e30


def _model():
    return nn.Sequential(*toy_model(), _Overflow())


def _records(run):
    return [
        (
            r.step,
            r.train_loss,
            r.validation_loss,
            r.average_loss,
            r.average_accuracy,
            r.learning_rate,
            r.skipped_steps,
        )
        for r in run.epochs
    ]


@pytest.mark.parametrize("name", STATES)
def test_interrupted_in_an_epoch_and_resumed_it_ends_with_the_same_bits(tmp_path, name):
    settings = {**SETTINGS, **STATES[name]}
    make = _model if "fp16" in str(settings) else toy_model
    whole, resumed = make(), make()
    run = cs.train(whole, ToyData(), out=tmp_path / "whole", **settings)
    for at in (3, 7):  # of 16; epochs have 4 steps
        with pytest.raises(KeyboardInterrupt):
            cs.train(make(), ToyData(), out=tmp_path / "r", resume=True, progress=StopAt(at), **settings)
    again = cs.train(resumed, ToyData(), out=tmp_path / "r", resume=True, **settings)
    assert same_bits(whole, resumed)
    assert _records(run) == _records(again)
    for file in ("checkpoint", "average") if "ema_decay" in settings else ("checkpoint",):
        ours, theirs = (load_file(tmp_path / n / f"{file}.safetensors") for n in ("r", "whole"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert [type(module) for module in resumed.modules()] == [type(module) for module in make().modules()]
    if "fp16" in str(settings):
        assert run.epochs[-1].skipped_steps == 3


def test_a_plateau_lowers_the_rate_when_the_error_no_longer_falls(tmp_path):
    """Validation labels that can't be learnt: the error is constant after the first epoch."""
    data = ToyData()
    data.validation.images[:] = 0
    data.validation.noisy = False
    settings = {**SETTINGS, "epochs": 6, "schedule": "plateau", "patience_epochs": 2, "step_factor": 0.5}
    run = cs.train(toy_model(dropout=0), data, out=tmp_path / "r", **settings, warmup_epochs=1)
    errors = [1 - record.validation_accuracy for record in run.epochs]
    rates, rate, best, waited = [], 0.05, 2.0, 0
    for number, error in enumerate(errors):
        rates.append(rate)
        waited = 0 if error < best or number == 0 else waited + 1
        best = min(best, error)
        if waited == 2:
            rate, waited = rate / 2, 0
    assert [record.learning_rate for record in run.epochs] == pytest.approx(rates)
    assert rates[-1] < 0.05


@pytest.mark.parametrize("accumulation", [2, 3])
def test_accumulated_runs_equal_whole_ones_without_norms(tmp_path, accumulation):
    weights = []
    for count in (1, accumulation):
        model = toy_model(norm=False, dropout=0).double()
        run = cs.train(model, ToyData(), out=tmp_path / str(count), **SETTINGS, accumulation=count)
        weights.append((model.state_dict(), run))
    for name, value in weights[0][0].items():
        torch.testing.assert_close(value, weights[1][0][name], rtol=0, atol=1e-12)
    accuracies = [[step.accuracy for step in run.steps] for _, run in weights]
    assert accuracies[0] == accuracies[1]


def test_renormalised_filters_stay_within_the_radius(tmp_path):
    class Largest:
        def __init__(self):
            self.seen = []

        def after_step(self, model, step):
            self.seen.append(float(model[0].weight.detach().square().mean((1, 2, 3)).sqrt().max()))

    largest, plain = Largest(), Largest()
    cs.train(toy_model(), ToyData(), out=tmp_path / "plain", callbacks=[plain], **SETTINGS)
    settings = {**SETTINGS, "renormalise_radius": 0.1, "callbacks": [largest]}
    cs.train(toy_model(), ToyData(), out=tmp_path / "r", **settings)
    assert min(plain.seen) > 0.11
    assert max(largest.seen) <= 0.1 * (1 + 1e-5)


def test_micro_batches_of_one_image_and_a_missing_convolution_are_refused(tmp_path):
    with pytest.raises(ConvscopeError, match="batch_size=12 in 7 micro-batches on 1 process"):
        cs.train(toy_model(), ToyData(), out=tmp_path / "r", **SETTINGS, accumulation=7)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(60, 3))
    with pytest.raises(ConvscopeError, match="convolution"):
        cs.train(flat, ToyData(), out=tmp_path / "r", **SETTINGS, renormalise_radius=0.1)
    assert not (tmp_path / "r").exists()


def test_an_accumulated_batch_norm_moves_as_far_as_one_batch(tmp_path):
    """Two equal halves: their statistics are the batch's, so the running mean is that of one update."""
    data = ToyData(train=RandomImages(12, noisy=False))
    data.train.images[:] = data.train.images[:1]
    found = []
    for accumulation in (1, 2, 3):
        model = toy_model(dropout=0)
        settings = {"epochs": 1, "batch_size": 12, "learning_rate": 1e-12, "accumulation": accumulation}
        cs.train(model, data, out=tmp_path / str(accumulation), **settings)
        assert model[1].momentum == 0.1
        found.append(model[1].running_mean.clone())
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_frozen_parts_stay_and_come_back_as_they_were(tmp_path):
    model = toy_model()
    frozen = cs.norm.freeze(model)
    model[5].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cs.train(model, ToyData(), out=tmp_path, **SETTINGS)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"0.weight", "0.bias", "5.bias"}
    assert cs.norm.is_frozen(model[1])
    assert not model[5].weight.requires_grad
    frozen.undo()
    assert [module.training for module in model.modules()] == [True] * 7
