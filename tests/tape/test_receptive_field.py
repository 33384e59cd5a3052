"""Receptive fields against published values and against where gradients really reach.

The oracle: with positive inputs and weights in float64, and averages in the place of maxima, the gradient of
one position is nonzero exactly at the pixels that it depends on.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope import norm
from convscope.networks.alexnet import alexnet
from convscope.tape import TrainingPlan, record
from convscope.tape.receptive_field import ReceptiveField, reasons_without_field, receptive_fields


def _field(net, shape):
    tape = record(net.eval(), shape)
    return receptive_fields(tape)[tape.outputs[0]]


def _positive(net):
    net = net.double().eval()
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.uniform_(0.02, 0.06)
    for name, module in net.named_modules():
        if isinstance(module, nn.MaxPool2d):
            parent = net.get_submodule(name.rpartition(".")[0])
            average = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            setattr(parent, name.rpartition(".")[2], average)
    return net


def _reached(net, shape, position):
    """First and last row and column of the pixels that one output position depends on."""
    x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    out = _positive(net)(x)
    (gradient,) = torch.autograd.grad(out[0, :, position[0], position[1]].sum(), x)
    rows, columns = gradient[0].abs().sum(0).nonzero(as_tuple=True)
    return (int(rows.min()), int(rows.max())), (int(columns.min()), int(columns.max()))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, (5, 3), padding=(2, 1))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)) + x)


class Branches(nn.Module):
    """Two asymmetric branches, joined: the union of their windows."""

    def __init__(self):
        super().__init__()
        self.wide, self.high = nn.Conv2d(4, 3, (1, 5), 2), nn.Conv2d(4, 3, (4, 1), 2)

    def forward(self, x):
        return torch.cat([self.wide(F.pad(x, (2, 2))), self.high(F.pad(x, (0, 0, 1, 2)))], 1)


class ChannelsLast(nn.Module):
    """A linear layer over channels that have been moved to the end, as in ConvNeXt."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Shuffled(nn.Module):
    def forward(self, x):
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)[:, :, 1:, ::2].contiguous()


NETWORKS = {
    "rectangular": lambda: [nn.Conv2d(3, 4, (5, 2), (2, 3), (1, 0)), nn.ReLU(), nn.Conv2d(4, 4, (1, 3))],
    "dilated": lambda: [nn.Conv2d(3, 4, 3, dilation=(1, 3), padding=(0, 3)), nn.Conv2d(4, 4, 2, 2)],
    "pools": lambda: [nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d((2, 3), (1, 2))],
    "hanging pool": lambda: [nn.Conv2d(3, 4, 2), nn.MaxPool2d((3, 2), 2, ceil_mode=True), nn.Conv2d(4, 4, 2)],
    "grouped": lambda: [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.Conv2d(8, 2, 1)],
    "residual": lambda: [nn.Conv2d(3, 4, 3, 2), Residual(), nn.SiLU(), Residual()],
    "branches": lambda: [nn.Conv2d(3, 4, 3), Branches(), nn.Dropout(), nn.Conv2d(6, 2, 2)],
    "transposed": lambda: [
        nn.Conv2d(3, 4, 2, 2), nn.ConvTranspose2d(4, 4, (3, 2), padding=(1, 0)), nn.Sigmoid(),
    ],
    "channels last": lambda: [nn.Conv2d(3, 4, 3, 2), ChannelsLast(), nn.GELU(), nn.Conv2d(4, 4, 3)],
    "views and slices": lambda: [nn.Conv2d(3, 4, 3), Shuffled(), nn.Conv2d(4, 4, (2, 3))],
    "norms": lambda: [
        nn.Conv2d(3, 4, 3), norm.BatchNorm2d(4), norm.LocalResponseNorm(3), nn.LocalResponseNorm(3),
        nn.Conv2d(4, 4, 3, 2),
    ],
}  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 3, 29, 23), (1, 3, 24, 24)], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_windows_are_where_gradients_reach(name, shape):
    net = nn.Sequential(*NETWORKS[name]())
    found = _field(net, shape)
    height, width = net(torch.zeros(shape)).shape[2:]
    middle = (height // 2, width // 2)
    for position in ((0, 0), middle, (height - 1, width - 1), (0, width - 1)):
        reached = _reached(nn.Sequential(*NETWORKS[name]()), shape, position)
        for axis in (0, 1):
            start = found.offset[axis] + position[axis] * found.stride[axis]
            window = (max(start, 0), min(start + found.size[axis] - 1, shape[2 + axis] - 1))
            if position == middle:
                assert reached[axis] == window, axis
            # At the border there may be pixels that nothing reaches, beyond the last whole stride.
            assert window[0] <= reached[axis][0] <= reached[axis][1] <= window[1], (position, axis)


def test_alexnet_convolutions():
    # Closed form, the same as in published tables (Araujo et al. 2019): 11, 51, 99, 131, 163; pool5 195.
    tape = record(alexnet("notes"), (1, 3, 227, 227))
    fields = receptive_fields(tape)
    sizes = [fields[call.output].size for call in tape.calls if call.op == "convolution"]
    assert sizes == [(11, 11), (51, 51), (99, 99), (131, 131), (163, 163)]
    pool5 = tape.find("features.pool5#1").outputs[0]
    # conv2 and later pad: 4·(2) … the first window of pool5 starts 2·8 + 3·16 pixels outside.
    assert fields[pool5] == ReceptiveField((195, 195), (32, 32), (-64, -64))


def test_vgg16_and_torchvisions_alexnet():
    """VGG-16: 212 at its end (Araujo et al. 2019), 196 before the last pool. AlexNet: 163 at conv5, as in
    CaffeNet (Yosinski et al. 2015): torchvision's pads otherwise, with the same filters and strides."""
    torchvision = pytest.importorskip("torchvision")
    tape = record(torchvision.models.vgg16(init_weights=False).features, (1, 3, 224, 224))
    fields = receptive_fields(tape)
    sizes = [fields[call.output].size[0] for call in tape.calls if call.op == "convolution"]
    assert sizes == [3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196]
    assert fields[tape.outputs[0]].size == (212, 212)
    tape = record(torchvision.models.alexnet().features, (1, 3, 224, 224))
    fields = receptive_fields(tape)
    sizes = [fields[call.output].size[0] for call in tape.calls if call.op == "convolution"]
    assert sizes == [11, 51, 99, 131, 163]


def test_resnet18_stages():
    # Araujo et al. 2019 give 435 for ResNet-18's last map; stages in between by the same recurrence.
    torchvision = pytest.importorskip("torchvision")
    tape = record(torchvision.models.resnet18(), (1, 3, 224, 224))
    fields = receptive_fields(tape)
    names = ("conv1", "layer1", "layer2", "layer3", "layer4")
    values = [tape.find(f"{name}#1").outputs[0] for name in names]
    assert [fields[value].size[0] for value in values] == [7, 43, 99, 211, 435]
    assert [fields[value].stride[0] for value in values] == [2, 4, 8, 16, 32]


def _reason(net, shape=(2, 3, 12, 10), plan=None):
    tape = record(net, shape, plan)
    value = tape.outputs[0]
    assert receptive_fields(tape)[value] is None
    return reasons_without_field(tape)[value]


class Gate(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


class Mixed(nn.Module):
    """Joins maps whose windows move at different speeds."""

    def forward(self, x):
        return torch.cat([x[:, :, :5, :5], x[:, :, ::2, ::2][:, :, :5, :5]], 1)


class Written(nn.Module):
    """Writes into parts of a tensor, whose whole is read."""

    def forward(self, x):
        out = torch.zeros_like(x)
        out[:, :1] = x[:, :1]
        return out + 1


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).real


@pytest.mark.parametrize(
    ("net", "word"),
    [
        (nn.AdaptiveAvgPool2d(1), "whole map"), (nn.Sequential(nn.Flatten(), nn.Linear(360, 2)), "whole map"),
        (Gate(), "whole map"), (nn.GroupNorm(3, 3), "whole map"), (nn.InstanceNorm2d(3), "whole map"),
        (norm.GroupNorm(3, 3), "whole map"), (nn.LayerNorm([3, 12, 10]), "whole map"),
        (nn.ConvTranspose2d(3, 2, 2, 2), "upsamples"), (nn.Upsample(scale_factor=2), "has no rule"),
        (nn.AdaptiveAvgPool2d(7), "differ"), (Mixed(), "different strides"), (Written(), "part"),
        (Spectrum(), "_fft_c2c.1 has no rule"), (nn.Softmax(2), "whole map"),
    ],
    ids=lambda item: type(item).__name__ if isinstance(item, nn.Module) else "",
)  # fmt: skip
def test_values_without_a_window_say_why(net, word):
    assert word in _reason(net.eval())


def test_batch_statistics_are_constants_in_training_too():
    for layer in (nn.BatchNorm2d(3), norm.BatchNorm2d(3)):
        tape = record(nn.Sequential(layer, nn.Conv2d(3, 4, 3)), (2, 3, 8, 8), TrainingPlan())
        value = tape.find("1#1").outputs[0]
        assert receptive_fields(tape)[value] == ReceptiveField((3, 3), (1, 1), (0, 0))


def test_a_hand_written_batch_norm_is_one_too():
    class ByHand(nn.Module):
        def forward(self, x):
            mean = x.sum((2, 3), keepdim=True).sum(0, keepdim=True) / (x.numel() // x.shape[1])
            return (x - mean) / (x - mean).square().mean((0, 2, 3), keepdim=True).sqrt()

    net = nn.Sequential(ByHand(), nn.Conv2d(3, 4, 3))
    tape = record(net, (2, 3, 8, 8), TrainingPlan())
    assert receptive_fields(tape)[tape.find("1#1").outputs[0]].size == (3, 3)
    assert "whole map" in _reason(net.eval())


class OwnInstanceNorm(nn.InstanceNorm2d):
    pass


@pytest.mark.parametrize("num_images", [1, 2])
@pytest.mark.parametrize("kind", [nn.InstanceNorm2d, norm.InstanceNorm2d, OwnInstanceNorm])
@pytest.mark.parametrize("plan", [None, TrainingPlan()], ids=["evaluation", "training"])
def test_instance_norm_has_no_window_in_any_mode(kind, plan, num_images):
    tape = record(nn.Sequential(nn.Conv2d(3, 4, 3), kind(4)).train(), (num_images, 3, 8, 8), plan)
    assert receptive_fields(tape)[tape.find("1#1").outputs[0]] is None


@pytest.mark.parametrize("num_images", [1, 2])
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, norm.BatchNorm2d])
def test_batch_statistics_in_evaluation_span_the_map(kind, num_images):
    """Perturbing one pixel changes all others through the statistics."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), kind(4, track_running_stats=False)).double().eval()
    x = torch.randn(num_images, 3, 8, 8, dtype=torch.float64)
    other = x.clone()
    other[0, 0, 0, 0] += 1
    assert (net(x) - net(other))[0, :, 5, 5].abs().min() > 1e-6
    assert "whole map" in _reason(net, tuple(x.shape))
    with_running = nn.Sequential(nn.Conv2d(3, 4, 3), kind(4)).eval()
    assert _field(with_running, tuple(x.shape)) == ReceptiveField((3, 3), (1, 1), (0, 0))


class Turned(nn.Module):
    def __init__(self, back):
        super().__init__()
        self.conv, self.back = nn.Conv2d(3, 4, (5, 3), (2, 1)), back

    def forward(self, x):
        y = self.conv(x.transpose(2, 3))
        return y.transpose(2, 3) if self.back else y


@pytest.mark.parametrize("shape", [(1, 3, 12, 10), (1, 3, 11, 11)], ids=str)
def test_rows_and_columns_that_changed_places_have_no_window_until_they_are_back(shape):
    assert "columns come before its rows" in _reason(Turned(back=False), shape)
    found = _field(Turned(back=True), shape)
    # The kernel's five rows lie on the image's columns.
    assert (found.size, found.stride) == ((3, 5), (1, 2))
    assert _reached(Turned(back=True), shape, (1, 2)) == ((1, 3), (4, 8))


class HalvesWritten(nn.Module):
    """Two views made before the writes; the second write is a constant."""

    def __init__(self, read):
        super().__init__()
        self.read = read

    def forward(self, x):
        out = x.new_zeros(x.shape)
        first, second = out[:, :1], out[:, 1:]
        first.copy_(x[:, :1].flip(2))
        second.copy_(torch.ones_like(second))
        return out + 1 if self.read else out


@pytest.mark.parametrize("read", [True, False])
def test_a_tensor_written_through_views_still_depends_on_the_image(read):
    tape = record(HalvesWritten(read), (2, 3, 12, 10))
    assert receptive_fields(tape)[tape.outputs[0]] is None
    tape = record(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (2, 3, 12, 10))
    assert receptive_fields(tape)[tape.outputs[0]] is None


def test_values_that_no_image_reaches_are_absent():
    tape = record(nn.Linear(4, 2), (3, 4))
    assert receptive_fields(tape) == {}
    tape = record(nn.Conv2d(3, 4, 3), (1, 3, 8, 8))
    assert set(receptive_fields(tape)) == {tape.inputs[0], tape.outputs[0]}
    assert receptive_fields(tape)[tape.inputs[0]] == ReceptiveField((1, 1), (1, 1), (0, 0))
