"""Data sets of PyTorch's kind are wrapped as they come."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, Subset, TensorDataset

from convscope.core.errors import ConvscopeError
from convscope.data import load_data
from convscope.data.items import as_pixels, class_names

RGB = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)


class Listed:
    def __init__(self, items, classes=None):
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def picture(value):
    return Image.new("RGB", (6, 6), (value, 0, 0))


def test_every_kind_of_image_becomes_the_same_bytes():
    channels_first = torch.from_numpy(RGB).permute(2, 0, 1)
    floats = channels_first.double() / 255
    for image in (Image.fromarray(RGB), RGB, channels_first, floats, floats.float(), floats.half()):
        pixels = as_pixels(image)
        assert np.array_equal(pixels, RGB)
        assert pixels.dtype == np.uint8
    for grey in (RGB[..., 0], torch.from_numpy(RGB[..., 0]), torch.from_numpy(RGB[..., :1]).permute(2, 0, 1)):
        assert np.array_equal(as_pixels(grey), RGB[..., :1])


def test_numbers_are_rounded_to_the_nearest_byte():
    numbers = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 1.0])
    assert as_pixels(numbers[None]).ravel().tolist() == [0, 0, 1, 254, 255, 255]


def test_pil_pictures_get_the_colours_and_the_orientation_of_files():
    clear = Image.new("RGBA", (2, 2), (9, 9, 9, 0))
    assert as_pixels(clear).min() == 255
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(content, "PNG", exif=exif)
    assert np.array_equal(as_pixels(Image.open(content)), np.rot90(RGB, -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.randn(3, 4, 4), "values from -.* Normalize out"),
        (torch.full((3, 4, 4), 255.0), "values from 255 to 255; expected 0 to 1"),
        (torch.full((3, 4, 4), float("nan")), "values from nan to nan"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "torch.int64"),
        (torch.zeros(2, 4, 4), r"shape \(4, 4, 2\)"),
        (np.zeros((3, 4, 4), np.uint8), r"shape \(3, 4, 4\)"),
        (np.zeros((4, 4)), "float64"),
        ("a.png", "a str"),
    ],
)
def test_other_images_are_refused_with_the_item(image, message):
    with pytest.raises(ConvscopeError, match=f"Listed, item 1: .*{message}"):
        load_data(Listed([(picture(1), 0), (image, 1)]), size=4)


def test_a_pair_is_training_and_validation():
    train = Listed([(picture(number), number % 2) for number in range(6)], ["cat", "dog"])
    validation = Listed([(picture(100), torch.tensor(1)), (picture(101), np.int64(0))], ["cat", "dog"])
    data = load_data((train, validation), size=6)
    assert data.classes == ("cat", "dog")
    assert [data.train.picture(index)[0, 0, 0] for index in range(6)] == list(range(6))
    assert [data.train.label(index) for index in range(6)] == [0, 1] * 3
    assert [data.validation.picture(index)[0, 0, 0] for index in range(2)] == [100, 101]
    assert [data.validation.label(index) for index in range(2)] == [1, 0]
    assert data.name == "Listed"
    assert load_data([train, None], size=6).train.class_counts(2) == (2, 2)


def test_of_one_set_a_fifth_of_each_class_is_set_apart():
    items = Listed([(picture(number), int(number >= 20)) for number in range(30)])
    data = load_data(items, size=6, seed=3)
    assert (data.class_counts, data.validation.class_counts(2)) == ((16, 8), (4, 2))
    assert data.classes == ("0", "1")
    assert load_data(items, size=6, seed=4).train.indices != data.train.indices
    shown = [(data.train.picture(i)[0, 0, 0], data.train.label(i)) for i in range(len(data.train))]
    assert all(label == int(value >= 20) for value, label in shown)


def test_tensors_subsets_and_dicts_are_data_sets_too():
    tensors = TensorDataset(torch.rand(10, 1, 8, 8), torch.arange(10) % 2)
    assert load_data(tensors, size=8, channels=1).input_shape == (1, 8, 8)
    data = load_data(Subset(tensors, [0, 2, 4, 1]), size=8, channels=1)
    assert len(data.train) + len(data.validation) == 4
    named = Listed([{"image": picture(number), "label": name} for number, name in enumerate("ababab")])
    assert load_data(named, size=4).classes == ("a", "b")


def test_damaged_and_unlabelled_items_are_named_and_left_out():
    items = [(picture(number), 0) for number in range(5)]
    items[1] = OSError(2, "No such file or directory")
    items[3] = (picture(3), None)
    items[4] = (picture(4), -1)
    data = load_data((Listed(items), Listed(items[:1])), size=4)
    assert [(found.path, found.reason) for found in data.damaged] == [
        ("Listed, training, item 1", "can't be read (No such file or directory)"),
        ("Listed, training, item 3", "no label"),
        ("Listed, training, item 4", "no label"),
    ]
    assert [data.train.picture(index)[0, 0, 0] for index in range(2)] == [0, 2]


def test_an_item_that_breaks_later_is_named():
    items = [(picture(number), 0) for number in range(2)]
    data = load_data((Listed(items), Listed(items[:1])), size=4)
    items[1] = ValueError("gone")
    with pytest.raises(ConvscopeError, match=r"training: item 1 has become unreadable \(ValueError: gone\)"):
        data.train[1]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(picture(0), 0)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Listed([]), "Listed is empty"),
        (Stream(), "without a length"),
        (Listed([(picture(0), None)] * 2), "without labels.*can be looked at"),
        (Listed([(picture(0),)]), "a tuple without a label"),
        (Listed([picture(0)]), "a Image without a label"),
        (Listed([{"picture": 1}]), "an item with picture; expected one with image or img"),
        (Listed([(picture(0), torch.tensor([0, 1]))]), r"label tensor\(\[0, 1\]\).*one class a picture"),
        (Listed([(picture(0), 1.5)]), r"label 1.5 \(float\)"),
        (Listed([(picture(0), 2)], ["a", "b"]), "label 2 .*a class number from 0 to 1"),
        (Listed([(picture(0), 10**12)]), "from 0 to 999,999"),
        (Listed([OSError("x")] * 2), "none of 2 can be read"),
        (7, "data from a int"),
        ((1, 2, 3), "3 data sets; expected a pair"),
        ((Listed([(picture(0), 0)]), 3), "data from a int"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_in_one_line(given, message):
    with pytest.raises(ConvscopeError, match=message) as raised:
        load_data(given, size=4)
    assert "\n" not in str(raised.value)


def test_classes_are_matched_by_name_and_those_of_one_split_are_told():
    train = Listed([(picture(0), 0), (picture(1), 1), (picture(2), 2)], ["cat", "dog", "emu"])
    validation = Listed([(picture(4), 1), (picture(3), 0)], ["emu", "yak"])
    data = load_data((train, validation), size=6)
    assert [data.validation.label(index) for index in range(len(data.validation))] == [2]
    assert data.validation.picture(0)[0, 0, 0] == 3
    assert [found.reason for found in data.damaged] == ["a class without training images"]
    assert data.damaged[0].path.endswith("yak")
    assert data.classes_without_images("validation") == ("cat", "dog")
    assert data.classes_without_images("train") == ()
    gap = load_data((Listed([(picture(0), 2)]), Listed([(picture(0), 2)])), size=4)
    assert gap.classes == ("0", "1", "2")
    assert gap.classes_without_images("train") == ("0", "1")


def test_names_of_classes_differ():
    assert class_names(Listed([], [("tench", "Tinca"), ("crane",), ("crane",)])) == (
        "tench, Tinca",
        "crane (1)",
        "crane (2)",
    )
    assert class_names(Listed([])) is None


def test_the_generators_are_as_they_were():
    class Varied(Listed):
        def __getitem__(self, index):
            return torch.rand(3, 4, 4), int(np.random.randint(2))

    before, python = torch.get_rng_state(), np.random.get_state()[1].copy()
    load_data(Varied([0] * 8), size=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], python)
