"""The page of a comparison of trainings: every number from its data, charts drawn, nothing fetched."""

import html
import json
import re
from dataclasses import replace

import pytest

from convscope.core.result import page_of
from convscope.report.charts.experiment import experiment_charts
from convscope.report.pages.experiment import experiment_html
from convscope.report.pages.fields import at
from convscope.report.wording.formats import MISSING, write
from convscope.report.wording.intervals import bounded, span, written, written_verdict
from convscope.train import compare
from convscope.train.comparing import Claim, Contrast, Experiment, Published, table_of
from convscope.train.comparing.statistics import Interval
from report.charts.drawn import drawn
from train.comparing.small import SETTINGS, made

_FIELD = re.compile(r'data-field="([^"]+)" data-format="([^"]+)"[^>]*>([^<]*)<')


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Three arms, two seeds; one diverges; its question has mark-up in it."""
    folder = tmp_path_factory.mktemp("experiment")
    choices = {"learning_rate": [0.05, 0.2, 1e30]}
    table = table_of(*made(folder), choices, seeds=2, settings=SETTINGS, options={"norm": "none"})
    published = Published("14× fewer steps", "Ioffe & Szegedy 2015")
    contrast = Contrast("steps_to_target", ("lr 0.2",), ("lr 0.05",), scale="ratio")
    claim = Claim("quick", "A <b>higher</b> rate is quicker.", contrast, published, "Directions only.")
    question = "Which <i>rate</i>?"
    experiment = Experiment("rates", question, "Two seeds.", (published,), table, (claim,), (), "Small.")
    return compare(experiment, out=folder / "out", processes=0, threads=1)


def test_every_number_is_written_from_the_data_in_the_page(found):
    page = experiment_html(found)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    fields = _FIELD.findall(page)
    assert len(fields) > 60
    for path, form, text in fields:
        assert html.unescape(text) == write(form, at(data, path)), path


def test_the_page_holds_no_folder_of_this_machine_and_escapes_words(found):
    page = page_of(found)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert data["comparison"]["arms"][0]["runs"][1]["folder"] == "runs/lr-0.05/seed-1"
    assert "folder" not in data["comparison"]
    assert "<i>rate</i>" not in page
    assert "<b>higher</b>" not in page
    for part in (
        "Where runs diverged",
        "Two seeds.",
        "Ioffe &amp; Szegedy 2015",
        "Directions only.",
        "Small.",
    ):
        assert part in page


def test_charts_draw_only_the_data_of_the_page(found):
    specs = experiment_charts(found.to_dict())
    assert {"validation-error", "training-loss", "final-errors", "steps-to-target"} <= specs.keys()
    for spec in specs.values():
        values = re.findall(r'"values": (\{[^}]*\})', json.dumps(spec))
        assert values
        assert all(value.startswith('{"$field": ') for value in values)


@pytest.mark.browser
def test_in_a_browser_everything_is_drawn_and_nothing_fetched(found, tmp_path):
    from browser import fetched, launched, until, watched
    from report.pages.saving import check_columns

    (tmp_path / "index.html").write_text(experiment_html(found))
    with launched() as browser:
        for width in (400, 1200):
            with watched(browser, width=width) as page:
                page.goto((tmp_path / "index.html").as_uri())
                charts = "[...document.querySelectorAll('main > section > div > figure .chart')]"
                until(page, f"{charts}.every((each) => each.dataset.drawn === 'yes')")
                assert page.evaluate(f"{charts}.length") >= 4
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                # No gap below the lowest chart of a section.
                below = """[...document.querySelectorAll('main > section > .pair')].map((pair) => Math.round(
                    pair.getBoundingClientRect().bottom - Math.max(
                        ...[...pair.querySelectorAll('svg.marks, canvas, .vega-bindings, .save')].map(
                            (each) => each.getBoundingClientRect().bottom))))"""
                assert max(page.evaluate(below)) < 12
                assert fetched(page) == []
                assert page.seen["errors"] == []
                assert not [line for line in page.seen["console"] if line.startswith("error")]
                if width == 1200:
                    assert {"arms.csv", "validation-error.csv", "differences.csv"} <= set(check_columns(page))


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(-0.0312, "points", "−3.12 points"), (0.0, "points", "0 points"), (14.2, "ratio", "14×"),
     (0.5, "ratio", "0.5×"), (1.0148, "ratio", "1.015×"), (0.9306, "ratio", "0.931×"),
     (1.0, "ratio", "1×"), (1.0004, "ratio", "1.000×"), (2.5, "number", "+2.5")],
)  # fmt: skip
def test_means_are_written_with_sign_and_unit(value, form, text):
    assert written(Interval(value, None, None, 0, 0, 1), form) == text


def test_what_isnt_known_is_a_dash():
    single = Interval(1.0, None, None, 1, 1, 1)
    assert (written(None, "ratio"), span(single, "ratio"), bounded(None, "ratio", "open")) == (MISSING,) * 3
    assert bounded(single, "ratio", "exact") == "1×"
    assert bounded(single, "ratio", "at most") == "≤ 1×"


@pytest.mark.parametrize(
    ("bound", "text"),
    [("exact", "0.34× to 0.59×"), ("at most", "at most 0.59×"), ("at least", "at least 0.34×")],
)
def test_of_a_bound_only_the_end_that_it_is_about_is_written(found, bound, text):
    ends = Interval(0.45, 0.34, 0.59, 0.3, 0.7, 5)
    assert span(ends, "ratio", bound) == text
    verdict = replace(found.verdicts[0], interval=ends, bound=bound, p=1 / 32)
    assert f"95 % {text}, 2 seeds, one-sided p = 0.031" in written_verdict(verdict)
    difference = replace(found.differences[0], scale="ratio", interval=ends, bound=bound)
    page = experiment_html(replace(found, verdicts=(verdict,), differences=(difference,)))
    assert len(re.findall(f"<[^<]*data-field[^>]*>{text}<", page)) == 2


def words_of(page):
    """What a reader reads, without mark-up."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.split("<script")[0]).split())


def test_every_p_says_how_many_sides_it_has(found):
    same = replace(found.verdicts[0].claim.measure, direction="same", margin=1.5)
    verdict = replace(found.verdicts[0], p=0.5)
    other = replace(verdict, claim=replace(verdict.claim, measure=same))
    page = re.sub(
        r"<[^>]+>", "", experiment_html(replace(found, verdicts=(verdict, other))).split("<script")[0]
    )
    assert re.findall(r", ([\w -]*)p = ", page) == ["one-sided ", "larger one-sided "]
    assert "p, two-sided" in page


def test_a_page_says_what_was_compared_and_how_few_seeds_there_were(found):
    adam = replace(found.arms[1], name="adam", config=replace(found.arms[1].config, optimizer="adam"))
    plain = replace(found, question="", name="tab", arms=(found.arms[0], adam), differences=(), verdicts=())
    page = experiment_html(plain)
    about = "net.py:build on pictures, learning rate × optimizer"
    assert f"<title>Comparison: {about} · convscope</title>" in page
    words = words_of(page)
    for part in (
        f"Comparison of trainings · tab {about}",
        "pictures: 36 images to train on, 18 to validate",
        "Options norm=none",
        "epochs=3, batch_size=12, schedule=constant; other settings are the defaults",
        "lr 0.05 learning_rate=0.05, optimizer=sgd-momentum",
        "adam learning_rate=0.2, optimizer=adam",
        "Only 2 seeds: an interval of so few rests on their spread being normal",
    ):
        assert part in words
    shown = " ".join(str(plain).split())
    assert "learning_rate=0.2, optimizer=adam" in shown
    assert "Only 2 seeds" in shown
    assert "Its own" not in str(found)  # their names say it
    older = replace(plain, num_train=None, num_validation=None, seeds=(0, 1, 2, 3, 4))
    assert "pictures; one split for all runs" in " ".join(
        re.sub(r"<[^>]+>", "", experiment_html(older)).split()
    )
    assert "Only" not in str(older)


def test_colours_of_percentiles_stand_once_in_the_legend():
    arms = [{"name": "a", "final_error": None, "percentiles": [{"path": "fc1"}]}]
    spec = experiment_charts({"arms": arms, "curves": [], "target": None})["percentiles-0"]
    assert spec["layer"][1]["encoding"]["color"]["legend"]["values"] == ["p85", "p50"]
    assert [each["name"] for each in spec["params"] if "bind" in each] == ["watched"]


def test_many_arms_with_long_names_can_be_told_apart():
    names = [f"an arm with a name that is long, rate {rate}" for rate in range(20)]
    spec = experiment_charts_of(names)
    line = spec["validation-error"]["layer"][1]["encoding"]
    marks = list(zip(line["color"]["scale"]["range"], map(str, line["strokeDash"]["scale"]["range"]),
                     strict=True))  # fmt: skip
    assert len(set(marks)) == 20
    rows = spec["final-errors"]["layer"][0]["encoding"]["y"]["axis"]
    cut = int(re.search(r"slice\(datum.label, (\d+)\)", rows["labelExpr"]).group(1))
    assert {name[cut:] for name in names} == {str(rate) for rate in range(20)}
    few = experiment_charts_of(["no norm", "batch"])
    assert "strokeDash" not in few["validation-error"]["layer"][1]["encoding"]
    assert "labelExpr" not in few["final-errors"]["layer"][0]["encoding"]["y"]["axis"]


def test_what_was_measured_once_is_no_curve(found):
    plain = found.to_dict()
    for curve in plain["curves"]:
        del curve["points"][1:]
    specs = experiment_charts(plain)
    assert "validation-error" not in specs  # they are the final errors, which have a chart of their own
    assert "final-errors" in specs
    labels = [label for kind, label in drawn(specs["training-loss"], {"comparison": plain})]
    losses = [c["points"][0]["mean"] for c in plain["curves"] if c["quantity"] == "training_loss"]
    for loss in losses:
        assert any(f"{loss:.4g}" in label for label in labels)
    page = experiment_html(
        replace(found, curves=tuple(replace(c, points=c.points[:1]) for c in found.curves))
    )
    assert "Training loss of the only step" in page
    assert "Training loss of the only step" not in experiment_html(found)


def experiment_charts_of(names):
    points = [{"mean": 0.1}, {"mean": 0.1}]
    curves = [{"arm": name, "quantity": "validation_error", "points": points} for name in names]
    arms = [{"name": name, "final_error": {"mean": 0.1}, "percentiles": []} for name in names]
    return experiment_charts({"arms": arms, "curves": curves, "target": None})


def test_paths_of_references_are_cut_down(found):
    page = experiment_html(found)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))["comparison"]
    assert data["data"] == "pictures"
    assert {arm["network"] for arm in data["arms"]} == {"net.py:build"}
