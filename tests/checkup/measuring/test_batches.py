"""The check-up's data: the forms that it names when it is given another."""

import pytest
import torch
from torch import nn

from convscope.checkup.measuring.batches import batches_of
from convscope.core.errors import ConvscopeError

CONV = nn.Conv2d(3, 2, 3)


def test_images_and_labels():
    images, labels = torch.randn(6, 3, 5, 4), torch.arange(6)
    (batch,) = batches_of(CONV, (images, labels))
    assert batch.args[0] is images
    assert batch.labels is labels


def test_other_data_is_told_that_a_shape_or_none_will_do():
    for data in (3, ["a.png"]):
        with pytest.raises(ConvscopeError, match="a loader of batches, an input shape, or None"):
            list(batches_of(CONV, data))
