"""Training that begins with weights from a file, in whole or in part."""

import pytest
import torch
from safetensors.torch import load_file

import convscope as cs
from convscope.core.errors import ConvscopeError
from train.toy import ToyData

SETTINGS = {"epochs": 1, "batch_size": 21, "learning_rate": 0.01}


def _data():
    data = ToyData()
    for split in (data.train, data.validation):
        split.images = torch.randn(len(split), 3, 67, 67)
    return data


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    out = tmp_path_factory.mktemp("first")
    small = cs.load("zfnet", width=0.05, num_classes=3, input_shape=(3, 67, 67))
    return cs.train(small, _data(), out=out, **SETTINGS).weights


def test_a_network_goes_on_from_a_file_of_weights(weights, tmp_path):
    class First:
        def __init__(self):
            self.before = {}

        def after_step(self, model, step):
            self.before.setdefault(step, {n: p.detach().clone() for n, p in model.named_parameters()})

    loaded, stored, first = cs.load("zfnet", weights=weights), load_file(weights), First()
    assert all(torch.equal(value, stored[name]) for name, value in loaded.model.state_dict().items())
    run = cs.train(loaded, _data(), out=tmp_path, callbacks=[first], **{**SETTINGS, "learning_rate": 1e-9})
    assert run.network == "zfnet"
    for name, value in first.before[1].items():
        torch.testing.assert_close(value, stored[name], rtol=0, atol=1e-6)


def test_what_is_frozen_stays_and_the_rest_learns(weights, tmp_path):
    loaded = cs.load("zfnet", weights=weights)
    loaded.model.requires_grad_(False)
    head = list(loaded.model.parameters())[-2:]
    for parameter in head:
        parameter.requires_grad_(True)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    cs.train(loaded, _data(), out=tmp_path, **SETTINGS, ema_decay=0.5)
    after = loaded.model.state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved == list(before)[-2:]
    assert [p.requires_grad for p in loaded.model.parameters()] == [False] * (len(before) - 2) + [True] * 2


def test_a_head_of_too_few_classes_is_one_line(weights, tmp_path):
    data = ToyData(classes=("a", "b", "c", "d"))
    data.train.images, data.validation.images = torch.randn(42, 3, 67, 67), torch.randn(17, 3, 67, 67)
    message = r"gives 3 scores; expected at least 4, one for each class; build it with num_classes=4"
    with pytest.raises(ConvscopeError, match=message) as caught:
        cs.train(cs.load("zfnet", weights=weights), data, out=tmp_path / "r", **SETTINGS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()
