"""Mending: each safe repair takes its finding away, on two networks, and the given model stays as it was."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from bench.checkup_suite.networks import ARCHITECTURES, grown, images, labels_of, loader
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import convscope as cs
from checkup.grown import bits_of, faults
from convscope.checkup import CheckupPlan, Left, fault_names, mend, repairable_faults
from convscope.checkup.mending.repairs import all_repairs
from convscope.core.errors import ConvscopeError

MIDDLE = {"residual": ("block1.bn1", "block1.conv1"), "plain": ("5", "4")}


@pytest.fixture(params=sorted(ARCHITECTURES))
def case(request):
    """A grown network, one of its batch norms with its path, and the path of the convolution before it."""
    model = grown(request.param)
    path, conv = MIDDLE[request.param]
    return model, path, model.get_submodule(path), conv


def _batches(number=128, size=32):
    pictures = images(number, seed=7)
    return list(zip(pictures.split(size), labels_of(pictures).split(size), strict=True))


def _outputs(model):
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return torch.cat([model(x) for x, _ in _batches()])


def _mended(model, fault, path, **given):
    """Mend a model, and see that the finding was there, is gone, and that the model is as it was."""
    before, trained = bits_of(model), model.training
    found = mend(model, _batches(), **given)
    assert bits_of(model) == before
    assert model.training == trained == found.model.training
    assert (fault, path) in [(f.fault, f.address.partition("#")[0]) for f in found.before.findings]
    assert fault not in [f.fault for f in found.after.findings]
    assert fault in [name for repair in found.mended for name in repair.faults]
    assert found.left == ()
    return found


def test_a_healthy_network_is_left_alone(case):
    model, *_ = case
    found = mend(model, _batches())
    assert (found.mended, found.left, found.gone) == ((), (), ())
    assert found.before is found.after
    assert found.model is not model
    assert torch.equal(_outputs(found.model), _outputs(model))


def test_momentum_of_another_convention(case):
    model, path, norm, _ = case
    norm.momentum = 0.9
    found = _mended(model, "momentum-convention", path)
    assert found.model.get_submodule(path).momentum == pytest.approx(0.1)
    assert found.mended[0].largest_change == 0.0


def test_momentum_of_one_becomes_the_usual_one(case):
    model, path, norm, _ = case
    norm.momentum = 1.0
    assert _mended(model, "momentum-convention", path).model.get_submodule(path).momentum == 0.1


def test_statistics_in_half_precision(case):
    model, path, *_ = case
    model.bfloat16()
    batches = [(x.bfloat16(), y) for x, y in _batches()]
    found = mend(model, batches)
    assert "half-statistics" in {f.fault for f in found.before.findings}
    assert "half-statistics" not in {f.fault for f in found.after.findings}
    after, given = found.model.get_submodule(path), model.get_submodule(path)
    assert (after.running_mean.dtype, given.running_mean.dtype) == (torch.float32, torch.bfloat16)
    with torch.no_grad():
        assert found.model.eval()(batches[0][0]).dtype is torch.bfloat16


class Functional(nn.Module):
    """Batch norm as a function, on statistics of the network's own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        y = self.conv(x)
        return F.batch_norm(y, self.mean, self.var, training=self.training).mean((2, 3))


def test_statistics_of_a_function_are_left_and_no_layer_is_widened():
    model = Functional().bfloat16()
    found = mend(model, [images(16, seed=seed).bfloat16() for seed in range(4)])
    reasons = {each.fault: each.reason for each in found.left}
    assert reasons["half-statistics"] == "no batch norm module holds these statistics"
    assert found.model.conv.weight.dtype is torch.bfloat16


def test_a_layer_meant_to_be_frozen(case):
    model, path, norm, _ = case
    norm.weight.requires_grad_(False)
    norm.bias.requires_grad_(False)
    found = _mended(model, "frozen-but-tracking", path)
    assert found.mended[0].largest_change == 0.0
    after = found.model.train().get_submodule(path)
    assert not after.training
    mean = after.running_mean.clone()
    found.model(images(8))
    assert torch.equal(after.running_mean, mean)


def test_a_redundant_bias_goes_into_the_running_mean(case):
    model, _, norm, conv = case
    layer = model.get_submodule(conv)
    layer.bias = nn.Parameter(torch.randn(layer.out_channels))
    with torch.no_grad():
        norm.running_mean += layer.bias
    before = _outputs(model)
    found = _mended(model, "redundant-bias", conv)
    assert found.model.get_submodule(conv).bias is None
    assert layer.bias is not None
    (repair,) = found.mended
    change = float((_outputs(found.model) - before).abs().max() / before.abs().max())
    assert change < 1e-5
    assert repair.largest_change == pytest.approx(change, abs=1e-6)
    assert "1 bias moved into the running means behind, right up to rounding (outputs by up to" in repair.done


def test_a_bias_whose_removal_would_change_outputs_is_put_back(case, monkeypatch):
    model, _, norm, conv = case
    layer = model.get_submodule(conv)
    layer.bias = nn.Parameter(torch.randn(layer.out_channels))
    with torch.no_grad():
        norm.running_mean += layer.bias
    monkeypatch.setattr("convscope.checkup.mending.biases._ROUNDINGS", -1.0)
    found = mend(model, _batches())
    assert [each.fault for each in found.left] == ["redundant-bias"]
    assert "outputs would change by" in found.left[0].reason
    assert found.mended == ()
    kept, given = found.model.state_dict(), model.state_dict()
    assert list(kept) == list(given)
    assert all(torch.equal(kept[name], given[name]) for name in given)


def test_a_shared_bias_is_left_to_the_user():
    model = grown("plain")
    model[0].bias = nn.Parameter(torch.randn(12))
    with torch.no_grad():
        model[1].running_mean += model[0].bias
    model.register_parameter("alias", model[0].bias)
    found = mend(model, _batches())
    assert found.left == (
        Left(
            "redundant-bias",
            "0#1",
            "it isn't the bias of one convolution or linear layer, which could go without",
        ),
    )


STATISTICS = {
    "stale-statistics": lambda norm: norm.running_mean.add_(2 * norm.running_var.sqrt()),
    "young-statistics": lambda norm: norm.reset_running_stats(),
    "non-finite-statistics": lambda norm: norm.running_var.__setitem__(0, float("nan")),
}


@pytest.mark.parametrize("fault", STATISTICS)
def test_statistics_are_estimated_anew(case, fault):
    model, path, norm, _ = case
    with torch.no_grad():
        STATISTICS[fault](norm)
    found = _mended(model, fault, path)
    assert "estimated anew over 128 samples" in found.mended[-1].done
    assert found.after.layers[0].mean_residual < 0.1
    assert found.mended[-1].largest_change is None


def test_a_gap_is_closed(case):
    model, _, norm, _ = case
    pictures = images(160, seed=5)
    with torch.no_grad():
        head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        head.weight.mul_(6)
        labels = model.eval()(pictures).argmax(1)
        norm.running_mean += 2.5 * norm.running_var.sqrt()
    batches = list(zip(pictures.split(16), labels.split(16), strict=True))
    found = mend(model.train(), batches)
    assert {f.fault for f in found.before.findings} >= {"train-eval-gap", "stale-statistics"}
    assert faults(found.after) == []
    assert found.after.eval_loss < found.before.eval_loss
    assert found.after.gap < 0.2 * found.before.gap


def test_statistics_that_make_the_loss_worse_are_not_taken():
    model = grown("plain")
    pictures = images(128, seed=7)
    with torch.no_grad():
        model[5].running_mean += 2 * model[5].running_var.sqrt()
        labels = model.eval()(pictures).argmax(1)  # right by the stale statistics alone
    batches = list(zip(pictures.split(32), labels.split(32), strict=True))
    found = mend(model, batches)
    reasons = {each.fault: each.reason for each in found.left}
    assert reasons["stale-statistics"].startswith(
        "the old statistics stay: the loss on the batches they come from (none held out of fewer than 5) "
        "would rise by"
    )
    assert found.mended == ()
    assert torch.equal(found.model[5].running_mean, model[5].running_mean)


def test_batches_sorted_by_brightness_are_measured_layer_by_layer():
    model = grown("plain")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean += 2 * module.running_var.sqrt()
    pictures = images(128, seed=7)
    order = pictures.mean((1, 2, 3)).argsort()
    found = mend(model, [pictures[part] for part in order.split(8)])
    (repair,) = found.mended
    assert "sequential" in repair.done
    assert "stale-statistics" not in [each.fault for each in found.left]


def test_epsilon_is_the_references_own():
    model = grown("plain")
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for network in (model, reference):
            network[4].weight.mul_(0.03)
            network[5].running_mean.mul_(0.03)
            network[5].running_var.mul_(0.03**2)
    reference[5].eps = 1e-3
    found = mend(model, _batches(), reference=reference)
    assert ("dominant-epsilon", "5#1") in faults(found.before)
    assert found.model[5].eps == 1e-3
    assert model[5].eps == 1e-5
    warned = [each for each in found.after.findings if each.fault == "dominant-epsilon"]
    assert "warning" not in [each.severity for each in warned]
    alone = mend(reference, _batches())
    assert alone.model[5].eps == reference[5].eps
    assert [each.reason for each in alone.left if each.fault == "dominant-epsilon"] == [
        "weights are learnt with their ε: a training must say"
    ]


def test_averaged_weights_get_statistics_of_their_own(case):
    model, path, *_ = case
    averaged = torch.optim.swa_utils.AveragedModel(model)
    with torch.no_grad():
        for parameter in averaged.parameters():
            parameter.mul_(1.5)
    found = mend(averaged, _batches())
    assert {"averaged-weights", "stale-statistics"} <= {finding.fault for finding in found.before.findings}
    assert faults(found.after) == []
    assert isinstance(found.model, torch.optim.swa_utils.AveragedModel)
    old, new = averaged.get_submodule(f"module.{path}"), found.model.get_submodule(f"module.{path}")
    assert not torch.equal(old.running_mean, new.running_mean)


@pytest.mark.parametrize("reference", ["the student", "a checkpoint without statistics"])
def test_statistics_that_were_left_behind(case, reference):
    model, *_ = case
    teacher = copy.deepcopy(model)
    for module in teacher.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
    weights = {name: tensor for name, tensor in model.state_dict().items() if "running" not in name}
    fault, given = {
        "the student": ("teacher-statistics", model),
        "a checkpoint without statistics": ("missing-statistics", weights),
    }[reference]
    found = mend(teacher, _batches(), reference=given)
    assert fault in {finding.fault for finding in found.before.findings}
    assert faults(found.after) == []


def test_averaged_counters_are_whole_again_and_statistics_stay(case):
    model, path, norm, _ = case
    norm.num_batches_tracked = norm.num_batches_tracked.float() + 0.25
    found = mend(model, _batches())
    assert [repair.done for repair in found.mended] == ["1 counter made whole again"]
    after = found.model.get_submodule(path)
    assert after.num_batches_tracked.dtype is torch.int64
    assert torch.equal(after.running_var, norm.running_var)
    assert faults(found.after) == []


def test_all_at_once(case):
    model, _, norm, conv = case
    layer = model.get_submodule(conv)
    layer.bias = nn.Parameter(torch.randn(layer.out_channels))
    norm.momentum = 0.95
    first = next(module for module in model.modules() if isinstance(module, _BatchNorm))
    first.weight.requires_grad_(False)
    first.bias.requires_grad_(False)
    with torch.no_grad():
        norm.running_var *= 9
    found = mend(model, _batches())
    assert {f.fault for f in found.before.findings} >= {
        "momentum-convention",
        "redundant-bias",
        "stale-statistics",
        "frozen-but-tracking",
    }
    assert faults(found.after) == []
    assert len(found.gone) == len(found.before.findings)


def test_without_data_settings_alone_are_mended():
    model = grown("plain")
    model[1].momentum = 0.9
    model[5].reset_running_stats()
    for given in (None, (4, 3, 24, 20)):
        found = mend(model, given)
        assert found.gone == (("momentum-convention", "1#1"),)
        assert [(each.fault, each.reason) for each in found.left] == [
            ("young-statistics", "the statistics need data to be estimated from")
        ]


def test_faults_that_need_a_decision_are_left_with_the_reason():
    model = grown("plain")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=1e-3)
    model[5].momentum = 0.9
    found = mend(model, _batches(), optimizer=optimizer)
    ((left, finding),) = zip(found.left, found.after.findings, strict=True)
    assert left == Left("decayed-gains", finding.address, f"it needs a decision: {finding.remedy}")
    assert "foreign-optimizer" not in [finding.fault for finding in found.after.findings]


def test_a_users_loss_guards_the_statistics():
    model = grown("plain")
    with torch.no_grad():
        model[5].running_mean += 2 * model[5].running_var.sqrt()
    batches = [(x, torch.randn(len(x), 4)) for x, _ in _batches()]
    found = mend(model, batches, loss=lambda outputs, y: F.mse_loss(outputs, y))
    assert found.before.gap is not None
    assert [repair.faults for repair in found.mended] == [("stale-statistics",)]


def test_data_that_can_be_read_once_is_refused():
    with pytest.raises(ConvscopeError, match=r"can be read once \(generator\).*pass list\(data\)"):
        mend(grown("plain"), (batch for batch in _batches()))


def test_a_model_that_cannot_be_copied_is_refused():
    model = grown("plain")
    model.held = (number for number in range(3))
    with pytest.raises(ConvscopeError, match=r"can't be copied.*by hand"):
        mend(model, _batches())


def test_a_limit_on_batches_holds_for_all_readings():
    model = grown("plain")
    with torch.no_grad():
        model[5].running_mean += 2 * model[5].running_var.sqrt()
    told = []
    found = mend(model, loader(), plan=CheckupPlan(max_batches=2, progress=told.append))
    assert (found.before.num_batches, found.after.num_batches) == (2, 2)
    assert "over 64 samples" in found.mended[0].done
    assert max(step.done for step in told) == 2
    assert any("estimating statistics" in step.purpose for step in told)


def test_the_result_as_json_and_text():
    model = grown("plain")
    model[5].momentum = 0.9
    found = cs.checkup.mend(model, _batches())
    written = json.loads(found.to_json())
    assert set(written) == {"schema_version", "before", "after", "mended", "left", "state"}
    text = str(found)
    assert "momentum-convention" in text
    assert "before" in text
    assert "your model is unchanged" in text
    assert "after all repairs" in " ".join(text.split())
    assert "after" in text


def test_the_table_names_faults_that_exist():
    assert set(repairable_faults()) <= set(fault_names())
    assert [repair.faults[0] for repair in all_repairs()[-2:]] == ["train-eval-gap", "frozen-but-tracking"]


def test_a_loader_with_a_generator_of_its_own_shuffles_alike_each_time():
    model = grown("plain")
    model[5].momentum = 0.9
    found = mend(model, loader(), plan=CheckupPlan(max_batches=2))
    assert found.mended[0].largest_change == 0.0
    again = mend(found.model, loader(), plan=CheckupPlan(max_batches=2))
    assert again.before.eval_loss == pytest.approx(found.after.eval_loss, rel=1e-6)
