"""The model comes back as it was, also after a failure in the middle."""

import pytest
import torch
from torch import nn

from cases import ResidualNet, state_of
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
    assert list(tmp_path.iterdir()) == []
