"""scikit-learn's digits."""

import sys

import numpy as np
import pytest

from convscope.core.errors import ConvscopeError
from convscope.data import digits, load_data

datasets = pytest.importorskip("sklearn.datasets")


def test_at_their_own_size_the_digits_are_scikit_learns():
    source = datasets.load_digits()
    ours = digits.digits((8, 8), 1)
    assert ours.labels == tuple(source.target.tolist())
    read = np.stack([ours.read(index)[..., 0] for index in range(len(ours))])
    np.testing.assert_allclose(read / 255 * 16, source.images, atol=0.5 / 255 * 16)


def test_they_are_enlarged_and_may_have_three_equal_channels():
    picture = digits.digits((64, 48), 3).read(5)
    assert picture.shape == (64, 48, 3)
    assert (picture[..., :1] == picture).all()


def test_splits_are_disjoint_stratified_and_whole():
    data = load_data("digits", size=16, channels=1)
    train, validation = set(data.train.indices), set(data.validation.indices)
    assert not train & validation
    assert train | validation == set(range(1797))
    labels = np.array([data.validation.label(index) for index in range(len(data.validation))])
    assert set(np.bincount(labels).tolist()) <= {35, 36, 37}  # a fifth of 174 to 183
    assert not data.mirrors
    other = load_data("digits", size=16, channels=1, seed=1)
    assert set(other.validation.indices) != validation


def test_an_absent_package_is_named(monkeypatch):
    digits._bytes_and_labels.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConvscopeError, match=r"digits.*convscope\[data\]"):
        load_data("digits", size=16)
