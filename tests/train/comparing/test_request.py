"""Whole comparisons in this process: what is run, read, refused and reported."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.train import compare, read_log, read_run
from convscope.train.comparing import (
    Arm,
    Claim,
    Contrast,
    Experiment,
    ExtraMeasure,
    experiment,
    experiment_names,
    forecast,
    register,
    table_of,
)
from convscope.train.comparing.course import NoComparingProgress
from convscope.train.comparing.pool import _probed
from convscope.train.comparing.running import Feed
from convscope.train.comparing.tasks import measured
from train.comparing.small import SETTINGS

CHOICES = {"norm": ["none", "batch"]}


class Notes(NoComparingProgress):
    def __init__(self):
        self.notes, self.forecasts, self.standings = [], [], []

    def note(self, text):
        self.notes.append(text)

    def forecast(self, forecast):
        self.forecasts.append(forecast)

    def standing(self, standing):
        self.standings.append(standing)


@pytest.fixture(scope="module")
def done(references, tmp_path_factory):
    """Two arms, two seeds, in this process, on one thread."""
    out = tmp_path_factory.mktemp("compared")
    told = Notes()
    threads = torch.get_num_threads()
    found = compare(*references, CHOICES, seeds=2, settings=SETTINGS, out=out, processes=0, threads=1,
                    progress=told)  # fmt: skip
    assert torch.get_num_threads() == threads
    return found, out, told


@pytest.fixture
def again(done, references, tmp_path):
    """A copy of the finished comparison, and how to go on with it."""
    shutil.copytree(done[1], tmp_path / "out")

    def go_on(**words):
        return compare(
            *references,
            **{"choices": CHOICES, "seeds": 2, "settings": SETTINGS, "out": tmp_path / "out", "processes": 0,
               **words},
        )  # fmt: skip

    return go_on, tmp_path / "out"


def test_every_number_is_that_of_the_runs(done):
    found, out, told = done
    assert found.is_complete
    assert (told.standings[-1].done, told.standings[-1].total, told.standings[-1].running) == (4, 4, {})
    for arm in found.arms:
        for number, run in enumerate(arm.runs):
            log = read_log(Path(run.folder) / "log.jsonl")
            errors = [1 - record.validation_accuracy for record in log.epochs]
            assert (run.final_error, run.best_error) == (errors[-1], min(errors))
            assert run.gap == errors[-1] - (1 - log.epochs[-1].train_accuracy)
            reached = [record.step for record, e in zip(log.epochs, errors, strict=True) if e <= found.target]
            assert run.steps_to_target == (reached[0] if reached else None)
            assert (log.start["config"]["seed"], run.seed) == (number, number)
        mean = sum(run.final_error for run in arm.runs) / 2
        assert arm.final_error.mean == pytest.approx(mean)
        curve = found.curve(arm.name, "validation_error")
        assert [point.step for point in curve.points] == [3, 6, 9]
        assert curve.points[-1].mean == pytest.approx(mean)
        losses = found.curve(arm.name, "training_loss").points
        first = [read_log(Path(run.folder) / "log.jsonl").steps[0].loss for run in arm.runs]
        assert losses[0].mean == pytest.approx(sum(first) / 2)
    assert "2 seeds" in found.notes[0]
    assert json.loads((out / "comparison.json").read_text())["schema_version"] == 1
    assert "<h1>" in (out / "index.html").read_text()


def test_pairs_see_the_same_images_and_begin_with_the_same_weights(done):
    found, out, _ = done
    start = found.arm("batch").start
    assert (start.drawn_otherwise, start.seeds) == ((), 2)
    starts = [
        json.loads((out / "runs" / name / "seed-1" / "start.json").read_text())
        for name in ("no-norm", "batch")
    ]
    assert starts[0]["1.weight"] == starts[1]["1.weight"]


def test_pairs_see_the_same_images_in_the_same_order_varied_in_the_same_way(references, tmp_path):
    """Only the learning rate differs, so the first loss is the same number, and no later one is."""
    settings = {**SETTINGS, "augment": "shift", "epochs": 1}
    found = compare(*references, {"learning_rate": [0.1, 0.2]}, seeds=2, settings=settings, out=tmp_path,
                    processes=0, threads=1)  # fmt: skip
    losses = [[[step.loss for step in read_run(run.folder).steps] for run in arm.runs] for arm in found.arms]
    for slow, quick in zip(*losses, strict=True):
        assert slow[0] == quick[0]
        assert slow[1] != quick[1]
    assert losses[0][0][0] != losses[0][1][0]
    assert found.arms[1].start.same == len(
        json.loads((Path(found.arms[1].runs[0].folder) / "start.json").read_text())
    )


def test_a_finished_comparison_is_read_and_not_run_again(again):
    go_on, out = again
    before = {path: path.stat().st_mtime_ns for path in out.rglob("log.jsonl")}
    told = Notes()
    go_on(progress=told)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("log.jsonl")} == before
    assert told.forecasts == []


def test_an_interrupted_run_goes_on_to_the_same_weights(again):
    go_on, out = again
    folder = out / "runs" / "batch" / "seed-1"
    wanted = (folder / "final.safetensors").read_bytes()
    shutil.rmtree(folder)
    told = Notes()
    found = go_on(progress=told)
    assert (folder / "final.safetensors").read_bytes() == wanted
    assert (told.forecasts[0].runs, told.forecasts[0].runs_left) == (4, 1)
    assert found.is_complete


def test_arms_and_seeds_may_be_added_and_left_out(again):
    go_on, out = again
    told = Notes()
    found = go_on(choices={"norm": ["batch", "another"]}, seeds=3, progress=told)
    assert [run.state for run in found.arms[0].runs] == ["finished"] * 3
    assert told.notes == [f"arm 'no norm' is in {out} and not in the table: ignored"]
    assert (out / "runs" / "no-norm" / "seed-0" / "final.safetensors").exists()
    assert go_on().is_complete  # the arm that was left out is still known


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"settings": {**SETTINGS, "epochs": 4}}, "epochs was 3 and is 4"),
        ({"network_options": {"hidden": 7}}, "hidden was None and is 7"),
        ({"image_size": 5}, "image_size was None and is"),
    ],
)
def test_a_table_that_has_changed_is_refused(again, words, said):
    go_on, _ = again
    with pytest.raises(ConvscopeError, match=said):
        go_on(**words)


def test_what_decides_no_weights_may_change(again):
    go_on, _ = again
    assert go_on(settings={**SETTINGS, "log_every": 3}).is_complete


def test_diverged_and_failing_runs_end_no_other(references, tmp_path):
    choices = {"learning_rate": [0.1, 1e30]}
    found = compare(*references, choices, seeds=1, settings=SETTINGS, out=tmp_path, processes=0, threads=1)
    good, bad = found.arms
    assert (good.runs[0].state, bad.runs[0].state, bad.num_diverged) == ("finished", "diverged", 1)
    assert bad.runs[0].diverged.learning_rate == 1e30
    assert bad.runs[0].final_error == pytest.approx(2 / 3)
    assert (bad.reached.num_reached, bad.reached.num_runs) == (0, 1)
    assert bad.runs[0].number("diverged") == 1.0


def test_a_run_that_fails_is_told_and_tried_again(again):
    go_on, out = again
    folder = out / "runs" / "batch" / "seed-0"
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "log.jsonl").write_text("no log\n")
    (folder / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    found = go_on()
    run = found.arm("batch").runs[0]
    assert (run.state, found.arm("batch").num_failed) == ("failed", 1)
    assert "log.jsonl, line 1" in run.failure
    assert any("seed 0, failed" in note for note in found.notes)
    assert found.arm("batch").final_error.num_seeds == 1
    shutil.rmtree(folder)
    assert go_on().is_complete


def test_damaged_files_of_a_run_end_no_comparison(again):
    go_on, out = again
    folder = out / "runs" / "batch" / "seed-0"
    (folder / "start.json").write_bytes(b"\x00garbage{")
    found = go_on()
    assert found.is_complete
    assert "batch, seed 0: a start.json is damaged, so its paired start isn't told" in found.notes
    assert found.arm("batch").start.seeds == 1
    (folder / "log.jsonl").write_bytes(b"\x00garbage{")
    found = go_on()
    assert found.arm("batch").runs[0].state == "failed"
    assert "0 of 3 epochs" in found.arm("batch").runs[0].failure
    assert found.arm("batch").runs[1].state == "finished"
    assert "0 of 3 epochs" in go_on().arm("batch").runs[0].failure
    shutil.rmtree(folder)
    assert go_on().is_complete


def test_an_output_that_is_a_file_is_refused(references, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConvscopeError, match="can't be written"):
        compare(*references, CHOICES, seeds=1, settings=SETTINGS, out=tmp_path / "out", processes=0)


def test_an_arm_that_cannot_be_trained_is_refused_before_anything_runs(references, tmp_path):
    with pytest.raises(ConvscopeError, match=r"arm 'fails': .*asked to fail") as caught:
        compare(*references, {"fails": [False, True]}, settings=SETTINGS, out=tmp_path / "x", processes=0)
    assert not (tmp_path / "x" / "runs").exists()
    assert str(caught.value).count("; expected ") == 1
    assert str(caught.value).count("; ") == 2


@pytest.mark.parametrize("processes", [0, 1])
def test_data_that_there_is_not_is_no_arms_fault(references, tmp_path, processes):
    with pytest.raises(ConvscopeError) as caught:
        compare(references[0], "nowhere", CHOICES, settings=SETTINGS, out=tmp_path / "x", processes=processes)
    assert "arm" not in caught.value.given
    assert "nowhere" in caught.value.given


def test_what_a_process_of_its_own_refuses_is_told_once(references):
    arm = Arm("nothing", "nowhere.py:build")
    refused = measured(arm, Feed(references[1]), threads=1)["refused"]
    with pytest.raises(ConvscopeError) as caught:
        _probed(arm, {"refused": list(refused)})  # as JSON gives it back
    assert (caught.value.given, caught.value.expected, caught.value.action) == (
        f"arm 'nothing': {refused[0]}", *refused[1:],
    )  # fmt: skip


def test_nothing_to_compare_is_refused_but_for_an_experiment(references, tmp_path):
    words = {"settings": SETTINGS, "out": tmp_path / "x", "processes": 0}
    with pytest.raises(ConvscopeError, match=r"1 arm, 'net.py:build'; expected at least two to compare"):
        compare(*references, **words)
    with pytest.raises(ConvscopeError, match="1 arm, 'batch'"):
        compare(*references, {"norm": ["batch"]}, **words)
    table = table_of(*references, {"norm": ["batch"]}, seeds=1, settings=SETTINGS)
    with pytest.raises(ConvscopeError, match="1 arm, 'batch'"):
        forecast(table, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    one = Experiment("one", "does it stay?", "so", (), table)
    assert forecast(one, out=tmp_path / "x", processes=0).runs == 1


def test_unknown_arms_and_curves_are_told_with_the_nearest(done):
    found = done[0]
    with pytest.raises(ConvscopeError, match="'btach'; expected one of 'no norm', 'batch'; did you mean"):
        found.arm("btach")
    with pytest.raises(ConvscopeError, match="did you mean 'batch'"):
        found.curve("btach", "training_loss")
    with pytest.raises(ConvscopeError, match="did you mean 'validation_loss'"):
        found.curve("batch", "validaton_loss")


def test_the_numbers_of_images_are_those_of_the_runs(done):
    assert (done[0].num_train, done[0].num_validation) == (36, 18)


def test_an_experiment_has_verdicts_and_measures_that_are_kept(done, references, tmp_path):
    shutil.copytree(done[1], tmp_path / "out")
    calls = []

    def norm_of_weights(folder):
        calls.append(folder)
        return {"steps": read_run(folder).steps[-1].step, "lost": float("nan")}

    def broken(folder):
        raise ValueError("no such thing")

    table = table_of(*references, CHOICES, seeds=2, settings=SETTINGS)
    claims = (
        Claim("a", "fewer errors", Contrast("final_error", ("batch",), ("no norm",))),
        Claim("b", "as many steps", Contrast("kept.steps", ("batch",), ("no norm",), "same", margin=0.5)),
    )
    measures = (ExtraMeasure("kept", "steps", norm_of_weights), ExtraMeasure("broken", "-", broken))
    made = Experiment("toy", "which?", "so", (), table, claims, measures, scale="none")
    first = compare(made, out=tmp_path / "out", processes=0)
    assert [verdict.verdict for verdict in first.verdicts] == ["can't be told"] * 2
    assert first.verdicts[1].values == (0.0, 0.0)
    assert len(calls) == 4
    assert sum("broken: ValueError: no such thing" in note for note in first.notes) == 4
    assert compare(made, out=tmp_path / "out", processes=0).verdicts[1].values == (0.0, 0.0)
    assert len(calls) == 4
    newer = replace(made, measures=(replace(measures[0], version=2),))
    compare(newer, out=tmp_path / "out", processes=0)
    assert len(calls) == 8


def test_experiments_have_names(references):
    made = Experiment("tiny", "which?", "so", (), table_of(*references, CHOICES))
    register("tiny-experiment-of-a-test")(lambda: made)
    assert "tiny-experiment-of-a-test" in experiment_names()
    assert experiment("tiny-experiment-of-a-test") is made
    with pytest.raises(ConvscopeError, match="did you mean 'tiny-experiment-of-a-test'"):
        compare("tiny-experiment-of-test")


def test_the_forecast_counts_what_is_left_and_writes_nothing(references, tmp_path):
    found = forecast(*references, CHOICES, seeds=2, settings=SETTINGS, out=tmp_path / "x", processes=0)
    assert (found.runs, found.runs_left) == (4, 4)
    assert found.steps_left == 4 * 3 * 3
    assert [probe.arm for probe in found.probes] == ["no norm", "batch"]
    probe = found.probes[0]
    assert probe.num_train == 36
    assert found.seconds >= 4 * min(probe.start_seconds for probe in found.probes) > 0
    assert found.start_seconds == 0  # of processes: there are none
    assert found.disk_bytes > 4 * 3 * 4 * 48 * 6  # three files a run, the first layer alone
    assert not (tmp_path / "x").exists()


def test_arms_that_differ_in_an_option_which_the_network_does_not_use_are_told(references, tmp_path):
    choices = {"unused": [0, 1], "hidden": [5, 6]}
    found = forecast(*references, choices, seeds=1, settings=SETTINGS, out=tmp_path / "x", processes=0)
    names = [probe.arm for probe in found.probes]
    assert found.alike == ((names[0], names[2]), (names[1], names[3]))
    notes = Notes()
    compare(
        *references, {"unused": [0, 1]}, seeds=1, settings=SETTINGS, out=tmp_path / "x", processes=0,
        progress=notes,
    )  # fmt: skip
    assert notes.notes == [
        "arms 'unused 0' and 'unused 1' compute the same: does the network use what differs?"
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"seed": 3}, "unknown argument 'seed'"),
        ({"processes": -1}, "processes=-1"),
        ({"threads": 0}, "threads=0"),
        ({"network_options": {"hidden": {1, 2}}}, "numbers, texts"),
        ({"data": 3}, "a reference"),
    ],
)
def test_impossible_requests(references, tmp_path, words, said):
    network, data = references
    with pytest.raises(ConvscopeError, match=said):
        compare(
            network,
            **{"data": data, "choices": CHOICES, "out": tmp_path / "x", "settings": SETTINGS, **words},
        )


def test_a_second_comparison_in_the_same_folder_waits_its_turn(again):
    go_on, out = again
    from convscope.train.comparing.record import locked

    with locked(out), pytest.raises(ConvscopeError, match="another comparison is running"):
        go_on()
