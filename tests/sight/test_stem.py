"""The stem's diagnosis on gratings and networks whose answer is known."""

import math

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.sight import stem
from convscope.sight.stems.coverage import gabor


def grating(frequency_y, frequency_x, size=(96, 80)):
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    return torch.cos(2 * math.pi * (frequency_y * y + frequency_x * x)).expand(1, 1, *size)


def identity(stride):
    net = nn.Sequential(nn.Conv2d(1, 1, 1, stride=stride, bias=False), nn.ReLU()).double()
    nn.init.ones_(net[0].weight)
    return net


@pytest.mark.parametrize(
    ("stride", "wave", "share"),
    [
        (4, (0.0, 0.20), 1.0), (4, (0.20, 0.0), 1.0), (4, (0.05, 0.05), 0.0), (4, (0.0, 0.05), 0.0),
        (2, (0.0, 0.20), 0.0), (2, (0.0, 0.40), 1.0), (2, (0.40, 0.1), 1.0),
        (1, (0.45, 0.45), 0.0), ((1, 4), (0.40, 0.05), 0.0), ((1, 4), (0.05, 0.40), 1.0),
    ],
)  # fmt: skip
def test_pure_gratings_are_aliased_or_not(stride, wave, share):
    assert stem(identity(stride), grating(*wave)).aliased_share == pytest.approx(share, abs=2e-3)


def test_a_sum_of_two_gratings_has_the_share_of_their_energies():
    image = 3 * grating(0.0, 0.05) + 1 * grating(0.2, 0.0)
    assert stem(identity(4), image).aliased_share == pytest.approx(1 / 10, abs=2e-3)


def test_a_constant_does_not_count():
    assert stem(identity(4), 100 + grating(0.0, 0.2)).aliased_share == pytest.approx(1.0, abs=2e-3)


def pink(count, size, generator):
    """Noise with the amplitude spectrum 1/f, as natural images have it."""
    fy, fx = torch.fft.fftfreq(size)[:, None], torch.fft.fftfreq(size)
    radius = (fy.square() + fx.square()).sqrt().clamp(min=1 / size)
    white = torch.fft.fft2(torch.randn(count, 3, size, size, generator=generator))
    return torch.fft.ifft2(white / radius).real


STEMS = {"AlexNet": (11, 4), "ZFNet": (7, 2)}


@pytest.fixture(scope="module")
def noise():
    return pink(8, 128, torch.Generator().manual_seed(0))


def test_random_filters_of_alexnet_and_zfnet_are_told_apart(noise):
    """Random 11×11 filters with stride 4 lose about 0.4 on 1/f images, 7×7 with stride 2 about 0.14."""
    alex, zf = (
        stem(nn.Sequential(nn.Conv2d(3, 24, kernel, stride=stride), nn.ReLU()), noise)
        for kernel, stride in STEMS.values()
    )
    assert alex.aliased_share == pytest.approx(0.40, abs=0.08)
    assert zf.aliased_share == pytest.approx(0.14, abs=0.05)
    assert "aliased-stem" in {finding.fault for finding in alex.findings}
    assert "aliased-stem" not in {finding.fault for finding in zf.findings}
    assert [what.stride for what in alex.what_if] == [(1, 1), (2, 2), (4, 4)]
    assert alex.what_if[0].aliased_share == 0
    assert alex.what_if[2].aliased_share == alex.aliased_share
    assert alex.what_if[1].aliased_share < alex.aliased_share
    # ReLUs add frequencies, and the blur that is recommended takes most of the aliases away.
    assert alex.activated_share > alex.aliased_share
    (operator,) = alex.operators
    assert operator.blurred.median < 0.2 * operator.share.median
    # White filters on white images: what lies beyond is the area beyond.
    assert alex.filter_share == pytest.approx(1 - 1 / 16, abs=0.02)
    assert zf.filter_share == pytest.approx(1 - 1 / 4, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frequency", "name", "published"),
    [(0.2, "AlexNet", 0.83), (0.2, "ZFNet", 0.065), (0.12, "AlexNet", 0.23), (0.12, "ZFNet", 0.015)],
)
def test_gabor_filters_lose_what_was_measured_before(noise, frequency, name, published):
    """Gabor filters whose Gaussian has σ = kernel / 4, without their mean."""
    kernel, stride = STEMS[name]
    delta = math.sqrt(math.log(2)) / (2 * math.pi * kernel / 4)
    octaves = math.log2((frequency + delta) / (frequency - delta))
    turns = [(math.pi * turn / 8, phase) for turn in range(0, 8, 2) for phase in (0.0, math.pi / 2)]
    bank = torch.stack([gabor(frequency, turn, phase, (kernel, kernel), octaves) for turn, phase in turns])
    bank = (bank - bank.mean((1, 2), keepdim=True)).float()
    net = nn.Sequential(nn.Conv2d(3, len(bank), kernel, stride=stride, bias=False), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(bank[:, None].expand(-1, 3, -1, -1) / 3)
    found = stem(net, noise)
    assert found.aliased_share == pytest.approx(published, abs=0.06 if published > 0.1 else 0.012)
    for kernel_found in found.filters:
        # Half of a cycle in a filter is widened by taking its mean away.
        assert kernel_found.peak_frequency == pytest.approx(frequency, abs=0.03 if frequency > 0.15 else 0.06)


def test_dead_weak_and_dominant_filters_are_found():
    net = nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(6, 1, 3, 3))
        net[0].weight /= net[0].weight.square().mean((1, 2, 3), keepdim=True).sqrt()
        net[0].weight[4] *= 10
        net[0].weight[5] *= 0.01
        net[1].bias.copy_(torch.tensor([0.0, -1e6, 0.0, 0.0, 0.0, 1.0]))
    found = stem(net, torch.randn(5, 1, 12, 12))
    assert [kernel.dead for kernel in found.filters] == [False, True, False, False, False, False]
    assert found.filters[4].weight_rms == pytest.approx(10, rel=1e-6)
    assert found.filters[4].dominance == pytest.approx(10, rel=1e-6)
    assert found.filters[5].dominance == pytest.approx(0.01, rel=1e-6)
    assert {f.fault for f in found.findings} == {"dead-filters", "dominant-filters", "weak-filters"}
    assert (found.name, found.unit_address) == ("0", "2#1:relu.1")


def test_the_grid_shows_every_filter_with_its_own_scale():
    net = nn.Sequential(nn.Conv2d(3, 5, (3, 2), bias=False))
    found = stem(net, torch.randn(2, 3, 9, 9))
    assert found.grid.shape == (2 * 3 + 1, 3 * 2 + 2, 3)
    kernel = net[0].weight[4].detach()
    expected = 0.5 + kernel / (2 * kernel.abs().max())
    torch.testing.assert_close(found.grid[4:7, 3:5], expected.permute(1, 2, 0))
    assert (found.grid[4:7, 6:8] == 1).all()
    assert "grid" not in found.to_dict()


def test_a_silent_filter_has_no_share_and_json_says_null():
    net = identity(2)
    nn.init.zeros_(net[0].weight)
    found = stem(net, grating(0.1, 0.2))
    assert found.aliased_share is None
    assert found.to_dict()["filters"][0]["aliased_share"] is None


def test_string_padding_groups_and_dilation_work():
    net = nn.Conv2d(4, 6, 3, padding="same", groups=2, dilation=2)
    found = stem(net, torch.randn(3, 4, 14, 11))
    assert found.aliased_share == 0
    assert found.num_images == found.num_spectra == 3


def test_networks_without_a_convolution_are_refused():
    with pytest.raises(ConvscopeError, match="without convolutions"):
        stem(nn.Flatten(), torch.randn(2, 3, 9, 9))


def test_every_strided_operator_is_measured_in_order():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 12, 1, 2), nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip
    found = stem(net, torch.randn(3, 3, 96, 80))
    assert [(each.name, each.kind, each.stride) for each in found.operators] == [
        ("0", "convolution", (2, 2)), ("3", "max-pool", (2, 2)), ("6", "convolution", (2, 2)),
        ("7", "average-pool", (2, 2)),
    ]  # fmt: skip
    first, pool, shortcut, mean = found.operators
    assert first.share.median == found.aliased_share
    assert first.activated is not None
    assert pool.share == pool.activated != pool.unactivated
    assert pool.filter_share is None
    assert shortcut.filter_share.median == pytest.approx(0.75)
    assert shortcut.activated is None
    # A 2×2 mean: its power is cos²(πf) along each axis, of which 1/2 + 1/π lies below 1/4.
    assert mean.filter_share.median == pytest.approx(1 - (0.5 + 1 / math.pi) ** 2)
    assert found.left_out == ()


def test_pools_are_measured_on_the_maps_that_they_pool():
    """Dense maximum, mean taken away, Hann window, explicit transform; before and behind the ReLU."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)).double()
    image = torch.randn(1, 1, 30, 26).double()
    (pool,) = stem(net, image).operators
    with torch.no_grad():
        before = net[0](image)
    window = [torch.hann_window(n, periodic=False).double() for n in (26, 22)]
    shares = []
    for maps in (before.relu(), before):
        dense = nn.functional.max_pool2d(maps, 3, 1)
        dense = (dense - dense.mean((2, 3), keepdim=True)) * window[0][:, None] * window[1]
        power = torch.fft.fft2(dense)[0].abs().square()
        fy, fx = (torch.fft.fftfreq(n).abs() for n in (26, 22))
        outside = (fy[:, None] > 0.25) | (fx > 0.25)
        shares.append(float(((power * outside).sum((1, 2)) / power.sum((1, 2))).quantile(0.5)))
    assert pool.activated.median == pytest.approx(shares[0], rel=1e-5)
    assert pool.unactivated.median == pytest.approx(shares[1], rel=1e-5)


def test_a_grating_is_off_by_its_aliases_phase_and_other_layers_follow():
    """Half of the energy folds with the phase π: ‖difference‖² = 4 · share."""
    images = torch.randn(4, 1, 96, 96)
    net = nn.Sequential(nn.Conv2d(1, 4, 1, 2, bias=False), nn.Conv2d(4, 4, 1))
    found = stem(net, images)
    # White noise: three quarters fold; one half of what is left turns by π along one axis, …
    fold = found.aliased_share
    assert fold == pytest.approx(0.75, abs=0.02)
    first, second = found.shifts.layers
    # Aliases of one axis turn by π (|1 − e^iπ|² = 4), those of both axes by 2π (0): 2/3 of them by π.
    assert first.distance == pytest.approx(math.sqrt(4 * fold * 2 / 3), rel=0.05)
    assert second.distance == pytest.approx(first.distance, rel=0.02)


def test_what_if_tables_cut_filters_to_their_middle(noise):
    net = nn.Sequential(nn.Conv2d(3, 8, 11, stride=4, padding=2), nn.ReLU())
    found = stem(net, noise[:2])
    assert {(row.kernel, row.stride) for row in found.smaller} == {
        ((size, size), (step, step)) for size in (7, 5, 3) for step in (1, 2, 4)
    }
    row = next(row for row in found.smaller if (row.kernel, row.stride) == ((7, 7), (2, 2)))
    middle = net[0].weight.detach()[:, :, 2:9, 2:9]
    other = nn.Sequential(nn.Conv2d(3, 8, 7, stride=2, padding=0, bias=False), nn.ReLU())
    with torch.no_grad():
        other[0].weight.copy_(middle)
        size = other(noise[:1]).shape
    assert row.aliased_share == pytest.approx(stem(other, noise[:2]).aliased_share, rel=1e-4)
    assert row.map_size == tuple(size[2:])
    assert row.kept_energy == pytest.approx(
        float(middle.square().sum() / net[0].weight.detach().square().sum())
    )
    now = net(noise[:1]).shape
    assert row.macs_ratio == pytest.approx(49 * size[2] * size[3] / (121 * now[2] * now[3]))
    assert [row.macs_ratio for row in found.what_if][2] == 1
    assert found.what_if[0].covered == 1 >= found.what_if[1].covered >= found.what_if[2].covered
    three = stem(nn.Sequential(nn.Conv2d(3, 4, 3, stride=3)), noise[:1])
    assert [row.stride for row in three.what_if] == [(1, 1), (2, 2), (4, 4), (3, 3)]
    assert three.smaller == ()


def test_a_network_without_strides_folds_nothing():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    found = stem(net, torch.randn(2, 3, 40, 30))
    assert found.aliased_share == found.activated_share == found.filter_share == 0
    assert found.operators == ()
    assert all(each.distance < 1e-3 for each in found.shifts.layers)
    assert {each.reason for each in found.lattices} == {"the first layer has no stride"}
    assert found.findings == ()


@pytest.mark.parametrize("layers", [1, 2])
def test_images_without_energy_have_no_share_and_no_nan(layers):
    net = nn.Sequential(nn.Conv2d(3, 8, 7, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3))[: 2 * layers]
    for value in (0.0, 0.7):
        found = stem(net, torch.full((2, 3, 50, 41), value))
        assert found.aliased_share is None
        assert all(each.share is None and "no energy" in each.reason for each in found.operators)
        assert "NaN" not in found.to_json()
        assert found.radius == (pytest.approx(12.8 / 0.7) if value else None)
        assert str(found)


def test_a_map_too_small_for_a_spectrum_says_so():
    found = stem(
        nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2)), torch.randn(2, 3, 14, 14)
    )
    assert found.operators[0].share is not None
    assert found.operators[1].share is None
    assert "5×5" in found.operators[1].reason


def test_bad_input_is_refused_in_a_line():
    net = nn.Sequential(nn.Conv2d(3, 4, 11, 4), nn.ReLU())
    bad = torch.randn(3, 3, 40, 40)
    bad[1, 0, 2, 3] = torch.nan
    for network, images, message in (
        (net, torch.randn(2, 3, 8, 8), "Kernel size"),
        (net, torch.randn(2, 1, 40, 40), "channels"),
        (net, bad, "NaN"),
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2)), torch.randn(2, 3, 9, 9), "transposed"),
    ):
        with pytest.raises(ConvscopeError, match=message) as failure:
            stem(network, images)
        assert "\n" not in str(failure.value)


class Unshuffled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(12, 8, 3)

    def forward(self, x):
        return self.conv(nn.functional.pixel_unshuffle(x, 2)).relu()


def test_a_first_convolution_that_does_not_read_the_image_is_told():
    found = stem(Unshuffled(), torch.randn(2, 3, 40, 36))
    assert any("not the image" in reason for reason in found.left_out)
    assert any("pixel_unshuffle" in reason for reason in found.left_out)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_one_image_of_any_channels_and_precision(channels, dtype):
    net = nn.Sequential(nn.Conv2d(channels, 6, 5, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)).to(dtype)
    found = stem(net, torch.randn(1, channels, 40, 33).to(dtype))
    assert 0.5 < found.aliased_share < 1
    assert (found.coverage.colour is not None) == (channels == 3)
    assert found.is_folded
    assert str(found)


def test_the_batch_norm_is_folded_in():
    net = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(1, 1, 3, 3) * torch.tensor([1.0, 4, 1])[:, None, None, None])
        net[1].weight.copy_(torch.tensor([1.0, 1, -2]))
        net[1].running_var.copy_(torch.tensor([1.0, 16, 1]))
    found = stem(net, torch.randn(4, 1, 12, 12))
    assert [each.dominance for each in found.filters] == pytest.approx([1, 1, 2], rel=1e-4)
    assert [each.weight_rms / found.filters[0].weight_rms for each in found.filters] == pytest.approx(
        [1, 4, 1]
    )
    assert found.duplicates == ((0, 1, 2),)
    assert "duplicate-filters" in {finding.fault for finding in found.findings}


def test_without_activation_a_negative_filter_is_not_dead():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2))
    with torch.no_grad():
        net[0].bias.copy_(torch.tensor([-100.0, 0.0]))
    assert not any(each.dead for each in stem(net, torch.randn(3, 1, 12, 12)).filters)


def test_filters_beyond_zeilers_radius():
    net = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.ReLU())
    nn.init.normal_(net[0].weight, std=0.01)
    images = torch.rand(2, 1, 20, 20) * 256 - 128
    assert "oversized-filters" not in {finding.fault for finding in stem(net, images).findings}
    with torch.no_grad():
        net[0].weight[3] *= 0.12 / net[0].weight[3].square().mean().sqrt()
    found = stem(net, images)
    assert found.radius == pytest.approx(0.1, rel=0.01)
    (finding,) = (finding for finding in found.findings if finding.fault == "oversized-filters")
    assert finding.why.startswith("1 filter has weights with an RMS over 0.1")
    assert "oversized-filters" not in {finding.fault for finding in stem(net, images / 128).findings}


def test_an_aliased_stem_tells_only_strides_that_were_measured_and_its_own_blur():
    wave = grating(0.4, 0.0, (40, 13))
    found = stem(identity((2, 1)), wave)
    assert [what.aliased_share for what in found.what_if if what.stride == (4, 4)] == [None]
    finding = next(each for each in found.findings if each.fault == "aliased-stem")
    assert "at stride 2×1 (the same filters with stride 1×1: 0.00, stride 2×2: 1.00" in finding.why
    assert "4×4" not in finding.why
    assert finding.remedy.endswith("a blur by [1 2 1] / 4 down the image before subsampling")
    assert {each.name for each in finding.evidence[1:4]} == {
        "with stride 1×1", "with stride 2×2", "with stride 2×1"
    }  # fmt: skip


def test_unequal_strides_have_unequal_blurs():
    finding = stem(identity((2, 4)), grating(0.0, 0.2)).findings[0]
    assert "[1 2 1] / 4 down the image and [1 6 15 20 15 6 1] / 64 across the image" in finding.remedy


def test_infinite_activations_and_scores_that_are_nan_are_refused():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    nn.init.constant_(net[0].weight, 1e38)
    with pytest.raises(ConvscopeError, match="unit 0 of the first convolution, which is infinite in image 0"):
        stem(net, torch.full((2, 1, 20, 20), 100.0))
    nn.init.ones_(net[0].weight)
    nn.init.constant_(net[3].weight, math.nan)
    with pytest.raises(ConvscopeError, match="a network whose scores are NaN"):
        stem(net, torch.rand(2, 1, 20, 20))


@pytest.mark.parametrize(
    ("norm", "faults"), [(nn.Identity(), {"oversized-filters"}), (nn.GroupNorm(2, 4), set())]
)
def test_a_radius_means_nothing_where_the_image_normalises(norm, faults):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Softplus())
    net[0].weight.data[:] = 100 * torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)).sign()
    found = stem(net, torch.rand(2, 1, 24, 24))
    assert {each.fault for each in found.findings} & {"oversized-filters"} == faults
