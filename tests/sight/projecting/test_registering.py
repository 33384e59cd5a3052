"""Operators of one's own in projections: gates and linear operators that were registered."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import state_of
from convscope.core.errors import ConvscopeError
from convscope.sight import gallery, gate_rule, linear_operators, project
from convscope.sight.projecting import registering
from convscope.sight.projecting.projector import projecting
from convscope.tape import record


def operator(name, function, backward, setup=None):
    """A differentiable operator; ``backward`` gets the context and the signal."""
    made = torch.library.custom_op(f"registering::{name}", function, mutates_args=())
    made.register_fake(lambda x, *_: torch.empty_like(x))
    made.register_autograd(backward, setup_context=setup)
    return made


def keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def swish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(2 * x)


def slope(x):
    gate = torch.sigmoid(2 * x)
    return gate + 2 * x * gate * (1 - gate)


def scaled(x: torch.Tensor, scale: float) -> torch.Tensor:
    return x * torch.sigmoid(scale * x)


def keep_scale(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])
    ctx.scale = inputs[1]


def backwards_of_scaled(ctx, signal):
    (x,) = ctx.saved_tensors
    gate = torch.sigmoid(ctx.scale * x)
    return signal * (gate + ctx.scale * x * gate * (1 - gate)), None


def flipped(x: torch.Tensor) -> torch.Tensor:
    return x.flip(1)


operator("swish", swish, lambda ctx, signal: signal * slope(*ctx.saved_tensors), keep)
operator("scaled", scaled, backwards_of_scaled, keep_scale)
operator("flipped", flipped, lambda ctx, signal: signal.flip(1))
SCALE = 2.0


class Run(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.ops.registering.swish(x)

    @staticmethod
    def backward(ctx, signal):
        return signal * slope(*ctx.saved_tensors)


@pytest.fixture(autouse=True)
def tables_as_they_were():
    tables = (registering.GATES, registering.LINEAR)
    before = [dict(table) for table in tables]
    yield
    for table, held in zip(tables, before):
        table.clear()
        table.update(held)


def network(function, dtype=torch.float64):
    return nn.Sequential(nn.Conv2d(3, 8, 3), Run(function), nn.Conv2d(8, 4, 3)).to(dtype)


def by_hand(net, image, gate):
    """The signal of unit 1, by transposed convolutions and the gate written out."""
    with torch.no_grad():
        hidden, unit = net[0](image[None]), net(image[None])[0, 1]
        seed = torch.zeros(1, 4, *unit.shape, dtype=image.dtype)
        seed[0, 1].view(-1)[unit.argmax()] = 1
        signal = F.conv_transpose2d(seed, net[2].weight).clamp(min=0) * gate(hidden)
        return F.conv_transpose2d(signal, net[0].weight)[0].permute(1, 2, 0)


FORMS = {
    "without a backward operator": lambda x: torch.ops.registering.swish(x),
    "with a setting": lambda x: torch.ops.registering.scaled(x, SCALE),
    "with a setting by name": lambda x: torch.ops.registering.scaled(x=x, scale=SCALE),
}


def register_all():
    @gate_rule("registering::swish")
    def swish_gate(x):
        return torch.sigmoid(2 * x)

    @gate_rule("registering_scaled")
    def scaled_gate(x, scale):
        return torch.sigmoid(scale * x)


@pytest.mark.parametrize("form", FORMS)
def test_a_registered_gate_is_what_passes(form):
    register_all()
    net, image = network(FORMS[form]), torch.rand(3, 12, 10, dtype=torch.float64)
    before = state_of(net)
    view = project(net, image, "2", 1, "gated")
    assert [at.partition(":")[0] for at in view.census.gated] == ["1#1"]
    torch.testing.assert_close(view.image, by_hand(net, image, lambda x: torch.sigmoid(2 * x)))
    assert state_of(net) == before


def test_the_gate_of_half_precision_is_computed_in_float32():
    seen = []

    @gate_rule("registering::swish")
    def gate(x):
        seen.append(x.dtype)
        return torch.sigmoid(2 * x)

    net = network(torch.ops.registering.swish, torch.bfloat16)
    view = project(net, torch.rand(3, 8, 8), "2", 1, "gated")
    assert view.image.dtype == torch.bfloat16
    assert set(seen) == {torch.float32}


def test_each_image_of_a_batch_has_its_own_gate_whatever_runs_in_between():
    register_all()
    net = network(FORMS["with a setting"]).eval()
    images = torch.rand(4, 3, 12, 10, dtype=torch.float64)
    address = "2#1:convolution.1"
    with torch.no_grad():
        places = [divmod(int(unit.argmax()), unit.shape[1]) for unit in net(images)[:, 1]]
    with projecting(net, record(net, images[:1]), "gated") as projector:
        leaves, maps = projector.forward(address, images)
        projector.values(address, 3 * images)
        projector.forward(address, 2 * images)
        seed = torch.zeros_like(maps)
        for number, (y, x) in enumerate(places):
            seed[number, 1, y, x] = 1
        found = projector.backward(leaves, maps, seed)
    for image, picture in zip(images, found):
        expected = by_hand(net, image, lambda x: torch.sigmoid(2 * x))
        torch.testing.assert_close(picture.permute(1, 2, 0), expected)


def test_a_gallery_takes_registered_gates(tmp_path):
    register_all()
    net = network(FORMS["with a setting"], torch.float32)
    torch.nn.init.ones_(net[2].bias)
    found = gallery(net, torch.rand(3, 3, 9, 8), layers=("2",), top=1, rule="gated", out=tmp_path / "out")
    assert found.layers[0].units[1].examples


def test_without_a_rule_the_operator_is_named():
    net = network(FORMS["without a backward operator"])
    with pytest.raises(ConvscopeError, match="on the way through registering_swish at 1#1"):
        project(net, torch.rand(3, 12, 10), "2", 1, "gated")


def test_within_an_autograd_function_the_gate_can_not_be_put_in():
    register_all()
    net = network(Hidden.apply)
    with pytest.raises(
        ConvscopeError, match=r"outside of torch\.autograd\.Function; of torch\.library, with"
    ):
        project(net, torch.rand(3, 12, 10, dtype=torch.float64), "2", 1, "gated")


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gated"])
def test_a_registered_linear_operator_passes_by_its_own_derivative(rule):
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), Run(torch.ops.registering.flipped), nn.Conv2d(8, 4, 3))
    turned, image = nn.Sequential(*layers).double(), torch.rand(3, 12, 10, dtype=torch.float64)
    with pytest.raises(ConvscopeError, match="registering_flipped at 2#1"):
        project(turned, image, "3", 1, rule)
    linear_operators("registering::flipped")
    plain = nn.Sequential(layers[0], nn.ReLU(), nn.Conv2d(8, 4, 3)).double()
    with torch.no_grad():
        plain[2].weight.copy_(turned[3].weight.flip(1))
        plain[2].bias.copy_(turned[3].bias)
    expected = project(plain, image, "2", 1, rule).image
    torch.testing.assert_close(project(turned, image, "3", 1, rule).image, expected)


@pytest.mark.parametrize("linear_in", ["each", "first"])
def test_a_product_is_linear_only_where_one_factor_depends_on_the_image(linear_in):
    product = torch.library.custom_op(
        "registering::product", lambda x, y: x * y, mutates_args=(), schema="(Tensor x, Tensor y) -> Tensor"
    )
    product.register_fake(lambda x, y: torch.empty_like(x))
    product.register_autograd(
        lambda ctx, signal: (signal * ctx.saved_tensors[1], signal * ctx.saved_tensors[0]), setup_context=keep
    )
    linear_operators("registering::product", linear_in=linear_in)
    constant = torch.rand(1, 8, 1, 1, dtype=torch.float64).expand(1, 8, 10, 8)
    image = torch.rand(3, 12, 10, dtype=torch.float64)
    product_of = torch.ops.registering.product
    assert project(network(lambda x: product_of(x, constant)), image, "2", 1, "gated").census.linear == 3
    with pytest.raises(ConvscopeError, match="registering_product at 1#1"):
        project(network(lambda x: product_of(x, x)), image, "2", 1, "gated")
    behind = network(lambda x: product_of(constant.clone(), x))
    if linear_in == "each":
        assert project(behind, image, "2", 1, "gated").census.linear == 3
    else:
        with pytest.raises(ConvscopeError, match="registering_product at 1#1"):
            project(behind, image, "2", 1, "gated")


def test_bad_names_and_words_are_refused():
    for register in (gate_rule, linear_operators):
        with pytest.raises(ConvscopeError, match="a rule for operator 'a b'"):
            register("a b")
    with pytest.raises(ConvscopeError, match="linear_in='some'"):
        linear_operators("registering::flipped", linear_in="some")
