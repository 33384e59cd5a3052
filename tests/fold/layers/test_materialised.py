"""Weights that are computed in every run: the folded network against the one it was made from, in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as hooked_spectral_norm
from torch.nn.utils import weight_norm as hooked_weight_norm

from convscope.fold import fold
from convscope.fold.layers.plain_layer import SamePadConv2d
from fold.nets import IMAGE, Functional, conv

pytestmark = pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning")
REMEDY = "fold(..., materialise=True) makes the computed weights plain parameters"


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


class Masked(nn.Module):
    """A convolution of a user's own: weight = w · mask."""

    def __init__(self, inputs=3, outputs=4, **options):
        super().__init__()
        self.w = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.b = nn.Parameter(torch.randn(outputs))
        self.register_buffer("mask", (torch.rand(outputs, inputs, 3, 3) > 0.3).float())
        self.options = options

    def forward(self, x):
        return F.conv2d(x, self.w * self.mask, self.b * 0.5, **self.options)


class MaskedTransposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 2, 3, 2))

    def forward(self, x):
        return F.conv_transpose2d(x, self.w.tanh(), None, (2, 1), 1, (1, 0), groups=2)


class MaskedLinear(nn.Module):
    def __init__(self, transposed):
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 5))
        self.transposed = transposed

    def forward(self, x):
        weight = self.w.tanh()
        return x @ weight if self.transposed else F.linear(x, weight)


class Reflected(Masked):
    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 2, 2), mode="reflect"), self.w * self.mask)


def standardised(**options):
    return StdConv2d(3, 4, 3, **options)


def both():
    layer = parametrizations.weight_norm(conv())
    parametrize.register_parametrization(layer, "bias", Doubled())
    return layer


LAYERS = {
    "weight norm": (lambda: parametrizations.weight_norm(conv()), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "weight norm of all": (
        lambda: parametrizations.weight_norm(conv(3, 3), dim=None),
        nn.BatchNorm2d(3),
        IMAGE,
        nn.Conv2d,
    ),
    "weight and bias": (both, nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "spectral norm": (lambda: parametrizations.spectral_norm(conv()), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "orthogonal": (
        lambda: parametrizations.orthogonal(conv(bias=False)),
        nn.BatchNorm2d(4),
        IMAGE,
        nn.Conv2d,
    ),
    "linear": (
        lambda: parametrizations.weight_norm(nn.Linear(5, 5)),
        nn.BatchNorm1d(5),
        (5, 5),
        nn.Linear,
    ),
    "transposed": (
        lambda: parametrizations.spectral_norm(nn.ConvTranspose2d(4, 4, 3, groups=2)),
        nn.BatchNorm2d(4),
        (4, 4, 4, 4),
        nn.ConvTranspose2d,
    ),
    "1d": (
        lambda: parametrizations.weight_norm(nn.Conv1d(3, 4, 3)),
        nn.BatchNorm1d(4),
        (2, 3, 7),
        nn.Conv1d,
    ),
    "hooked weight norm": (lambda: hooked_weight_norm(conv()), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "hooked spectral norm": (lambda: hooked_spectral_norm(conv()), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "standardised": (standardised, nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "standardised, stride": (
        lambda: standardised(stride=2, dilation=2, bias=True),
        nn.BatchNorm2d(4),
        (2, 3, 9, 8),
        nn.Conv2d,
    ),
    "standardised, groups": (
        lambda: StdConv2d(4, 4, 3, groups=2),
        nn.BatchNorm2d(4),
        (4, 4, 4, 4),
        nn.Conv2d,
    ),
    "standardised, same": (
        lambda: StdConv2dSame(3, 4, (3, 2), stride=(2, 3), padding="same"),
        nn.BatchNorm2d(4),
        (2, 3, 8, 7),
        SamePadConv2d,
    ),
    "scaled": (lambda: ScaledStdConv2d(3, 4, 3), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "scaled, same": (
        lambda: ScaledStdConv2dSame(3, 4, 3, stride=2, padding="same"),
        nn.BatchNorm2d(4),
        IMAGE,
        SamePadConv2d,
    ),
    "masked": (lambda: Masked(padding=1, stride=2), nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "masked, square": (lambda: Masked(4, 4), nn.BatchNorm2d(4), (4, 4, 4, 4), nn.Conv2d),
    "masked, reflected": (Reflected, nn.BatchNorm2d(4), IMAGE, nn.Conv2d),
    "masked, transposed": (MaskedTransposed, nn.BatchNorm2d(4), (2, 4, 5, 6), nn.ConvTranspose2d),
    "masked linear": (lambda: MaskedLinear(False), nn.BatchNorm1d(5), (5, 5), nn.Linear),
    "masked product": (lambda: MaskedLinear(True), nn.BatchNorm1d(5), (5, 5), nn.Linear),
}


@pytest.fixture(params=LAYERS)
def case(request, randomised):
    """A network of a layer and a batch norm, the shape of its input, and the class that the layer becomes."""
    build, norm, shape, becomes = LAYERS[request.param]
    return randomised(nn.Sequential(build(), copy.deepcopy(norm), nn.Tanh())).double(), shape, becomes


def same(model, twin, shape, tolerance=1e-12):
    for number in (shape[0], 3):
        x = torch.randn(number, *shape[1:], dtype=torch.float64)
        with torch.no_grad():
            y = model(x)
            assert torch.allclose(twin(x), y, rtol=0, atol=tolerance * max(1.0, y.abs().max().item()))


def test_computed_weights_fold_on_request(case):
    net, shape, becomes = case
    kept = fold(net, shape)
    assert [(entry.verdict, entry.remedy) for entry in kept.ledger.entries] == [("kept", REMEDY)]
    assert type(kept.model[0]) is type(net[0])
    folded = fold(net, shape, materialise=True)
    assert [(entry.verdict, entry.into) for entry in folded.ledger.entries] == [("folded", "0#1")]
    assert type(folded.model[0]) is becomes
    assert dict(folded.model[0].named_parameters()).keys() == {"weight", "bias"}
    same(net, folded.model, shape)


def test_the_model_computes_its_weights_as_before(case):
    """Copies of parametrised modules share their class; what is done to one mustn't reach the other."""
    net, shape, _ = case
    names, kind = list(net.state_dict()), type(net[0])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        y = net(x)
        fold(net, shape, materialise=True)
        assert torch.equal(net(x), y)
    assert type(net[0]) is kind
    assert list(net.state_dict()) == names
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    weights = [parameter for parameter in net[0].parameters() if parameter.dim() > 1]
    net(x).sum().backward()
    assert all(parameter.grad is not None for parameter in weights)


def test_folded_network_scripts_exports_and_copies(case):
    net, shape, _ = case
    folded = fold(net, shape, materialise=True).model
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        same(folded, copy.deepcopy(folded), shape, 0)
        assert torch.allclose(torch.export.export(folded, (x,)).module()(x), folded(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["standardised, same", "scaled, same"])
def test_padding_that_depends_on_the_size_still_does(name, randomised):
    build, norm, shape, _ = LAYERS[name]
    net = randomised(nn.Sequential(build(), copy.deepcopy(norm))).double()
    folded = fold(net, shape, materialise=True).model
    for high in range(5, 10):
        for wide in range(5, 10):
            same(net, folded, (2, 3, high, wide))


@pytest.mark.parametrize(
    "build",
    [
        lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        lambda: parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
        lambda: hooked_weight_norm(nn.Conv2d(3, 4, 3)),
        lambda: hooked_spectral_norm(nn.Conv2d(3, 4, 3)),
        lambda: Masked(),
        lambda: StdConv2d(3, 4, 3, padding=0),
    ],
)
def test_batch_norm_before_a_computed_weight_folds(build, randomised):
    net = randomised(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), build(), nn.Tanh())).double()
    folded = fold(net, IMAGE, materialise=True)
    assert [(entry.verdict, entry.into) for entry in folded.ledger.entries] == [("folded", "2#1")]
    same(net, folded.model, IMAGE)


@pytest.mark.parametrize("border", ["map", "pad"])
@pytest.mark.parametrize("build", [standardised, lambda: parametrizations.weight_norm(conv())])
def test_computed_weights_before_a_border(build, border, randomised):
    net = randomised(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), build(), nn.Tanh())).double()
    folded = fold(net, IMAGE, materialise=True, border=border)
    assert folded.ledger.folded == 1
    assert isinstance(folded.model[2], nn.Conv2d)
    same(net, folded.model, IMAGE)


def test_numbers_are_computed_wide_and_cast_once(randomised):
    net = randomised(nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4)))
    folded = fold(net, IMAGE, materialise=True).model
    weight = net[0].weight.detach().double().reshape(4, -1)
    mean, var = weight.mean(1, keepdim=True), weight.var(1, unbiased=False, keepdim=True)
    scale = net[1].weight.double() / (net[1].running_var.double() + net[1].eps).sqrt()
    expected = (scale[:, None] * (weight - mean) / (var + net[0].eps).sqrt()).reshape(4, 3, 3, 3)
    assert torch.equal(folded[0].weight, expected.float())


def test_only_layers_that_take_a_batch_norm_in_become_plain(randomised):
    net = randomised(
        nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), StdConv2d(4, 4, 3), nn.Tanh())
    )
    folded = fold(net, IMAGE, materialise=True).model
    assert [type(folded[0]), type(folded[3])] == [nn.Conv2d, StdConv2d]


def test_parameters_that_do_not_learn_still_do_not(randomised):
    net = randomised(nn.Sequential(StdConv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4)))
    net[0].requires_grad_(False)
    assert not any(p.requires_grad for p in fold(net, IMAGE, materialise=True).model[0].parameters())
    net = randomised(nn.Sequential(parametrizations.weight_norm(conv()), nn.BatchNorm2d(4)))
    net[0].requires_grad_(False)
    assert not any(p.requires_grad for p in fold(net, IMAGE, materialise=True).model[0].parameters())


def test_a_layer_called_twice_is_one_layer_still(randomised):
    net = Functional(
        lambda s, x: s.bn(s.conv(s.bn(s.conv(x)))), conv=StdConv2d(3, 3, 3), bn=nn.BatchNorm2d(3)
    )
    net = randomised(net).double()
    folded = fold(net, IMAGE, materialise=True)
    assert folded.proof.passed
    same(net, folded.model, IMAGE)


def test_two_names_for_one_layer(randomised):
    net = Functional(lambda s, x: s.bn(s.a(x)), a=StdConv2d(3, 4, 3), bn=nn.BatchNorm2d(4))
    net.alias = net.a
    net = randomised(net).double()
    folded = fold(net, IMAGE, materialise=True)
    assert folded.ledger.folded == 1
    assert folded.model.alias is folded.model.a
    same(net, folded.model, IMAGE)


def test_tied_parameters_of_a_parametrised_layer_stay_with_the_other(randomised):
    net = Functional(
        lambda s, x: s.bn(s.a(x)) + s.b(x),
        a=parametrizations.spectral_norm(conv()), b=conv(), bn=nn.BatchNorm2d(4),
    )  # fmt: skip
    net.b.weight = net.a.parametrizations.weight.original
    net = randomised(net).double()
    folded = fold(net, IMAGE, materialise=True)
    assert folded.ledger.folded == 1
    assert torch.equal(folded.model.b.weight, net.b.weight)
    same(net, folded.model, IMAGE)


def test_other_parametrisations_of_a_layer_stay(randomised):
    class Extra(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * self.gain

    layer = Extra(3, 4, 3)
    layer.gain = nn.Parameter(torch.ones(1))
    parametrize.register_parametrization(layer, "gain", Doubled())
    net = randomised(nn.Sequential(parametrizations.weight_norm(layer), nn.BatchNorm2d(4))).double()
    before = copy.deepcopy(net)
    folded = fold(net, IMAGE, materialise=True)
    assert folded.ledger.folded == 1
    assert list(folded.model[0].parametrizations) == ["gain"]
    same(before, folded.model, IMAGE)
    same(before, net, IMAGE, 0)


class Switched(Masked):
    """Computes its weights, and does something else every second time."""

    def forward(self, x, again=False):
        return super().forward(x).relu() if again else super().forward(x)


class Noisy(Masked):
    def forward(self, x):
        return F.conv2d(x, self.w + torch.randn_like(self.w))


class Dynamic(Masked):
    def forward(self, x):
        return F.conv2d(x, self.w * x.mean())


class Cropped(Masked):
    """Does something else on wide inputs."""

    def forward(self, x):
        return super().forward(x[..., :5])


def hooked():
    layer = Masked()
    layer.register_forward_hook(lambda *_: None)
    return layer


STAYS = {
    "depends on data": (Dynamic, "isn't a parameter but computed by"),
    "random": (Noisy, "isn't a parameter but computed by"),
    "hooks": (hooked, "has hooks"),
    "does more": (Cropped, "does more"),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_no_plain_layer_stays(name, randomised):
    build, reason = STAYS[name]
    net = randomised(nn.Sequential(build(), nn.BatchNorm2d(4), nn.Tanh()))
    (kept,) = fold(net, (2, 3, 6, 5)).ledger.entries
    assert (kept.verdict, kept.remedy) == ("kept", "")
    (entry,) = fold(net, (2, 3, 6, 5), materialise=True).ledger.entries
    assert entry.verdict == "kept"
    assert reason in entry.reason


def test_training_mode_stays(randomised):
    net = randomised(nn.Sequential(parametrizations.spectral_norm(conv()), nn.BatchNorm2d(4), nn.Tanh()))
    net[0].train()
    (entry,) = fold(net, IMAGE, materialise=True).ledger.entries
    assert entry.verdict == "kept"
    assert "training mode; call eval() on it" in entry.reason


def test_code_of_the_network_itself_stays(randomised):
    net = Functional(lambda s, x: s.bn(F.conv2d(x, s.weight.tanh())), bn=nn.BatchNorm2d(4))
    net.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
    (entry,) = fold(randomised(net), IMAGE, materialise=True).ledger.entries
    assert "computed in the network's own code" in entry.reason


def test_another_use_of_the_computed_weight_stays(randomised, relative_error):
    net = Functional(
        lambda s, x: s.bn(s.conv(x)) * s.conv.weight.norm(),
        conv=parametrizations.weight_norm(conv()), bn=nn.BatchNorm2d(4),
    )  # fmt: skip
    folded = fold(randomised(net), IMAGE, materialise=True)
    assert folded.ledger.folded == 0
    assert "the computed conv.weight is also read by" in folded.ledger.entries[0].reason
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_another_use_of_the_raw_weight_stays(randomised, relative_error):
    net = Functional(
        lambda s, x: s.bn(s.conv(x)) * s.conv.weight.norm(), conv=StdConv2d(3, 4, 3), bn=nn.BatchNorm2d(4)
    )
    folded = fold(randomised(net), IMAGE, materialise=True)
    assert folded.ledger.folded == 0
    assert "reads too" in folded.ledger.entries[0].reason
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_another_way_through_the_module_stays(randomised):
    net = Functional(
        lambda s, x: s.bn(s.conv(x)) + s.conv(x, again=True), conv=Switched(), bn=nn.BatchNorm2d(4)
    )
    (entry,) = fold(randomised(net), IMAGE, materialise=True).ledger.entries
    assert entry.verdict == "kept"


def test_no_random_numbers_are_drawn(randomised):
    net = randomised(nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4)))
    state = torch.get_rng_state()
    fold(net, IMAGE, materialise=True)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_layer_that_also_makes_a_constant_keeps_making_it(randomised):
    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)) + self.conv(self.template))

    net = Functional(forward, conv=conv(), bn=nn.BatchNorm2d(4), last=nn.Identity())
    net.register_buffer("template", torch.randn(1, 3, 6, 5))
    (entry,) = fold(randomised(net), IMAGE).ledger.entries
    assert "taken back" not in entry.reason
    assert "is also called at conv#2" in entry.reason
