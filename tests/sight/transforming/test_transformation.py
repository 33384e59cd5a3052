"""Transformations against PyTorch's, SciPy's and NumPy's own."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from convscope.sight.transforming.transformation import Transformation, sampled

IMAGES = torch.randn(2, 3, 13, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("border", ["reflect", "wrap", "zero"])
@pytest.mark.parametrize("amount", [1, -5, 12])
@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.0, -1.0), (1.0, 1.0)])
def test_whole_pixels_are_copied(border, amount, direction):
    moved = Transformation("translation", amount, direction)(IMAGES, border)
    modes = {"reflect": {"mode": "reflect"}, "wrap": {"mode": "wrap"}, "zero": {"mode": "constant"}}
    padded = np.pad(IMAGES.numpy(), ((0, 0), (0, 0), (12, 12), (12, 12)), **modes[border])
    down, right = (int(amount * d) for d in direction)
    expected = padded[:, :, 12 - down : 25 - down, 12 - right : 30 - right]
    assert np.array_equal(moved.numpy(), expected)


@pytest.mark.parametrize(
    "step",
    [Transformation("translation", 0), Transformation("scale", 1), Transformation("rotation", 0),
     Transformation("rotation", 360)],
)  # fmt: skip
def test_the_identity_returns_the_images(step):
    assert step(IMAGES) is IMAGES


@pytest.mark.parametrize(("amount", "border"), [(2.25, "reflect"), (-0.5, "wrap"), (3.75, "zero")])
def test_parts_of_pixels_are_linear(amount, border):
    moved = Transformation("translation", amount)(IMAGES, border)
    low, high = (
        Transformation("translation", whole)(IMAGES, border)
        for whole in (math.floor(amount), math.ceil(amount))
    )
    part = amount - math.floor(amount)
    torch.testing.assert_close(moved, (1 - part) * low + part * high, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_copy(turns):
    square = IMAGES[:, :, :, :13]
    assert torch.equal(Transformation("rotation", 90 * turns)(square), square.rot90(turns, (2, 3)))
    even = IMAGES[:, :, :12, :12]
    assert torch.equal(Transformation("rotation", 90 * turns)(even), even.rot90(turns, (2, 3)))
    assert torch.equal(Transformation("rotation", -90 * turns)(even), even.rot90(-turns, (2, 3)))


@pytest.mark.parametrize("degrees", [17.0, 100.0, -63.0])
@pytest.mark.parametrize(
    ("border", "mode"), [("reflect", "mirror"), ("wrap", "grid-wrap"), ("zero", "grid-constant")]
)
def test_turns_equal_scipys(degrees, border, mode):
    turned = Transformation("rotation", degrees)(IMAGES, border)
    angle = math.radians(degrees)
    y, x = np.mgrid[:13, :18].astype(float)
    down, right = y - 6, x - 8.5
    # Counter-clockwise as shown, y downwards: a pixel comes from the point turned clockwise.
    source = [
        6 + math.cos(angle) * down + math.sin(angle) * right,
        8.5 - math.sin(angle) * down + math.cos(angle) * right,
    ]
    for image, found in zip(IMAGES.flatten(0, 1), turned.flatten(0, 1)):
        expected = ndimage.map_coordinates(image.numpy(), source, order=1, mode=mode)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("factor", [1.3, 1.8])
def test_enlarging_equals_scipys(factor):
    larger = Transformation("scale", factor)(IMAGES)
    y, x = np.mgrid[:13, :18].astype(float)
    source = [6 + (y - 6) / factor, 8.5 + (x - 8.5) / factor]
    for image, found in zip(IMAGES.flatten(0, 1), larger.flatten(0, 1)):
        expected = ndimage.map_coordinates(image.numpy(), source, order=1, mode="mirror")
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_reducing_equals_pytorchs_smoothed_resampling():
    images = torch.randn(1, 2, 32, 48, dtype=torch.float64)
    smaller = Transformation("scale", 0.5)(images)
    expected = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    torch.testing.assert_close(smaller[:, :, 9:23, 13:35], expected[:, :, 1:15, 1:23], rtol=1e-12, atol=1e-13)


def test_reducing_does_not_alias():
    stripes = torch.cos(math.pi * torch.arange(64.0)).expand(1, 1, 64, 64)
    inner = Transformation("scale", 0.5)(stripes)[:, :, 20:44, 20:44]
    assert inner.abs().max() < 1e-6
    constant = torch.full((1, 1, 9, 7), 3.0)
    torch.testing.assert_close(Transformation("scale", 0.37)(constant), constant)


@pytest.mark.parametrize(
    "step",
    [
        Transformation("translation", 2.5, (0.6, -1.0)),
        Transformation("scale", 0.7),
        Transformation("rotation", 33),
    ],
)
def test_points_go_where_the_image_goes(step):
    y, x = torch.tensor([6.0, 7.0]), torch.tensor([8.0, 9.0])
    there = step.moved(y, x, (13, 18))
    back = step.source(*there, (13, 18))
    torch.testing.assert_close(back, (y, x), rtol=1e-6, atol=1e-5)
    blob = torch.zeros(1, 1, 13, 18, dtype=torch.float64)
    blob[0, 0, 6, 8] = 1
    found = step(blob, "zero")[0, 0]
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in (13, 18))
    centre = [
        float((found.sum(1) * rows).sum() / found.sum()),
        float((found.sum(0) * columns).sum() / found.sum()),
    ]
    assert centre == pytest.approx([float(there[0][0]), float(there[1][0])], abs=0.35)


def test_samples_at_whole_points_are_the_maps():
    y, x = torch.meshgrid(torch.arange(13.0), torch.arange(18.0), indexing="ij")
    assert torch.equal(sampled(IMAGES, y, x), IMAGES.flatten(2))
    assert sampled(IMAGES.half(), y, x).dtype == torch.float16


def test_lines_of_one_pixel():
    thin = torch.randn(1, 1, 1, 5)
    for step in (Transformation("rotation", 45), Transformation("scale", 0.5), Transformation("scale", 2)):
        assert step(thin).shape == thin.shape
        assert bool(step(thin).isfinite().all())
