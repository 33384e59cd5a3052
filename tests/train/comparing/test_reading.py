"""A comparison is read back as it was, wherever its folder lies, and reading changes nothing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from convscope.core.errors import ConvscopeError
from convscope.train import compare, read_comparison
from convscope.train.comparing import Claim, Contrast, Experiment, ExtraMeasure, Published, table_of
from train.comparing.small import SETTINGS

PUBLISHED = Published("14× fewer steps", "someone, table 1")


@pytest.fixture(scope="module")
def experiment(references):
    """One good arm and one that diverges; one measure gives a NaN."""
    table = table_of(
        *references, {"learning_rate": [0.1, 1e30]}, seeds=2, settings={**SETTINGS, "evaluate_every": 2}
    )
    claims = (
        Claim("fewer", "Fewer steps.", Contrast("steps_to_target", ("lr 0.1",), ("lr 1e+30",), scale="ratio"),
              PUBLISHED, "Only a direction."),
        Claim("kept", "Is measured.", Contrast("kept.number", ("lr 0.1",))),
    )  # fmt: skip
    measure = ExtraMeasure("kept", "a number", lambda _: {"number": 3.0, "lost": float("nan")})
    return Experiment("rates", "Which rate?", "Two seeds.", (PUBLISHED,), table, claims, (measure,), "Small.")


@pytest.fixture(scope="module")
def done(experiment, tmp_path_factory):
    out = tmp_path_factory.mktemp("reading") / "out"
    return compare(experiment, out=out, processes=0, threads=1, command="the command"), out


def test_everything_comes_back(done):
    found, out = done
    again = read_comparison(out)
    assert again.to_dict() == found.to_dict()
    assert again.verdicts == found.verdicts
    assert str(again.arms[1].runs[0].diverged) == str(found.arms[1].runs[0].diverged)
    assert again.arms[0].config == found.arms[0].config
    assert again.arms[0].runs[0].measures["kept.lost"] != again.arms[0].runs[0].measures["kept.lost"]
    assert type(again.arms[0].percentiles) is type(found.arms[0].percentiles)
    assert str(again) == str(found)


def test_a_folder_that_was_moved_is_read_where_it_lies(done, tmp_path):
    shutil.copytree(done[1], tmp_path / "elsewhere")
    found = read_comparison(tmp_path / "elsewhere")
    assert Path(found.arms[0].runs[1].folder, "log.jsonl").is_relative_to(tmp_path)
    assert Path(found.arms[0].runs[1].folder, "log.jsonl").exists()


def test_comparing_again_reads_the_runs_and_keeps_how_they_were_made(done, experiment, tmp_path):
    shutil.copytree(done[1], tmp_path / "out")
    file = tmp_path / "out" / "comparison.json"
    content = json.loads(file.read_text())
    content["made"] |= {"machine": "another machine", "written": "01 May 2020", "processes": 7}
    content["verdicts"] = []
    file.write_text(json.dumps(content))
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "runs").rglob("*.json*")}
    found = compare(experiment, out=tmp_path / "out", processes=0, command="another command")
    assert (found.made.machine, found.made.written, found.made.processes) == (
        "another machine", "01 May 2020", 7,
    )  # fmt: skip
    assert found.made.command == "the command"
    assert len(found.verdicts) == 2  # judged again
    assert {path: path.read_bytes() for path in (tmp_path / "out" / "runs").rglob("*.json*")} == before
    file.write_text("{}")
    assert compare(experiment, out=tmp_path / "out", processes=0).made.machine != "another machine"


def test_no_measure_of_a_run_that_diverged_and_none_twice(done, experiment, tmp_path):
    found, out = done
    assert found.arms[1].num_diverged == 2
    assert not [note for note in found.notes if "kept" in note]

    def fails(folder):
        raise ValueError(f"asked for {folder}")

    shutil.copytree(out, tmp_path / "out")
    kept = replace(experiment, measures=(replace(experiment.measures[0], function=fails),))
    assert compare(kept, out=tmp_path / "out", processes=0).arms[0].runs[0].measures["kept.number"] == 3.0
    newer = replace(kept, measures=(replace(kept.measures[0], version=2),))
    notes = compare(newer, out=tmp_path / "out", processes=0).notes
    assert "lr 0.1, seed 0: kept: ValueError: asked for seed-0" in notes  # without this machine's paths


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.update(schema_version=0), "another version"),
        (lambda content: content.update(arms=3), "of this version"),
        (lambda content: content.pop("arms"), "of this version"),
        (lambda content: content.update(surprise=3), "surprise"),
        (lambda content: content["verdicts"][0].update(verdict="perhaps"), "perhaps"),
    ],
)
def test_what_cannot_be_read(done, tmp_path, change, said):
    content = json.loads((done[1] / "comparison.json").read_text())
    change(content)
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    with pytest.raises(ConvscopeError, match=said) as caught:
        read_comparison(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_comparison(tmp_path):
    with pytest.raises(ConvscopeError, match="the folder of a comparison"):
        read_comparison(tmp_path)


def test_steps_count_to_the_first_measurement_inside_an_epoch(references, tmp_path):
    """A target that everything reaches is reached at the first measurement, after two steps of three."""
    table = table_of(*references, {"norm": ["none", "batch"]}, seeds=1, target=0.99,
                     settings={**SETTINGS, "evaluate_every": 2})  # fmt: skip
    found = compare(table, out=tmp_path, processes=0, threads=1)
    assert [run.steps_to_target for arm in found.arms for run in arm.runs] == [2, 2]
    points = found.curve("batch", "validation_error").points
    assert [(point.step, round(point.epoch, 3)) for point in points][:3] == [(2, 0.667), (3, 1.0), (4, 1.333)]
    with pytest.raises(ConvscopeError, match="evaluate_every was 2 and is 1"):
        other = table_of(*references, {"norm": ["none", "batch"]}, seeds=1, target=0.99,
                         settings={**SETTINGS, "evaluate_every": 1})  # fmt: skip
        compare(other, out=tmp_path, processes=0, threads=1)


def test_the_own_target_counts_measurements_inside_epochs(references, tmp_path):
    table = table_of(*references, {"norm": ["none"]}, seeds=1, settings={**SETTINGS, "evaluate_every": 1})
    found = compare(Experiment("one", "Which target?", "", (), table), out=tmp_path, processes=0, threads=1)
    assert found.target == min(point.mean for point in found.curve("no norm", "validation_error").points)
    assert found.arms[0].reached.num_reached == 1
