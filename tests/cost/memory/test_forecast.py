"""Memory over a step, against a count by hand and PyTorch's own tracker."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from convscope.cost import cost, forecast
from convscope.tape import TrainingPlan, record


def _block(nbytes):
    return -(-nbytes // 512) * 512


def test_three_layers_by_hand():
    """Linear 256→128, ReLU, linear 128→10, batch 64, plain SGD: everything that is alive at the peak.

    That is where the first layer's last gradient, its bias's, is summed: all four gradients are there, and
    beside them the gradient that came through the ReLU, which has freed its own result.
    """
    net = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    found = cost(net, (64, 256), TrainingPlan("sgd")).forecast
    f = 4
    parameters = sum(map(_block, (256 * 128 * f, 128 * f, 128 * 10 * f, 10 * f)))
    gradients = parameters
    image, hidden, logits = 64 * 256 * f, 64 * 128 * f, 64 * 10 * f
    # The caller holds the logits; backward's caller holds the loss and the one that it starts from.
    held = _block(logits) + _block(f) + _block(f)
    assert found.allocated_peak_bytes == parameters + image + gradients + hidden + held
    assert (found.peak_phase, found.peak_op) == ("backward", "0#1:sum.1")
    assert sum(found.live_by_role.values()) == found.allocated_peak_bytes
    assert found.live_by_role["parameter"] == parameters
    assert found.live_by_role["input"] == image
    assert found.live_by_role["gradient"] == gradients


def test_bytes_follow_pytorchs_tracker():
    """Parameters, gradients, activations and temporaries, in forward and backward (torch's MemTracker)."""

    def make():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3),
            nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16 * 36, 10),
        )  # fmt: skip

    def loss(out):
        return out.square().sum()

    with FakeTensorMode():
        twin = make()
        x = torch.randn(4, 3, 16, 16)
        tracker = MemTracker()
        tracker.track_external(twin, x)
        with tracker:
            out = twin(x)
            loss(out).backward()
        peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]

    def step(model, args, kwargs):
        out = model(*args, **kwargs)
        loss(out).backward()
        return out

    ours = forecast(record(make(), (4, 3, 16, 16), TrainingPlan(), step=step), block_bytes=1)
    assert ours.allocated_peak_bytes == peak


def test_timeline_is_thinned_keeps_the_peak_and_ends_with_what_stays():
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Sigmoid()) for _ in range(60)))
    found = cost(net, (2, 4, 8, 8), TrainingPlan("adam")).forecast
    assert len(found.timeline) < 500
    assert [point.call for point in found.timeline] == sorted({point.call for point in found.timeline})
    assert max(point.allocated_bytes for point in found.timeline) == found.allocated_peak_bytes
    assert {point.phase for point in found.timeline} == {"forward", "loss", "backward", "optimizer"}
    assert [tensor.nbytes for tensor in found.live_at_peak] == sorted(
        (tensor.nbytes for tensor in found.live_at_peak), reverse=True
    )


@pytest.mark.parametrize(("optimizer", "values"), [("sgd", 0), ("sgd-momentum", 1), ("adam", 2)])
def test_optimizer_states_are_there_all_along_without_adams_counters(optimizer, values):
    net = nn.Linear(512, 256)  # 131,072 weights and 256 biases: whole blocks
    found = cost(net, (1024, 512), TrainingPlan(optimizer)).forecast
    assert found.live_by_role.get("optimizer-state", 0) == values * 4 * (512 * 256 + 256)


def test_gradients_that_are_kept_raise_the_forward_pass():
    net = nn.Linear(512, 256)
    dropped = cost(net, (8, 512), TrainingPlan("sgd")).forecast.timeline[0].allocated_bytes
    kept = (
        cost(net, (8, 512), TrainingPlan("sgd", zero_grad_set_to_none=False))
        .forecast.timeline[0]
        .allocated_bytes
    )
    assert kept - dropped == 4 * (512 * 256 + 256)


def test_what_is_not_forecast_is_said():
    found = cost(nn.Linear(4, 2), (2, 4)).forecast
    assert (found.reserved_peak_bytes, found.workspace_bytes, found.context_bytes) == (None, None, None)
    assert [text.split(":")[0] for text in found.not_forecast] == [
        "reserved_peak_bytes", "workspace_bytes", "context_bytes",
    ]  # fmt: skip
