import dataclasses
import json
from contextlib import contextmanager

import pytest

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.train.config import TrainConfig
from convscope.train.keeping.folder import RunFolder, free_folder, read_run, run_from_log
from convscope.train.keeping.log import Log
from convscope.train.run import Divergence, EpochRecord, StepRecord


def _start():
    return {"network": "Net", "data": "toy", "classes": ["a"], "config": dataclasses.asdict(TrainConfig())}


def _epoch(number, accuracy, speed):
    return EpochRecord(number, number, 1.0, 0.5, 1.0, accuracy, None, 0.1, speed, 2.5)


def test_a_run_is_told_from_its_log(tmp_path):
    # 60 images in 2 s, then 60 in 1 s: 120 in 3 s.
    log = Log(_start(), [StepRecord(1, 1, 2.0, 0.5, 0.1)], [_epoch(1, 0.5, 30.0), _epoch(2, 0.4, 60.0)])
    run = run_from_log(RunFolder(tmp_path / "name"), log)
    assert run.images_per_second == pytest.approx(40.0)
    assert (run.name, run.seconds, run.validation_accuracy) == ("name", 5.0, 0.4)
    assert run.config == TrainConfig()
    assert (run.num_train, run.num_validation) == (None, None)  # of a log that doesn't say
    assert (run.checkpoint, run.weights, run.best_weights, run.diverged) == (None, None, None, None)


def test_only_files_that_exist_are_told_and_final_weights_only_of_a_run_that_ended_well(tmp_path):
    folder = RunFolder(tmp_path)
    for file in (folder.checkpoint, folder.best, folder.final):
        file.touch()
    diverged = Divergence(3, 1, float("inf"), 0.1)
    for log, weights in (
        (Log(_start()), None),
        (Log(_start(), ended=True), str(folder.final)),
        (Log(_start(), ended=True, diverged=diverged), None),
    ):
        run = run_from_log(folder, log)
        assert run.weights == weights
        assert (run.checkpoint, run.best_weights) == (str(folder.checkpoint), str(folder.best))
        assert run.diverged == log.diverged
        assert (run.validation_accuracy, run.images_per_second) == (None, 0.0)


def test_leftovers_of_unfinished_writes_go_and_everything_else_stays(tmp_path):
    folder = RunFolder(tmp_path)
    kept = [folder.checkpoint, folder.log, tmp_path / ".notes", tmp_path / "x.safetensors.bak"]
    for file in kept:
        file.touch()
    for file in (folder.checkpoint, folder.best, folder.log):
        with pytest.raises(KeyboardInterrupt), _killed_while_writing(file):
            pass
    assert len(list(tmp_path.iterdir())) == len(kept) + 3
    folder.remove_leftovers()
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@contextmanager
def _killed_while_writing(path):
    """What whole_file leaves when its process dies before it can clean up."""
    with whole_file(path) as temporary:
        temporary.write_text("half")
        copy = temporary.read_text()
        name = temporary
        try:
            yield
            raise KeyboardInterrupt
        finally:
            name.with_name(name.name + "x").write_text(copy)


def test_new_folders_have_plain_names_and_never_one_that_is_taken(tmp_path):
    assert free_folder("timm:resnet18", "my photos/", tmp_path) == tmp_path / "timm-resnet18-my-photos"
    for name in ("a-b", "a-b-2"):
        assert free_folder("a", "b", tmp_path) == tmp_path / name
        (tmp_path / name).mkdir()
    assert free_folder("../..", "..", tmp_path).parent == tmp_path


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ConvscopeError, match="no readable log"):
        read_run(tmp_path)
    for line in ({"kind": "end", "diverged": None}, {"kind": "start", "network": "Net"}):
        (tmp_path / "log.jsonl").write_text(json.dumps(line) + "\n")
        with pytest.raises(ConvscopeError, match="doesn't say what was trained"):
            read_run(tmp_path)
