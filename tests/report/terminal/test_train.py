import io
import re
from dataclasses import replace

from rich.console import Console

from convscope.train.measuring.confusion import Confusion
from convscope.train.run import Divergence

CONFUSION = Confusion(("cat", "dog"), ((0, 0, 6), (0, 1, 2), (1, 0, 3), (1, 1, 1)), ((1, 1),), epoch=2)


def _narrow(result, width=80):
    text = io.StringIO()
    Console(width=width, file=text).print(result)
    return text.getvalue()


def _finished(run, **changes):
    files = {"weights": "run/final.safetensors", "best_weights": "run/best.safetensors"}
    return replace(run, network="zfnet", classes=("cat", "dog"), confusion=CONFUSION, **{**files, **changes})


def test_a_run_fits_80_columns_and_names_its_best_epoch_and_its_mixups(make_run):
    run = make_run("r", (0.3, 0.7, 0.5))
    averaged = tuple(
        replace(r, validation_loss=123.4567, validation_top5=1.0, average_accuracy=1.0, skipped_steps=4)
        for r in run.epochs
    )
    text = _narrow(_finished(run, epochs=averaged))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert re.search(r"Epoch +Train loss +Right +Val. loss +Right +Top-5 +Averaged +Rate +Time", text)
    assert re.search(r"\n +2 +1\.1500 +20\.0 % +123\.4567 +70\.0 % +100\.0 % +100\.0 % +0\.01 +3\.20 s", text)
    assert re.search(r"best +70\.0 % of validation images right .*, +after epoch 2", text.replace("\n", " "))
    assert "4 of 30 steps, whose gradients overflowed float16" in text
    assert re.search(r"dog +cat +3 +60\.0 %\n *cat +dog +2 +25\.0 %", text)
    assert "images without an answer: 1 (a score is NaN" in text


def test_the_next_command_can_be_typed_as_it_stands(make_run):
    run = _finished(make_run("r", (0.3, 0.7)), data="my photos")
    assert "\nconvscope checkup zfnet --weights run/best.safetensors --data 'my photos'\n" in _narrow(run)
    better = tuple(replace(record, average_accuracy=0.8) for record in run.epochs)
    averaged = replace(run, epochs=better, average_weights="run/average.safetensors")
    assert "--weights run/average.safetensors" in _narrow(averaged)
    worse = replace(averaged, epochs=tuple(replace(r, average_accuracy=0.6) for r in better))
    assert "checkup zfnet --weights run/best.safetensors" in _narrow(worse)
    assert "go on: the same command with --resume" in _narrow(replace(run, weights=None))
    assert "convscope checkup" not in _narrow(replace(run, network="MyNet"))


def test_a_diverged_run_says_where_and_what_to_try(make_run):
    found = Divergence(
        13, 2, float("nan"), 0.5, address="features.conv1#1", what="output", value="inf", index=(0, 3),
        largest_finite=3.4e38, appeared_at=11,
    )  # fmt: skip
    text = _narrow(replace(make_run("r", (0.1,)), diverged=found))
    assert "at step 13 (epoch 2), learning rate 0.5: loss nan" in text
    assert "inf output in features.conv1#1 at [0, 3]" in text
    assert "step 11; the loss was finite until step 13" in text
    assert "train into a new folder with --learning-rate 0.05" in text
    bare = _narrow(replace(make_run("r", ()), diverged=Divergence(1, 1, float("inf"), 0.1)))
    assert "at step 1 (epoch 1), learning rate 0.1: loss inf" in bare


def test_many_epochs_are_thinned_and_the_best_stays(make_run):
    accuracies = [0.1] * 90
    accuracies[40] = 0.9
    text = _narrow(make_run("r", tuple(accuracies)))
    rows = re.findall(r"^ +(\d+) +\d\.\d{4} ", text, re.MULTILINE)
    assert {"1", "41", "90"} <= set(rows)
    assert len(rows) in (30, 31)
    assert f"{90 - len(rows)} more epochs are in log.jsonl" in " ".join(text.split())


def test_a_confusion_tells_every_class():
    text = _narrow(replace(CONFUSION, classes=("cat", "dog\x1b[2J"), unanswered=()))
    assert "\x1b" not in text
    assert re.search(r"cat +8 +75\.0 % +66\.7 %", text)
    assert "after epoch 2" in text
