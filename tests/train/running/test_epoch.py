"""Measurements inside epochs: they change nothing, are of that moment, and survive kills."""

import copy
import signal

import pytest
import torch
from torch.nn import functional as F

import convscope as cs
from convscope.train import read_run
from convscope.train.running.epoch import measured_within
from train.toy import RandomImages, ToyData, same_bits, toy_model

SETTINGS = {"epochs": 2, "batch_size": 8}
DATA = ToyData(train=RandomImages(42), validation=RandomImages(17, noisy=False))


class _Kept:
    def __init__(self):
        self.models = {}

    def after_step(self, model, step):
        self.models[step] = copy.deepcopy(model).eval()


def test_measurements_are_of_the_moments_weights_and_change_none(tmp_path):
    plain, measured, kept = toy_model(), toy_model(), _Kept()
    cs.train(plain, DATA, out=tmp_path / "plain", **SETTINGS)
    run = cs.train(measured, DATA, out=tmp_path / "run", evaluate_every=2, callbacks=[kept], **SETTINGS)
    assert same_bits(plain, measured)
    # Six steps an epoch: the sixth and the twelfth are measured as epochs.
    assert [(each.step, each.epoch) for each in run.measurements] == [(2, 1), (4, 1), (8, 2), (10, 2)]
    assert [step for step, _ in run.errors] == [2, 4, 6, 8, 10, 12]
    pixels = torch.stack([DATA.validation[i][0] for i in range(17)])
    labels = torch.tensor(DATA.validation.labels)
    for each in run.measurements:
        scores = kept.models[each.step](pixels)
        assert each.validation_loss == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-5)
        assert each.validation_accuracy == (scores.argmax(1) == labels).double().mean().item()
    assert read_run(tmp_path / "run").measurements == run.measurements


def test_a_resumed_run_has_every_measurement_once(tmp_path):
    whole = cs.train(toy_model(), DATA, out=tmp_path / "whole", evaluate_every=2, **SETTINGS)

    class _Stops:
        def after_step(self, model, step):
            if step == 9:
                raise ZeroDivisionError

    settings = {"out": tmp_path / "run", "evaluate_every": 2, "checkpoint_every": 5, **SETTINGS}
    with pytest.raises(ZeroDivisionError):
        cs.train(toy_model(), DATA, callbacks=[_Stops()], **settings)
    resumed = cs.train(toy_model(), DATA, resume=True, **settings)
    assert resumed.measurements == whole.measurements
    assert resumed.errors == whole.errors


def test_a_measurement_that_a_kill_came_before_is_made_up_for(tmp_path, monkeypatch):
    whole = cs.train(toy_model(), DATA, out=tmp_path / "whole", evaluate_every=2, **SETTINGS)

    def killed(training):
        if training.position.step == 4:
            raise ZeroDivisionError
        return measured_within(training)

    settings = {"out": tmp_path / "run", "evaluate_every": 2, "checkpoint_every": 4, **SETTINGS}
    monkeypatch.setattr("convscope.train.running.loop.measured_within", killed)
    with pytest.raises(ZeroDivisionError):  # after the checkpoint of step 4, before its measurement
        cs.train(toy_model(), DATA, **settings)
    monkeypatch.undo()
    resumed = cs.train(toy_model(), DATA, resume=True, **settings)
    assert resumed.measurements == whole.measurements
    assert read_run(tmp_path / "run").measurements == whole.measurements


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal: processes of a parallel test run ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_stop_leaves_the_measurement_for_the_resumption(tmp_path):
    class _Interrupts:
        def after_step(self, model, step):
            if step == 8:
                signal.raise_signal(signal.SIGINT)

    settings = {"out": tmp_path / "run", "evaluate_every": 4, **SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        cs.train(toy_model(), DATA, callbacks=[_Interrupts()], **settings)
    assert [each.step for each in read_run(tmp_path / "run").measurements] == [4]
    resumed = cs.train(toy_model(), DATA, resume=True, **settings)
    assert [each.step for each in resumed.measurements] == [4, 8]
