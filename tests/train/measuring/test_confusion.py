import ast
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig
from convscope.train.feeding.batches import SeededImages
from convscope.train.measuring.confusion import Confusion, Mixup, load_confusion, save_confusion
from convscope.train.measuring.evaluate import evaluate
from convscope.train.running.engine import running_engine
from processes import under_torchrun
from train.toy import RandomImages, toy_model

TESTS = Path(__file__).parents[2]
NAMES = ("ant", "bee", "cat", "dog")


def _sparse(table):
    return tuple((t, p, n) for t, row in enumerate(table) for p, n in enumerate(row) if n)


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=4, max_size=4))
def test_shares_follow_from_the_table_by_explicit_loops(table):
    confusion = Confusion(NAMES, _sparse(table), unanswered=((1, 3),))
    assert confusion.table == table
    for k in range(4):
        images = sum(table[k]) + (3 if k == 1 else 0)
        taken = sum(table[true][k] for true in range(4))
        assert confusion.recall[k] == (table[k][k] / images if images else None)
        assert confusion.precision[k] == (table[k][k] / taken if taken else None)
    total = 3 + sum(map(sum, table))
    assert confusion.accuracy == pytest.approx(sum(table[k][k] for k in range(4)) / total)


def test_the_most_confused_pairs_come_first_and_only_wrong_ones():
    table = [[90, 4, 0, 0], [4, 4, 0, 0], [0, 0, 9, 1], [7, 0, 0, 0]]
    confusion = Confusion(NAMES, _sparse(table))
    assert confusion.most_confused(3) == (Mixup(3, 0, 7, 1.0), Mixup(1, 0, 4, 0.5), Mixup(0, 1, 4, 4 / 94))
    assert len(confusion.most_confused(99)) == 4
    assert Confusion(NAMES, ()).most_confused() == ()
    assert Confusion(NAMES, ()).accuracy is None


def test_a_file_is_read_back_and_a_broken_one_is_named(tmp_path):
    confusion = Confusion(("Füße", "b"), ((0, 1, 2), (1, 1, 5)), ((0, 1),), epoch=3)
    save_confusion(tmp_path / "confusion.json", confusion)
    assert load_confusion(tmp_path / "confusion.json") == confusion
    assert json.loads((tmp_path / "confusion.json").read_text())["schema_version"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["confusion.json"]
    for text in (
        "{",
        "[]",
        '{"classes": ["a"], "counts": [[0, 1, 2]], "unanswered": [], "epoch": 1}',
        '{"a": 1}',
    ):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(ConvscopeError, match=r"broken\.json' is no confusion table .*; expected a whole"):
            load_confusion(tmp_path / "broken.json")
    with pytest.raises(ConvscopeError, match="can't be written"):
        save_confusion(tmp_path, confusion)


class _Scores(nn.Module):
    """Gives each image the scores of its first pixels, whatever they are."""

    def __init__(self, scores):
        super().__init__()
        self.scores, self.place = scores, 0

    def forward(self, images):
        found = self.scores[self.place : self.place + len(images)]
        self.place += len(images)
        return found


def _measured(model, images, classes=3, **settings):
    config = TrainConfig(**settings)
    with running_engine(config) as accelerator:
        return evaluate(model, SeededImages(images, "validation", classes, 0), config, accelerator)


@pytest.mark.parametrize("batch_size", [1, 4, 17])
def test_the_table_of_a_network_equals_explicit_loops(batch_size):
    model, images = toy_model(), RandomImages(17, noisy=False)
    model(torch.randn(32, 2, 6, 5))
    table = [[0] * 3 for _ in range(3)]
    for index in range(17):
        image, label = images[index]
        scores = model.eval()(image[None])[0].tolist()
        table[label][scores.index(max(scores))] += 1
    result = _measured(model, images, batch_size=batch_size)
    confusion = result.confusion(("a", "b", "c"), epoch=2)
    assert confusion.table == table
    assert confusion.accuracy == pytest.approx(result.accuracy, abs=1e-15)
    assert (confusion.epoch, confusion.unanswered) == (2, ())
    assert 0 < result.accuracy < 1


def test_images_without_an_answer_are_counted_and_never_right():
    nan, inf = math.nan, math.inf
    scores = torch.tensor(
        [
            [nan, 0, 0, 0],  # no highest score
            [nan, nan, nan, nan],
            [0, 0, 0, 9],  # of none of the three classes
            [5, 5, 5, 5],  # the first of equal ones
            [-inf, -inf, 0, -inf],
            [0, inf, 0, 0],
        ]
    )
    images = RandomImages(6, noisy=False)
    images.labels = [0, 1, 2, 0, 2, 1]
    result = _measured(_Scores(scores), images, batch_size=4)
    confusion = result.confusion(("a", "b", "c"))
    assert confusion.unanswered == ((0, 1), (1, 1), (2, 1))
    assert confusion.counts == ((0, 0, 1), (1, 1, 1), (2, 2, 1))
    assert result.accuracy == confusion.accuracy == 0.5


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import torch; torch.set_num_threads(1)
from train.toy import *
from convscope.train.config import TrainConfig
from convscope.train.feeding.feed import Feed
from convscope.train.measuring.evaluate import evaluate
from convscope.train.running.engine import running_engine
model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 7)).double()
torch.manual_seed(0); [nn.init.normal_(p) for p in model.parameters()]
data = ToyData(validation=RandomImages(17, noisy=False))
told = []
for evaluation in ("centre", "ten-crop"):
    config = TrainConfig(batch_size=4, crop=5, evaluation=evaluation, device="cpu")
    with running_engine(config) as accelerator:
        told.append(evaluate(model, Feed(data, config).images("validation"), config, accelerator))
        rank = accelerator.process_index
with open(f"{{sys.argv[1]}}/{{rank}}", "w") as file:
    file.write(repr([(each.loss, each.accuracy, each.top5, each.cells) for each in told]))
if torch.distributed.is_initialized():
    torch.distributed.barrier()  # gloo's threads let go of what was sent before Python ends
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_one_two_and_three_processes_measure_the_same_everywhere(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(tests=str(TESTS)))
    told = {}
    for processes in (1, 2, 3):
        out = tmp_path / str(processes)
        out.mkdir()
        under_torchrun(processes, tmp_path / "script.py", out)
        told[processes] = [ast.literal_eval(file.read_text()) for file in sorted(out.iterdir())]
        assert len(told[processes]) == processes
    assert told[1][0][0] != told[1][0][1]
    for rank in (*told[2], *told[3]):
        for there, here in zip(rank, told[1][0], strict=True):
            assert there[0] == pytest.approx(here[0], rel=1e-12)
            assert there[1:3] == pytest.approx(here[1:3], abs=1e-15)
            assert there[3] == here[3]
