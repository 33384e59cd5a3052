"""``lean=True``: a run to the same bits, from start to end or resumed, and less memory foretold."""

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.train import NoProgress
from convscope.train.telling import memory
from train.toy import ToyData, toy_model

SETTINGS = {"epochs": 2, "batch_size": 8, "accumulation": 2, "ema_decay": 0.9, "clip_grad_norm": 1.0}


@pytest.mark.parametrize("precision", ["fp32", "amp-bf16", "amp-fp16"])
def test_a_lean_run_comes_to_the_same_bits(precision, tmp_path):
    plain, lean = toy_model(), toy_model()
    for name, model in (("plain", plain), ("lean", lean)):
        settings = {**SETTINGS, "precision": precision, "lean": name == "lean"}
        cs.train(model, ToyData(), out=tmp_path / name, **settings)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(lean.state_dict()[name], tensor), name
    assert "forward" not in vars(lean)


def test_a_run_goes_on_lean(tmp_path):
    plain, resumed = toy_model(), toy_model()
    settings = {**SETTINGS, "schedule": "constant"}
    cs.train(plain, ToyData(), out=tmp_path / "plain", **settings)
    cs.train(toy_model(), ToyData(), out=tmp_path / "r", **{**settings, "epochs": 1})
    cs.train(resumed, ToyData(), out=tmp_path / "r", resume=True, lean=True, **settings)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


class _Foretold(NoProgress):
    def forecast(self, forecast):
        self.peak_bytes = forecast.peak_bytes


def test_the_forecast_is_that_of_the_lean_run(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_NEGLIGIBLE", 0)

    def peak(is_lean):
        layers = [[nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()] for _ in range(6)]
        body = [layer for block in layers for layer in block]
        model = nn.Sequential(nn.Conv2d(2, 16, 1), *body, nn.Flatten(), nn.Linear(480, 3))
        told = _Foretold()
        out = tmp_path / str(is_lean)
        cs.train(model, ToyData(), out=out, epochs=1, batch_size=32, progress=told, lean=is_lean)
        return told.peak_bytes

    assert peak(True) < 0.8 * peak(False)
