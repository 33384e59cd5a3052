"""``cost`` as users call it: the room is callable, results are JSON, errors one line, models untouched."""

import copy
import json

import pytest
import torch
from torch import nn

import convscope
from convscope.core.errors import ConvscopeError
from convscope.cost import cost, cost_of, describe
from convscope.tape import TrainingPlan, record


def _net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))


def test_the_room_is_its_verb():
    assert convscope.cost(_net(), (2, 3, 8, 8)).totals == convscope.cost.cost(_net(), (2, 3, 8, 8)).totals


def test_description_of_the_step():
    found = cost(_net(), (2, 3, 8, 8), TrainingPlan("adamw", foreach="fused"))
    assert (found.network, found.batch_size, found.input_shapes) == ("Sequential", 2, ((2, 3, 8, 8),))
    assert found.plan == "adamw, fp32, foreach=fused"
    assert describe(None) == "inference"


def test_json_has_every_field_that_scripts_rely_on():
    fields = json.loads(cost(_net(), (2, 3, 8, 8)).to_json())
    assert fields["schema_version"] == 1
    assert {
        "params", "activations", "macs", "forward_flops", "backward_flops", "step_flops", "elementwise_ops",
    } <= fields["totals"].keys()  # fmt: skip
    assert {
        "address", "path", "op", "output_shape", "activations", "params", "macs", "forward_flops",
        "backward_input_flops", "backward_weight_flops", "saved_bytes", "receptive_field",
    } <= fields["rows"][0].keys()  # fmt: skip
    assert {"activation_bytes", "parameter_bytes"} <= fields["rule_of_thumb"].keys()
    assert {
        "allocated_peak_bytes", "reserved_peak_bytes", "workspace_bytes", "context_bytes", "peak_phase",
        "peak_op", "live_at_peak", "timeline",
    } <= fields["forecast"].keys()  # fmt: skip
    assert fields["uncounted"] == []
    assert fields["rows"][0]["receptive_field"] == {"size": [3, 3], "stride": [1, 1], "offset": [0, 0]}


def test_a_recorded_step_can_be_read_again():
    plan = TrainingPlan("adam")
    tape = record(_net(), (2, 3, 8, 8), plan)
    assert cost_of(tape, plan, network="Sequential") == cost(_net(), (2, 3, 8, 8), plan)


def test_a_users_own_step_is_read():
    def step(model, args, kwargs):
        for _ in range(2):  # two micro-batches
            out = model(*args, **kwargs)
            out.sum().backward()
        return out

    once, twice = cost(_net(), (2, 3, 8, 8)), cost(_net(), (2, 3, 8, 8), step=step)
    assert twice.totals.macs == 2 * once.totals.macs
    assert twice.totals.backward_flops == 2 * once.totals.backward_flops
    assert twice.totals.params == once.totals.params


def test_errors_say_what_was_given_and_what_to_do():
    with pytest.raises(ConvscopeError, match=r"device 'tpu'.*expected 'cuda'"):
        cost(_net(), (2, 3, 8, 8), device="tpu")
    with pytest.raises(ConvscopeError, match="4"):
        cost(_net(), (2, 3, 9, 9))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 5, 8, 8)], ids=["runs", "fails"])
def test_the_model_is_as_it_was(shape):
    net = _net().eval()
    net[0].requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    rng = torch.get_rng_state()
    try:
        cost(net, shape)
    except ConvscopeError:
        assert shape[1] == 5
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(module.training for module in net.modules())
    assert [p.requires_grad for p in net.parameters()] == [False, False, True, True, True, True]
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_inside_inference_mode_a_step_costs_the_same():
    expected = cost(_net(), (2, 3, 8, 8))
    model = _net()
    with torch.inference_mode():
        assert cost(model, (2, 3, 8, 8)) == expected
        assert cost(model, torch.randn(2, 3, 8, 8)).totals == expected.totals
        made_here = _net()
        assert cost(made_here, (2, 3, 8, 8)) == expected
    assert cost(made_here, (2, 3, 8, 8)) == expected
