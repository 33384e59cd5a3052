"""The proof that a check-up changes nothing, and the forms of data that it takes."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import CASES
from checkup.grown import Small, faults, grow, images, loader
from convscope import checkup
from convscope.checkup import fault_names
from convscope.checkup.examine import assemble, depth_of
from convscope.checkup.explain import page_names
from convscope.checkup.observed import LayerGap, Observation, TrainingRun
from convscope.core.errors import ConvscopeError
from convscope.core.fingerprint import fingerprint


@pytest.mark.parametrize("depth", ["static", "data"])
@pytest.mark.parametrize("training", [True, False])
def test_hashes_are_the_same_before_and_after(depth, training):
    model = grow(Small(bias=True), batches=40).train(training)
    model.bn1.register_forward_hook(lambda *_: None)
    data = None if depth == "static" else loader()
    given = fingerprint(model)
    found = checkup(model, data)
    assert found.depth == depth
    assert found.state.unchanged
    assert found.state.before == found.state.after == given == fingerprint(model)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_kind_of_network_is_unchanged(case):
    assert checkup(case.make(), torch.randn(case.shape)).state.unchanged


def test_a_model_that_changes_itself_is_told_to_have_changed(monkeypatch):
    model = grow(Small(), batches=40)
    hashes = iter([fingerprint(model), fingerprint(nn.ReLU())])
    monkeypatch.setattr("convscope.checkup.examine.fingerprint", lambda _: next(hashes))
    found = checkup(model)
    assert not found.state.unchanged
    assert "your model has changed during the check-up: parameters, buffers, modes" in str(found)


def test_an_exception_in_the_middle_leaves_the_same_hashes():
    model = grow(Small(bias=True), batches=40)
    x, other = images(16), images(16, channels=5)
    before = fingerprint(model)

    def broken():
        yield x, torch.zeros(16).long()
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        checkup(model, broken())
    assert fingerprint(model) == before
    with pytest.raises(ConvscopeError):
        checkup(model, [x, other])
    assert fingerprint(model) == before


def test_the_proof_is_in_the_json():
    written = json.loads(checkup(grow(Small(), batches=40)).to_json())
    assert written["state"]["unchanged"] is True
    assert all(len(digest) == 64 for digest in written["state"]["before"].values())


FORMS = {
    "tuples": lambda x, y: [(x[:16], y[:16]), (x[16:], y[16:])],
    "lists": lambda x, y: [[x[:16], y[:16]], [x[16:], y[16:]]],
    "dicts": lambda x, y: [{"x": x[:16], "labels": y[:16]}, {"x": x[16:], "labels": y[16:]}],
    "an odd last batch": lambda x, y: [(x[:23], y[:23]), (x[23:], y[23:])],
    "a last batch of one": lambda x, y: [(x[:31], y[:31]), (x[31:], y[31:])],
    "a generator": lambda x, y: (pair for pair in [(x[:16], y[:16]), (x[16:], y[16:])]),
    "one batch": lambda x, y: (x, y),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_data_give_the_same_loss(form):
    model = grow(Small(), batches=60)
    x, y = images(32), torch.randint(0, 4, (32,))
    with torch.no_grad():
        expected = float(F.cross_entropy(model.eval()(x).double(), y))
    found = checkup(model.train(), FORMS[form](x, y))
    assert found.num_samples == 32
    assert found.eval_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", ["images", "labels", "dict"])
def test_one_sample(form):
    model = grow(Small(), batches=60)
    x, y = images(1), torch.zeros(1).long()
    data = {"images": x, "labels": (x, y), "dict": {"x": x, "label": y}}[form]
    found = checkup(model, data)
    assert found.num_samples == 1
    assert found.state.unchanged
    assert all(finding.severity != "error" for finding in found.findings)


def test_a_loss_that_is_nan_is_left_out():
    model = grow(Small(), batches=60)
    batches = [(images(16), torch.full((16,), value)) for value in (1.0, float("nan"), 2.0)]
    found = checkup(model, batches, loss=lambda outputs, labels: outputs.mean() * labels.mean())
    assert found.gap is not None
    assert any(
        note.reason.startswith("1 of 3 batches left out: a loss that is NaN or infinite")
        for note in found.unchecked
    )
    assert found.attribution == ()


def test_a_part_on_another_device_is_one_clear_line():
    model = grow(Small(), batches=3)
    model.head = nn.Linear(12, 4, device="meta")
    with pytest.raises(ConvscopeError, match=r"tensor 'head.weight' on the meta device"):
        checkup(model, loader())
    assert model.training


def test_findings_name_the_page_about_them():
    model = grow(Small(), batches=60)
    model.bn1.momentum = 0.9
    (found,) = [each for each in checkup(model).findings if each.fault == "momentum-convention"]
    assert found.page == "convscope checkup --explain momentum-convention"
    assert set(page_names()) <= set(fault_names())


def test_depth():
    assert [depth_of(data) for data in (None, (2, 3, 8, 8), torch.zeros(1), [(1, 2)])] == [
        "static",
        "static",
        "data",
        "data",
    ]


def test_assembling_a_training_run():
    found = assemble(Observation((), run=TrainingRun(3)), "training")
    assert (found.depth, found.state, found.percentiles) == ("training", None, ())


def test_shares_are_ordered_by_blame():
    shares = tuple(
        LayerGap(f"{name}#1", name, size, 0.1) for name, size in (("b", 2.0), ("a", 0.3), ("c", 1))
    )
    found = assemble(Observation((), attribution=shares), "data")
    assert [share.path for share in found.attribution] == ["b", "c", "a"]


def test_some_channels_of_many_are_kept():
    model = nn.Sequential(nn.Conv2d(3, 700, 1), nn.BatchNorm2d(700), nn.ReLU())
    with torch.no_grad():
        model[1].weight[50], model[1].bias[50] = 0, -1
        model[1].running_mean[333] = 9
    (row,) = checkup(model, images(64)).layers
    assert len(row.single.number) <= 256
    assert {0, 50, 333, 699} <= set(row.single.number)
    assert list(row.single.number) == sorted(set(row.single.number))
    at = row.single.number.index(333)
    assert row.single.running_mean[at] == 9
    assert row.single.dead[row.single.number.index(50)]
    x = model[0].eval()(images(1))
    assert len(row.single.mean) == len(row.single.number)
    assert x.shape[1] == 700


def test_channels_are_the_layers_own_numbers():
    model = grow(Small(), batches=60)
    x = images(40)
    row = checkup(model, x).layers[0]
    y = model.conv1(x).detach().double()
    assert row.single.number == tuple(range(8))
    assert row.single.mean == pytest.approx(y.mean((0, 2, 3)).tolist(), rel=1e-4)
    assert row.single.variance == pytest.approx(y.var((0, 2, 3)).tolist(), rel=1e-4)
    assert row.single.running_variance == pytest.approx(model.bn1.running_var.tolist(), rel=1e-4)
    assert row.single.gamma == pytest.approx(model.bn1.weight.tolist(), rel=1e-4)
    n, w = 40, 0.1
    share = 1 / n + w / ((2 - w) * n)
    error = (y.mean((2, 3)).var(0) * share).sqrt()
    assert row.single.mean_error == pytest.approx(error.tolist(), rel=1e-3)
    assert faults(checkup(model, loader())) == []
