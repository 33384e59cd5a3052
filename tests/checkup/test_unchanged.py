"""A check-up leaves nothing behind, also after an exception."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as nn_module

from cases import FunctionalNet, ResidualNet
from checkup.grown import Small, bits_of, grow, images
from convscope import checkup
from convscope.norm.layers.batch import BatchNorm2d


@pytest.mark.parametrize("model", [ResidualNet(), Small(BatchNorm2d, bias=True), FunctionalNet()])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_back_as_it_was(model, training):
    model.train(training)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    labels = [(images(8, (17, 13)), torch.randint(0, 4, (8,))) for _ in range(2)]
    before, hooks = bits_of(model), _global_state()
    checkup(model, labels)
    assert bits_of(model) == before
    assert _global_state() == hooks


def _global_state():
    hooks = [
        dict(getattr(nn_module, name))
        for name in dir(nn_module)
        if name.startswith("_global_") and "hooks" in name
    ]
    return hooks, random.getstate(), np.random.get_state()[1].tolist(), torch.is_grad_enabled()


@pytest.mark.parametrize("good", [0, 1, 3])
def test_an_exception_in_the_data_leaves_no_trace(good):
    def batches():
        for _ in range(good):
            yield images(4), torch.randint(0, 4, (4,))
        torch.rand(1), random.random(), np.random.rand()
        raise OSError("disk gone")

    model = grow(Small(), batches=3)
    before, hooks = bits_of(model), _global_state()
    with pytest.raises(OSError, match="disk gone"):
        checkup(model, batches())
    assert bits_of(model) == before
    assert _global_state() == hooks


class _InPlace(nn.Module):
    """Normalises its images in place, as scripts do that own what they load."""

    def __init__(self, in_place, added=None):
        super().__init__()
        self.net, self.in_place, self.outside = Small(bias=True), in_place, [added]

    def forward(self, x):
        x = x.sub_(0.3).div_(0.4) if self.in_place else (x - 0.3) / 0.4
        return self.net(x if self.outside[0] is None else x + self.outside[0])


def test_a_network_that_works_in_place_is_given_copies():
    data = [(images(16), torch.randint(0, 4, (16,))) for _ in range(6)]
    before = [pictures.clone() for pictures, _ in data]
    plain, model = _InPlace(False), _InPlace(True)
    grow(plain.net, make=lambda: (images(16) - 0.3) / 0.4)
    model.load_state_dict(plain.state_dict())
    found, expected = checkup(model, data), checkup(plain, data)
    assert all(torch.equal(pictures, kept) for (pictures, _), kept in zip(data, before, strict=True))
    assert (found.eval_loss, found.batch_loss) == pytest.approx((expected.eval_loss, expected.batch_loss))
    assert [f.fault for f in found.findings] == [f.fault for f in expected.findings]
    mended = checkup.mend(model, data, reference=plain)
    assert all(torch.equal(pictures, kept) for (pictures, _), kept in zip(data, before, strict=True))
    assert mended.before.eval_loss == pytest.approx(expected.eval_loss)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_gradients_outside_the_model_stay_as_they_are(reentrant):
    outside, fresh = (nn.Parameter(torch.zeros(1, 3, 1, 1)) for _ in range(2))
    outside.grad = torch.ones_like(outside)
    model = grow(_InPlace(False, outside).train())
    if reentrant:
        inner = model.net.forward
        model.net.forward = lambda x: torch.utils.checkpoint.checkpoint(inner, x + fresh, use_reentrant=True)
    batch = images(16).requires_grad_(), torch.randint(0, 4, (16,))
    stepped = []
    model.net.conv1.weight.register_post_accumulate_grad_hook(lambda _: stepped.append(1))
    found = checkup(model, batch)
    assert ("redundant-bias", "net.conv1#1") in [(f.fault, f.address) for f in found.findings]
    assert (outside.grad.flatten().tolist(), fresh.grad, batch[0].grad) == ([1, 1, 1], None, None)
    assert len(stepped) == reentrant
