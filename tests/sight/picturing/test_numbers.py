"""The profiles in a gallery's file are the largest activations in evenly spaced images."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from convscope.sight import ImageSource, gallery
from convscope.sight.picturing.options import GalleryOptions


class Damaged:
    """Images of which one can't be read."""

    def __init__(self, images, which):
        self.images, self.which = images, which

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index == self.which:
            raise OSError("broken")
        return self.images[index]


def profiles(folder, model, images):
    gallery(model, images, top=1, out=folder, options=GalleryOptions(judge=0))
    found = load_file(folder / "units.safetensors")
    return found["profile_images"].tolist(), found["0.profile"]


@pytest.mark.parametrize("kind", ["few", "many", "a loader", "a damaged one"])
def test_profiles_are_the_largest_activations(tmp_path, kind):
    count = 40 if kind == "few" else 300
    model, images = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), torch.randn(count, 2, 6, 5)
    source, expected = {
        "few": (images, range(40)),
        "many": (images, [index * 300 // 256 for index in range(256)]),
        "a loader": (DataLoader(images, batch_size=7), range(256)),
        "a damaged one": (
            ImageSource(Damaged(images, 58), batch_size=8),
            [index for index in (place * 300 // 256 for place in range(256)) if index != 58],
        ),
    }[kind]
    chosen, found = profiles(tmp_path / "out", model, source)
    assert chosen == list(expected)
    with torch.no_grad():
        maps = model(images[chosen])
    assert found.dtype == torch.float32
    for unit in range(3):
        for column in range(len(chosen)):
            assert found[unit, column].item() == pytest.approx(
                max(maps[column, unit].flatten().tolist()), rel=1e-5
            )
