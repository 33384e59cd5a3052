"""torchvision's data sets from files that are there; nothing is downloaded."""

import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.data import load_data
from convscope.data.torchvision_sets import torchvision_pair


@pytest.fixture
def sets():
    return pytest.importorskip("torchvision.datasets")


@pytest.fixture
def cifar(sets, tmp_path, monkeypatch):
    """Ten pictures a file, in the form of CIFAR-10's archive."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)
    batches = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    written = {}
    for name in batches:
        written[name] = random.integers(0, 256, (10, 3072), dtype=np.uint8)
        content = {"data": written[name], "labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(content))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    monkeypatch.setattr(sets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *given: True)
    return tmp_path, written


def test_cifar_is_read_as_torchvision_stores_it(cifar, monkeypatch):
    folder, written = cifar
    data = load_data(f"torchvision:CIFAR10:{folder}", size=32)
    assert (len(data.train), len(data.validation)) == (50, 10)
    assert data.classes[3] == "cat"
    for index in range(10):
        expected = written["test_batch"][index].reshape(3, 32, 32).transpose(1, 2, 0)
        assert np.array_equal(data.validation.picture(index), expected)
        assert data.validation.label(index) == index
    monkeypatch.chdir(folder)
    assert len(load_data("torchvision:CIFAR10", size=32).train) == 50
    assert data.name == f"torchvision:CIFAR10:{folder}"


def test_a_set_without_splits_is_divided_and_objects_are_taken(sets, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.new("L", (5, 5), number).save(tmp_path / name / f"{number}.png")
    data = load_data(f"torchvision:ImageFolder:{tmp_path}", size=5)
    assert data.classes == ("cat", "dog")
    assert (data.class_counts, data.validation.class_counts(2)) == ((4, 4), (1, 1))
    assert data.mirrors
    made = sets.ImageFolder(tmp_path)
    assert load_data((made, made), size=5).class_counts == (5, 5)


def test_digits_are_not_mirrored(sets, tmp_path, monkeypatch):
    class MNIST(sets.ImageFolder):
        pass

    (tmp_path / "one").mkdir()
    Image.new("L", (5, 5)).save(tmp_path / "one" / "a.png")
    made = MNIST(tmp_path)
    assert not load_data((made, made), size=5).mirrors


class Split:
    """A data set whose splits are called as some of torchvision's are."""

    known = ("trainval", "test")

    def __init__(self, root, split="trainval", download=True):
        if split not in self.known:
            raise ValueError(f"Unknown value '{split}' for argument split.")
        assert not download
        self.split = split


def test_splits_are_found_under_their_names_and_nothing_is_downloaded(sets, monkeypatch):
    monkeypatch.setattr(sets, "OxfordIIITPet", Split)
    train, validation = torchvision_pair("torchvision:OxfordIIITPet")
    assert (train.split, validation.split) == ("trainval", "test")
    monkeypatch.setattr(Split, "known", ("train", "extra"))
    with pytest.raises(ConvscopeError, match="none of the splits val, valid, validation, test"):
        torchvision_pair("torchvision:OxfordIIITPet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CIFAR", "did you mean torchvision:CIFAR10"),
        ("cifar10", "did you mean torchvision:CIFAR10"),
        ("", "torchvision.datasets lists the names"),
        ("EMNIST", r"makes from root, split.*load_data\(\(torchvision.datasets.EMNIST"),
        ("FakeData", "makes from no folder"),
        ("CIFAR10:/nowhere", "can't be opened in '/nowhere'.*nothing is downloaded here.*download=True"),
        ("Food101:/nowhere", "can't be opened in '/nowhere'"),
        ("SEMEION:/nowhere", "can't be opened in '/nowhere'"),
        ("ImageNet:/nowhere", "can't be opened in '/nowhere'"),
        ("Flowers102:/nowhere", "'/nowhere'"),
        ("EuroSAT:/nowhere", "'/nowhere'"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(sets, name, message):
    with pytest.raises(ConvscopeError, match=message) as raised:
        load_data(f"torchvision:{name}", size=32)
    assert "\n" not in str(raised.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ConvscopeError, match=r"torchvision can't be imported.*pip install torchvision"):
        load_data("torchvision:CIFAR10", size=32)
