"""Every form of data, and every bad one."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from cases import FunctionalNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.norm.recalibration import Progress, RecalibrationPlan
from convscope.norm.recalibration.feeding import Feed
from convscope.norm.recalibration.recalibrate import recalibrate
from norm.recalibration.recalibrated import convnet, two_pass, unchanged


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(3)

    def forward(self, image, scale=1.0, other=None):
        return self.bn(image * scale + (0 if other is None else other))


def test_all_forms_of_data():
    x, other = torch.randn(12, 3), torch.randn(12, 3)
    labels = torch.zeros(12, dtype=torch.long)
    plain, both = two_pass(x)[0], two_pass(x + other)[0]
    pairs = [(x[:7], labels[:7]), (x[7:], labels[7:])]
    dicts = [{"image": x[at], "other": other[at], "label": labels[at]} for at in (slice(5), slice(5, 12))]
    forms = [
        (x, plain), ((x, labels), plain), (pairs, plain), (list(x.split(4)), plain),
        (DataLoader(TensorDataset(x, labels), batch_size=5), plain), (iter(pairs), plain),
        (dicts, both), (dicts[0] | {"image": x, "other": other}, both),
    ]  # fmt: skip
    for data, expected in forms:
        net = TwoInputs()
        recalibrate(net, data)
        assert torch.allclose(net.bn.running_mean.double(), expected, atol=1e-6)


def test_two_floating_tensors_are_inputs_and_targets_of_a_denoiser_and_two_batches_of_a_classifier():
    x, other = torch.randn(12, 3), 5 + torch.randn(12, 3)
    denoiser = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 3)).train()
    before = torch.get_rng_state()
    assert recalibrate(denoiser, (x, other)).num_samples == 12
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.allclose(denoiser[0].running_mean.double(), two_pass(x)[0], atol=1e-6)
    classifier = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    assert recalibrate(classifier, (x, other)).num_samples == 24
    assert torch.allclose(classifier[0].running_mean.double(), two_pass(x, other)[0], atol=1e-6)
    loss = lambda outputs, targets: (outputs - targets[:, :2]).square().mean()  # noqa: E731
    found = recalibrate(classifier, x, held_out=(x, other), loss=loss)
    assert found.held_out is not None


def test_forward_runs_odd_models():
    net, x = TwoInputs(), torch.randn(12, 3)
    batches = [("first", {"deep": [x[:5]]}), ("second", {"deep": [x[5:]]})]
    plan = RecalibrationPlan(forward=lambda model, batch: model(batch[1]["deep"][0], scale=2.0))
    found = recalibrate(net, batches, plan=plan)
    assert torch.allclose(net.bn.running_mean.double(), two_pass(2 * x)[0], atol=1e-6)
    assert found.num_samples == 12


def test_a_generator_is_read_once():
    net, x = convnet(), torch.randn(12, 2, 9, 9)
    found = recalibrate(net, (batch for batch in x.split(4)))
    assert found.num_passes == 1
    assert found.residual_before > 0
    assert found.residual_after is None
    before = state_of(net)
    with pytest.raises(ConvscopeError, match=r"can be read once .generator.*pass list"):
        recalibrate(net, (batch for batch in x.split(4)), method="sequential")
    unchanged(net, before)


def test_a_limit_on_samples():
    net, x = nn.Sequential(nn.BatchNorm1d(2)), torch.randn(30, 2)
    found = recalibrate(net, list(x.split(4)), plan=RecalibrationPlan(max_samples=9))
    assert (found.num_samples, found.num_batches) == (12, 3)
    assert torch.allclose(net[0].running_mean.double(), two_pass(x[:12])[0], atol=1e-7)
    endless = itertools.cycle(x.split(4))
    assert recalibrate(net, endless, plan=RecalibrationPlan(max_samples=9)).num_samples == 12


def test_passes_read_shuffled_data_in_the_same_order():
    class Recorded(TensorDataset):
        def __getitem__(self, index):
            order.append(index)
            return super().__getitem__(index)

    order = []
    loader = DataLoader(Recorded(torch.randn(9, 2, 9, 9)), batch_size=4, shuffle=True)
    found = recalibrate(convnet(), loader, method="sequential")
    passes = [order[start : start + 9] for start in range(0, len(order), 9)]
    assert len(passes) == found.num_passes == 6
    assert all(each == passes[0] for each in passes)


def test_progress_is_told_every_batch():
    told = []
    batches = list(torch.randn(10, 2, 9, 9).split(4))
    recalibrate(convnet(), batches, method="sequential", plan=RecalibrationPlan(progress=told.append))
    assert len(told) == 6 * 3
    assert told[2] == Progress(1, "statistics of the latest samples", 3, 3, 10)
    assert told[3].purpose == "inputs of 1"


class Once(IterableDataset):
    """A stream that is empty when it is read again."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        while self.items:
            yield self.items.pop()


BAD = {
    "no batch norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 2, 1)),
        torch.ones(2, 2, 3, 3),
        "without a batch norm",
    ),
    "functional batch norm": (FunctionalNet, torch.ones(2, 3, 9, 9), "without a batch norm"),
    "no data": (convnet, [], "without a single batch"),
    "a stream": (convnet, Once([torch.randn(4, 2, 9, 9)]), "when read for the 2. time"),
    "NaN": (convnet, [torch.full((2, 2, 9, 9), math.nan)], "batch 0 with NaN"),
    "an empty batch": (convnet, [torch.randn(4, 2, 9, 9), torch.randn(0, 2, 9, 9)], "batch 1 .*at least one"),
    "a data set": (convnet, TensorDataset(torch.randn(2, 2, 9, 9)), "wrap it in a DataLoader"),
    "text": (convnet, "digits", "data of type str"),
    "a number": (convnet, 3, "data of type int"),
    "batches of text": (convnet, ["a"], r"without a tensor.*say with forward=callable"),
    "wrong channels": (convnet, torch.randn(4, 3, 9, 9), r"fails in 0#1 on inputs of shape \(4, 3, 9, 9\)"),
    "no module": (lambda: "resnet18", torch.randn(4, 3, 9, 9), "as the network"),
    "TorchScript": (lambda: torch.jit.script(nn.Sequential(nn.BatchNorm2d(2))), None, "TorchScript"),
    "meta": (lambda: convnet().to("meta"), None, "meta device"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    make, data, message = BAD[case]
    model = make()
    before = state_of(model) if isinstance(model, nn.Sequential | FunctionalNet) and case != "meta" else None
    with pytest.raises(ConvscopeError, match=message):
        recalibrate(model, data)
    if before is not None:
        unchanged(model, before)


def test_bad_settings():
    with pytest.raises(ConvscopeError, match="method='exact'"):
        recalibrate(convnet(), torch.randn(4, 2, 9, 9), method="exact")
    for name in ("window", "max_samples"):
        with pytest.raises(ConvscopeError, match=f"{name}=0"):
            RecalibrationPlan(**{name: 0})
        for bad in ("3", 2.5, True):
            with pytest.raises(ConvscopeError, match=f"{name}={bad!r}.*a whole number"):
                RecalibrationPlan(**{name: bad})


class Masked(nn.Module):
    def forward(self, x, mask=None):
        return x if mask is None else x * mask


def test_a_mask_is_not_taken_for_labels():
    x, mask = torch.randn(4, 3), torch.ones(4, 3, dtype=torch.bool)
    with pytest.raises(ConvscopeError, match=r"boolean second tensor.*'mask': mask"):
        list(Feed(Masked(), [(x, mask)]))
    (batch,) = Feed(Masked(), [{"x": x, "mask": mask}])
    assert torch.equal(batch.run(), x)
    assert len(list(Feed(nn.Identity(), [(x, mask)]))) == 1  # labels, where no mask is taken
