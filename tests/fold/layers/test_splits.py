"""Layers that several batch norms share: they move before each of them, or stay."""

import copy

import pytest
import torch
from torch import nn

from convscope.fold import fold
from convscope.fold.layers.splits import LayerBeforeNorm, MovedLayer, Split, splits_of
from convscope.fold.recorded.flow import Flow
from convscope.tape import record
from fold.micro.oracle import operators_of
from fold.nets import IMAGE, Functional

LEVELS = ((2, 4, 7, 5), (2, 4, 4, 3), (2, 4, 2, 2))


class Head(nn.Module):
    """Shared convolutions over levels, batch norms for each of them; the second convolution is depthwise."""

    def __init__(self, layer=lambda: nn.Conv2d(4, 4, 3, padding=1, bias=False)):
        super().__init__()
        self.conv, self.depthwise = layer(), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(4) for _ in LEVELS) for _ in range(2))
        self.out = nn.Conv2d(4, 6, 1)

    def forward(self, *levels):
        found = []
        for level, (first, second) in zip(levels, zip(*self.norms, strict=True), strict=True):
            y = first(self.conv(level)).relu()
            found.append(self.out(second(self.depthwise(y)).relu()))
        return tuple(found)


def net(forward, **parts):
    made = {"conv": nn.Conv2d(3, 5, 3), "bn1": nn.BatchNorm2d(5), "bn2": nn.BatchNorm2d(5), **parts}
    return Functional(forward, **made)


def test_detection_head(randomised):
    head = randomised(Head())
    folded = fold(head, LEVELS)
    assert folded.ledger.folded == 6
    assert [entry.address for entry in folded.ledger.entries] == [
        f"norms.{layer}.{level}#1" for level in range(3) for layer in range(2)
    ]
    levels = [torch.randn(shape, dtype=torch.float64) for shape in LEVELS]
    before, after = copy.deepcopy(head).double(), copy.deepcopy(folded.model).double()
    for expected, given in zip(before(*levels), after(*levels), strict=True):
        assert (given - expected).abs().max() < 1e-6 * expected.abs().max()
    assert folded.max_error < 1e-12
    assert isinstance(folded.model.conv, MovedLayer)
    assert "became a layer for each" in folded.ledger.entries[0].reason


def test_each_copy_has_the_weights_of_its_own_batch_norm(randomised):
    model = randomised(net(lambda s, x: s.bn1(s.conv(x)) * s.bn2(s.conv(x.flip(3)))))
    folded = fold(model, IMAGE).model
    for name in ("bn1", "bn2"):
        norm, layer = getattr(model, name), getattr(folded, name).layer
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        torch.testing.assert_close(layer.weight, model.conv.weight * scale.view(-1, 1, 1, 1))
        bias = (model.conv.bias - norm.running_mean) * scale + norm.bias
        torch.testing.assert_close(layer.bias, bias)
    names = operators_of(folded, IMAGE, torch.float32).names
    assert names.count("convolution") == 2, "as many as before"
    assert not [name for name in names if "batch_norm" in name]


def written_between(s, x):
    y = s.conv(x)
    x.mul_(2)
    return s.bn1(y) * s.bn2(s.conv(x))


def looked_at(s, x):
    y = s.conv(x)
    channels = y.shape[1]
    return s.bn1(y).reshape(-1, channels // 5).sum() + s.bn2(s.conv(x.flip(3))).sum() + channels


def looked_at_for_a_choice(s, x):
    y, z = s.conv(x), s.conv(x.flip(3))
    y, z = s.bn1(y), s.bn2(z)
    return y * z if y.shape[1] == 5 else y + z


def shape_decides(s, x):
    y, z = s.conv(x), s.conv(x.flip(3))
    if y.shape[1] == 5:
        return s.bn1(y) * s.bn2(z)
    return s.bn1(y) + s.bn2(z)


STAY = {
    "one_call_goes_elsewhere": lambda s, x: s.bn1(s.conv(x)) + s.conv(x.flip(3)),
    "one_norm_for_all": lambda s, x: s.bn1(s.conv(x)) * s.bn1(s.conv(x.flip(3))),
    "read_by_another_too": lambda s, x: s.bn1(y := s.conv(x)) * s.bn2(s.conv(x.flip(3))) * y,
    "norm_after_another_layer_too": lambda s, x: (
        s.bn1(s.conv(x)) * s.bn2(s.conv(x.flip(3))) * s.bn2(s.other(x))
    ),
    "not_directly": lambda s, x: s.bn1(s.conv(x).relu()) * s.bn2(s.conv(x.flip(3))),
    "two_at_once": lambda s, x: s.bn1(s.conv(x)) * s.bn2(s.conv(x.flip(3))) * s.bn2(y := s.conv(x)) * y,
    "written_between": written_between,
    "functional": lambda s, x: (
        s.bn1(s.conv(x)) * nn.functional.batch_norm(s.conv(x), s.bn2.running_mean, s.bn2.running_var)
    ),
}


@pytest.mark.parametrize("name", STAY)
def test_not_proposed(name):
    model = net(STAY[name], other=nn.Conv2d(3, 5, 3)).eval()
    assert splits_of(Flow(record(model, IMAGE), model)) == ()


@pytest.mark.parametrize("hooked", ["conv", "bn1"])
def test_hooked_modules_stay(hooked):
    model = net(lambda s, x: s.bn1(s.conv(x)) * s.bn2(s.conv(x.flip(3)))).eval()
    assert splits_of(Flow(record(model, IMAGE), model)) == (Split("conv", ("bn1", "bn2")),)
    getattr(model, hooked).register_forward_hook(lambda module, args, result: None)
    assert splits_of(Flow(record(model, IMAGE), model)) == ()


@pytest.mark.parametrize("forward", [looked_at, shape_decides, looked_at_for_a_choice])
def test_code_that_looks_at_the_result_shape(forward, randomised, relative_error):
    model = randomised(net(forward))
    folded = fold(model, IMAGE)
    assert relative_error(model, folded.model, *IMAGE) < 1e-6
    assert not any(entry.reason.startswith("taken back") for entry in folded.ledger.entries)
    is_moved = isinstance(folded.model.conv, MovedLayer)
    assert is_moved is (forward is looked_at_for_a_choice)


def test_nothing_moves_unless_all_of_its_batch_norms_fold(randomised, relative_error):
    model = randomised(net(lambda s, x: s.bn1(s.conv(x)) * s.bn2(s.conv(x.flip(3)))))
    model.bn2.train()
    folded = fold(model, IMAGE)
    assert type(folded.model.conv) is nn.Conv2d
    assert folded.ledger.entries[1].reason.startswith("is in training mode")
    model.bn2.eval()
    assert isinstance(fold(model, IMAGE).model.bn2, LayerBeforeNorm)


def test_users_model_is_as_it_was(randomised):
    head = randomised(Head())
    state = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    fold(head, LEVELS)
    assert type(head.conv) is nn.Conv2d
    assert all(torch.equal(tensor, state[name]) for name, tensor in head.state_dict().items())


def test_what_moved_trains_and_exports(randomised):
    folded = fold(randomised(Head()), LEVELS).model
    levels = [torch.randn(shape) for shape in LEVELS]
    sum(y.square().sum() for y in copy.deepcopy(folded).train()(*levels)).backward()
    program = torch.export.export(folded, tuple(levels)).module()
    for expected, given in zip(folded(*levels), program(*levels), strict=True):
        torch.testing.assert_close(given, expected)
