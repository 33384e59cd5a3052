"""The protocol of measuring on a GPU, on a stand-in for ``torch.cuda`` that notes what is asked of it."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.cost.measured import cuda_device
from convscope.cost.measured import cuda_truth as truth
from convscope.cost.measured.history import History
from convscope.cost.measured.real_step import real_step
from convscope.tape import TrainingPlan


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_cuda_one_line_says_so():
    for call in (
        lambda: truth.measure(nn.ReLU(), (1, 3, 4, 4)),
        cuda_device.require_cuda,
        cuda_device.device_in_use,
    ):
        with pytest.raises(ConvscopeError, match=r"no CUDA device .*; expected an NVIDIA GPU"):
            call()


class _Cuda:
    """Notes calls; every reading of a peak is one higher than the last."""

    def __init__(self):
        self.calls, self.readings = [], 0

    def _snapshot(self):
        return {"segments": [], "device_traces": [[{"action": "snapshot"}] * len(self.calls)]}

    def _record_memory_history(self, enabled, **_):
        self.calls.append(f"history {enabled}")

    def _read(self, name):
        self.readings += 1
        self.calls.append(name)
        return self.readings

    def max_memory_allocated(self):
        return self._read("allocated?")

    def max_memory_reserved(self):
        return self._read("reserved?")

    def memory_allocated(self):
        return 0

    def reset_peak_memory_stats(self):
        self.calls.append("reset")

    def empty_cache(self):
        self.calls.append("empty")

    def synchronize(self): ...

    def current_device(self):
        return 0

    def is_available(self):
        return True

    def get_device_properties(self, _):
        return SimpleNamespace(name="NVIDIA Stand-In", major=9, minor=0, total_memory=2**30)


_PATCHED = [name for name in vars(_Cuda) if not name.startswith("__") and name != "_read"]


@pytest.fixture
def cuda(monkeypatch):
    stand_in = _Cuda()

    @contextmanager
    def on_cpu(model, inputs, plan, device):
        assert device == torch.device("cuda")
        with real_step(model, inputs, plan, torch.device("cpu")) as step:
            run = step.run
            step.run = lambda *phases: (stand_in.calls.append("step"), run(*phases))
            yield step

    for name in _PATCHED:
        for module in (torch.cuda, torch.cuda.memory):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(stand_in, name))
    monkeypatch.setattr(truth, "real_step", on_cpu)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
    monkeypatch.setattr(cuda_device, "_driver", lambda: "580.1")
    monkeypatch.setattr(truth, "preserved_rng", lambda: contextmanager(lambda: (yield))())
    return stand_in


def test_order_of_the_protocol(cuda, monkeypatch):
    seen = {}

    def read(segments, events, since):
        seen.update(segments=segments, num_events=len(events), since=since)
        return History(70, 60, 10, 5, 1, 20)

    monkeypatch.setattr(truth, "read_history", read)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(5))
    model(torch.zeros(1, 3, 6, 6))
    before = [parameter.clone() for parameter in model.parameters()]
    found = truth.measure(model, (2, 3, 6, 6), TrainingPlan())
    phases = ["reset", "allocated?"] * 5
    assert cuda.calls == [
        "empty", "reset", "step", "allocated?", "reserved?",
        "reset", "step", "step", "allocated?", "reserved?",
        "step", *phases,
        "empty", "history all", "step", "step", "step", "history None",
    ]  # fmt: skip
    assert (found.first_allocated_peak_bytes, found.first_reserved_peak_bytes) == (1, 2)
    assert (found.allocated_peak_bytes, found.reserved_peak_bytes) == (3, 4)
    assert found.phase_peaks == {"zero-grad": 5, "forward": 6, "loss": 7, "backward": 8, "optimizer": 9}
    assert found.num_warm_up_steps == 1
    assert (found.workspace_bytes, found.without_workspace_peak_bytes, found.repeated_peak_bytes) == (
        10,
        60,
        70,
    )
    assert (found.cublas_workspace_bytes, found.other_scratch_bytes) == (5, 1)
    assert found.largest_workspace_bytes == 20
    assert found.history_problem == ""
    assert seen == {"segments": [], "num_events": len(cuda.calls) - 1, "since": len(cuda.calls) - 3}
    assert (found.device.name, found.device.architecture, found.device.driver) == (
        "NVIDIA Stand-In",
        "sm90",
        "580.1",
    )
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


def test_a_history_that_cannot_be_read_is_noted(cuda, monkeypatch):
    snapshot = {"segments": [], "device_traces": [[{"action": "segment_map"}]]}
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda: snapshot)
    found = truth.measure(nn.Conv2d(3, 4, 3), (2, 3, 6, 6))
    assert found.workspace_bytes is None
    assert found.without_workspace_peak_bytes is None
    assert found.history_problem == "UnreadableHistory: expandable segments are in use"
    assert cuda.calls[-1] == "history None"


@pytest.mark.parametrize(("num_skipped", "expected"), [(0, 1), (3, 4)])
def test_steps_that_the_loss_scale_skips_are_warm_up(num_skipped, expected, cuda, monkeypatch):
    monkeypatch.setattr(truth, "read_history", lambda *_: History(1, 1, 0, 0, 0, 0))
    skipped = []
    update = truth.RealStep._update

    def skips(self, plan):
        if len(skipped) < num_skipped:
            skipped.append(1)
        else:
            update(self, plan)

    monkeypatch.setattr(truth.RealStep, "_update", skips)
    found = truth.measure(nn.Conv2d(3, 4, 3), (2, 3, 6, 6), TrainingPlan(optimizer="adamw"))
    assert found.num_warm_up_steps == expected


def test_states_that_never_come_do_not_last_for_ever(monkeypatch):
    with real_step(nn.Conv2d(3, 4, 3), (2, 3, 6, 6), TrainingPlan()) as step:
        monkeypatch.setattr(step, "_update", lambda _: None)
        assert truth._run_until_states_stand(step) == 20


@pytest.mark.parametrize("plan", [None, TrainingPlan(optimizer="sgd")])
def test_without_states_nothing_is_waited_for(plan):
    with real_step(nn.Conv2d(3, 4, 3), (2, 3, 6, 6), plan) as step:
        assert truth._run_until_states_stand(step) == 0


def test_an_answer_in_json(cuda, monkeypatch):
    monkeypatch.setattr(truth, "read_history", lambda *_: History(1, 1, 0, 0, 0, 0))
    fields = truth.measure(nn.Conv2d(3, 4, 3), (2, 3, 6, 6), None).to_dict()
    assert fields["device"]["name"] == "NVIDIA Stand-In"
    assert fields["phase_peaks"].keys() == {"forward"}
    assert fields["device"]["settings"]["cudnn.benchmark"] == "False"
