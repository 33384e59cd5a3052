"""The forecast beside a real step, and what is said where there is no such device."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cases import ResidualNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.cost.measured.verification import verify
from convscope.tape import TrainingPlan

NET = (4, 3, 17, 13)


def test_the_cpu_by_hand():
    """Two linear layers without bias in inference: three tensors and two weights are alive at most."""
    net = nn.Sequential(nn.Linear(30, 40, bias=False), nn.Linear(40, 50, bias=False))
    found = verify(net, (7, 30), None, device="cpu")
    assert found.measured_bytes == 4 * (30 * 40 + 40 * 50 + 7 * (30 + 40 + 50))
    assert found.forecast_bytes == found.measured_bytes
    assert found.error == found.tensors_error == 0
    assert found.is_in_range
    assert found.measured_reserved_bytes is found.forecast_reserved_bytes is found.reserved_error is None
    assert [(p.phase, p.measured_bytes, p.error) for p in found.phases] == [
        ("forward", found.measured_bytes, 0.0)
    ]


def test_a_training_step_on_the_cpu():
    net = ResidualNet()
    before = state_of(net)
    found = verify(net, NET, TrainingPlan("adamw", foreach=False), device="cpu")
    assert state_of(net) == before
    assert abs(found.tensors_error) < 1e-3
    assert found.error == found.forecast_bytes / found.measured_bytes - 1
    assert found.measured_bytes - found.measured_tensors_bytes <= sum(found.inside_operators.values())
    assert [phase.phase for phase in found.phases] == ["forward", "loss", "backward", "optimizer"]
    assert max(phase.measured_bytes for phase in found.phases) == found.measured_bytes
    assert max(phase.forecast_bytes for phase in found.phases) == found.forecast_bytes
    assert found.versions["PyTorch"] == torch.__version__
    assert '"tensors_error"' in found.to_json()
    assert "memory of a real step" in str(found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_one_line_says_so():
    with pytest.raises(ConvscopeError, match="no CUDA device") as raised:
        verify(ResidualNet(), NET, device="cuda")
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_training_step_on_cuda():
    found = verify(ResidualNet(), NET, device="cuda")
    assert found.measured_reserved_bytes >= found.measured_bytes
    assert {phase.phase for phase in found.phases} == {"forward", "loss", "backward", "optimizer"}
    assert "CUDA" in found.versions


def test_unknown_devices_are_refused():
    with pytest.raises(ConvscopeError, match="device 'tpu'"):
        verify(nn.ReLU(), (1, 3), None, device="tpu")


def test_phases_peaks_are_exact_in_long_steps():
    """The loss's peak, a map that is gone again before it ends, is high for one call among a thousand."""

    class Long(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            for _ in range(300):
                x = (x * self.scale).sin()
            return x

    plan = TrainingPlan("sgd", foreach=False, loss=lambda y: y.mean() + y.detach().exp().sum())
    found = verify(Long(), (5, 20), plan, device="cpu")
    assert found.inside_operators == {}
    assert [phase.error for phase in found.phases] == [0.0] * 4


@pytest.mark.parametrize(
    ("error", "written"), [(-0.00001, " 0.00 %"), (0.0, " 0.00 %"), (-0.01, "−1.00 %"), (0.0312, "+3.12 %")]
)
def test_errors_have_one_spelling_of_signs(error, written):
    found = replace(verify(nn.ReLU(), (2, 3), None, device="cpu"), error=error, phases=())
    text = str(found)
    assert written in text
    assert "-0" not in text
