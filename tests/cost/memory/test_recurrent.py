"""Recurrent layers, whose operators' reserves a recording doesn't show, are named."""

import pytest
from torch import nn

from convscope.cost.memory.forecast import forecast
from convscope.tape import TrainingPlan, record


class Reader(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.inner = nn.ModuleDict({"layer": layer})
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        found = self.inner["layer"](x)
        return self.head(found if not isinstance(found, tuple) else found[0])


def _told(layer, shape, device):
    found = forecast(record(Reader(layer), shape, TrainingPlan(), device=device))
    return [text for text in found.not_forecast if "recurrent" in text]


def test_a_fused_layer_is_named_with_its_operator():
    for device, library in (("cuda", "cuDNN"), ("cpu", "oneDNN")):
        (text,) = _told(nn.LSTM(8, 8), (3, 2, 8), device)
        assert text.startswith("allocated_peak_bytes: too low")
        assert library in text
        assert text.endswith("inner.layer (mkldnn_rnn_layer)")


@pytest.mark.parametrize("layer", [nn.GRU(8, 8), nn.RNN(8, 8), nn.GRUCell(8, 8)])
def test_a_layer_that_cuda_runs_as_one_operator_is_named(layer):
    shape = (2, 8) if "Cell" in type(layer).__name__ else (3, 2, 8)
    (text,) = _told(layer, shape, "cuda")
    assert text.endswith("run as one operator on a GPU: inner.layer")
    assert _told(layer, shape, "cpu") == []


def test_other_networks_say_nothing_of_it():
    assert _told(nn.Linear(8, 8), (2, 8), "cuda") == []
