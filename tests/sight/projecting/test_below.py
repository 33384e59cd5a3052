import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import CheckpointedNet, SharedNet
from convscope.core.errors import ConvscopeError
from convscope.norm import LocalResponseNorm
from convscope.sight import gallery, project, stem
from convscope.sight.projecting.below import Below
from convscope.tape import record


def census(net, rule="deconvnet", shape=(1, 3, 17, 13)):
    tape = record(net, shape)
    return Below(tape).census(tape.outputs[0], rule)


class Blocks(nn.Module):
    """A path beside the output's, a shape that is borrowed from the image, and a mask that isn't a ReLU."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.beside = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        unused = self.beside(x).relu()
        y = self.conv(x) + torch.zeros_like(unused)
        return torch.where(y > 0.5, y, torch.zeros_like(y))


def test_only_operators_on_the_way_are_counted():
    found = census(Blocks(), "gated")
    assert found.gated == ("self#1:where.1",)
    assert found.linear == 2  # the convolution and the sum
    assert found.convolutions == 1
    assert found.rewritten == found.left == ()


def test_every_rule_has_its_own_census():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.GroupNorm(2, 4))
    for rule in ("deconvnet", "guided"):
        found = census(net, rule)
        assert (found.rewritten, found.gated) == (("2#1:relu.1",), ())
        assert (found.frozen, found.left) == (("3#1:group_norm.1",), ())
    found = census(net, "gated")
    assert (found.rewritten, found.gated, found.frozen) == ((), ("2#1:relu.1",), ("3#1:group_norm.1",))
    found = census(net, "gradient")
    assert (found.rewritten, found.gated, found.frozen, found.identity) == ((), (), (), ())
    assert found.left == ("2#1:relu.1", "3#1:group_norm.1")
    assert found.switches == ("1#1:max_pool2d_with_indices.1",)


@pytest.mark.parametrize("norm", [nn.LocalResponseNorm(3), LocalResponseNorm(3, average=True)])
def test_local_response_normalisation_is_known_by_its_data_flow(norm):
    found = census(nn.Sequential(nn.Conv2d(3, 4, 3), norm))
    assert found.identity == ("1#1:div.1",)
    assert found.frozen == ()


def test_four_operators_without_a_rule_are_named_by_three_and_a_number():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.GELU(), nn.Mish(), nn.SiLU())
    tape = record(net, (1, 3, 9, 9))
    with pytest.raises(ConvscopeError, match=r"silu at 1#1:silu.1, gelu at .*, mish at .* and 1 more"):
        Below(tape).require_rule(tape.outputs[0], "guided")
    assert Below(tape).without_rule(tape.outputs[0], "gated") == ()


class Spectral(nn.Module):
    """A filter in the frequency domain, which is linear."""

    def forward(self, x):
        spectrum = torch.fft.rfft2(x) * torch.linspace(0, 1, x.shape[3] // 2 + 1)
        return torch.fft.irfft2(spectrum, s=x.shape[2:])


def test_signals_go_through_complex_numbers():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Spectral(), nn.Conv2d(4, 2, 3))
    found = census(net, "guided", (1, 3, 18, 16))
    assert (found.rewritten, found.convolutions) == (("1#1:relu.1",), 2)


@pytest.mark.parametrize("norm", [nn.LocalResponseNorm(3), LocalResponseNorm(3)])
def test_the_gradient_goes_through_local_response_normalisation(norm):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), norm, nn.Conv2d(4, 2, 3)).double()
    image = torch.randn(3, 9, 8, dtype=torch.float64)
    leaf = image[None].clone().requires_grad_()
    net(leaf)[0, 1, 2, 2].backward()
    found = project(net, image, "3", 1, rule="gradient", position=(2, 2))
    assert torch.equal(found.image, leaf.grad[0].permute(1, 2, 0))


def test_checkpointed_blocks_are_projected_like_others():
    net = CheckpointedNet().double()
    plain = nn.Sequential(net.stem, net.block)
    image = torch.randn(3, 11, 9, dtype=torch.float64)
    expected = project(plain, image, "self", 2, position=(3, 2))
    found = project(net, image, "block", 2, position=(3, 2))
    torch.testing.assert_close(found.image, expected.image, rtol=1e-12, atol=1e-15)
    assert len(found.census.gated) == 1
    assert found.census.left == ()
    assert project(net, image, "self", 1).census.left == ()


@pytest.mark.parametrize("layer", ["block", "self"])
def test_reentrant_checkpoints_are_refused_by_name_and_without_a_warning(layer):
    with pytest.raises(ConvscopeError, match=r"reentrant checkpoint.*use_reentrant=False"):
        project(CheckpointedNet(reentrant=True), torch.randn(3, 11, 9), layer, 1)
    found = project(CheckpointedNet(reentrant=True), torch.randn(3, 11, 9), "stem", 1)
    assert found.census.convolutions == 1


class Halves(nn.Module):
    """Rectifies the first half of the channels in place, which makes a new value of the whole."""

    def __init__(self, write):
        super().__init__()
        self.c0, self.c1, self.write = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3), write

    def forward(self, x):
        h = self.c0(x)
        self.write(h)
        return self.c1(h).relu()


def assign(h):
    h[:, :3] = h[:, :3].relu()


def rectify(h):
    h[:, :3].relu_()


class Padded(nn.Module):
    """Padding by hand: a buffer of zeros that the maps are written into."""

    def __init__(self):
        super().__init__()
        self.c0, self.c1 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)

    def forward(self, x):
        h = self.c0(x).relu()
        buffer = torch.zeros(*h.shape[:2], h.shape[2] + 2, h.shape[3] + 2, dtype=h.dtype)
        buffer[:, :, 1:-1, 1:-1] = h
        return self.c1(buffer).relu()


def circular():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU()
    )


@pytest.mark.parametrize("make", [circular, lambda: Halves(assign), lambda: Halves(rectify), Padded])
def test_writes_into_parts_of_a_tensor_are_followed(make, tmp_path):
    net = make().double()
    images = torch.randn(5, 3, 9, 8, dtype=torch.float64)
    leaf = images[:1].clone().requires_grad_()
    net(leaf)[0, 1, 2, 3].backward()
    view = project(net, images[0], "self", 1, position=(2, 3), rule="gradient")
    torch.testing.assert_close(view.image, leaf.grad[0].permute(1, 2, 0), rtol=1e-12, atol=1e-15)
    found = project(net, images[0], "self", 1, position=(2, 3))
    assert found.census.convolutions == 2
    assert len(found.census.gated) == 2
    assert found.census.left == ()
    drawn = gallery(net, images, top=1, out=tmp_path / "out")
    assert [len(layer.units) for layer in drawn.layers] == [6, 4]
    assert drawn.left_out == ()
    assert stem(net, images).kernel == (3, 3)


def test_a_constant_written_over_a_part_leaves_the_rest_dependent():
    class Blanked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3)

        def forward(self, x):
            x = x.clone()
            x[:, 0] = 0.5
            return self.conv(x)

    assert census(Blanked()).convolutions == 1


def test_shared_modules_have_a_site_at_each_call():
    found = project(SharedNet(), torch.randn(3, 6, 6), "relu#2", 1)
    assert found.census.gated == ("relu#1:relu_.1", "relu#2:relu_.1")


class Cut(nn.Module):
    """An activation written out on a part of a convolution's channels."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.head, self.function = nn.Conv2d(3, 8, 3), nn.Conv2d(4, 5, 3), function

    def forward(self, x):
        return self.head(self.function(self.conv(x)[:, :4]))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.sigmoid(x),
        lambda x: x.mul(2).mul(x.sigmoid()).div(2),
        lambda x: torch.where(x > 0, x, 0.1 * x),
        lambda x: torch.maximum(x, 0.1 * x),
        lambda x: torch.minimum(-x, x),
        lambda x: x / (1 + x.square()).pow(0.5),
    ],
    ids=["silu", "scaled", "where", "maximum", "minimum", "divided by a power"],
)
def test_activations_written_out_behind_a_slice_are_rectified(function):
    """Leaky by ``max(x, x / 10)`` was taken for a max-pool, x / √(1 + x²) for local response norm."""
    net = Cut(function).double()
    image = torch.randn(3, 11, 10, dtype=torch.float64)
    with pytest.raises(ConvscopeError, match="ReLU as the only activation"):
        project(net, image, "head", 1, rule="deconvnet")
    found = project(net, image, "head", 1, rule="gated")
    x = net.conv(image[None])[:, :4].detach()
    signal = torch.zeros(1, 5, 7, 6, dtype=torch.float64)
    signal[(0, 1, *found.position)] = 1
    signal = F.conv_transpose2d(signal, net.head.weight).clamp(min=0) * function(x) / x
    expected = F.conv_transpose2d(F.pad(signal, (0, 0, 0, 0, 0, 4)), net.conv.weight)[0].permute(1, 2, 0)
    torch.testing.assert_close(found.image, expected, rtol=1e-11, atol=1e-14)
    assert len(found.census.gated) == 1
    assert found.census.switches == found.census.identity == ()


def test_a_gate_by_other_elements_is_no_activation_of_these():
    net = Cut(lambda x: x.flip(1) * x.sigmoid()).double()
    found = project(net, torch.randn(3, 11, 10, dtype=torch.float64), "head", 1, rule="deconvnet")
    assert len(found.census.frozen) == 1


@pytest.mark.parametrize("extreme", [torch.maximum, torch.minimum])
def test_extremes_with_a_constant_other_than_zero_are_refused_by_name(extreme):
    net = Cut(lambda x: extreme(x, torch.full((), 0.3, dtype=x.dtype)))
    for rule in ("deconvnet", "guided", "gated"):
        with pytest.raises(ConvscopeError, match=rf"{extreme.__name__} at self#1.*use rule='gradient'"):
            project(net, torch.randn(3, 11, 10), "head", 1, rule=rule)
