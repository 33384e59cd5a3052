import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from convscope.sight.images import ImageSource

IMAGES = torch.randn(40, 2, 3, 4)


class Failing(list):
    def __getitem__(self, index):
        if index == 3:
            raise ValueError("lost")
        return super().__getitem__(index)


KINDS = {
    "tensor": lambda images: images,
    "list": list,
    "dataset": lambda images: TensorDataset(images),
    "loader": lambda images: DataLoader(TensorDataset(images), 7),
    "batches": lambda images: list(images.split(7)),
    "failing": lambda images: Failing(images),
}


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprints_know_values_number_and_type(kind):
    make = KINDS[kind]
    first = ImageSource(make(IMAGES)).fingerprint()
    assert ImageSource(make(IMAGES.clone())).fingerprint() == first
    changed = IMAGES.clone()
    changed[0, 0, 0, 0] = changed[0, 0, 0, 0].nextafter(torch.tensor(9.0))
    for other in (changed, IMAGES[:-7], IMAGES.double(), IMAGES.transpose(2, 3).reshape(IMAGES.shape)):
        assert ImageSource(make(other)).fingerprint() != first


def test_odd_layouts_and_types_have_fingerprints_too():
    for images in (
        IMAGES.half(),
        IMAGES.bfloat16(),
        IMAGES.to(memory_format=torch.channels_last),
        IMAGES[::2, :, ::2],
    ):
        assert len(ImageSource(images).fingerprint()) == 64
    assert (
        ImageSource(IMAGES.to(memory_format=torch.channels_last)).fingerprint()
        == ImageSource(IMAGES).fingerprint()
    )
