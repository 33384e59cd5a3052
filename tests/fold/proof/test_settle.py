"""Bad folds among good ones: found, taken back and named, without costing the good ones."""

import dataclasses

import pytest
import torch
from torch import nn

from convscope.fold.norms.identity import FoldedBatchNorm
from convscope.fold.options import DEFAULT
from convscope.fold.planning.plan import plan
from convscope.fold.proof.settle import copied, settle
from convscope.fold.proof.trials import described
from convscope.tape import record
from fold.nets import IMAGE

INPUTS = described(IMAGE, torch.float32)
NORMS = ("1", "4", "7", "10")


@pytest.fixture
def net(randomised):
    layers = [nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()]
    return randomised(nn.Sequential(*layers))


class Planner:
    """Plans a fold; for some batch norms, by their paths, wrongly.

    Args:
        net: the network.
        bad: batch norms whose fold gives the layer before them wrong weights.
        late: batch norms that are offered only after others have been taken back.
    """

    def __init__(self, net, bad=(), late=(), harm=None):
        self.net, self.bad, self.late, self.harm = net, bad, late, harm or self.spoil
        self.tape, self.asked = record(net, IMAGE), []

    @staticmethod
    def spoil(model, path):
        with torch.no_grad():
            model[int(path) - 1].weight.mul_(1.01)

    def __call__(self, kept):
        self.asked.append(set(kept))
        waiting = {} if kept else {f"{path}#1": "not yet" for path in self.late}
        made = plan(self.tape, self.net, DEFAULT, {**waiting, **kept})
        changed = {decision.address for decision in made.changes}
        wrong = [path for path in self.bad if f"{path}#1" in changed]
        edits = tuple(lambda model, path=path: self.harm(model, path) for path in wrong)
        return dataclasses.replace(made, stages=(*made.stages, edits))


def verdicts(settled):
    return {d.address.partition("#")[0]: d.verdict for d in settled.plan.decisions}


def reasons(settled):
    return {d.address.partition("#")[0]: d.reason for d in settled.plan.decisions if d.verdict == "kept"}


def error_of(net, settled):
    """How far the folded copy's outputs are off, by a run of our own."""
    before, after = (copied(net).double() for _ in range(2))
    settled.plan.carry_out(after)
    x = torch.randn(IMAGE, dtype=torch.float64)
    with torch.no_grad():
        expected = before(x)
        return ((after(x) - expected).abs().max() / expected.abs().max()).item()


def test_all_good(net):
    settled = settle(net, Planner(net), INPUTS)
    assert verdicts(settled) == dict.fromkeys(NORMS, "folded")
    assert set(settled.comparison.at) == {f"{path}#1" for path in NORMS}
    assert settled.comparison.within(1e-9)
    assert error_of(net, settled) < 1e-12


@pytest.mark.parametrize("bad", [("1",), ("7",), ("4", "10")])
def test_wrong_folds_are_taken_back(net, bad):
    settled = settle(net, Planner(net, bad), INPUTS)
    found = verdicts(settled)
    assert all(found[path] == "kept" for path in bad)
    assert all(found[path] == "folded" for path in NORMS[: NORMS.index(bad[0])]), (
        "those before the first bad one"
    )
    assert all("taken back: with it values differ by" in reason for reason in reasons(settled).values())
    assert not settled.plan.changes or settled.comparison.within(settled.threshold)
    assert error_of(net, settled) < 1e-12


def test_a_wrong_fold_that_the_outputs_hide_is_found_at_its_place(net):
    with torch.no_grad():
        net[3].weight.zero_()  # the second convolution ignores the first pair
    settled = settle(net, Planner(net, ("1",)), INPUTS)
    assert verdicts(settled)["1"] == "kept"
    assert verdicts(settled)["10"] == "folded"


def test_what_no_place_shows_takes_all_of_them_back(net):
    def elsewhere(model, path):
        model.append(nn.Flatten())
        model.append(nn.Threshold(0.5, 2.0))

    settled = settle(net, Planner(net, ("4",), harm=elsewhere), INPUTS)
    assert set(verdicts(settled).values()) == {"kept"}
    assert settled.comparison is None
    assert error_of(net, settled) == 0


def test_a_network_that_breaks_takes_all_of_them_back(net):
    settled = settle(net, Planner(net, ("4",), harm=lambda model, _: model.append(nn.Linear(99, 1))), INPUTS)
    assert set(verdicts(settled).values()) == {"kept"}
    assert all("the network fails in 12#1 (RuntimeError" in reason for reason in reasons(settled).values())


def test_nothing_unproved_is_shipped(net):
    """Whatever a plan offers anew once others are taken back is proved too, or not done."""

    def always(model, path):
        model.append(nn.Threshold(0.5, 2.0))

    planner = Planner(net, NORMS, late=("10",), harm=always)
    settled = settle(net, planner, INPUTS)
    assert settled.comparison is not None or not settled.plan.changes
    assert error_of(net, settled) < 1e-12


def test_a_fold_that_is_offered_late_is_proved(net):
    settled = settle(net, Planner(net, ("1",), late=("10",)), INPUTS)
    assert verdicts(settled)["1"] == "kept"
    assert not settled.plan.changes or settled.comparison.within(1e-9)
    assert error_of(net, settled) < 1e-12


def test_network_that_fails_everywhere_keeps_everything(net):
    settled = settle(net, Planner(net), described((2, 5, 6, 5), torch.float32))
    assert set(verdicts(settled).values()) == {"kept"}
    assert all("can't be proved: the network gives nothing" in why for why in reasons(settled).values())
    assert settled.comparison is None


def test_nothing_to_fold():
    net = nn.Sequential(nn.Conv2d(3, 4, 1)).eval()
    assert settle(net, Planner(net), INPUTS).comparison is None


def test_the_number_of_passes(net):
    """Four before, one that fails, one that is put right at places, and four after what failed is back."""
    passes = []

    def count(module, args):
        if isinstance(module, nn.Sequential) and type(args[0]) is torch.Tensor:  # and not a recording's
            passes.append(args[0].shape)

    planner = Planner(net, ("4",))
    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        settle(net, planner, INPUTS)
    finally:
        handle.remove()
    assert len(passes) == 4 + 1 + 1 + 4


@pytest.mark.parametrize("size", [None, 9, 5])
@pytest.mark.parametrize("bad", [("1",), ("1", "7"), NORMS])
def test_at_most_twelve_passes_whatever_fails(net, bad, size):
    """Folds that are wrong on all inputs, on those of another size or of the size given, and never cured."""
    passes = []

    class Sized(nn.Module):
        def forward(self, x):
            return x if size is not None and x.shape[-1] != size else 1.1 * x

    def harm(model, path):
        model[int(path) - 1] = nn.Sequential(model[int(path) - 1], Sized())
        if path == "7":
            model.append(Sized())

    def count(module, args):
        if module is not None and type(module) is nn.Sequential and len(module) > 3:
            passes.extend([1] * (type(args[0]) is torch.Tensor))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        settled = settle(net, Planner(net, bad, harm=harm), INPUTS)
    finally:
        handle.remove()
    assert len(passes) <= 12
    assert error_of(net, settled) < 1e-12


@pytest.mark.parametrize("bad", [("1",), ("7",), ("4", "10"), ("1", "4"), NORMS[1:]])
def test_only_the_culprits_are_taken_back(net, bad):
    """Wrong scales, found in one run that puts right what is wrong before."""
    settled = settle(net, Planner(net, bad), INPUTS)
    assert verdicts(settled) == {path: "kept" if path in bad else "folded" for path in NORMS}
    assert error_of(net, settled) < 1e-12


def test_a_wrong_shift_leaves_the_scale_where_it_went(net):
    """The culprit's shift alone is wrong: it stays, and all else folds."""

    def shift(model, path):
        if isinstance(model[int(path)], FoldedBatchNorm):
            with torch.no_grad():
                model[int(path) - 1].bias.add_(0.1)

    settled = settle(net, Planner(net, ("4",), harm=shift), INPUTS)
    assert verdicts(settled) == {"1": "folded", "4": "partial", "7": "folded", "10": "folded"}
    assert error_of(net, settled) < 1e-12


def test_a_network_that_breaks_in_a_layer_loses_what_went_into_it(net):
    """A layer that refuses its new weights: whoever folds into it is taken back, with the layer's name."""

    def harm(model, path):
        model[int(path) - 1].weight = nn.Parameter(torch.zeros(3, 7, 1, 1))

    settled = settle(net, Planner(net, ("4",), harm=harm), INPUTS)
    assert verdicts(settled) == {"1": "folded", "4": "kept", "7": "folded", "10": "folded"}
    assert "with it the network fails in 3#1 (RuntimeError" in reasons(settled)["4"]


class Casting(nn.Sequential):
    def forward(self, x):
        return self[1](self[0](x).float().to(x.dtype))


def test_a_network_that_casts_to_a_narrower_dtype_is_compared_in_that(randomised):
    net = randomised(Casting(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    settled = settle(net, Planner(net), INPUTS)
    assert settled.threshold == 1e-3
    assert verdicts(settled) == {"1": "folded"}


def test_the_network_stays_as_it_is(net):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    settle(net, Planner(net, ("4",)), INPUTS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert [type(module) for module in net[:3]] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
