"""Two reports side by side: made or found, on one page."""

import base64
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from browser import fetched, launched, until, watched
from convscope import __version__
from convscope.cli.main import main
from convscope.core.errors import ConvscopeError
from convscope.data import load_data
from convscope.report import ReportConfig, report_pair
from convscope.report.charts.pair import pair_charts
from convscope.report.pages.pair import MOST_LAYERS, pair_html
from convscope.report.side_by_side.differences import Difference, Told
from report.charts.drawn import drawn
from report.pages.saving import check_columns

HOSTILE = "<img src=x onerror=alert(1)>"
CONFIG = ReportConfig(batch_size=8, repeats=2, top=3)


class Net(nn.Module):
    """A network of three channels or more."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, channels, 5, stride=2, bias=False), nn.BatchNorm2d(channels)
        self.relu, self.fc = nn.ReLU(), nn.Linear(channels, 10)

    def forward(self, x):
        return self.fc(self.relu(self.norm(self.conv(x))).mean((2, 3)))


def _net(channels):
    torch.manual_seed(0)
    return Net(channels)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("pair") / "out"
    data = load_data("digits", size=24, per_class=4)
    return report_pair([_net(4), _net(6)], data, out=out, config=CONFIG), out


def test_two_networks_are_reported_and_what_differs_is_told(made):
    found, out = made
    assert sorted(path.name for path in out.iterdir()) == [
        "first", "galleries.html", "index.html", "report.json", "second",
    ]  # fmt: skip
    numbers = {each.name: each for each in found.differences}
    # By hand: 75 weights and two parameters of the norm a channel, and the head.
    assert (numbers["parameters"].first, numbers["parameters"].second) == (4 * 77 + 50, 6 * 77 + 70)
    assert numbers["units"].ratio == pytest.approx(1.5)
    rows = json.loads((out / "first" / "report.json").read_text())["cost"]["rows"]
    assert numbers["layers and functions that run"].first == len(rows)
    page = (out / "index.html").read_text()
    assert __version__ in page
    assert found.written
    assert found.written in page
    layers = {each.address: each for each in found.layers}
    assert (layers["conv#1"].first_params, layers["conv#1"].second_params) == (300, 450)
    assert found.names == ("Net, as they were given", "Net, as they were given")
    assert json.loads((out / "report.json").read_text())["num_same_layers"] == found.num_same_layers


@pytest.mark.browser
def test_the_page_has_the_numbers_and_links_that_lead_somewhere(made):
    _, out = made
    with launched() as browser, watched(browser) as page:
        page.goto((out / "index.html").as_uri())
        assert page.locator("#numbers tr", has_text="parameters").locator("td").all_inner_texts()[1:] == [
            "358\u202felements", "532\u202felements", "1.49×",
        ]  # fmt: skip
        targets = page.locator("header a").evaluate_all(
            "links => links.map(link => link.getAttribute('href'))"
        )
        assert targets == ["first/index.html", "second/index.html", "galleries.html"]
        assert all((out / target).is_file() for target in targets)
        assert page.locator("#stems img").count() == 2
        assert page.locator("#stems img").evaluate_all("all => all.every(each => each.naturalWidth > 0)")
        assert fetched(page) == []
        assert page.seen["errors"] == page.seen["console"] == []


def test_both_first_layers_are_shown_or_none(made, tmp_path):
    found, out = made
    pictures = [(out / side / "first-layer.png").read_bytes() for side in ("first", "second")]
    html = pair_html(found)
    addresses = ["data:image/png;base64," + base64.b64encode(picture).decode() for picture in pictures]
    assert [html.count(address) for address in addresses] == [1, 1]
    assert pictures[0] != pictures[1]
    for side, address in zip(("first", "second"), addresses, strict=True):
        assert address in (out / side / "index.html").read_text()
    changed = replace(found, reports=(found.reports[0], str(tmp_path)))
    assert 'id="stems"' not in pair_html(changed)
    for content in (b"<svg onload='alert(1)'/>", pictures[0][:60], b""):
        (tmp_path / "first-layer.png").write_bytes(content)
        assert 'id="stems"' not in pair_html(changed)
    (tmp_path / "first-layer.png").write_bytes(pictures[0])
    assert 'id="stems"' in pair_html(changed)


@pytest.mark.browser
def test_how_both_learnt_is_drawn_where_both_were_trained(made, tmp_path):
    found, out = made
    assert found.curves == ()
    assert 'id="training"' not in pair_html(found)
    trained = []
    for side, accuracies in (("first", (0.25, 0.5)), ("second", (0.125, None))):
        folder = tmp_path / side
        folder.mkdir()
        plain = json.loads((out / side / "report.json").read_text())
        epochs = [
            {"epoch": n, "train_loss": 2.5 / n, "validation_loss": 2.25 / n, "validation_accuracy": accuracy}
            for n, accuracy in enumerate(accuracies, 1)
        ]
        plain["training"] = {"norm": "batch", "run": {"epochs": epochs}}
        (folder / "report.json").write_text(json.dumps(plain))
        trained.append(folder)
    pair = report_pair(trained, out=tmp_path / "both")
    assert [[each.validation_accuracy for each in curve.epochs] for curve in pair.curves] == [
        [0.25, 0.5], [0.125, None],
    ]  # fmt: skip
    assert report_pair([trained[0], out / "second"], out=tmp_path / "one").curves == ()
    labels = [label for _, label in drawn(pair_charts(pair.to_dict())["loss"], {"pair": pair.to_dict()})]
    assert any(
        "training loss, nats: 2.500" in each and "validation loss, nats: 2.250" in each for each in labels
    )
    with launched() as browser, watched(browser) as page:
        page.goto((tmp_path / "both" / "index.html").as_uri())
        page.locator("#training").scroll_into_view_if_needed()
        until(page, "document.querySelectorAll('[data-drawn=yes]').length === 2")
        assert page.locator("#chart-accuracy svg").get_by_text("second").count() == 1
        assert {"numbers.csv", "layers.csv", "accuracy.csv", "loss.csv"} <= set(check_columns(page))
        assert fetched(page) == []
        assert page.seen["errors"] == page.seen["console"] == []


def test_a_report_whose_training_is_damaged_is_refused(made, tmp_path):
    _, out = made
    for number, run in enumerate(({}, {"epochs": [{"epoch": "x"}]}, {"epochs": 3}, None)):
        folder = tmp_path / str(number)
        folder.mkdir()
        plain = json.loads((out / "first" / "report.json").read_text())
        plain["training"] = {"norm": "batch", "run": run}
        (folder / "report.json").write_text(json.dumps(plain))
        with pytest.raises(ConvscopeError, match="can't be compared"):
            report_pair([folder, folder], out=tmp_path / "both")


def test_findings_have_the_colour_of_their_severity_and_a_missing_number_no_unit(made):
    found, _ = made
    told = Told("checkup", "warning", "stale-statistics", "norm#1", "the statistics are old")
    gap = Difference("Check-up", "gap", "number", "nats", None, 0.5, None)
    changed = replace(found, only_first=(told,), differences=(gap,))
    assert '<b class="severity warning">' in pair_html(changed)
    assert ">The statistics are old<" in pair_html(changed)
    text = str(changed)
    assert "0.5 nats" in text
    assert "– nats" not in text


def test_folders_of_reports_are_compared_as_they_are_and_names_make_no_elements(made, tmp_path, capsys):
    _, out = made
    folder = tmp_path / "first"
    folder.mkdir()
    plain = json.loads((out / "first" / "report.json").read_text())
    plain["subject"]["network"] = HOSTILE
    plain["cost"]["rows"] = [{**plain["cost"]["rows"][0], "address": f"{HOSTILE}{n}"} for n in range(70)]
    (folder / "report.json").write_text(json.dumps(plain))
    main(["report", str(folder), str(out / "second"), "--out", str(tmp_path / "pair"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["names"] == [HOSTILE, "Net"]
    assert len(found["layers"]) > MOST_LAYERS
    assert str(folder / "gallery") in found["no_galleries"]
    html = (tmp_path / "pair" / "index.html").read_text()
    assert "<img" not in html
    assert "more, in report.json" in html
    main(["report", str(folder), str(out / "second"), "--out", str(tmp_path / "pair")])  # replaces its own
    assert re.search(r"layers\s+0 cost the same", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.py:b", "c.py:d", "--weights", "x"], "two networks with one file of weights, 'x'"),
        (["zfnet", *["--weights", "x"] * 3], "3 files of weights"),
        (["OUT/first", "nowhere.py:build"], "nowhere.py"),
    ],
)
def test_what_cant_be_paired_is_one_line(made, tmp_path, capsys, words, message):
    words = [word.replace("OUT", str(made[1])) for word in words]
    with pytest.raises(SystemExit) as ended:
        main(["report", *words, "--out", str(tmp_path / "pair")])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert message in said


def test_a_folder_that_holds_something_else_and_a_damaged_report_are_refused(made, tmp_path):
    _, out = made
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    both = [out / "first", out / "second"]
    with pytest.raises(ConvscopeError, match="mine"):
        report_pair(both, out=tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(ConvscopeError, match="can't be read as a report"):
        report_pair([out / "first", tmp_path], out=tmp_path / "pair")
    with pytest.raises(ConvscopeError, match="1 networks with 2 files"):
        report_pair([out / "first"], out=tmp_path / "pair")


def _held(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_older_pair_is_replaced_as_one_or_stays(made, tmp_path, monkeypatch):
    out, data = tmp_path / "pair", load_data("digits", size=24, per_class=4)
    shutil.copytree(made[1], out)
    before = _held(out)
    with pytest.raises(ConvscopeError, match="nowhere"):  # once the first of both has been made
        report_pair([_net(3), "nowhere.py:build"], data, out=out, config=CONFIG)
    assert _held(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["pair"]

    def stopped(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("convscope.report.pages.pair.pair_html", stopped)
        with pytest.raises(KeyboardInterrupt):
            report_pair([_net(3), out / "second"], data, out=out, config=CONFIG)
    assert _held(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["pair"]
    report_pair([_net(3), out / "second"], data, out=out, config=CONFIG)
    after = _held(out)
    assert {path for path in before if before[path] != after.get(path)} >= {
        Path("index.html"),
        Path("report.json"),
    }
    assert {path: text for path, text in after.items() if path.parts[0] == "second"} == {
        path: text for path, text in before.items() if path.parts[0] == "second"
    }
    for networks in ([out, _net(3)], [_net(3), out / "first"]):
        with pytest.raises(ConvscopeError, match="would replace"):
            report_pair(networks, data, out=out, config=CONFIG)
    assert _held(out) == after
