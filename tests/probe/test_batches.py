"""The forms that data comes in, and what is refused."""

from collections import UserDict

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cases import DictNet
from convscope.core.errors import ConvscopeError
from convscope.probe.batches import batches_of, items_of, whole_batch_of

IMAGES, LABELS = torch.randn(6, 3, 5, 4), torch.arange(6)
CONV = nn.Conv2d(3, 2, 3)


@pytest.mark.parametrize(
    ("data", "sizes", "labelled"),
    [
        (IMAGES, [6], False),
        ((IMAGES, LABELS), [6], True),
        ([IMAGES, LABELS], [6], True),
        ((IMAGES, LABELS.float()), [6], True),
        ((IMAGES, None), [6], False),
        (IMAGES.split(3), [3, 3], False),
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
        (torch.zeros(0, 3, 4, 4), "inputs of shape (0, 3, 4, 4)"),
        (torch.tensor(1.0), "inputs of shape ()"),
        ([(["a.png"], LABELS)], "without a tensor"),
        (TensorDataset(IMAGES), "wrap it in a DataLoader"),
    ],
)
def test_refused(data, words):
    with pytest.raises(ConvscopeError) as raised:
        list(batches_of(CONV, data))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_can_be_read_once_stays_an_iterator():
    stream = iter([IMAGES])
    assert items_of(stream) is stream
    assert items_of(IMAGES) == [IMAGES]


def test_the_forms_in_messages_are_the_callers():
    for data in (3, TensorDataset(IMAGES), ["a.png"]):
        with pytest.raises(ConvscopeError, match="expected a folder;"):
            list(batches_of(CONV, data, forms="a folder"))


class Encoding(UserDict):
    """A mapping that isn't a dict, as tokenizers return."""


def test_mappings_that_are_no_dictionaries():
    (batch,) = batches_of(DictNet(), Encoding(image=IMAGES, labels=LABELS))
    assert batch.kwargs["image"] is IMAGES
    assert batch.labels is LABELS
    whole = whole_batch_of(DictNet(), Encoding(image=IMAGES, labels=LABELS), 0)
    assert (whole.num_samples, whole.labels) == (6, LABELS)
    assert isinstance(whole.args[0], Encoding)


def test_whole_batches_are_not_taken_apart():
    item = ("name", {"deep": [IMAGES / 0]}, LABELS)
    batch = whole_batch_of(CONV, item, 0)
    assert batch.args[0][1]["deep"][0] is item[1]["deep"][0]
    assert batch.shapes == "(6, 3, 5, 4), (6,)"
    for bad, words in ((("a", 3), "batch 7 of type tuple without a tensor"), (IMAGES[:0], "at least one")):
        with pytest.raises(ConvscopeError, match=words):
            whole_batch_of(CONV, bad, 7)


def test_tensors_of_inference_mode_are_copied_to_be_differentiated_through():
    with torch.inference_mode():
        image = IMAGES.clone()
    (batch,) = batches_of(CONV, image)
    CONV(batch.args[0].requires_grad_()).sum().backward()
    assert batch.args[0].grad is not None


def test_tensors_are_moved_to_the_models_device():
    elsewhere = nn.Conv2d(3, 2, 3, device="meta")  # where only whole batches go, for nothing there is finite
    batch = whole_batch_of(elsewhere, {"image": IMAGES.double(), "label": LABELS}, 0)
    assert batch.args[0]["image"].is_meta
    assert batch.args[0]["image"].dtype == torch.float64
    assert batch.labels.is_meta
