"""The tape against what a real run does, and the model before and after it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import CASES, CheckpointedNet, DictNet, FunctionalNet, ResidualNet, SharedNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.tape import TrainingPlan, record
from dispatched import DispatchedNames


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operators_are_those_of_a_real_run(case):
    model = case.make().eval()
    inputs = torch.randn(case.shape)
    with torch.no_grad(), DispatchedNames() as real:
        model(inputs)
    tape = record(case.make(), case.shape)
    assert [call.op for call in tape.calls] == real.names


def test_training_operators_are_those_of_a_real_step():
    # Dropout is left out: the tape records the GPU's form of it.
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(60, 3)
    )
    inputs = torch.randn(2, 3, 7, 5)
    tape = record(model, inputs, TrainingPlan())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, foreach=True)
    F.cross_entropy(model(inputs), torch.zeros(2, dtype=torch.long)).backward()
    optimizer.step()
    optimizer.zero_grad()
    with DispatchedNames() as real:
        F.cross_entropy(model(inputs), torch.zeros(2, dtype=torch.long)).backward()
        optimizer.step()
    assert [call.op for call in tape.calls] == real.names


@pytest.mark.parametrize("plan", [None, TrainingPlan(), TrainingPlan("adamw", "bf16", "fused", False, 1.0)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_model_comes_back_as_it_was(case, training, plan):
    model = case.make().train(training)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    before = state_of(model)
    record(model, case.shape, plan)
    assert state_of(model) == before


def test_model_comes_back_after_an_exception():
    model = ResidualNet()
    model.head = nn.Linear(9, 2)
    before = state_of(model)
    with pytest.raises(ConvscopeError, match=r"head#1:addmm\.1"):
        record(model, (2, 3, 17, 13), TrainingPlan())
    assert state_of(model) == before


def test_an_exception_of_the_models_own_names_the_module():
    class Broken(nn.Module):
        def forward(self, x):
            raise KeyError("no such thing")

    with pytest.raises(ConvscopeError, match=r"0\.0#1.*no such thing"):
        record(nn.Sequential(nn.Sequential(Broken())), (1, 3, 4, 4))


def test_nothing_is_allocated():
    tape = record(ResidualNet(), (10**7, 3, 64, 64), TrainingPlan())
    assert max(storage.nbytes for storage in tape.storages) > 9 * 10**11


def test_reused_modules_have_addresses_of_their_own():
    tape = record(SharedNet(), (2, 3, 6, 6), TrainingPlan())
    convolutions = [str(call.address) for call in tape.calls if call.op == "convolution"]
    assert convolutions == ["conv#1:convolution.1", "conv#2:convolution.1"]
    backward = [call for call in tape.calls if call.op == "convolution_backward"]
    assert [str(call.address.module) for call in backward] == ["conv#2", "conv#1"]
    assert [str(tape.calls[call.forward].address) for call in backward] == convolutions[::-1]


def test_functional_operators_are_counted_per_name_in_their_module():
    tape = record(FunctionalNet(), (2, 3, 9, 14))
    # Batch norm allocates cuDNN's reserve with an `empty`; it is there, and empty, on CPU too.
    addresses = [str(call.address) for call in tape.calls if call.op != "empty"]
    assert addresses == [
        "self#1:convolution.1", "self#1:batch_norm.1", "self#1:clamp.1", "self#1:mean.1", "self#1:mm.1",
    ]  # fmt: skip
    assert tape.find("self#1:batch_norm.1").tensor("running_mean") is not None
    assert tape.find("self#1").outputs == (tape.find("self#1:mm.1").output,)


def test_backward_operators_lead_back_to_their_modules():
    # Every layer has its own channel counts, so the shape of a weight gradient tells whose it is.
    model = nn.Sequential(*(nn.Conv2d(2 + i, 3 + i, 1 + i % 3) for i in range(6)))
    tape = record(model, (2, 2, 16, 15), TrainingPlan(loss=lambda y: y.sum()))
    backward = [call for call in tape.calls if call.op == "convolution_backward"]
    assert len(backward) == 6
    for call in backward:
        weight = model[int(call.address.path)].weight
        assert tape.values[call.outputs[1]].shape == weight.shape
        assert call.phase == "backward"


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_is_told_apart(reentrant):
    tape = record(CheckpointedNet(reentrant), (2, 3, 11, 9), TrainingPlan())
    recomputed = [str(call.address) for call in tape.in_phase("recompute") if call.op != "add_"]
    assert [address.split(".")[0] for address in recomputed] == ["block"] * len(recomputed)
    assert [call.op for call in tape.in_phase("recompute")].count("convolution") == 1
    assert [m.address.path for m in tape.modules if m.recompute and m.is_leaf] == [
        "block.0",
        "block.1",
        "block.2",
    ]
    backward = [call.address.path for call in tape.calls if call.op == "convolution_backward"]
    assert backward == ["block.0", "stem"]


def test_in_place_operators_make_new_values():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    tape = record(model, (1, 3, 5, 5))
    convolution, relu = tape.calls
    before, after = tape.values[convolution.output], tape.values[relu.output]
    assert (before.storage, before.version, after.version) == (after.storage, 0, 1)
    assert tape.producer(after.index) is relu
    assert tape.consumers(before.index) == (relu,)
    assert tape.outputs == (after.index,)


def test_a_write_through_a_view_makes_the_writer_the_producer():
    class Patch(nn.Module):
        def forward(self, x):
            y = x * 2
            y[:, 0] = 0
            return y + 1

    tape = record(Patch(), (2, 3))
    addition = tape.calls[-1]
    assert addition.op == "add"
    writer = tape.producer(addition.inputs[0])
    assert writer.op in ("fill_", "copy_")
    assert addition.inputs[0] not in writer.outputs


def test_saved_values_are_those_of_a_real_run():
    model = ResidualNet().train()
    model.drop = nn.Identity()
    inputs = torch.randn(4, 3, 17, 13)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        F.cross_entropy(model(inputs), torch.zeros(4, dtype=torch.long))
    real = sorted(tuple(t.shape) for t in saved)
    tape = record(model, tuple(inputs.shape), TrainingPlan())
    recorded = [tape.values[value].shape for call in tape.calls for value in call.saved]
    # A call that saves one value twice (a batch norm's input, say) has it once in the tape.
    assert set(recorded) == set(real)
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in saved}
    kept = {tape.values[value].storage for call in tape.calls for value in call.saved}
    assert sum(tape.storages[index].nbytes for index in kept) == sum(storages.values())


def test_storages_live_as_long_as_by_hand():
    # x -> conv -> relu -> conv -> mean. After forward, live: both convolutions' inputs; relu's result is one.
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(2, 1, 1, bias=False))
    tape = record(model, (1, 1, 4, 4), TrainingPlan("sgd", loss=lambda y: y.mean()))
    lives = {
        tape.calls[storage.birth].op: (storage.nbytes, storage.role, storage.death)
        for storage in tape.storages
        if storage.birth >= 0 and tape.calls[storage.birth].phase in ("forward", "loss")
    }
    position = {call.op: call.index for call in tape.calls}
    # ReLU keeps its result, which is the next convolution's input too: one storage, freed after both.
    assert lives["relu"] == (128, "activation", position["threshold_backward"] + 1)
    gradients = [storage for storage in tape.storages if storage.role == "gradient"]
    assert sorted(storage.nbytes for storage in gradients) == [8, 8]
    assert {storage.name for storage in gradients} == {"0.weight", "2.weight"}
    assert all(storage.death is None for storage in gradients)


@pytest.mark.parametrize(
    ("optimizer", "states"), [("sgd", 0), ("sgd-momentum", 1), ("rmsprop", 1), ("adamw", 2)]
)
def test_optimizer_states_stand_before_the_step(optimizer, states):
    model = ResidualNet()
    tape = record(model, (2, 3, 17, 13), TrainingPlan(optimizer))
    kept = [storage for storage in tape.storages if storage.role == "optimizer-state" and storage.nbytes > 4]
    assert sum(storage.nbytes for storage in kept) == states * 4 * sum(p.numel() for p in model.parameters())
    assert all(storage.birth == -1 and storage.death is None for storage in kept)


def test_gradients_that_are_zeroed_in_place_stand_before_the_step():
    tape = record(ResidualNet(), (2, 3, 17, 13), TrainingPlan(zero_grad_set_to_none=False))
    assert all(storage.birth == -1 for storage in tape.storages if storage.role == "gradient")


def test_tied_parameters_share_a_storage():
    tape = record(SharedNet(), (2, 3, 6, 6))
    storage = {info.name: info.storage for info in tape.parameters}
    assert storage["first.weight"] == storage["second.weight"] != storage["conv.weight"]


def test_frozen_parameters_have_no_gradient():
    model = ResidualNet().train()
    model.conv1.weight.requires_grad_(False)
    tape = record(model, (2, 3, 17, 13), TrainingPlan())
    named = {storage.name for storage in tape.storages if storage.role == "gradient"}
    assert "conv2.weight" in named
    assert "conv1.weight" not in named


def test_modes_of_a_model_in_training_are_respected():
    model = ResidualNet().train()
    model.bn1.eval()
    tape = record(model, (2, 3, 17, 13), TrainingPlan())
    training = {
        call.address.path: call.arguments["training"] for call in tape.calls if call.op == "batch_norm"
    }
    assert training == {"stem.1": True, "bn1": False, "bn2": True}


def test_nested_inputs_and_outputs():
    tape = record(DictNet(), {"image": (2, 3, 8, 8)}, TrainingPlan())
    assert [tape.values[value].shape for value in tape.outputs] == [(2, 3), (2, 4, 6, 6)]
    assert [tape.values[value].shape for value in tape.inputs] == [(2, 3, 8, 8)]


def test_bf16_plan_simulates_bfloat16():
    tape = record(ResidualNet(), (2, 3, 17, 13), TrainingPlan(precision="bf16"))
    assert {info.dtype for info in tape.parameters} == {torch.bfloat16}
    assert tape.values[tape.outputs[0]].dtype is torch.bfloat16


def test_a_number_read_from_a_tensor_is_reported():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None))
    tape = record(model, (2, 3, 5, 5), TrainingPlan(loss=lambda y: y.mean()))
    assert any("1#1 reads a number" in assumption for assumption in tape.assumptions)


def test_own_step_is_recorded():
    def step(model, args, kwargs):
        with torch.inference_mode():
            return model(*args, **kwargs) * 2

    tape = record(nn.Linear(3, 4), (5, 3), step=step)
    assert [call.op for call in tape.calls] == ["t", "addmm", "mul"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((0, 3, 17, 13), "at least 1"),
        ((1, 4, 17, 13), "stem.0#1:convolution.1"),
        ("17x13", "of type str"),
        ((), "of type tuple"),
        (None, "of type NoneType"),
    ],
)
def test_bad_inputs_are_named(inputs, message):
    with pytest.raises(ConvscopeError, match=message):
        record(ResidualNet(), inputs)


def test_unsupported_models_are_refused_by_name():
    with pytest.warns(DeprecationWarning, match="torch.jit.trace"):
        scripted = nn.Sequential(torch.jit.trace(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 5, 5)))
    with pytest.raises(ConvscopeError, match="'0' is a TorchScript module"):
        record(scripted, (1, 3, 5, 5))
    with pytest.raises(ConvscopeError, match="no shape yet"):
        record(nn.Sequential(nn.LazyLinear(4)), (1, 3))


@pytest.mark.parametrize("model", ["alexnet", None, nn.ReLU])
def test_what_is_no_network_is_refused(model):
    with pytest.raises(ConvscopeError, match=r"torch\.nn\.Module"):
        record(model, (1, 3, 5, 5))


def test_what_is_no_plan_is_refused():
    with pytest.raises(ConvscopeError, match="TrainingPlan"):
        record(nn.ReLU(), (1, 3), "adam")


def test_a_model_that_cannot_train_is_refused():
    with pytest.raises(ConvscopeError, match="trainable"):
        record(nn.ReLU(), (1, 3), TrainingPlan())


@pytest.mark.parametrize(
    "field",
    [{"optimizer": "sdg"}, {"precision": "fp16"}, {"foreach": 1}, {"clip_grad_norm": 0}, {"loss": "mse"}],
)
def test_bad_plans_are_refused(field):
    with pytest.raises(ConvscopeError, match="fused"):
        TrainingPlan("rmsprop", foreach="fused")
    with pytest.raises(ConvscopeError, match=next(iter(field))):
        TrainingPlan(**field)


def test_a_gradient_penalty_is_recorded_as_it_runs():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 2, 3))

    def step(model, args, kwargs):
        image = args[0].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(image).sum(), image, create_graph=True)
        gradient.square().sum().backward()
        return gradient

    tape = record(model, (1, 3, 7, 7), step=step)
    inputs = torch.randn(1, 3, 7, 7)
    with DispatchedNames() as real:
        step(model, (inputs,), {})
    assert [call.op for call in tape.calls] == real.names


def test_results_that_their_own_node_saves_are_freed():
    class Dropped(nn.Module):
        def forward(self, x):
            x.exp().sigmoid()
            return x * 2

    tape = record(nn.Sequential(nn.Linear(3, 3), Dropped()), (5, 3), TrainingPlan())
    dropped = [tape.values[call.output].storage for call in tape.calls if call.op in ("exp", "sigmoid")]
    assert len(dropped) == 2
    multiplication = next(call.index for call in tape.calls if call.op == "mul")
    assert all(tape.storages[index].death <= multiplication for index in dropped)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_views_of_one_storage_stay_in_one_storage(device, precision):
    """A weight tied to its transpose, and two halves of a flat parameter: as many bytes as there are."""
    first, second = nn.Linear(3, 5, bias=False, device=device), nn.Linear(5, 3, bias=False, device=device)
    second.weight = nn.Parameter(first.weight.detach().t())
    flat = torch.zeros(12, device=device)
    halves = [nn.Linear(3, 2, bias=False) for _ in range(2)]
    for number, half in enumerate(halves):
        half.weight = nn.Parameter(flat[6 * number : 6 * number + 6].view(2, 3))
    tape = record(
        nn.Sequential(first, second, halves[0], nn.Linear(2, 3, bias=False, device=device), halves[1]),
        (4, 3),
        TrainingPlan("sgd", precision=precision),
    )
    storages = {info.name: info.storage for info in tape.parameters}
    assert storages["0.weight"] == storages["1.weight"]
    assert storages["2.weight"] == storages["4.weight"] != storages["3.weight"]
    itemsize = 2 if precision == "bf16" else 4
    assert tape.storages[storages["2.weight"]].nbytes == 12 * itemsize
    assert tape.storages[storages["0.weight"]].nbytes == 15 * itemsize
    assert [info.offset for info in tape.parameters] == [0, 0, 0, 0, 6]
