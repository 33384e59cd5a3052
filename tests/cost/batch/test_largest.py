"""The largest batch that fits: by hand, and against recording and replaying every batch."""

import pytest
import torch
from torch import nn

import convscope as cs
from cases import ResidualNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.cost.batch.bounds import MARGIN_SHARE
from convscope.cost.batch.largest import largest_batch
from convscope.cost.batch.search import WINDOW
from convscope.cost.memory.constants import gpu_figures
from convscope.cost.memory.replay import replay
from convscope.cost.memory.schedule import schedule_of
from convscope.cost.memory.workspace import Workspace, workspaces
from convscope.tape import TrainingPlan, record

MIB = 2**20
T4_CONTEXT = 141_426_688  # its lower and its upper end, constants.json


def test_by_hand_on_cpu():
    """Weights of 4 MiB; 4 KiB of input and 4 KiB of output per item."""
    net = nn.Linear(1024, 1024, bias=False)
    found = largest_batch(net, (1, 1024), "64MiB", None, device="cpu")
    assert found.likely.batch == found.optimistic.batch == (64 - 4) * MIB // 8192
    assert found.likely.bytes_per_item == 8192
    assert found.likely.allocated_peak_bytes == 64 * MIB
    assert (found.likely.stops_at, found.likely.multiple_of_8) == (7681, 7680)
    assert found.safe.batch == (64 * MIB - round(0.02 * 64 * MIB) - 4 * MIB) // 8192
    assert found.needed_bytes == 4 * MIB + 8192
    assert found.gpu is None
    assert found.likely.reserved_peak_bytes is None


def test_why_no_larger_batch_was_tried():
    """As above: 60 MiB of batch under the likely and the optimistic answer, 58.7 MiB under the safe one."""
    net = nn.Linear(1024, 1024, bias=False)

    def caps(max_batch):
        found = largest_batch(net, (1, 1024), "64MiB", None, device="cpu", max_batch=max_batch)
        return [(each.batch, each.bound_by) for each in (found.safe, found.likely, found.optimistic)]

    safe = (64 * MIB - round(0.02 * 64 * MIB) - 4 * MIB) // 8192
    assert caps(65536) == [(safe, "tensors"), (7680, "tensors"), (7680, "tensors")]
    assert caps(7600) == [(safe, "tensors"), (7600, "max_batch"), (7600, "max_batch")]
    assert caps(7680) == [(safe, "tensors"), (7680, "tensors"), (7680, "tensors")]
    assert caps(100) == [(100, "max_batch")] * 3


def test_the_likely_answer_is_capped_by_the_optimistic_one():
    """Segments of 2 MiB on CUDA end the optimistic answer while the tensors alone would go further."""
    net = nn.Linear(1024, 1024, bias=False)
    found = largest_batch(net, (1, 1024), 203 * MIB + T4_CONTEXT, None, gpu="T4")
    assert found.optimistic.bound_by == "tensors"
    assert (found.likely.batch, found.likely.bound) == (found.optimistic.batch, found.optimistic.batch)
    assert found.likely.bound_by == "more hopeful answer"


def test_by_hand_on_cuda():
    """Segments: 20 MiB with the weights and cuBLAS's workspace; input and output in steps of 2 MiB."""
    net = nn.Linear(1024, 1024, bias=False)
    found = largest_batch(net, (1, 1024), 200 * MIB + T4_CONTEXT, None, gpu="T4").optimistic
    assert found.batch == 90 * MIB // 4096
    assert found.reserved_peak_bytes == 200 * MIB
    assert found.capacity_bytes == 200 * MIB
    # One item more needs 2 MiB more for each of the two.
    assert (
        largest_batch(net, (1, 1024), 203 * MIB + T4_CONTEXT, None, gpu="T4").optimistic.batch == found.batch
    )
    assert largest_batch(net, (1, 1024), 204 * MIB + T4_CONTEXT, None, gpu="T4").optimistic.batch == 92 * 256


class Small(nn.Module):
    """Maps of 64 KiB to 256 KiB per image; a few MiB per batch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2))
        self.head = nn.Linear(16 * 32 * 32, 64)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).flatten(1))


class Turning(nn.Module):
    """From 24 images on it keeps another map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return (y.sigmoid().tanh() if x.shape[0] >= 24 else y.sigmoid()).mean((2, 3))


class AllPairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        flat = (x * self.scale).flatten(1)
        return (flat @ flat.t()).unsqueeze(2).expand(-1, -1, 4096).sigmoid().mean(2)


def _every_batch(net, rest, memory, plan, gpu, most):
    """Which batches fit, under the three assumptions, each from a recording of its own."""
    figures = gpu_figures(gpu)
    low_context, high_context = figures.context_range_bytes
    fitting = ([], [], [])
    for batch in range(1, most + 1):
        tape = record(net, (batch, *rest), plan)
        schedule, (low, high) = schedule_of(tape), workspaces(tape, figures)
        sizes = (*schedule.sizes, *high.convolution_bytes)
        required = schedule.__class__(**{**vars(schedule), "sizes": sizes, "kernels": 0})
        trials = (
            (schedule, low, low_context),
            (schedule, high, (low_context + high_context) // 2),
            (
                required,
                Workspace(low.cublas_bytes, low.cublaslt_bytes),
                high_context + round(MARGIN_SHARE * memory),
            ),
        )
        for fits, (events, workspace, taken) in zip(fitting, trials, strict=True):
            if replay(events, capacity=memory - taken, workspace=workspace).full is None:
                fits.append(batch)
    optimistic = max(fitting[0], default=0)
    likely = max((batch for batch in fitting[1] if batch <= optimistic), default=0)
    safe = [b for b in fitting[2] if b <= likely and {*range(max(1, b - WINDOW), b)} <= {*fitting[2]}]
    return max(safe, default=0), likely, optimistic


@pytest.mark.parametrize(
    "room", [40, pytest.param(75, marks=pytest.mark.slow), pytest.param(110, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("plan", "gpu"),
    [
        pytest.param(TrainingPlan("adamw"), "T4", marks=pytest.mark.slow),
        (TrainingPlan("sgd"), "A100"),
        (None, "T4"),
    ],
    ids=str,
)
def test_against_every_batch(plan, gpu, room):
    net, rest = Small(), (3, 64, 64)
    context = gpu_figures(gpu).context_range_bytes[0]
    memory = room * MIB + context
    found = largest_batch(net, (1, *rest), memory, plan, gpu=gpu, max_batch=56)
    answers = tuple(each.batch for each in (found.safe, found.likely, found.optimistic))
    assert answers == _every_batch(net, rest, memory, plan, gpu, 56)
    assert all(each.exact for each in (found.safe, found.likely, found.optimistic))
    assert found.recorded_because == ""
    assert {each for each in answers if each > 1} <= {*found.checked}


@pytest.mark.slow
@pytest.mark.parametrize("net", [Turning(), AllPairs()], ids=["turning", "all pairs"])
def test_networks_without_a_family_are_recorded_at_every_batch(net):
    rest, memory = (3, 32, 32), 30 * MIB + T4_CONTEXT
    plan = TrainingPlan("sgd")
    found = largest_batch(net, (1, *rest), memory, plan, gpu="T4", max_batch=48)
    assert found.recorded_because
    assert found.checked == ()
    answers = tuple(each.batch for each in (found.safe, found.likely, found.optimistic))
    assert answers == _every_batch(net, rest, memory, plan, "T4", 48)
    assert 0 < answers[1] < 48


def test_what_binds_by_hand():
    """Weights of 64 MiB beside 16 KiB of input and output per item."""
    net = nn.Linear(4096, 4096, bias=False)

    def binds(memory, plan):
        return largest_batch(net, (1, 4096), memory + T4_CONTEXT, plan, gpu="T4").binds

    adam = binds(400 * MIB, TrainingPlan("adam"))
    assert (adam.kind, adam.phase) == ("optimizer", "optimizer")
    # Weights, gradient, two states and a copy, whatever the batch, and the loss.
    assert adam.fixed_bytes == 5 * 64 * MIB + 512
    assert adam.growing_bytes == adam.batch * 2 * 16384
    plain = binds(200 * MIB, TrainingPlan("sgd"))
    assert (plain.kind, plain.phase) == ("parameters", "backward")
    assert plain.live_by_role["parameter"] == plain.live_by_role["gradient"] == 64 * MIB
    inference = binds(1000 * MIB, None)
    assert (inference.kind, inference.phase, inference.fixed_bytes) == ("activations", "forward", 64 * MIB)


def test_the_users_batch_doesnt_matter():
    net = Small()
    answers = [
        largest_batch(net, inputs, 60 * MIB + T4_CONTEXT, gpu="T4")
        for inputs in ((1, 3, 64, 64), (5000, 3, 64, 64), torch.zeros(2, 3, 64, 64))
    ]
    assert answers[0] == answers[1] == answers[2]


def test_several_inputs_are_scaled_together():
    class Two(nn.Module):
        def forward(self, x, *, mask):
            return x * mask

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.two = Two()

        def forward(self, x, mask):
            return self.two(x, mask=mask)

    memory = 8 * MIB
    found = largest_batch(Named(), {"x": (4, 1024), "mask": torch.ones(4, 1)}, memory, None, device="cpu")
    assert found.likely.batch == memory // (2 * 4096 + 4)


def test_no_batch_fits():
    net = Small()
    found = largest_batch(net, (1, 3, 64, 64), 10 * MIB + T4_CONTEXT, gpu="T4")
    for each in (found.safe, found.likely, found.optimistic):
        assert (each.batch, each.stops_at, each.multiple_of_8, each.exact) == (0, 1, 0, True)
        assert each.allocated_peak_bytes is each.bytes_per_item is None
    assert found.binds.batch == found.smallest_batch == 1
    assert found.needed_bytes > 10 * MIB + T4_CONTEXT
    assert not found.fits


@pytest.mark.parametrize("gpu", ["T4", "sm90"])
@pytest.mark.parametrize("memory", [1, 140 * MIB, "1GiB"])
def test_the_memory_that_is_needed_is_the_least_that_the_search_accepts(gpu, memory):
    """Memory comes in segments of 2 MiB: with one less, no batch fits."""
    needed = largest_batch(Small(), (1, 3, 64, 64), memory, gpu=gpu, max_batch=4).needed_bytes

    def fits(total):
        return largest_batch(Small(), (1, 3, 64, 64), total, gpu=gpu, max_batch=4).fits

    assert (fits(needed), fits(needed - 1)) == (True, False)


def test_a_batch_norm_that_refuses_a_batch_of_one():
    net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    found = largest_batch(net, (8, 64), "1GiB", gpu="T4", max_batch=3)
    assert (found.smallest_batch, found.likely.batch, found.likely.stops_at) == (2, 3, None)


def test_a_step_of_ones_own():
    def step(model, args, kwargs):
        with torch.no_grad():
            return model(*args)

    net = nn.Linear(1024, 1024, bias=False)
    found = largest_batch(net, (1, 1024), "64MiB", TrainingPlan(), device="cpu", step=step)
    assert found.likely.batch == 7680


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"memory": "-3GiB"}, "memory size '-3GiB'; expected a positive number and a unit"),
        ({"memory": "24"}, "expected a positive number and a unit"),
        ({"memory": 0}, "memory=0; expected a size such as '24GiB', or a positive whole number"),
        ({"memory": -1}, "memory=-1"),
        ({"memory": 1.5}, "memory=1.5"),
        ({"memory": True}, "memory=True"),
        ({"device": "tpu"}, "device 'tpu'; expected 'cuda' or 'cpu'"),
        ({"gpu": "sm12"}, "gpu='sm12'"),
        ({"max_batch": 0}, "max_batch=0; expected a whole number of at least 1"),
        ({"inputs": torch.tensor(1.0)}, "inputs without a batch axis"),
        ({"inputs": (1, 4, 64, 64)}, "stem.0"),
        ({"plan": "adamw"}, "plan='adamw'"),
    ],
    ids=str,
)
def test_bad_input_is_one_clear_line(changed, message):
    arguments = {
        "inputs": (1, 3, 64, 64),
        "memory": "1GiB",
        "plan": TrainingPlan("adam"),
        "gpu": "T4",
        **changed,
    }
    with pytest.raises(ConvscopeError, match=message) as refused:
        largest_batch(Small(), **arguments)
    assert "\n" not in str(refused.value)


def test_the_model_comes_back_as_it_was():
    model = ResidualNet().train()
    model(torch.randn(4, 3, 19, 19)).sum().backward()
    model.bn1.eval()
    before = state_of(model)
    found = cs.largest_batch(model, (4, 3, 19, 19), "1GiB", gpu="T4", max_batch=300)
    assert state_of(model) == before
    assert found.likely.batch == 300
    assert found.to_dict()["safe"]["assumptions"]["neighbours"] == WINDOW


class Branching(nn.Module):
    """Goes a way that depends on its numbers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        x = self.conv(x)
        return x.relu() if x.mean() > 0 else x


def test_what_a_recording_assumed_is_told():
    net = Branching()
    found = largest_batch(net, (1, 3, 16, 16), "64MiB", None, device="cpu")
    assert found.assumptions == record(net, (1, 3, 16, 16), None).assumptions != ()
    assert found.to_dict()["assumptions"] == list(found.assumptions)


def test_tensors_and_what_is_beside_them_make_up_what_is_allocated():
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    found = largest_batch(net, (1, 3, 32, 32), "2GiB", gpu="T4")
    binds = found.binds
    assert binds.batch == found.likely.batch
    assert binds.workspace_bytes > 0
    alive = binds.growing_bytes + binds.fixed_bytes
    assert alive + binds.workspace_bytes == found.likely.allocated_peak_bytes
    assert alive == sum(binds.live_by_role.values())
