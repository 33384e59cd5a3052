"""The forms that data comes in, and what is refused."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cases import DictNet
from convscope.checkup.batches import batches_of
from convscope.core.errors import ConvscopeError

IMAGES, LABELS = torch.randn(6, 3, 5, 4), torch.arange(6)
CONV = nn.Conv2d(3, 2, 3)


@pytest.mark.parametrize(
    ("data", "sizes", "labelled"),
    [
        (IMAGES, [6], False),
        ((IMAGES, LABELS), [6], True),
        ([IMAGES, LABELS], [6], True),
        ((IMAGES, LABELS.float()), [6], True),
        ([IMAGES, IMAGES[:2]], [6, 2], False),
        ([(IMAGES, LABELS), (IMAGES[:1], LABELS[:1])], [6, 1], True),
        ({"image": IMAGES, "label": LABELS}, [6], True),
        (iter([IMAGES]), [6], False),
        (DataLoader(TensorDataset(IMAGES, LABELS), 4), [4, 2], True),
        (DataLoader(TensorDataset(IMAGES), 4), [4, 2], False),
        (((IMAGES, LABELS, LABELS),), [6], True),
    ],
)
def test_forms_of_data(data, sizes, labelled):
    batches = list(batches_of(CONV, data))
    assert [batch.num_samples for batch in batches] == sizes
    assert [batch.args[0].shape[0] for batch in batches] == sizes
    assert all((batch.labels is not None) is labelled for batch in batches)


def test_dictionaries_go_by_name_where_the_model_has_that_name():
    (batch,) = batches_of(DictNet(), {"image": IMAGES, "labels": LABELS, "path": ["a"]})
    assert batch.args == ()
    assert list(batch.kwargs) == ["image"]
    assert batch.labels is LABELS


def test_first_samples_have_no_labels():
    (batch,) = batches_of(CONV, (IMAGES, LABELS))
    first = batch.first(4)
    assert torch.equal(first.args[0], IMAGES[:4])
    assert (first.num_samples, first.labels) == (4, None)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "without a single batch"),
        (3, "data of type int"),
        ("photos", "data of type str"),
        (torch.full((2, 3, 4, 4), float("nan")), "batch 0 with NaN"),
        ([IMAGES, IMAGES / 0], "batch 1 with NaN or infinite"),
        (torch.zeros(0, 3, 4, 4), "images of shape (0, 3, 4, 4)"),
        (torch.tensor(1.0), "images of shape ()"),
        ([(["a.png"], LABELS)], "without a tensor"),
        (TensorDataset(IMAGES), "wrap it in a DataLoader"),
    ],
)
def test_refused(data, words):
    with pytest.raises(ConvscopeError) as raised:
        list(batches_of(CONV, data))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
