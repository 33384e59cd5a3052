"""What mending must not do: touch the given model, trust too little data, tell untruths, move a loader."""

import random

import numpy as np
import pytest
import torch
from bench.checkup_suite.networks import grown, images, labels_of
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from checkup.grown import bits_of
from convscope.checkup import checkup, mend
from convscope.checkup.mending.evidence import lacking
from convscope.checkup.mending.trial import split
from convscope.checkup.mending.workshop import Reread
from convscope.core.errors import ConvscopeError


class _Itself(nn.Sequential):
    def __deepcopy__(self, memo):
        return self


class _Shallow(nn.Sequential):
    """A copy with the same submodules."""

    def __deepcopy__(self, memo):
        return type(self)(*self)


class _SameMemory(nn.Module):
    """A copy whose batch norm is new, with the same buffers' memory."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(x).mean((2, 3))

    def __deepcopy__(self, memo):
        made = type(self)()
        made.norm.running_var = self.norm.running_var.view(-1)
        return made


SHARING = {
    "everything": lambda: _Itself(nn.BatchNorm2d(3)),
    "module '0'": lambda: _Shallow(nn.BatchNorm2d(3)),
    "the memory of 'norm.running_var'": _SameMemory,
}


@pytest.mark.parametrize("what", SHARING)
def test_a_copy_that_shares_with_the_model_is_refused(what):
    model = SHARING[what]()
    before = bits_of(model)
    with pytest.raises(ConvscopeError, match=f"whose copy shares {what} with it.*by hand"):
        mend(model, images(64))
    assert bits_of(model) == before


def test_the_proof_spans_everything_that_was_done(monkeypatch):
    model = grown("plain")
    model[5].momentum = 0.9
    found = mend(model, images(64))
    assert found.mended
    assert found.state.unchanged
    assert found.state.before == found.before.state.before
    monkeypatch.setattr(
        "convscope.checkup.mending.workshop.Workshop.outputs",
        lambda _: [model[1].running_mean.add_(1).clone()],
    )
    spoilt = mend(model, images(64))
    assert not spoilt.state.unchanged
    assert spoilt.before.state.unchanged
    assert "your model has changed during the mending: buffers" in " ".join(str(spoilt).split())


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_without_a_generator_leaves_the_global_ones_alone(shuffle):
    model = grown("plain")
    model[5].momentum = 0.9
    pictures = images(64)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    found = mend(model, DataLoader(TensorDataset(pictures, labels_of(pictures)), 16, shuffle=shuffle))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert found.mended
    assert found.state.unchanged
    assert "your model is unchanged" in " ".join(str(found).split())


class _Keeping(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))

    def forward(self, x):
        self.last = self.net(x)
        return self.last.mean((2, 3))


def test_a_network_that_keeps_an_activation_is_told_what_helps():
    model = _Keeping()
    model(images(8))
    with pytest.raises(ConvscopeError, match=r"run it once under torch.no_grad\(\), or clear that attribute"):
        mend(model, images(64))
    with torch.no_grad():
        model(images(8))
    assert mend(model, images(64)).state.unchanged


def _young():
    model = grown("plain")
    model[5].reset_running_stats()
    return model


FEW = {
    "one image": lambda: images(1) * 0.2 + 2,
    "four constant images": lambda: torch.zeros(4, 3, 24, 20),
    "64 constant images": lambda: torch.zeros(64, 3, 24, 20),
    "one image 64 times": lambda: images(1).repeat(64, 1, 1, 1),
    "two shifted images": lambda: images(2) + 3,
}


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("given", FEW)
@pytest.mark.parametrize("made", [_young, lambda: grown("plain")], ids=["young", "mature"])
def test_too_little_evidence_replaces_no_statistics(made, given, labelled):
    model, pictures = made(), FEW[given]()
    data = [(pictures, labels_of(pictures))] if labelled else [pictures]
    found = mend(model, data)
    assert all(torch.equal(new, old) for new, old in zip(found.model.buffers(), model.buffers(), strict=True))
    left = {each.fault: each.reason for each in found.left}
    if made is _young:
        assert any(word in left["young-statistics"] for word in ("give at least", "images don't differ"))


def test_how_many_images_it_takes_is_said_and_enough():
    model = _young()
    found = mend(model, images(6))
    (reason,) = {each.reason for each in found.left if each.fault == "young-statistics"}
    needed = int(reason.rpartition("at least ")[2].split()[0])
    assert 16 <= needed <= 256
    assert "young-statistics" in mend(model, images(2 * needed)).mended[0].faults


def test_the_error_of_an_estimate_is_that_over_many_samples():
    """The oracle: how much the variance of N images varies between samples of them."""
    net = nn.Sequential(nn.BatchNorm1d(1)).train()
    number = 20
    spread = torch.randn(4000, number, dtype=torch.float64).var(1).std()
    norm = checkup(net, torch.randn(number, 1, generator=torch.Generator().manual_seed(1))).layers[0]
    assert norm.channels == 1
    from convscope.checkup.examine import measure
    from convscope.checkup.measuring.subject import Subject
    from convscope.checkup.plan import CheckupPlan

    data = torch.randn(4096, 1, generator=torch.Generator().manual_seed(0))
    observation, _ = measure(Subject(net, None, None, None, CheckupPlan()), data)
    reason = lacking(observation.norms, number / 4096 / 1.5)
    said = float(reason.partition("±")[2].split(" %")[0]) / 100
    assert said == pytest.approx(float(spread) * 1.5**0.5, rel=0.08)


def test_youth_by_the_counter_alone_replaces_nothing():
    model = grown("plain")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.fill_(20)
    found = mend(model, images(8))
    assert {finding.severity for finding in found.before.findings} == {"advice"}
    assert found.mended == ()
    assert all("only the counter speaks for it" in each.reason for each in found.left)


def test_a_channel_that_is_constant_on_the_data_keeps_its_variance():
    model = grown("plain")
    with torch.no_grad():
        model[0].weight[0] = 0
        model[5].running_mean += 2 * model[5].running_var.sqrt()
    found = mend(model, images(128).split(32))
    old, new = model[1].running_var, found.model[1].running_var
    assert old[0] == new[0] > 0
    assert not bool((old[1:] == new[1:]).any())
    assert found.model[1].running_mean[0] == 0


@pytest.mark.parametrize(("size", "num_samples", "words"), [
    (16, 112, "on held-out batches (every fifth)"),
    (32, 128, "on the batches they come from (none held out of fewer than 5)"),
])  # fmt: skip
@pytest.mark.parametrize("labelled", [False, True])
def test_what_they_are_tried_on_is_said_truly(size, num_samples, words, labelled):
    model = grown("plain")
    with torch.no_grad():
        model[5].running_mean += 2 * model[5].running_var.sqrt()
    pictures = images(128, seed=7)
    batches = list(pictures.split(size))
    if labelled:
        batches = list(zip(batches, labels_of(pictures).split(size), strict=True))
    (repair,) = mend(model, batches).mended
    assert f"anew over {num_samples} samples" in repair.done
    assert words in repair.done


def test_every_fifth_batch_is_held_out_and_none_is_in_both():
    data = [torch.full((2, 3), float(number)) for number in range(11)]
    parts = split(Reread(data, None), 11)
    taken = [[int(batch[0, 0]) for batch in part] for part in (parts.estimated, parts.tried)]
    assert taken == [[0, 1, 2, 3, 5, 6, 7, 8, 10], [4, 9]]
    assert [len(parts.estimated), len(parts.tried)] == [9, 2]
    assert parts.share == 9 / 11


def test_without_a_loss_statistics_that_are_no_nearer_are_not_taken():
    """Held-out batches are of another kind, on which the old statistics are right."""
    model = grown("plain")
    with torch.no_grad():
        model[5].momentum = 0.9
    kinds = [images(32, seed=seed) + (0.0 if seed % 5 == 4 else 3.0) for seed in range(10)]
    found = mend(model, kinds)
    reasons = [each.reason for each in found.left if each.fault == "momentum-convention"]
    assert "aren't nearer to layers' inputs: on held-out batches" in reasons[0]
    assert torch.equal(found.model[5].running_mean, model[5].running_mean)
    assert found.model[5].momentum == 0.1


@pytest.mark.parametrize(("given", "after"), [(0.99, 0.01), (0.7, 0.3), (0.999, 0.001), (1.0, 0.1)])
def test_momentum_is_a_round_number(given, after):
    model = grown("plain")
    model[5].momentum = given
    found = mend(model)
    assert found.model[5].momentum == after
    assert (
        found.mended[0].done
        == f"momentum, the weight of the new batch, set ({given:g} → {after:g}) in 1 layer"
    )


def test_a_momentum_of_one_half_is_left():
    model = grown("plain")
    model[5].momentum = 0.5
    found = mend(model, images(64))
    assert found.mended == ()
    assert [(each.fault, each.reason.partition(",")[0]) for each in found.left] == [
        ("momentum-convention", "momentum 0.5 weighs old and new alike")
    ]


def test_a_large_bias_is_said_to_move_up_to_rounding():
    model = grown("plain")
    model[4].bias = nn.Parameter(torch.full((20,), 100.0))
    with torch.no_grad():
        model[5].running_mean += 100
    (repair,) = mend(model, images(64)).mended
    assert repair.largest_change > 1e-6
    assert f"up to rounding (outputs by up to {repair.largest_change:.1e} of the largest)" in repair.done


def _by_loader(generator, data):
    return DataLoader(data, 16, shuffle=True, generator=generator)


def _by_sampler(generator, data):
    return DataLoader(data, 16, sampler=RandomSampler(data, generator=generator))


def _by_batch_sampler(generator, data):
    return DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data, generator=generator), 16, False))


@pytest.mark.parametrize("made", [_by_loader, _by_sampler, _by_batch_sampler])
@pytest.mark.parametrize("tool", [checkup, mend])
@pytest.mark.parametrize("fails", [False, True])
def test_the_next_epoch_has_the_order_that_it_would_have_had(made, tool, fails):
    pictures = images(64)
    data = TensorDataset(pictures, labels_of(pictures))

    def orders(between):
        loader = made(torch.Generator().manual_seed(3), data)
        torch.manual_seed(0)
        first = torch.cat([labels for _, labels in loader])
        between(loader)
        return first, torch.cat([labels for _, labels in loader])

    def read(given):
        model = grown("plain")
        model[5].momentum = 0.9
        if not fails:
            tool(model, given)
            return
        with pytest.raises(ConvscopeError, match="loss failed"):
            tool(model, given, loss=lambda outputs, labels: 1 / 0)

    without, with_tool = orders(lambda _: None), orders(read)
    assert not torch.equal(*without)
    assert torch.equal(without[1], with_tool[1])


@pytest.mark.parametrize("with_generator", [False, True])
def test_before_and_after_are_of_the_same_batches(with_generator):
    """Batch statistics don't depend on the running ones, so that their loss tells batches apart."""
    data = TensorDataset(images(60), labels_of(images(60)))
    generator = torch.Generator().manual_seed(3) if with_generator else None
    batches = DataLoader(data, 7, shuffle=True, drop_last=True, generator=generator)
    model = grown("plain")
    with torch.no_grad():
        model[4].weight.mul_(4)
    found = mend(model, batches)
    assert found.mended
    assert found.before.eval_loss != found.after.eval_loss
    assert found.after.batch_loss == pytest.approx(found.before.batch_loss, rel=1e-5)
    assert not any("another order" in each.done for each in found.mended)


def test_each_reading_begins_alike_by_whatever_draws():
    def batches():
        for _ in range(3):
            yield torch.rand(2) + random.random() + np.random.rand()

    class Drawing:
        def __iter__(self):
            return batches()

    read = Reread(Drawing(), None)
    first, second = list(read), list(read)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert read.is_alike


def test_one_number_says_how_near_the_new_statistics_are():
    model = grown("plain")
    with torch.no_grad():
        model[4].weight.mul_(4)
    found = mend(model, list(images(160).split(16)))
    (done,) = [each.done for each in found.mended if "stale-statistics" in each.faults]
    assert "times as near to the layers' inputs" in done
    assert "residual" not in done
