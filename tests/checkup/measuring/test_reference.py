"""A model beside its reference: read in every form, matched by path, and both left alone."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

import convscope as cs
from checkup.grown import Small, bits_of, grow, images
from convscope.checkup.measuring.batches import batches_of
from convscope.checkup.measuring.reference import reference_facts
from convscope.core.errors import ConvscopeError

GROWN = grow(Small(), batches=20)


@pytest.fixture
def model():
    return copy.deepcopy(GROWN)


def _batch(model, number=8):
    return next(batches_of(model, images(number)))


def _saved(tmp_path, content, name="weights.pt"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def _forms(model, tmp_path):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    return {
        "network": copy.deepcopy(model),
        "wrapped": AveragedModel(model),
        "parallel": nn.DataParallel(copy.deepcopy(model)),
        "state": state,
        "nested": {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        "file": _saved(tmp_path, {"model": state}),
        "text": str(_saved(tmp_path, state, "other.pt")),
        "safetensors": tmp_path / "w.safetensors",
        "averaged state": AveragedModel(model).state_dict(),
    }


@pytest.mark.parametrize(
    "form",
    ["network", "wrapped", "parallel", "state", "nested", "file", "text", "safetensors", "averaged state"],
)
@pytest.mark.parametrize("wrap", [lambda net: net, AveragedModel])
def test_every_form_is_the_same_reference(model, tmp_path, form, wrap):
    reference = _forms(model, tmp_path)[form]
    prefix = "module." if wrap is AveragedModel else ""
    facts = reference_facts(wrap(model), reference, None)
    assert facts.source == ("network" if form in ("network", "wrapped", "parallel") else "checkpoint")
    assert facts.same_parameters
    assert facts.missing == ()
    assert list(facts.norms) == [f"{prefix}bn{number}" for number in (1, 2, 3)]
    for path, norm in facts.norms.items():
        layer = model.get_submodule(path.removeprefix(prefix))
        assert (norm.same_statistics, norm.same_affine) == (True, True)
        assert torch.equal(norm.running_mean, layer.running_mean.double())
        assert torch.equal(norm.running_variance, layer.running_var.double())
        assert norm.num_batches_tracked == 20
        assert norm.eps == (None if facts.source == "checkpoint" else 1e-5)


def test_one_bit_of_difference_is_seen(model):
    reference = copy.deepcopy(model)
    with torch.no_grad():
        reference.bn2.running_var[3] = torch.nextafter(reference.bn2.running_var[3], torch.tensor(9.0))
        reference.bn3.bias[0] += 1e-3
    facts = reference_facts(model, reference, None)
    assert [norm.same_statistics for norm in facts.norms.values()] == [True, False, True]
    assert [norm.same_affine for norm in facts.norms.values()] == [True, True, False]
    assert not facts.same_parameters


def test_missing_statistics_are_named(model):
    state = dict(model.state_dict())
    for name in ("bn1.running_mean", "bn3.running_var", "bn2.num_batches_tracked", "head.bias"):
        del state[name]
    facts = reference_facts(AveragedModel(model), state, None)
    assert set(facts.missing) == {"module.bn1.running_mean", "module.bn3.running_var"}
    assert facts.norms["module.bn1"].same_statistics is None
    assert facts.norms["module.bn2"].num_batches_tracked is None


def test_output_difference_is_that_of_two_runs(model):
    reference = copy.deepcopy(model).train()
    with torch.no_grad():
        model.head.bias[1] += 0.25
    batch = _batch(model)
    facts = reference_facts(model.train(), reference, batch)
    with torch.no_grad():
        before, after = (copy.deepcopy(net).eval()(*batch.args).double() for net in (reference, model))
    wanted = float((after - before).abs().max() / before.std(correction=0))
    assert facts.output_difference == pytest.approx(wanted, rel=1e-9)
    assert reference_facts(model, reference, None).output_difference is None
    assert reference_facts(model, model.state_dict(), batch).output_difference is None


def test_both_come_back_as_they_were(model):
    reference = nn.DataParallel(copy.deepcopy(model)).train()
    model.bn1.eval()
    batch = _batch(model)
    rng = torch.get_rng_state()
    before = [bits_of(net) for net in (model, reference)]
    reference_facts(model, reference, batch)
    assert [bits_of(net) for net in (model, reference)] == before
    assert torch.equal(torch.get_rng_state(), rng)


class _Fails(Small):
    def forward(self, x):
        raise RuntimeError("no such head")


def test_a_reference_that_doesnt_run_is_noted(model):
    reference = _Fails()
    reference.load_state_dict(model.state_dict())
    batch = _batch(model)
    before = bits_of(reference)
    facts = reference_facts(model, reference, batch)
    assert facts.output_difference is None
    assert "no such head" in facts.unchecked[0].reason
    assert set(facts.layer_differences.values()) == {0.0}
    assert bits_of(reference) == before
    reference = copy.deepcopy(model)
    reference.head = nn.Linear(12, 7)
    facts = reference_facts(model, reference, _batch(model))
    assert "other shapes" in facts.unchecked[0].reason
    assert facts.output_difference is None


def test_replaced_layers(model):
    reference = copy.deepcopy(model)
    cs.norm.convert(model, "group", only="bn1")
    model.bn2 = nn.Identity()
    facts = reference_facts(model, reference, None)
    assert facts.norms["bn1"].regrouped
    assert facts.norms["bn1"].same_affine
    assert facts.norms["bn1"].kind == "torch.nn.BatchNorm2d"
    assert facts.norms["bn2"].own_kind == "torch.nn.Identity"
    assert set(facts.layer_differences) == {"bn2", "bn3"}
    assert facts.layer_differences["bn3"] == 0


def test_precision_sets_what_could_be_rounding(model):
    assert reference_facts(model, copy.deepcopy(model), None).rounding == 1e-3
    assert reference_facts(model, copy.deepcopy(model).half(), None).rounding == 16 * 2**-10
    assert reference_facts(copy.deepcopy(model).bfloat16(), model, None).rounding == 16 * 2**-7


@pytest.mark.parametrize(
    ("reference", "part"),
    [
        (3, "a reference of type int"),
        ([torch.ones(3)], "a reference of type list"),
        ({}, "a dict without tensors"),
        ({"epoch": 3}, "a dict without tensors"),
        ({"other.weight": torch.ones(3)}, "a reference with tensors such as 'other.weight'"),
        (nn.Linear(2, 2), "a reference with tensors such as 'weight'"),
        ("nowhere.pt", "weights 'nowhere.pt' can't be read"),
    ],
)
def test_wrong_references_are_refused(model, reference, part):
    before = bits_of(model)
    with pytest.raises(ConvscopeError, match="expected") as caught:
        cs.checkup(model, reference=reference)
    assert part in str(caught.value)
    assert bits_of(model) == before


def test_a_broken_file_is_refused(model, tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ConvscopeError, match=r"bad\.pt"):
        cs.checkup(model, reference=tmp_path / "bad.pt")
