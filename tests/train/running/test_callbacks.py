import pytest
import torch
from safetensors.torch import load_file

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.train import read_run
from train.toy import ToyData, same_bits, toy_model

SETTINGS = {"epochs": 3, "batch_size": 8, "checkpoint_every": 2}


class _Told:
    def __init__(self, fails_at=None):
        self.calls, self.fails_at = [], fails_at

    def after_step(self, model, step):
        self.calls.append(("step", step, type(model), model.training, model[0].weight.grad is not None))
        if step == self.fails_at:
            raise ZeroDivisionError

    def after_epoch(self, model, epoch):
        self.calls.append(("epoch", epoch, type(model), model.training, model[0].weight.grad is not None))


class _OnlyEpochs:
    def __init__(self):
        self.epochs = []

    def after_epoch(self, model, epoch):
        self.epochs.append(epoch)


def test_callbacks_are_told_of_every_step_and_epoch_and_may_fail(tmp_path):
    whole, told, epochs = toy_model(), _Told(), _OnlyEpochs()
    cs.train(whole, ToyData(), out=tmp_path / "whole", callbacks=[told, epochs], **SETTINGS)
    steps = [("step", n) for n in range(1, 19)]
    expected = [*steps[:6], ("epoch", 1), *steps[6:12], ("epoch", 2), *steps[12:], ("epoch", 3)]
    assert [call[:2] for call in told.calls] == expected
    assert {call[2:] for call in told.calls} == {(type(whole), True, True)}
    assert epochs.epochs == [1, 2, 3]
    failing = _Told(fails_at=11)
    with pytest.raises(ZeroDivisionError):
        cs.train(toy_model(), ToyData(), out=tmp_path / "r", callbacks=[failing], **SETTINGS)
    again, resumed = _Told(), toy_model()
    cs.train(resumed, ToyData(), out=tmp_path / "r", resume=True, callbacks=[again], **SETTINGS)
    assert again.calls[0][:2] == ("step", 11)
    assert [call[:2] for call in failing.calls[:-1] + again.calls] == expected
    assert same_bits(whole, resumed)


def test_a_callback_that_changes_weights_changes_them_before_the_checkpoint(tmp_path):
    class Zero:
        def after_epoch(self, model, epoch):
            with torch.no_grad():
                model[0].weight.zero_()

    run = cs.train(toy_model(), ToyData(), out=tmp_path, epochs=1, callbacks=[Zero()])
    assert not load_file(run.checkpoint)["model.0.weight"].any()


def test_an_object_without_either_method_is_refused(tmp_path):
    message = r"callback of type object; .*after_step\(model, step\) or after_epoch"
    with pytest.raises(ConvscopeError, match=message):
        cs.train(toy_model(), ToyData(), out=tmp_path / "r", callbacks=[object()])
    with pytest.raises(ConvscopeError, match=r"callbacks of type function; expected a list of objects with"):
        cs.train(toy_model(), ToyData(), out=tmp_path / "r", callbacks=lambda model, step: None)
    assert not (tmp_path / "r").exists()


def test_evolution_watches_a_run_and_goes_on_after_a_resumption(tmp_path):
    images = ToyData().validation.images

    def evolution():
        return cs.sight.Evolution(images, units=2, epochs=(1, 2, 3), out=tmp_path / "evolution")

    plain, watched = toy_model(), toy_model()
    cs.train(plain, ToyData(), out=tmp_path / "plain", **SETTINGS)
    with pytest.raises(ZeroDivisionError):
        cs.train(
            toy_model(), ToyData(), out=tmp_path / "r", callbacks=[evolution(), _Told(fails_at=9)], **SETTINGS
        )
    seen = evolution()
    cs.train(watched, ToyData(), out=tmp_path / "r", resume=True, callbacks=[seen], **SETTINGS)
    assert seen.result().epochs == (1, 2, 3)
    assert same_bits(plain, watched)


def test_weights_of_chosen_epochs_are_kept(tmp_path):
    class Copies:
        def __init__(self):
            self.states = {}

        def after_epoch(self, model, epoch):
            self.states[epoch] = {name: value.clone() for name, value in model.state_dict().items()}

    copies = Copies()
    run = cs.train(
        toy_model(), ToyData(), out=tmp_path, keep_epochs=(1, 3, 9), callbacks=[copies], **SETTINGS
    )
    files = sorted(file.name for file in tmp_path.glob("epoch-*"))
    assert files == ["epoch-1.safetensors", "epoch-3.safetensors"]
    for epoch in (1, 3):
        stored = load_file(tmp_path / f"epoch-{epoch}.safetensors")
        assert all(torch.equal(stored[name], value) for name, value in copies.states[epoch].items())
    assert read_run(tmp_path).config == run.config
    cs.train(toy_model(), ToyData(), out=tmp_path, resume=True, **{**SETTINGS, "epochs": 4}, keep_epochs=[4])
    assert (tmp_path / "epoch-4.safetensors").exists()


class _Forgets:
    def after_step(self, model, step):
        model.eval()


def test_a_network_left_in_evaluation_mode_trains_on_in_training_mode(tmp_path):
    plain, looked_at = toy_model(), toy_model()
    cs.train(plain, ToyData(), out=tmp_path / "plain", **SETTINGS)
    cs.train(looked_at, ToyData(), out=tmp_path / "run", callbacks=[_Forgets()], **SETTINGS)
    assert same_bits(plain, looked_at)
