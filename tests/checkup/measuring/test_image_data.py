"""A data set in splits is read as on the command line; of several outputs the classes' scores are taken."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from convscope.checkup import checkup, mend
from convscope.checkup.measuring import image_data
from convscope.cli import checkup as command
from convscope.data import load_data

CLASSES = ("circle", "square", "triangle")


@pytest.fixture
def data(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for number in range(20):
            pixels = torch.randint(0, 256, (12, 12, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / name / f"{number}.png")
    return load_data(str(tmp_path), size=12)


class Heads(nn.Module):
    """A network that returns scores and a size, in any order and form."""

    def __init__(self, form=lambda scores, size: (scores, size), num_classes=3):
        super().__init__()
        self.body, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.scores, self.size, self.form = nn.Linear(8, num_classes), nn.Linear(8, 1), form

    def forward(self, x):
        x = self.norm(self.body(x)).relu().mean((2, 3))
        return self.form(self.scores(x), self.size(x))


FORMS = {
    "output 1 of 2, of shape (images, 3)": lambda scores, size: (scores, size),
    "output 2 of 2, of shape (images, 3)": lambda scores, size: {"size": size, "scores": scores},
    "": lambda scores, size: scores,
}


def _by_hand(model, batches):
    """The mean cross-entropy of the scores in evaluation mode, in float64."""
    model.eval()
    with torch.no_grad():
        losses = []
        for images, labels in batches:
            features = model.norm(model.body(images)).relu().mean((2, 3))
            losses.append(F.cross_entropy(model.scores(features).double(), labels, reduction="none"))
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize("told", FORMS)
def test_the_loss_is_that_of_the_scores_and_says_so(data, told):
    model = Heads(FORMS[told])
    found = checkup(model, data)
    assert found.loss_of == told
    assert found.eval_loss == pytest.approx(_by_hand(model, data.batches("train", 32)), rel=1e-6)
    assert (f"is that of {told}" in str(found)) is bool(told)
    assert found.to_json()
    mending = mend(model, data)
    assert mending.after.loss_of == told
    assert (f"the loss is that of {told}" in str(mending)) is bool(told)


def test_a_data_set_is_read_as_its_shuffled_training_batches(data):
    model = Heads()
    found, same = checkup(model, data), checkup(model, data.batches("train", image_data.BATCH))
    assert found.num_samples == same.num_samples == 32
    assert found.eval_loss == same.eval_loss
    assert found.layers == same.layers
    assert image_data.BATCH == command._BATCH


def test_a_loader_tells_by_its_labels_which_output_it_is(data):
    """Widths 3 and 2 could both be classes, but not for label 2."""
    model = Heads(lambda scores, size: (torch.cat((size, size), 1), scores))
    images, labels = next(iter(data.batches("train", 32)))
    assert int(labels.max()) == 2
    assert checkup(model, (images, labels)).loss_of == "output 2 of 2, of shape (images, 3)"
    unclear = checkup(model, (images, labels.clamp(max=1)))
    assert unclear.gap is None
    assert any("outputs of shapes (32, 2) and (32, 3)" in each.reason for each in unclear.unchecked)


def test_the_datas_number_of_classes_tells_scores_from_features(data):
    """Both are wide enough for the labels; a data set says how many classes there are, a loader doesn't."""
    model = Heads(lambda scores, size: (size.expand(-1, 8), scores))
    assert checkup(model, data).loss_of == "output 2 of 2, of shape (images, 3)"
    assert checkup(model, data.batches("train", 32)).gap is None


def test_classes_that_the_network_has_not_are_no_labels(data):
    found = checkup(Heads(num_classes=5), data)
    assert found.gap is None
    (reason,) = [each.reason for each in found.unchecked if each.what == "gap"]
    assert reason.endswith("the data has 3, the network gives 5 scores an image")


def test_pictures_without_classes_have_no_labels(tmp_path):
    for number in range(40):
        Image.new("RGB", (12, 12), (number, 2 * number, 9)).save(tmp_path / f"{number}.png")
    found = checkup(Heads(), load_data(str(tmp_path), size=12))
    assert [each.reason for each in found.unchecked if each.what == "gap"] == ["the data has no labels"]


def test_a_loss_of_the_users_gets_all_outputs(data):
    found = checkup(Heads(), data, loss=lambda outputs, labels: F.cross_entropy(outputs[0], labels))
    assert found.loss_of == ""
    assert found.gap is not None
