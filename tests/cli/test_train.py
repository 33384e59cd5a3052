import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from cli.typed import run
from convscope.cli import train as command
from convscope.cli.train_flags import ImageOptions, LearningOptions, RunningOptions, config_of
from convscope.core.errors import ConvscopeError
from convscope.networks import load, save_weights
from convscope.train import TrainConfig
from convscope.train.recipes import recipe

TINY = "--width 0.0625 --norm batch --input 1x67x67 --data pictures --batch-size 16 --epochs 1"


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    """A folder to work in, with ten grey pictures in each of four classes."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("abcd"):
        _draw(tmp_path / "pictures" / name, 10, number)
    return tmp_path


def _draw(folder, count, number=0):
    folder.mkdir(parents=True)
    for place in range(count):
        Image.new("L", (70, 70), 40 * number + 3 * place).save(folder / f"{place}.png")


def _config(chosen=None, learning=(), images=(), running=(), side=64):
    options = LearningOptions(**dict(learning)), ImageOptions(**dict(images)), RunningOptions(**dict(running))
    return config_of(chosen, *options, side)


def test_every_setting_is_a_flag_with_the_default_that_its_help_says():
    flags = {
        field.name: kind
        for kind in (LearningOptions, ImageOptions, RunningOptions)
        for field in dataclasses.fields(kind)
    }
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    assert flags.keys() - {"picture_size"} == defaults.keys()
    for name, kind in flags.items():
        help_text = re.search(
            rf"\n        {name}: (.*?)(?=\n        \w+: |\Z)", kind.__doc__, re.DOTALL
        ).group(1)
        if said := re.search(r"\[default: (.*?)\]", help_text):
            default = defaults[name]
            assert (said[1] if isinstance(default, str) else float(said[1])) == default, name
    assert _config() == TrainConfig()


def test_flags_replace_single_values_of_a_recipe():
    config = _config(
        recipe("zfnet"), {"epochs": 3, "momentum": 0.5}, {"augment": "crop"}, {"num_workers": 1}, 224
    )
    assert config == dataclasses.replace(
        recipe("zfnet").config, epochs=3, momentum=0.5, augment="crop", num_workers=1
    )


def test_windows_have_the_networks_input_size_unless_said_otherwise():
    assert _config(recipe("zfnet"), side=96).crop == 96
    assert _config(images={"augment": "crop"}).crop == 64
    assert _config(images={"evaluation": "ten-crop"}).crop == 64
    assert _config(images={"augment": "shift"}).crop is None
    assert _config(images={"augment": "crop", "crop": 40}).crop == 40


def test_epochs_to_keep_are_numbers_with_commas():
    assert _config(running={"keep_epochs": "1,5,20"}).keep_epochs == (1, 5, 20)
    with pytest.raises(ConvscopeError, match="--keep-epochs '1;5'; expected epochs from 1 with commas"):
        _config(running={"keep_epochs": "1;5"})


def test_a_run_is_told_with_its_settings_and_its_confusions(capsys, in_tmp_path):
    line = f"train alexnet {TINY} --augment crop --evaluation ten-crop --keep-epochs 1 --ema-decay 0.9 --json"
    code, out, err = run(capsys, line)
    assert code == 0, err
    told = json.loads(out)
    assert (told["config"]["crop"], told["config"]["evaluation"]) == (67, "ten-crop")
    assert told["epochs"][0]["average_accuracy"] is not None
    confusion = json.loads((in_tmp_path / "run" / "confusion.json").read_text())
    assert confusion["counts"] == told["confusion"]["counts"]
    right = sum(count for true, predicted, count in confusion["counts"] if true == predicted)
    images = sum(count for _, _, count in confusion["counts"])
    assert right / images == pytest.approx(told["epochs"][0]["validation_accuracy"])
    assert (in_tmp_path / "run" / "epoch-1.safetensors").exists()
    saved = load("alexnet", weights=in_tmp_path / "run" / "final.safetensors")
    assert saved.preprocessing.size == (67, 67)


def test_another_papers_recipe_is_said_to_be_one(capsys):
    code, _, err = run(capsys, f"train alexnet {TINY} --recipe modern --learning-rate 0.01 --json")
    assert code == 0, err
    assert "recipe" not in err
    code, out, err = run(capsys, f"train alexnet {TINY} --recipe zfnet --json --out zf")
    assert code == 0, err
    assert "for zfnet at full width; alexnet at width 0.0625 gets its settings alone" in err
    assert json.loads(out)["config"]["augment"] == "ten-crops"


def test_unequal_classes_and_damaged_files_are_told(capsys, in_tmp_path):
    _draw(in_tmp_path / "pets" / "cats", 16)
    _draw(in_tmp_path / "pets" / "dogs", 4)
    (in_tmp_path / "pets" / "dogs" / "broken.png").write_bytes(b"nothing")
    line = TINY.replace("--data pictures", "--data pets")
    code, _, err = run(capsys, f"train alexnet {line} --json")
    assert code == 0, err
    assert "left out: pets/dogs/broken.png" in err
    assert "unequal classes: cats has" in err


BAD = {
    "--recipe zfnett": "'zfnett'; expected one of alexnet, zfnet, modern; did you mean 'zfnet'?",
    "--augment crops": "augment='crops'; expected one of none, shift, crop",
    "--new-head": "--new-head without --weights; expected trained layers; add --weights FILE",
    "--crop 40": "--crop 40 with --input 1x67x67; expected windows of the network's input size",
    "--augment crop --picture-size 50": "validation image 0 of 50×50 pixels with crop=67; expected images of",
    "--augmnt crop": "Did you mean --augment",
    "--weights absent.safetensors": "absent.safetensors",
}


@pytest.mark.parametrize(("words", "expected"), BAD.items())
def test_bad_input_is_one_line(capsys, in_tmp_path, words, expected):
    code, out, err = run(capsys, f"train alexnet {TINY} {words}")
    assert code == 2
    assert expected in " ".join(err.split())
    assert len(err.strip().splitlines()) == 1
    assert not out
    assert not (in_tmp_path / "run").exists()


def test_weights_of_other_classes_need_a_new_head(capsys, in_tmp_path):
    seven = load("alexnet", num_classes=7, width=0.0625, norm="batch", input_shape=(1, 67, 67))
    save_weights(seven.model, in_tmp_path / "seven.safetensors")
    code, _, err = run(capsys, f"train alexnet {TINY} --weights seven.safetensors")
    assert code == 2
    assert "add --new-head: a fresh classifier for the 4 classes of pictures" in err
    code, out, err = run(capsys, f"train alexnet {TINY} --weights seven.safetensors --new-head --json")
    assert code == 0, err
    assert len(json.loads(out)["classes"]) == 4
    # One epoch at this rate leaves the trained layers close to where they were.
    trained = load("alexnet", weights="run/final.safetensors").model.features[0].weight
    before = seven.model.features[0].weight
    assert torch.nn.functional.cosine_similarity(trained.flatten(), before.flatten(), 0) > 0.9


def test_an_interruption_says_how_to_go_on(capsys, in_tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["convscope", "train", "zfnet", "--data", "my data", "--resume"])
    with pytest.raises(SystemExit) as stop, command._interruptible("run"):
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert "begin again with: convscope train zfnet --data 'my data'\n" in capsys.readouterr().err
    (in_tmp_path / "run").mkdir()
    (in_tmp_path / "run" / "checkpoint.safetensors").touch()
    with pytest.raises(SystemExit), command._interruptible("run"):
        raise KeyboardInterrupt
    assert "with: convscope train zfnet --data 'my data' --resume\n" in capsys.readouterr().err
    with pytest.raises(SystemExit), command._interruptible("run"):
        raise KeyboardInterrupt("told already")
    assert not capsys.readouterr().err


PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_two_processes_train_together_and_one_of_them_prints(in_tmp_path):
    line = f"-m convscope train alexnet {TINY} --num-workers 1 --json".split()
    ended = subprocess.run([*PROCESSES, *line], capture_output=True, text=True, timeout=200, env=ALONE)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert sum(count for _, _, count in told["confusion"]["counts"]) == 8
    assert ended.stderr.count("epoch 1/1") == 1
    assert "Traceback" not in ended.stderr
    start = json.loads((in_tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert start["processes"] == 2


def _hears_interruptions():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # shells' background jobs ignore it


@pytest.mark.slow
def test_ctrl_c_leaves_one_line_that_says_how_to_go_on(in_tmp_path):
    line = f"train alexnet {TINY.replace('--epochs 1', '--epochs 400')} --num-workers 1".split()
    program = [sys.executable, "-m", "convscope", *line]
    process = subprocess.Popen(
        program,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ALONE,
        preexec_fn=_hears_interruptions,
    )
    deadline = time.monotonic() + 120
    while not (in_tmp_path / "run" / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    said = [line for line in err.splitlines() if line.startswith("convscope:")]
    assert len(said) == 1, err
    assert "--resume" in said[0]
    assert "Traceback" not in err
    assert not out


def test_windows_have_as_many_channels_as_the_network(capsys, in_tmp_path):
    (in_tmp_path / "grey.py").write_text(
        "from torch import nn\n"
        "def make(num_classes=2):\n"
        "    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    return net.append(nn.Linear(2, num_classes)), (1, 1, 16, 16)\n"
    )
    code, out, err = run(capsys, "train grey.py:make --data digits --epochs 1 --crop 14 --json")
    assert code == 0, err
    assert json.loads(out)["config"]["crop"] == 14


def test_batch_means_batch_size_and_a_batch_that_is_too_large_is_told(capsys, in_tmp_path):
    words = f"train zfnet {TINY.replace('--batch-size 16', '--batch 100')}"
    code, out, err = run(capsys, f"{words} --out r")
    assert code == 0
    assert "fewer images than a batch of 100: each step takes all 32" in err
    assert "32 to train on, 8 for validation" in out
    log = (in_tmp_path / "r" / "log.jsonl").read_text()
    assert json.loads(log.split("\n")[0])["config"]["batch_size"] == 100
    assert "one of them: they mean the same" in run(capsys, f"{words} --batch-size 16 --out s")[2]


def test_resuming_says_where_there_is_nothing_to_resume_or_left_to_do(capsys, in_tmp_path):
    assert "no run in r to resume: it begins there" in run(capsys, f"train zfnet {TINY} --out r --resume")[2]
    code, _, err = run(capsys, f"train zfnet {TINY} --out r --resume")
    assert code == 0
    assert "the run in r had ended before: nothing was trained" in err
    said = run(capsys, "checkup zfnet --weights r/checkpoint.safetensors")[2]
    assert "give 'r/best.safetensors', which also says how its network was built" in said
