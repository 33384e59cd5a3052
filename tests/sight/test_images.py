import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from convscope.core.errors import ConvscopeError
from convscope.data import load_data
from convscope.sight.images import ImageSource, image_source

IMAGES = torch.arange(5 * 2 * 3 * 4, dtype=torch.float32).reshape(5, 2, 3, 4)
LABELS = torch.zeros(5)
SOURCES = {
    "tensor": IMAGES,
    "list of images": list(IMAGES),
    "list of batches": [IMAGES[:3], IMAGES[3:]],
    "dataset": TensorDataset(IMAGES, LABELS),
    "loader": DataLoader(TensorDataset(IMAGES, LABELS), batch_size=2),
    "source": ImageSource(IMAGES, batch_size=3),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_all_kinds_give_the_same_images_every_time(kind):
    source = image_source(SOURCES[kind])
    for _ in range(2):
        batches = list(source.batches())
        assert [index for indices, _ in batches for index in indices] == [0, 1, 2, 3, 4]
        assert torch.equal(torch.cat([batch for _, batch in batches]), IMAGES)
    wanted = list(source.batches({4, 1}))
    assert [index for indices, _ in wanted for index in indices] == [1, 4]
    assert torch.equal(torch.cat([batch for _, batch in wanted]), IMAGES[[1, 4]])
    assert torch.equal(source.sample(), IMAGES[[0, 0]])


def test_data_sets_bring_their_display_along():
    data = load_data("digits", size=16, channels=1, per_class=2)
    source = image_source(data)
    assert source.mean == data.mean
    ((_, batch), *_) = source.batches([3])
    expected = data.validation.picture(3).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(source.shown(batch[0].numpy()), expected, atol=1e-6)


def test_without_mean_and_deviation_patches_are_stretched():
    shown = ImageSource(IMAGES).shown(np.array([[[-2.0, 0.0, 6.0]]], np.float32))
    assert shown.tolist() == [[[0.0, 0.25, 1.0]]]
    assert not ImageSource(IMAGES).shown(np.ones((1, 2, 2), np.float32)).any()
    assert "stretched" in ImageSource(IMAGES).display


def test_spread_is_even():
    assert ImageSource(IMAGES).spread(2) == {0, 2}
    assert ImageSource(IMAGES).spread(9) == {0, 1, 2, 3, 4}
    assert ImageSource(SOURCES["loader"]).spread(2) == {0, 1}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 3, 4, 4), "no images"), ([], "no images"), (iter(IMAGES), "only once"),
        (torch.zeros(3, 4, 4), "floating-point"), (torch.zeros(1, 3, 4, 4).byte(), "floating-point"),
        (["a", "b"], "floating-point tensors"), (7, "floating-point tensors"),
        ([torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)], "one size"),
    ],
)  # fmt: skip
def test_what_is_not_a_set_of_images_is_refused(images, message):
    with pytest.raises(ConvscopeError, match=message):
        list(image_source(images).batches())
