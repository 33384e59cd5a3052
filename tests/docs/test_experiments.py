"""The pages of experiments say what the comparison says, draw it, and name no place of this machine."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

import experiment_figures
import experiments
from convscope.checkup.observed.run import Percentiles
from convscope.core.errors import ConvscopeError
from convscope.train import compare, read_comparison
from convscope.train.comparing import Claim, Contrast, Experiment, ExtraMeasure, Published, table_of
from convscope.train.comparing.statistics import Interval
from train.comparing.small import SETTINGS, made

PUBLISHED = Published("14× fewer | steps <in a table>", "Ioffe & Szegedy 2015")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A toy experiment that has come to its end, and what was written of it."""
    place = tmp_path_factory.mktemp("documented")
    table = table_of(*made(place), {"norm": ["none", "batch"]}, seeds=5, settings={**SETTINGS, "epochs": 2})
    claims = (
        Claim("fewer errors", "Fewer errors with batch norm.",
              Contrast("final_error", ("batch",), ("no norm",)), PUBLISHED, "Only here. Small pictures."),
        Claim("measured", "A number is above zero.", Contrast("kept.number", ("batch",), (), "higher")),
    )  # fmt: skip
    measure = ExtraMeasure("kept", "a number", lambda folder: {"number": 3.5})
    experiment = Experiment("toy", "Which norm?", "Two epochs.", (PUBLISHED,), table, claims, (measure,),
                            "Small pictures.")  # fmt: skip
    out = place / "there"
    command = f"convscope compare toy --out {out}"
    found = compare(experiment, out=out, processes=0, threads=1, command=command)
    experiments.main([out], out=place / "pages")
    return found, out, place / "pages"


def test_every_claim_stands_beside_the_published_figure(finished):
    found, _, pages = finished
    page = (pages / "toy.md").read_text()
    first, second = found.verdicts
    (row,) = [line for line in page.splitlines() if line.startswith("| Fewer errors")]
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
    assert cells[1] == r"14× fewer \| steps &lt;in a table>"
    mean = found.verdicts[0].interval.mean * 100
    assert float(cells[2].removesuffix(" points").replace("−", "-")) == pytest.approx(mean, abs=0.06)
    assert "| p, one-sided |" in page
    assert "36 images to train on and 18 to validate, one split" in page
    assert cells[4:] == [f"{first.p:.3f}", "5", f"**{first.verdict}**"]
    assert second.verdict == "supported"
    assert "Small pictures." in page
    assert "fewer errors: Only here." in page
    assert "Two epochs." in page
    assert "| kept.number | 3.5 (3.5 to 3.5) | 3.5 (3.5 to 3.5) |" in page
    assert found.made.machine in page
    assert "convscope compare toy --out there" in page


def test_of_a_bound_the_page_and_the_index_tell_one_end(finished):
    found = finished[0]
    ends = Interval(0.45, 0.34, 0.59, 0.3, 0.7, 5)
    steps = Contrast("steps_to_target", ("batch",), ("no norm",), scale="ratio")
    verdict = replace(found.verdicts[0], claim=Claim("c", "s", steps), interval=ends, bound="at most")
    bounded = replace(found, verdicts=(verdict,))
    assert "| ≤ 0.45× | at most 0.59× |" in experiments.page(bounded, {})
    assert "| ≤ 0.45× (at most 0.59×) |" in experiments.index([bounded])


def test_nothing_written_names_a_place_of_this_machine(finished):
    _, out, pages = finished
    for file in pages.iterdir():
        text = file.read_text()
        assert str(out.parent) not in text, file
        assert not re.search(r"(?<![\w.])/(tmp|home|root|work)/", text), file


def test_the_figures_are_drawn_and_all_are_shown(finished):
    _, _, pages = finished
    page = (pages / "toy.md").read_text()
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
    assert sorted(shown) == sorted(file.name for file in pages.glob("*.svg"))
    assert {"toy-validation-error.svg", "toy-final-errors.svg"} <= set(shown)
    for name in shown:
        picture = ElementTree.fromstring((pages / name).read_text())
        assert float(picture.get("width")) <= 760
        assert "batch" in "".join(picture.itertext())


def test_the_json_is_small_and_holds_the_result(finished):
    found, _, pages = finished
    text = (pages / "toy.json").read_text()
    assert len(text.encode()) < experiments.MOST_BYTES
    content, whole = json.loads(text), found.to_dict()
    for name in ("verdicts", "differences", "seeds", "target", "curves"):
        assert content[name] == whole[name]
    assert content["arms"][0]["runs"][2]["folder"] == "runs/no-norm/seed-2"


def test_a_large_json_loses_its_curves_and_no_result(finished, monkeypatch):
    found = finished[0]
    monkeypatch.setattr(experiments, "MOST_BYTES", 10_000)
    content = json.loads(experiments.kept(found))
    assert content["curves"] == []
    assert content["verdicts"] == found.to_dict()["verdicts"]


def test_the_index_is_of_all_that_lie_there(finished, tmp_path):
    _, out, pages = finished
    index = (pages / "index.md").read_text()
    assert "1 experiments with 2 claims" not in index
    assert index.count("[toy](toy.md)") == 1
    assert "| A number is above zero. |" in index
    other = json.loads((pages / "toy.json").read_text()) | {"name": "another"}
    (tmp_path / "another.json").write_text(json.dumps(other))
    experiments.main([out], out=tmp_path)
    index = (tmp_path / "index.md").read_text()
    assert index.index("[another](another.md)") < index.index("[toy](toy.md)")


def test_percentiles_are_of_the_same_depth_on_one_scale(finished):
    found = finished[0]
    steps = (1, 2, 3)

    def row(path, most):
        return Percentiles(path, 0, "output", steps, (-1.0,) * 3, (0.0,) * 3, (most,) * 3)

    arms = (
        replace(found.arms[0], percentiles=(row("fc2", 2.0), row("fc3", 9.0), row("fc4", 50.0))),
        replace(found.arms[1], percentiles=(row("norm2", 1.0), row("norm3", 3.0))),
    )
    contrast = Contrast("percentiles.drift", ("batch",), ("no norm",))
    claim = replace(found.verdicts[0], claim=Claim("c", "s", contrast))
    watched = replace(found, arms=arms, verdicts=(claim,))
    assert {name: row.path for name, row in experiment_figures.deepest(watched).items()} == {
        "no norm": "fc3", "batch": "norm3",
    }  # fmt: skip
    drawn = {name: picture for name, (picture, _) in experiment_figures.figures(watched)}
    tops = [
        set(re.findall(r">(\d+|−\d+)</text>", drawn[name])) for name in ("percentiles-0", "percentiles-1")
    ]
    assert tops[0] == tops[1]
    assert not [name for name, _ in experiment_figures.figures(found) if name.startswith("percentiles")]


def test_unfinished_folders_are_refused(finished, tmp_path):
    _, out, _ = finished
    content = json.loads((out / "comparison.json").read_text())
    content["arms"][0]["runs"][0]["state"] = "waiting"
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    with pytest.raises(ConvscopeError, match="haven't ended"):
        experiments.main([tmp_path], out=tmp_path / "pages")
    with pytest.raises(ConvscopeError, match=r"no comparison\.json"):
        experiments.main([tmp_path / "none"], out=tmp_path / "pages")


def test_the_committed_pages_belong_together():
    """Each page has its JSON and its figures, and a line in the index; nothing is left over."""
    folder = experiments.FOLDER
    if not folder.exists():
        pytest.skip("no experiment has been written")
    names = {file.stem for file in folder.glob("*.json")}
    assert {file.stem for file in folder.glob("*.md")} - {"index"} == names
    index = (folder / "index.md").read_text()
    shown = set()
    for name in names:
        assert f"[{name}]({name}.md)" in index
        shown |= set(re.findall(r"\]\(([^)]+\.svg)\)", (folder / f"{name}.md").read_text()))
        assert (folder / f"{name}.json").stat().st_size < experiments.MOST_BYTES
    assert {file.name for file in folder.glob("*.svg")} == shown
    for file in folder.iterdir():
        assert not re.search(r"(?<![\w.])/(tmp|home|root|work)/", file.read_text()), file


def test_a_written_comparison_can_be_read_back(finished):
    _, _, pages = finished
    (Path(pages) / "again").mkdir(exist_ok=True)
    (pages / "again" / "comparison.json").write_text((pages / "toy.json").read_text())
    assert len(read_comparison(pages / "again").verdicts) == 2
    (pages / "again" / "comparison.json").unlink()
    (pages / "again").rmdir()
