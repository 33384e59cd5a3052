import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.networks import Extras
from convscope.train.config import TrainConfig
from convscope.train.keeping.checkpoint import (
    Identity,
    Position,
    load_checkpoint,
    read_position,
    save_checkpoint,
    save_weights,
)
from convscope.train.learning.learner import Learner
from train.toy import same_bits, toy_model

IDENTITY = Identity("Net", "toy", 42, 6, ["a", "b", "c"], {"seed": 0, "learning_rate": 0.1})
POSITION = Position(
    epoch=1, batch=3, step=8, epoch_loss=1 / 3, epoch_correct=5, epoch_images=12, best_accuracy=0.7
)


def _learner(model, **settings):
    return Learner(model, model, TrainConfig(**settings), torch.device("cpu"))


def _trained(steps=3, **settings):
    learner = _learner(toy_model(), **settings)
    for number in range(1, steps + 1):
        learner.optimizer.zero_grad()
        learner.backward(learner.model(torch.randn(4, 2, 6, 5)).square().sum())
        learner.update(number)
    return learner


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def _states(learner):
    """Every tensor that training depends on, by part and name."""
    parts = {"model": learner.model.state_dict()}
    parts |= {f"optimizer.{n}": state for n, state in learner.optimizer.state_dict()["state"].items()}
    return parts | {name: part.state_dict() for name, part in learner.stateful.items()}


@pytest.mark.parametrize(
    "settings",
    [{"optimizer": name} for name in ("sgd", "sgd-momentum", "adam", "adamw", "rmsprop")]
    + [{"ema_decay": 0.9}, {"precision": "amp-fp16"}, {"precision": "amp-fp16", "optimizer": "adam"}],
)
def test_a_checkpoint_restores_every_tensor_and_the_place_bit_for_bit(path, settings):
    learner = _trained(**settings)
    save_checkpoint(path, learner, POSITION, IDENTITY)
    other = _trained(steps=1, **settings)
    assert not same_bits(other.model, learner.model)
    assert load_checkpoint(path, other, IDENTITY) == POSITION
    assert read_position(path) == POSITION
    states, others = _states(learner), _states(other)
    assert states.keys() == others.keys()
    for part, state in states.items():
        assert state.keys() == others[part].keys()
        assert all(
            others[part][key].dtype == value.dtype and torch.equal(others[part][key], value)
            for key, value in state.items()
            if value is not None
        )


def test_before_the_first_step_there_is_no_optimizer_state(path):
    save_checkpoint(path, _trained(steps=0), Position(), IDENTITY)
    other = _trained(steps=0)
    load_checkpoint(path, other, IDENTITY)
    assert not other.optimizer.state


def test_a_run_without_an_average_does_not_fit_one_with_it(path):
    save_checkpoint(path, _trained(), POSITION, IDENTITY)
    _refused(path, "doesn't fit the network in its average: it lacks 0.weight, .* and 3 more", ema_decay=0.9)


def test_unusual_tensors_survive(path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
            self.tied = self.conv
            self.brief = nn.Parameter(torch.randn(3).bfloat16())
            self.register_buffer("empty", torch.empty(0, 4))
            self.register_buffer("flag", torch.tensor(True))
            self.register_buffer("view", torch.arange(12.0).view(3, 4).t())
            self.register_buffer("spread", torch.zeros(1).expand(5).contiguous())

    model, other = Odd(), Odd()
    model.flag.fill_(False)
    save_checkpoint(path, _learner(model), Position(), IDENTITY)
    load_checkpoint(path, _learner(other), IDENTITY)
    assert same_bits(model, other)
    assert other.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert other.tied.weight is other.conv.weight


def _refused(path, match, model=None, identity=IDENTITY, frozen=False, **settings):
    """Load into a fresh network, check the error, and that nothing changed."""
    model = model or toy_model()
    if frozen:
        model[0].requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learner = _learner(model, **settings)
    with pytest.raises(ConvscopeError, match=match):
        load_checkpoint(path, learner, identity)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not learner.optimizer.state


def test_another_network_is_refused_and_the_keys_are_named(path):
    save_checkpoint(path, _trained(), POSITION, IDENTITY)
    wrong_head = r"checkpoint.safetensors' doesn't fit.* 5.weight in it is float32 3×48, not float32 4×48"
    _refused(path, wrong_head, toy_model(scores=4))
    _refused(path, "has 1.running_mean too many", toy_model(norm=False))
    _refused(path, "it lacks 6.weight, it lacks 6.bias", toy_model().append(nn.Linear(3, 3)))
    _refused(path, "and 8 more differences", nn.Linear(2, 2))
    _refused(path, "float32.*not float64", toy_model().double())


def test_another_run_is_refused_and_the_settings_are_named(path):
    save_checkpoint(path, _trained(), POSITION, IDENTITY)
    changed = dataclasses.replace(IDENTITY, config={"seed": 1, "learning_rate": 0.1})
    _refused(path, "of another run: seed was 0; expected seed 1", identity=changed)
    _refused(path, "num_images was 42", identity=dataclasses.replace(IDENTITY, num_images=41))
    _refused(path, "classes was", identity=dataclasses.replace(IDENTITY, classes=["a"]))
    load_checkpoint(path, _trained(), dataclasses.replace(IDENTITY, network="Other"))


def test_other_frozen_parameters_are_refused(path):
    save_checkpoint(path, _trained(), POSITION, IDENTITY)
    _refused(path, "has optimizer.0.* of shape .*freeze the same", frozen=True)


def test_other_frozen_parameters_make_another_run(path):
    frozen = dataclasses.replace(IDENTITY, frozen=["0.weight"])
    save_checkpoint(path, _trained(), POSITION, frozen)
    assert load_checkpoint(path, _trained(), frozen) == POSITION
    with pytest.raises(ConvscopeError, match=r"frozen was \['0.weight'\]; expected frozen \[\]"):
        load_checkpoint(path, _trained(), dataclasses.replace(IDENTITY, frozen=[]))
    save_checkpoint(path, _trained(), POSITION, IDENTITY)  # an older one, which doesn't say
    assert load_checkpoint(path, _trained(), frozen) == POSITION


def test_every_kind_of_damage_is_noticed(path):
    save_checkpoint(path, _trained(), POSITION, IDENTITY)
    whole = path.read_bytes()
    for kept in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        _refused(path, "can't be read")
    path.write_bytes(whole + b"x")
    _refused(path, "can't be read")
    path.write_bytes(whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:])
    _refused(path, "is damaged")
    path.write_bytes(b"\x80\x04K\x01.")  # a pickle
    _refused(path, "can't be read")


def test_a_file_of_weights_is_not_a_checkpoint_and_an_absent_file_is_named(path):
    save_file({"weight": torch.zeros(2)}, path)
    _refused(path, "isn't a training checkpoint of convscope")
    path.unlink()
    _refused(path, "can't be read")


def test_a_checkpoint_of_another_version_is_named(path, monkeypatch):
    monkeypatch.setattr("convscope.train.keeping.checkpoint._FORMAT", "convscope training checkpoint 1")
    save_checkpoint(path, _trained(), POSITION, IDENTITY)
    monkeypatch.undo()
    _refused(path, r"is a 'convscope training checkpoint 1', of another version .*expected a '.* 2'")


def test_a_header_of_another_version_is_named(path, monkeypatch):
    monkeypatch.setattr("dataclasses.asdict", lambda value: {"stages": 3})
    save_checkpoint(path, _trained(), POSITION, IDENTITY)
    monkeypatch.undo()
    _refused(path, "a header that can't be understood .*stages")


def test_saved_weights_have_plain_names(path):
    model = _trained().model
    save_weights(path, model, Extras(class_names=("a", "b")))
    loaded = load_file(path)
    other = toy_model()
    other.load_state_dict(loaded)
    assert same_bits(model, other)


def test_a_failed_write_keeps_the_old_file(path, monkeypatch):
    save_checkpoint(path, _trained(), POSITION, IDENTITY)
    whole = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("convscope.train.keeping.checkpoint.save_file", full)
    monkeypatch.setattr("convscope.networks.saved.save_file", full)
    with pytest.raises(ConvscopeError, match="No space left on device"):
        save_checkpoint(path, _trained(), POSITION, IDENTITY)
    with pytest.raises(ConvscopeError, match="No space left on device"):
        save_weights(path, toy_model(), Extras())
    assert path.read_bytes() == whole
    assert [file.name for file in path.parent.iterdir()] == [path.name]
