"""The model comes back as it was, also after a failure in the middle."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cases import ResidualNet, state_of
from convscope.core.errors import ConvscopeError
from convscope.sight import ImageSource, gallery, project, stem

IMAGES = torch.randn(5, 3, 17, 13)
READINGS = {
    "project": lambda model, _: project(model, IMAGES[0], "conv2", 3),
    "gallery": lambda model, folder: gallery(model, IMAGES, out=folder / "out", top=2),
    "stem": lambda model, _: stem(model, ImageSource(IMAGES, batch_size=2)),
}


class Trap(nn.Module):
    """Fails at its n-th call with real numbers."""

    def __init__(self, fails_at):
        super().__init__()
        self.fails_at = fails_at

    def forward(self, x):
        if type(x) is torch.Tensor and x.device.type == "cpu" and self.fails_at is not None:
            COUNT[0] += 1
            if COUNT[0] == self.fails_at:
                raise KeyboardInterrupt
        return x


COUNT = [0]


def trained():
    model = ResidualNet().train()
    model.bn1.eval()
    model.shortcut.weight.requires_grad_(False)
    model.stem[0].register_forward_hook(lambda *_: None)
    model(torch.randn(4, 3, 17, 13)).sum().backward()
    return model


@pytest.mark.parametrize("reading", READINGS)
def test_everything_comes_back(reading, tmp_path):
    model = trained()
    before = state_of(model)
    READINGS[reading](model, tmp_path)
    assert state_of(model) == before


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("call", [1, 2])
def test_everything_comes_back_after_a_failure(reading, call, tmp_path):
    model = trained()
    model.stem.append(Trap(call))
    COUNT[0] = 0
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt):
        READINGS[reading](model, tmp_path)
    assert state_of(model) == before
    assert not (tmp_path / "out").exists()  # what was done before is kept beside it


@pytest.mark.parametrize("reading", [gallery, stem])
def test_a_loaders_seed_leaves_no_trace(reading, tmp_path):
    loader = DataLoader(TensorDataset(IMAGES), batch_size=2)
    given = {"out": tmp_path / "out"} if reading is gallery else {}
    model = ResidualNet()
    before = torch.get_rng_state()
    reading(model, loader, **given)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("reading", READINGS)
def test_images_keep_their_graph_to_themselves(reading, tmp_path):
    model, plain = trained(), IMAGES.clone()
    expected = repr(READINGS[reading](model, tmp_path / "a"))
    try:
        IMAGES.requires_grad_()
        found = repr(READINGS[reading](model, tmp_path / "b"))
    finally:
        IMAGES.requires_grad_(False)
    assert found.replace(f"{tmp_path}/b", f"{tmp_path}/a") == expected
    assert IMAGES.grad is None
    assert torch.equal(IMAGES, plain)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_numbers_are_named(value, tmp_path):
    images = IMAGES.clone()
    images[3, 1, 2, 5] = value
    for reading in (
        lambda s: gallery(ResidualNet(), s, out=tmp_path / "out"),
        lambda s: stem(ResidualNet(), s),
    ):
        for source, name in (
            (images, "image 3 with NaN"),
            (ImageSource(list(images), names=list("abcde"), batch_size=2), r"image 3 \(d\) with NaN"),
            (DataLoader(TensorDataset(images), batch_size=2), "image 3 with NaN"),
        ):
            with pytest.raises(ConvscopeError, match=name):
                reading(source)
    with pytest.raises(ConvscopeError, match="an image with NaN"):
        project(ResidualNet(), images[3], "conv2", 3)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_numbers_make_no_dead_units(tmp_path):
    model = trained()
    with torch.no_grad():
        model.stem[0].weight[2, 0, 0, 0] = float("nan")
    for reading in READINGS.values():
        with pytest.raises(ConvscopeError, match="NaN or infinite weights"):
            reading(model, tmp_path)


def test_models_without_numbers_are_refused(tmp_path):
    with torch.device("meta"):
        model = ResidualNet()
    for reading in READINGS.values():
        with pytest.raises(ConvscopeError, match=r"'stem\.0\.weight' on the meta device"):
            reading(model, tmp_path)
    with torch.inference_mode():
        model = ResidualNet()
    for name in ("project", "gallery"):
        with pytest.raises(ConvscopeError, match=r"'stem\.0\.weight' made under torch.inference_mode"):
            READINGS[name](model, tmp_path)
    assert len(READINGS["stem"](model, tmp_path).filters) == 6
    with pytest.raises(ConvscopeError, match=r"on meta; expected"):
        project(trained(), IMAGES[0].to("meta"), "conv2", 3)
