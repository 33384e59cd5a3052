"""Which loss is taken, in which unit, and that it leaves no trace."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from checkup.grown import Small, faults, grow, images, loader
from convscope import checkup
from convscope.checkup.measuring.batches import Batch
from convscope.checkup.measuring.chance import loss_by_chance
from convscope.checkup.measuring.criterion import Criterion
from convscope.core.errors import ConvscopeError

LOGITS, LABELS = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])


def _batch(labels=LABELS, given=False):
    return Batch((torch.zeros(6, 3),), {}, labels, 6, given)


def _own(outputs, labels):
    return F.cross_entropy(outputs, labels)


@pytest.mark.parametrize(
    ("loss", "labels", "expected"),
    [
        (None, LABELS, True),
        (nn.CrossEntropyLoss(), torch.rand(6, 4), True),
        (nn.BCEWithLogitsLoss(), torch.rand(6, 4), True),
        (partial(F.cross_entropy, label_smoothing=0.1), LABELS, True),
        (nn.CrossEntropyLoss().forward, torch.rand(6), True),
        (_own, LABELS, True),
        (_own, LABELS > 1, True),
        (_own, torch.tensor([[0.0, 1.0], [1.0, 1.0]]), True),
        (_own, torch.tensor([[0.25, 0.75], [0.5, 0.5]]), True),
        (_own, LABELS.tolist(), True),
        (_own, torch.rand(6, 4), False),
        (_own, {"image": torch.rand(6, 4), "number": LABELS}, False),
        (nn.MSELoss(), torch.tensor([0.0, 1.0]), False),
        (F.l1_loss, LABELS, False),
        (_own, None, False),
    ],
)
def test_which_losses_are_in_nats(loss, labels, expected):
    assert Criterion(loss).is_in_nats(labels) is expected


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(reduction="sum"), partial(F.cross_entropy, reduction="sum")]
)
def test_a_sum_is_taken_per_sample(loss):
    mean = float(F.cross_entropy(LOGITS, LABELS))
    assert float(Criterion(loss).of(LOGITS, _batch())) == pytest.approx(mean)
    assert float(Criterion(loss)(LOGITS, LABELS)) == pytest.approx(mean)
    net = grow(Small()).eval()
    data = list(loader())
    found, plain = checkup(net, data, loss=loss), checkup(net, data, loss=F.cross_entropy)
    assert (found.gap, found.eval_loss) == pytest.approx((plain.gap, plain.eval_loss), rel=1e-4)
    assert "unit of the gap" in [each.what for each in found.unchecked]


def test_no_reduction_is_refused():
    with pytest.raises(ConvscopeError, match="average over the batch"):
        checkup(grow(Small(), batches=3), list(loader(32)), loss=nn.CrossEntropyLoss(reduction="none"))


@pytest.mark.parametrize(
    "outputs",
    [
        {"features": torch.randn(6, 9), "logits": LOGITS},
        SimpleNamespace(features=torch.randn(6, 9), logits=LOGITS),
        (LOGITS, torch.randn(6, 4)),
        (torch.randn(6, 9, 2), LOGITS),
    ],
)
def test_logits_go_by_name_and_shape(outputs):
    assert Criterion(None).lacking(outputs, _batch()) == ""
    expected = F.cross_entropy(LOGITS.double(), LABELS, reduction="none").tolist()
    assert Criterion(None).of(outputs, _batch()).tolist() == pytest.approx(expected)


class _Several(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return x.flatten(1), self.net(x)


def test_outputs_of_several_widths_are_no_guess():
    net = _Several(grow(Small()))
    found = checkup(net, list(loader(48)))
    (note,) = [each.reason for each in found.unchecked if each.what == "gap"]
    assert found.gap is None
    assert "(16, 297) and (16, 4) could be the logits: pass loss=" in note
    assert checkup(net, list(loader(48)), loss=lambda out, y: F.cross_entropy(out[1], y)).gap is not None


def test_the_networks_own_loss_is_taken_where_it_was_given_the_labels():
    targets = torch.rand(6)
    outputs = {"loss": torch.tensor(0.5)}
    assert Criterion(None).lacking(outputs, _batch(targets, given=True)) == ""
    assert float(Criterion(None).of(outputs, _batch(targets, given=True))) == 0.5
    assert Criterion(None).weights(torch.tensor(0.5), _batch(targets, given=True)).tolist() == [6]
    assert "no loss was given" in Criterion(None).lacking(outputs, _batch(targets))


class _Centred(nn.Module):
    """Moves a centre with every call, draws at random, counts, and normalises by the batch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centre", torch.zeros(4))
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.calls = 0

    def forward(self, outputs, labels):
        self.calls += 1
        self.centre.mul_(0.9).add_(0.1 * outputs.detach().mean(0))
        return F.cross_entropy(outputs * (1 + self.centre), labels) + self.net(outputs).square().mean()


@pytest.mark.parametrize("form", [lambda m: m, lambda m: m.forward, partial, lambda m: lambda o, t: m(o, t)])
@pytest.mark.parametrize("repair", [False, True])
def test_a_loss_comes_back_as_it_was(form, repair):
    net, data, module = grow(Small()), list(loader(48)), _Centred()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    run = checkup.mend if repair else checkup
    found = run(net, data, loss=form(module))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.calls == 0
    assert found.state.unchanged
    again = run(net, data, loss=form(module))
    first, second = (each.before if repair else each for each in (found, again))
    assert first.gap == second.gap


def test_the_proof_of_state_is_of_the_loss_too(monkeypatch):
    monkeypatch.setattr("convscope.checkup.examine.preserved_loss", lambda loss: torch.no_grad())
    module = _Centred()

    def loss(outputs, labels):
        module.net[0].weight.data.add_(1)
        return F.cross_entropy(outputs, labels)

    assert not checkup(grow(Small()), list(loader(32)), loss=loss).state.unchanged


def test_a_loss_that_fails_comes_back_as_it_was():
    module = _Centred()

    def loss(outputs, labels):
        module(outputs, labels)
        raise OSError

    with pytest.raises(ConvscopeError, match="loss failed"):
        checkup(grow(Small()), list(loader(32)), loss=loss)
    assert module.calls == 0
    assert not bool(module.centre.any())


def test_labels_stay_as_they_are():
    def loss(outputs, labels):
        return F.cross_entropy(outputs, labels.clamp_(max=1))

    data = list(loader(48))
    before = [labels.clone() for _, labels in data]
    checkup(grow(Small()), data, loss=loss)
    assert all(torch.equal(labels, kept) for (_, labels), kept in zip(data, before, strict=True))


def test_chance_is_twice_the_variance_of_what_was_learnt():
    values = torch.randn(4000, dtype=torch.float64) * 3
    found = loss_by_chance(Criterion(F.mse_loss), values, values)
    assert found == pytest.approx(18, rel=0.1)
    assert loss_by_chance(Criterion(lambda out, _: out.square().mean()), values, None) == pytest.approx(
        float(values.square().mean())
    )
    assert loss_by_chance(Criterion(F.mse_loss), values[:1], values[:1]) is None


class _Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 1, 1)

    def forward(self, x):
        return self.head(torch.relu(self.bn(self.conv(x))))


def test_a_small_loss_has_a_gap_in_its_own_unit():
    """Targets in thousandths: 0.05 would hide a loss that is many times what it should be."""
    torch.manual_seed(0)
    net = grow(_Regression())
    with torch.no_grad():
        net.head.weight.mul_(1e-3)
    still = _Regression()
    still.load_state_dict(net.state_dict())
    pictures = images(256)
    with torch.no_grad():
        targets = torch.cat([still.train()(x) for x in pictures.split(32)])
    targets = targets + 1e-5 * torch.randn_like(targets)
    data = list(zip(pictures.split(32), targets.split(32), strict=True))
    assert "train-eval-gap" not in [fault for fault, _ in faults(checkup(net, data, loss=F.mse_loss))]
    with torch.no_grad():
        net.bn.running_mean += 0.4 * net.bn.running_var.sqrt()
    found = checkup(net, data, loss=F.mse_loss)
    assert "train-eval-gap" in [fault for fault, _ in faults(found)]
    assert found.gap < 1e-4
    (finding,) = [each for each in found.findings if each.fault == "train-eval-gap"]
    (limit,) = [each for each in finding.evidence if each.name == "tolerated gap"]
    assert limit.value < found.gap
    assert found.loss_unit == "loss"
    units = {each.name: each.unit for each in finding.evidence}
    losses = ("gap", "standard error of the gap", "loss in evaluation mode", "tolerated gap")
    assert {units[name] for name in losses} == {"loss"}
