"""What would lower the peak: effects by hand, the same training in a real run, and the model untouched."""

import copy
import dataclasses
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convscope as cs
from cases import ResidualNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.cost import cost
from convscope.cost.remedies.changes import Situation
from convscope.cost.remedies.network_changes import in_place_activations
from convscope.cost.remedies.trials import PROPOSALS, explain
from convscope.tape import TrainingPlan, record

MIB = 2**20


def _found(model, inputs, plan, **kwargs):
    return {each.name: each for each in explain(model, inputs, plan, **kwargs).remedies}


def _changes(model, inputs, plan, peak_call):
    tape = record(model, inputs, plan)
    now = Situation(model, inputs, plan, None, tape, peak_call(tape))
    return {change.name: change for proposal in PROPOSALS for change in proposal(now)}


def _end_of_forward(tape):
    return max(call.index for call in tape.calls if call.phase == "forward")


class Chain(nn.Module):
    """What is kept is easy to count."""

    def __init__(self, inplace=False):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace)
        self.last = nn.Conv2d(8, 1, 1, bias=False)

    def forward(self, x):
        return self.last(self.relu(self.norm(self.first(x)))).mean((2, 3))


def test_in_place_relu_saves_its_input_exactly():
    """At the ReLU, norm's result and its own are both there; in place, one is."""
    net, shape = Chain(), (4, 1, 64, 64)
    maps, result, means = 4 * 8 * 64 * 64 * 4, 4 * 64 * 64 * 4, 512

    def step(model, args, kwargs):
        out = model(*args)
        del out

    # A step without backward ends after the forward pass, whose peak is at the ReLU: what batch norm keeps
    # (the convolution's result), its own result, the ReLU's. In place, the peak moves to the end, where the
    # last convolution's result and its means are there too.
    before = explain(net, shape, TrainingPlan("sgd"), step=step)
    found = {each.name: each for each in before.remedies}["inplace-relu"]
    assert before.peak_op == "relu#1:relu.1"
    assert found.saved_bytes == maps - result - means
    assert found.keeps_result
    assert found.extra_flops_share == 0


class ReadAgain(nn.Module):
    """A ReLU whose input is added later, one whose input a sigmoid keeps, and one that is free."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.skipped, self.kept, self.free = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        x = self.conv(x)
        x = x + self.skipped(x) * 2 + x
        return self.free(self.conv(self.kept(x.sigmoid()))).mean((2, 3))


def test_relus_whose_input_is_needed_again_stay():
    model = ReadAgain()
    change = _changes(model, (2, 3, 8, 8), TrainingPlan(), _end_of_forward)["inplace-relu"]
    change.apply(model)
    assert [m.inplace for m in (model.skipped, model.kept, model.free)] == [False, False, True]
    assert "skipped, kept" in change.note
    alone = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid(), nn.ReLU(), nn.Flatten(), nn.Linear(192, 2))
    found = _found(alone, (2, 3, 8, 8), TrainingPlan())["inplace-relu"]
    assert found.impossible == "2: its input is needed again"
    assert (found.allocated_peak_bytes, found.saved_bytes, found.extra_flops_share) == (None, None, None)


@dataclasses.dataclass
class Features:
    before: torch.Tensor
    logits: torch.Tensor


class Opaque:
    def __init__(self, before, logits):
        self.before, self.logits = before, logits


class HandsOut(nn.Module):
    """Hands out what its ReLU reads: in an object, or by keeping it."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.relu, self.how, self.features = nn.Conv2d(3, 3, 1), nn.ReLU(), how, None

    def forward(self, x):
        before = self.conv(x)
        logits = self.relu(before).mean((2, 3))
        if self.how is None:
            self.features = before
            return logits
        return self.how(before, logits)


@pytest.mark.parametrize("plan", [None, TrainingPlan("sgd", loss=lambda out: _logits(out).sum())])
@pytest.mark.parametrize("how", [Features, Opaque, None], ids=["dataclass", "object", "attribute"])
def test_a_relu_whose_input_is_handed_out_stays(how, plan):
    model, x = HandsOut(how), torch.randn(2, 3, 8, 8)
    before = (lambda: model.features) if how is None else None
    plain = model(x)
    given = before() if before else plain.before
    model.relu.inplace = True
    changed = model(x)
    assert not torch.equal(given, before() if before else changed.before)  # in place it would be another one
    model.relu.inplace = False
    found = _found(model, (2, 3, 8, 8), plan)["inplace-relu"]
    assert "relu: " in found.impossible
    assert "handed out" in found.impossible or "outputs aren't known" in found.impossible


def _logits(out):
    return out if isinstance(out, torch.Tensor) else out.logits


def test_a_relu_of_the_input_or_of_unknown_outputs_stays():
    found = _found(nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), (2, 3), TrainingPlan())["inplace-relu"]
    assert found.impossible == "0: its input is there before the step"
    tape = record(Chain(), (4, 1, 8, 8), TrainingPlan())
    modules = tuple(dataclasses.replace(module, outputs=()) for module in tape.modules)
    unknown = dataclasses.replace(tape, outputs=(), modules=modules)
    (change,) = in_place_activations(Situation(Chain(), (4, 1, 8, 8), TrainingPlan(), None, unknown, 0))
    assert change.impossible == "relu: the network's outputs aren't known"


def test_gradients_set_to_none_by_hand():
    """One linear layer with 4 MiB of weights: all that matters."""
    net = nn.Linear(1024, 1024, bias=False)
    kept = explain(net, (1, 1024), TrainingPlan("sgd", zero_grad_set_to_none=False))
    # Kept: gradients stand, and backward makes new ones and adds them. Freed: the new ones are the only ones.
    found = {each.name: each for each in kept.remedies}["set-to-none"]
    assert found.saved_bytes == 4 * MIB
    assert "set-to-none" not in _found(net, (1, 1024), TrainingPlan("sgd"))


def test_optimizer_states_by_hand():
    net = nn.Linear(1024, 1024, bias=False)  # 4 MiB of weights
    found = _found(net, (1, 1024), TrainingPlan("adam"))
    # foreach Adam's peak is in its step, which makes a copy of the size of the weights beside two states.
    # With SGD it is in backward, where a gradient of the outputs (4 KiB) and of the loss (512 B) are too.
    assert found["sgd"].saved_bytes == 3 * 4 * MIB - 4096 - 512
    assert found["sgd-momentum"].saved_bytes == 2 * 4 * MIB - 4096 - 512
    # Fused kernels keep Adam's step counter on the device.
    assert found["fused"].saved_bytes == 4 * MIB - 4096 - 512 - 512
    assert not found["sgd"].keeps_result
    assert found["fused"].keeps_result
    momentum = _found(net, (1, 1024), TrainingPlan("sgd-momentum"))
    assert momentum["sgd"].saved_bytes == 4 * MIB
    assert "sgd-momentum" not in momentum


class TwoStages(nn.Module):
    """Two stages of four sigmoids, each of which keeps its result, and a sum, which keeps nothing."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.first = nn.Sequential(*(nn.Sigmoid() for _ in range(4)))
        self.second = nn.Sequential(*(nn.Sigmoid() for _ in range(4)))

    def forward(self, x):
        return self.second(self.first(x * self.scale)).sum()


def test_checkpoints_by_hand():
    plan = TrainingPlan("sgd", loss=lambda out: out * 1)
    found = explain(TwoStages(), (16, 65536), plan, device="cpu")
    maps = 16 * 65536 * 4  # the input, the product with the scale, 4 + 4 results, their gradients: 4 MiB each
    # Without: the input, eight results and one gradient, where backward begins.
    assert found.allocated_peak_bytes // maps == 10
    by_name = {each.name: each for each in found.remedies}
    # First stage: input, product; then its four results come again while the gradient from behind is there,
    # and one more is made: 8.
    assert by_name["checkpoint:first"].allocated_peak_bytes // maps == 8
    assert by_name["checkpoint:first"].saved_bytes // maps in (1, 2)  # 2, less some scalars
    assert by_name["checkpoint:first"].keeps_result
    # Both: input, product, the second stage's input, its four results and a gradient: 8 again.
    assert by_name["checkpoint-all"].allocated_peak_bytes // maps == 8
    assert by_name["checkpoint-all"].extra_flops_share == 0  # sigmoids have no products


def test_recomputed_flops_by_hand():
    """A stage of two equal 1×1 convolutions after a stem of the same size, no gradient for the image."""
    stage = nn.Sequential(*(layer for _ in range(2) for layer in (nn.Conv2d(16, 16, 1), nn.Sigmoid())))
    net = nn.Sequential(nn.Conv2d(16, 16, 1), stage, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = _found(net, (8, 16, 32, 32), TrainingPlan("sgd"))["checkpoint:1"]
    # Forward 3 units; backward 3 for weights and 2 for inputs; again 2.
    assert found.extra_flops_share == pytest.approx(2 / 8)


def test_half_a_batch_and_two_halves_by_hand():
    net = nn.Linear(1024, 1024, bias=False)
    w, x = 4 * MIB, 4096 * 1024 * 4  # batch 4096: 16 MiB of inputs, as much of outputs

    def loss(out):
        return out.sum()

    found = explain(net, (4096, 1024), TrainingPlan("sgd", loss=loss))
    halves = {each.name: each for each in found.remedies}
    # At the peak: weights, inputs, outputs, their gradient (an expanded scalar made whole for the product)
    # or not, and the weights' gradient: whatever is there per item, half of it goes.
    per_item = found.allocated_peak_bytes - 2 * w - 1024
    assert halves["half-batch"].saved_bytes in range(x, per_item + 1)
    extra = halves["accumulate-gradients"].allocated_peak_bytes - halves["half-batch"].allocated_peak_bytes
    assert extra == w  # the gradient of the first half stands while the second's is made
    assert halves["accumulate-gradients"].keeps_result
    assert "half-batch" not in _found(net, (1, 1024), TrainingPlan("sgd"))
    assert "accumulate-gradients" not in _found(net, (5, 1024), TrainingPlan("sgd"))
    norm = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    assert not _found(norm, (6, 8), TrainingPlan("sgd"))["accumulate-gradients"].keeps_result


def test_frozen_stem_is_what_comes_before_the_first_stage():
    net = ResidualNet()
    change = _changes(net, (4, 3, 17, 13), TrainingPlan(), _end_of_forward)["frozen-stem"]
    parameters = dict(net.named_parameters())
    change.apply(net)
    frozen = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert frozen == {"stem.0.weight", "stem.1.weight", "stem.1.bias"}
    assert "stem.1 still uses" in change.note
    assert all(parameter.requires_grad for parameter in parameters.values())


def test_other_norms():
    net = ResidualNet()
    changes = _changes(net, (4, 3, 17, 13), TrainingPlan(), _end_of_forward)
    changes["group-norm"].apply(net)
    assert [type(module).__name__ for module in (net.stem[1], net.bn1, net.bn2)] == ["GroupNorm"] * 3
    assert (net.bn1.num_groups, net.bn1.num_channels) == (4, 8)
    again = ResidualNet()
    changes["no-norm"].apply(again)
    assert not any("Norm" in type(module).__name__ for module in again.modules())
    response = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LocalResponseNorm(5), nn.Flatten(), nn.Linear(288, 2))
    found = _found(response, (64, 3, 8, 8), TrainingPlan())
    assert found["no-norm"].saved_bytes > 0
    assert "group-norm" not in found


class Stages(nn.Module):
    """A network that every kind of remedy applies to."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(
            *(layer for _ in range(5) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Sigmoid()))
        )
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.drop(self.body(self.stem(x)).mean((2, 3))))


def _trained(model, images, labels):
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("make", [Stages, ResidualNet, ReadAgain])
def test_what_keeps_the_result_trains_the_same_weights_in_a_real_run(make):
    model, images = make(), torch.randn(4, 3, 19, 19)
    labels = torch.tensor([0, 1, 2, 1])
    changes = _changes(model, images, TrainingPlan(), _end_of_forward)
    same = [c for c in changes.values() if c.keeps_result and c.plan is None and not c.impossible]
    assert same
    expected = _trained(copy.deepcopy(model), images, labels)
    for change in same:
        twin = copy.deepcopy(model)
        change.apply(twin)
        for found, wanted in zip(_trained(twin, images, labels), expected, strict=True):
            assert torch.equal(found, wanted), change.name


class WritesOverItsInput(nn.Module):
    def forward(self, x):
        x += 1
        return x.sigmoid().sigmoid()


def test_a_part_that_writes_over_its_input_isnt_checkpointed():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), WritesOverItsInput(), nn.Sequential(nn.ReLU(True), nn.Sigmoid(), nn.Sigmoid()),
        nn.Flatten(), nn.Linear(288, 2),
    )  # fmt: skip
    found = set(_changes(net, (64, 3, 8, 8), TrainingPlan(), _end_of_forward))
    assert "checkpoint:1" not in found
    assert "checkpoint:2" in found


def test_a_step_of_ones_own_keeps_its_optimizer():
    def step(model, args, kwargs):
        model(*args).sum().backward()

    found = _found(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), (4, 8), TrainingPlan("adam"), step=step)
    assert not {"sgd", "fused", "foreach-off", "amp-fp16", "accumulate-gradients"} & set(found)
    assert {"half-batch", "inplace-relu"} <= set(found)


def test_inference_has_remedies_too():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    found = _found(net, (8, 3, 32, 32), None)
    assert set(found) == {"inplace-relu", "half-batch"}
    # At the ReLU the convolution's result is there beside its own; in place there is one of the two.
    assert found["inplace-relu"].saved_bytes == 8 * 8 * 32 * 32 * 4


def test_remedies_are_ranked_and_complete():
    found = explain(Stages(), (8, 3, 32, 32), TrainingPlan("adamw")).remedies
    effects = [each.saved_bytes for each in found]
    able = [effect for effect in effects if effect is not None]
    assert able == sorted(able, reverse=True)
    assert all(effect is None for effect in effects[len(able) :])
    assert len({each.name for each in found}) == len(found)
    for each in found:
        assert each.change
        assert each.how
        if each.impossible:
            continue
        assert each.saved_share == pytest.approx(
            each.saved_bytes / (each.allocated_peak_bytes + each.saved_bytes)
        )


def _state(model):
    return {**state_of(model), "python": random.getstate(), "flags": [
        (getattr(m, "inplace", None), "forward" in m.__dict__, id(m)) for m in model.modules()
    ]}  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("make", [Stages, ResidualNet])
def test_the_model_comes_back_as_it_was(make, fails, monkeypatch):
    model = make().train()
    model(torch.randn(4, 3, 19, 19)).sum().backward()
    list(model.modules())[3].eval()
    next(model.parameters()).requires_grad_(False)
    model.head.register_forward_hook(lambda module, args, result: result * 1)
    before = _state(model)
    if fails:
        import convscope.cost.remedies.trials as module

        first, real = [], module.record

        def failing(*args, **kwargs):
            if not first:
                first.append(True)
                return real(*args, **kwargs)
            raise ConvscopeError("a step that breaks", "one that doesn't", "mend it")

        monkeypatch.setattr(module, "record", failing)
        assert all(each.impossible for each in explain(model, (4, 3, 19, 19), TrainingPlan("adamw")).remedies)
    else:
        explain(model, (4, 3, 19, 19), TrainingPlan("adamw"))
    assert _state(model) == before


def test_lean_batch_norm_is_simulated_and_taken_back():
    """Of ten maps, two a convolution, five are kept; at the peak three more are there, in either case."""
    layers = [[nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()] for _ in range(5)]
    model, inputs = nn.Sequential(*(layer for block in layers for layer in block)), (64, 8, 49, 49)
    found = explain(model, inputs, device="cpu")
    remedy = next(each for each in found.remedies if each.name == "lean")
    assert "forward" not in vars(model)
    assert (remedy.keeps_result, remedy.extra_flops_share) == (True, 0.0)
    with cs.norm.lean(model):
        lean = cost(model, inputs, device="cpu")
        assert "lean" not in {each.name for each in explain(model, inputs, device="cpu").remedies}
    assert lean.forecast.allocated_peak_bytes == remedy.allocated_peak_bytes
    assert lean.forecast_without_lean.allocated_peak_bytes == found.allocated_peak_bytes
    one_map = 64 * 8 * 49 * 49 * 4
    assert remedy.saved_bytes / one_map == pytest.approx(4, abs=1.1)
