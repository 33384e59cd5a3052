import io
import pickle
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from convscope.core.errors import ConvscopeError
from convscope.core.fingerprint import fingerprint
from convscope.data import load_data
from convscope.networks import Preprocessing
from convscope.sight.images import ImageSource, image_source
from convscope.sight.undisturbed import undisturbed

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
        ([torch.zeros(3, 4, 4), torch.zeros(3, 4, 4).half()], "one size and type"),
        ("photos", "of_pictures"), (Path("shards/0.tar"), "of_pictures"),
    ],
)  # fmt: skip
def test_what_is_not_a_set_of_images_is_refused(images, message):
    with pytest.raises(ConvscopeError, match=message):
        list(image_source(images).batches())


PREPARE = Preprocessing((12, 16), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def png(pixels, **options):
    content = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(content, **{"format": "PNG", **options})
    return content.getvalue()


def opened(file):
    with Image.open(file) as image:
        return image.convert("RGB")


def noise(height=10, width=14, channels=3):
    return np.random.randint(0, 256, (height, width, channels), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Five whole pictures and every kind of damage between them, among two classes."""
    whole = png(noise())
    bomb = bytearray(png(noise(1, 1)))
    bomb[16:24] = (60_000).to_bytes(4) * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4)
    files = {
        "cat/0.png": whole,
        "cat/1-truncated.png": whole[:-200],
        "cat/2-empty.png": b"",
        "cat/3.jpg": png(noise(), format="JPEG"),
        "cat/4-page.jpg": b"<html></html>",
        "cat/5-bomb.png": bytes(bomb),
        "dog/6.png": png(noise(1, 1)),
        "dog/7-header.gif": b"GIF89a",
        "dog/8.gif": png(noise()[..., 0], format="GIF"),
        "dog/9-noise.webp": np.random.bytes(300),
        "dog/9a.bmp": png(noise(30, 5), format="BMP"),
        "dog/thin.png": png(np.zeros((1, 2_000_000, 3), np.uint8)),
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


WHOLE = ["cat/0.png", "cat/3.jpg", "dog/6.png", "dog/8.gif", "dog/9a.bmp"]


@pytest.mark.parametrize("threads", [1, 3])
def test_whole_pictures_of_a_folder_come_and_damaged_ones_are_named(folder, threads):
    source = image_source(ImageSource.of_pictures(folder, PREPARE, batch_size=4, threads=threads))
    assert source.length == 12
    assert source.damaged == []
    for _ in range(2):
        batches = list(source.batches())
        assert [[source.name(i) for i in indices] for indices, _ in batches] == [
            WHOLE[:2],
            WHOLE[2:3],
            WHOLE[3:],
        ]
        found = {
            source.name(i): image
            for indices, batch in batches
            for i, image in zip(indices, batch, strict=True)
        }
        assert list(found) == WHOLE
        for name, image in found.items():
            assert torch.equal(image, PREPARE(opened(folder / name)))
    reasons = {damage.path: damage.reason for damage in source.damaged}
    assert sorted(reasons) == sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*.*") if str(p.relative_to(folder)) not in WHOLE
    )
    assert "bomb" in reasons["cat/5-bomb.png"]
    assert "truncated" in reasons["cat/1-truncated.png"]
    assert "too narrow" in reasons["dog/thin.png"]
    assert [source.label(index) for index in (0, 11)] == ["cat", "dog"]
    assert torch.equal(source.sample(), batches[0][1][[0, 0]])


def test_the_first_may_be_damaged(folder):
    (folder / "cat" / "0.png").write_bytes(b"")
    source = ImageSource.of_pictures(folder, PREPARE)
    assert torch.equal(source.sample()[0], PREPARE(opened(folder / "cat/3.jpg")))
    assert source.damaged[0].path == "cat/0.png"


def test_where_all_are_damaged_the_first_reasons_are_told(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(b"no")
    source = ImageSource.of_pictures(tmp_path, PREPARE)
    for read in (lambda: list(source.batches()), source.sample):
        with pytest.raises(
            ConvscopeError,
            match=r"pictures of folder .*: none of 4 can be read \(a.png: not a PNG.*; and 1 more\)",
        ):
            read()


def test_a_file_that_vanishes_between_two_looks_is_named(folder):
    source = ImageSource.of_pictures(folder, PREPARE, batch_size=4)
    first = dict(zip(WHOLE, torch.cat([batch for _, batch in source.batches()]), strict=True))
    (folder / "cat" / "0.png").unlink()
    ((indices, batch),) = source.batches({0, 3})
    assert [source.name(i) for i in indices] == ["cat/3.jpg"]
    assert torch.equal(batch[0], first["cat/3.jpg"])
    assert {d.path: d.reason for d in source.damaged}[
        "cat/0.png"
    ] == "can't be read (No such file or directory)"


def test_modes_and_orientation_become_what_the_network_takes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray(noise(10, 20))
    kinds = {
        "cmyk.jpg": (wide.convert("CMYK"), {"format": "JPEG"}),
        "deep.png": (Image.fromarray(np.full((9, 9), 40_000, np.uint16)), {}),
        "palette.png": (wide.quantize(8), {"transparency": 3}),
        "grey.png": (wide.convert("L"), {}),
        "bits.png": (wide.convert("1"), {}),
        "turned.jpg": (wide, {"format": "JPEG", "exif": exif}),
        "moving.gif": (wide, {"format": "GIF", "save_all": True, "append_images": [wide.rotate(180)]}),
    }
    for name, (image, options) in kinds.items():
        (tmp_path / name).write_bytes(png(image, **options))
    for channels in (1, 3):
        prepare = Preprocessing((12, 16), (0.0,) * channels, (1.0,) * channels)
        source = ImageSource.of_pictures(tmp_path, prepare)
        with undisturbed():
            ((indices, batch),) = source.batches()
        assert [source.name(i) for i in indices] == sorted(kinds)
        assert batch.shape == (7, channels, 12, 16)
        assert torch.allclose(batch[2], torch.tensor((40_000 >> 8) / 255))  # deep


def test_a_limit_is_evenly_spaced_and_keeps_names(folder):
    source = ImageSource.of_pictures(folder, PREPARE, limit=3)
    assert source.length == 3
    assert [source.name(index) for index in range(3)] == ["cat/0.png", "cat/4-page.jpg", "dog/8.gif"]
    assert ImageSource.of_pictures(folder, PREPARE, limit=99).length == 12


def test_archives_give_what_the_folder_gives(folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("shards") / "s-0.tar"
    with tarfile.open(file, "w") as archive:
        archive.add(folder, "")
    by_name = ImageSource.of_pictures(file, PREPARE)
    found = {
        by_name.name(i): image
        for indices, b in by_name.batches()
        for i, image in zip(indices, b, strict=True)
    }
    plain = ImageSource.of_pictures(folder, PREPARE)
    for indices, batch in plain.batches():
        for index, image in zip(indices, batch, strict=True):
            assert torch.equal(found.pop(f"s-0.tar/{plain.name(index)}"), image)
    assert not found
    assert len(by_name.damaged) == len(plain.damaged) == 7


class Flaky(torch.utils.data.Dataset):
    """A data set that fails for some of its images."""

    def __init__(self, broken):
        self.broken = broken

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        if index in self.broken:
            raise RuntimeError(f"no {index}")
        return IMAGES[index], 0


@pytest.mark.parametrize("broken", [{0}, {1, 4}, {0, 1}])
def test_a_data_set_that_fails_in_places_goes_on(broken):
    source = ImageSource(Flaky(broken), batch_size=2)
    found = [index for indices, _ in source.batches() for index in indices]
    assert found == [index for index in range(5) if index not in broken]
    assert [(d.path, d.reason) for d in source.damaged] == [
        (f"image {i}", f"RuntimeError: no {i}") for i in sorted(broken)
    ]
    assert torch.equal(source.sample()[0], IMAGES[found[0]])
    with pytest.raises(ConvscopeError, match=r"none of 5 can be read \(image 0: RuntimeError: no 0"):
        list(ImageSource(Flaky(set(range(5)))).batches())


def test_lengths():
    assert ImageSource(IMAGES).length == 5
    assert ImageSource(list(IMAGES)).length == 5
    assert ImageSource(SOURCES["loader"]).length is None
    assert ImageSource(SOURCES["list of batches"]).length is None


def test_reading_draws_no_random_number(folder):
    before = fingerprint(torch.nn.Identity()).rng
    source = ImageSource.of_pictures(folder, PREPARE, threads=2)
    list(source.batches())
    source.fingerprint()
    assert fingerprint(torch.nn.Identity()).rng == before


def test_sources_travel_between_processes(folder):
    source = ImageSource.of_pictures(folder, PREPARE)
    twin = pickle.loads(pickle.dumps(source))
    assert twin.fingerprint() == source.fingerprint()
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(twin.batches(), source.batches(), strict=True))


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": 1.5}, {"threads": 0}, {"batch_size": 0}])
def test_options_that_make_no_sense_are_refused(folder, options):
    with pytest.raises(ConvscopeError, match="whole number from 1"):
        ImageSource.of_pictures(folder, PREPARE, **options)


class Streamed(IterableDataset):
    """Samples that come one after the other, as webdataset gives them."""

    def __iter__(self):
        return iter(zip(IMAGES, LABELS))


def test_a_loader_of_an_iterable_data_set_is_taken_for_what_it_is():
    source = image_source(DataLoader(Streamed(), batch_size=2))
    assert source.length is None
    assert torch.equal(torch.cat([batch for _, batch in source.batches()]), IMAGES)
    with pytest.raises(ConvscopeError, match="shuffle=False"):
        image_source(DataLoader(TensorDataset(IMAGES, LABELS), batch_size=2, shuffle=True))


@pytest.mark.parametrize("preprocessing", [None, (96, 96)])
def test_preprocessing_is_asked_for_by_name(folder, preprocessing):
    with pytest.raises(
        ConvscopeError, match=r"preprocessing of type (NoneType|tuple); expected a Preprocessing"
    ):
        ImageSource.of_pictures(folder, preprocessing)
