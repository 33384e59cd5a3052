"""The page, read as HTML: every number is its JSON field, written again here."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from convscope.report.charts.report import charts
from convscope.report.pages.fields import at
from convscope.report.pages.offline import VEGA, static_text
from convscope.report.pages.report import page_html, write_page
from convscope.report.wording.formats import FORMATS, MISSING

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Walker(HTMLParser):
    """Collects the texts of a page with the attributes of the elements around each."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.stack = []
        self.fields = []  # (path, format, text, title and that of its column's head)
        self.heads, self.column = [], 0  # titles of the heads of the table's columns; where in the row
        self.loose = []  # texts in results that stand in no field and no definition
        self.definitions = []
        self.tags = []
        self.scripts = {}

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag in VOID:
            return
        self.stack.append((tag, attributes))
        self._place(tag, attributes.get("title"))
        if "data-field" in attributes:
            self.fields.append(
                [attributes["data-field"], attributes["data-format"], "", self._told(attributes)]
            )
        if "data-definition" in attributes:
            self.definitions.append("")

    def _place(self, tag, title):
        if tag == "table":
            self.heads = []
        elif tag == "tr":
            self.column = -1
        elif tag in ("th", "td"):
            self.column += 1
            if any(name == "thead" for name, _ in self.stack):
                self.heads.append(title)

    def _told(self, attributes):
        inside = any(name == "tbody" for name, _ in self.stack) and self.column < len(self.heads)
        titles = (attributes.get("title"), self.heads[self.column] if inside else None)
        return " · ".join(filter(None, titles))

    def handle_endtag(self, tag):
        assert self.stack[-1][0] == tag, (tag, self.stack[-3:])
        self.stack.pop()

    def handle_data(self, text):
        names = [tag for tag, _ in self.stack]
        if "script" in names or "style" in names:
            self.scripts.setdefault(self.stack[-1][1].get("id", ""), "")
            self.scripts[self.stack[-1][1].get("id", "")] += text
            return
        around = [attributes for _, attributes in self.stack]
        if any("data-field" in attributes for attributes in around):
            self.fields[-1][2] += text
        elif any("data-definition" in attributes for attributes in around):
            self.definitions[-1] += text
        elif any("data-results" in attributes for attributes in around) or "header" in names:
            self.loose.append(text)


def walk(html):
    walker = Walker()
    walker.feed(html)
    assert not walker.stack
    return walker


@pytest.fixture(scope="module")
def walked(report):
    return walk(page_html(report))


def test_every_field_is_the_writing_of_its_json_value(walked):
    data = json.loads(walked.scripts["data"])
    assert len(walked.fields) > 300
    for path, form, text, _ in walked.fields:
        value = at(data, path)
        assert text == (MISSING if value is None else FORMATS[form](value)), path


def test_the_json_of_the_page_is_the_report(walked, report):
    data = json.loads(walked.scripts["data"])
    expected = json.loads(report.to_json())
    for layer in expected["gallery"]["layers"]:
        del layer["units"]
    assert data == expected


def test_no_number_in_the_results_lacks_a_field(walked):
    assert [text for text in walked.loose if re.search(r"\d", text)] == []


def test_definitions_are_fixed_texts_of_the_templates(walked):
    folder = files("convscope.report.pages").joinpath("templates")
    sources = " ".join(file.read_text(encoding="utf-8") for file in folder.iterdir())
    for text in walked.definitions:
        assert text in sources


def test_every_number_says_how_it_was_had(walked):
    def told(title):
        return re.search(r"[^\W\d_]{3}", title)  # words, not only all its digits

    numbers = [field for field in walked.fields if field[1] not in ("text", "sentence", "note", "joined")]
    untold = {path for path, _, _, title in numbers if not told(title)}
    assert {re.sub(r"\.\d+", ".N", path) for path in untold} <= {"findings.N.rank"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("cost.totals.params", "8.93 k"),
        ("cost.batch_size", "8"),
        ("training.best_accuracy", "90.0 %"),
        ("training.twin_best_accuracy", "47.0 %"),
        ("folded.speed.speedup", "1.25×"),
        ("folded.max_error", "3.4e-16"),
        ("counts.units", "80"),
        ("counts.dead_units", "10"),
        ("counts.dead_filters", "1"),
        ("checkup.gap", "0.11"),
        ("stem.aliased_share", "21.0 %"),
        ("cost.rule_of_thumb.activation_bytes", "7.63 MiB"),
        ("seconds", "4 min 11 s"),
    ],
)
def test_numbers_that_were_put_in_are_on_the_page(walked, path, text):
    assert text in [field[2] for field in walked.fields if field[0] == path]


def test_everything_that_is_not_counted_or_missing_is_said(walked):
    shown = {path: text for path, _, text, _ in walked.fields}
    assert shown["cost.uncounted.0.op"] == "aten::strange"
    assert shown["cost.unused_parameters.0.name"] == "extra.weight"
    assert shown["cost.forecast.not_forecast.0"] == "Reserved memory isn't forecast yet."
    assert shown["checkup.unchecked.0.reason"] == "No training batch was given."
    assert shown["missing.0.reason"] == "No twin for <b>this</b> one."
    assert shown["gallery.left_out.0"] == "fc6: not maps over the image"
    assert shown["subject.imbalance"].startswith("cat has 3 times as many training images as ")


def test_hostile_names_make_no_elements(walked, hostile):
    assert [a for tag, a in walked.tags if tag == "img" and "onerror" in a] == []
    assert not any(name.startswith("on") for _, attributes in walked.tags for name in attributes)
    assert hostile in json.loads(walked.scripts["data"])["subject"]["classes"]
    assert any(text == hostile + "#1" for _, _, text, _ in walked.fields)


def test_nothing_on_the_page_points_outside(walked):
    addresses = [
        value
        for tag, attributes in walked.tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "data", "poster", "srcset")
    ]
    assert addresses
    assert {a for a in addresses if not a.startswith(("#", "data:"))} == {"gallery/gallery.js"}


def test_the_policy_allows_the_page_s_scripts_and_no_others(report, walked):
    import base64
    import gzip
    import hashlib

    policy = next(a["content"] for tag, a in walked.tags if a.get("http-equiv") == "Content-Security-Policy")
    html = page_html(report)
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 7
    packed = re.search(r'packed = "([^"]*)"', scripts[1])[1]
    vega = gzip.decompress(base64.b64decode(packed)).decode()
    assert vega == "\n".join(static_text(name) for name in VEGA)
    for script in (*scripts, vega):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe-eval" not in policy
    assert "default-src 'none'" in policy


def test_every_link_inside_the_page_has_a_target(walked):
    ids = {attributes["id"] for _, attributes in walked.tags if "id" in attributes}
    links = {a["href"][1:] for tag, a in walked.tags if tag == "a" and a.get("href", "").startswith("#")}
    assert links <= ids
    assert len(ids) == sum("id" in attributes for _, attributes in walked.tags)


def test_parts_that_are_missing_leave_a_page_that_says_why(report):
    bare = replace(
        report,
        published=None,
        training=None,
        checkup=None,
        folded=None,
        stem=None,
        gallery=None,
        findings=(),
        missing=tuple(
            replace(report.missing[0], name=name, reason=f"no {name} because")
            for name in ("published", "training", "checkup", "fold", "stem", "gallery")
        ),
    )
    walked = walk(page_html(bare))
    shown = [text for _, _, text, _ in walked.fields]
    for name in ("published", "training", "checkup", "fold", "stem", "gallery"):
        assert f"no {name} because" in shown
    assert [a["src"] for tag, a in walked.tags if "src" in a] == []
    assert not re.search(r"\d", " ".join(walked.loose))


def test_charts_take_every_number_from_the_data(report):
    def literals(value, key=""):
        if isinstance(value, dict):
            assert set(value) == {"$field"} or "$field" not in value
            for name, inner in value.items():
                yield from literals(inner, name)
        elif isinstance(value, list):
            for inner in value:
                yield from literals(inner, key)
        elif key == "values":
            yield value

    data = report.to_dict()
    specs = charts(data)
    pictures = {"statistics", "gains", "gap", "percentiles"}
    of_stem = {"stem-aliasing", "stem-coverage", "stem-shifts"}
    assert set(specs) == {"memory-cost", "memory-published", "accuracy", "loss"} | of_stem | {
        f"checkup-{name}" for name in pictures
    }
    assert list(literals(specs)) == []
    paths = set(re.findall(r'"\$field": "([^"]+)"', json.dumps(specs)))
    assert paths == {
        "cost.forecast.timeline",
        "cost.rule_of_thumb",
        "published.forecast.timeline",
        "published.rule_of_thumb",
        "training.run.epochs",
        "training.twin.epochs",
        "subject.classes",
        "checkup.layers",
        "checkup.attribution",
        "checkup.percentiles",
        "stem.operators",
        "stem.coverage.octaves",
        "stem.shifts.layers",
    }
    for path in paths:
        assert at(data, path)


def test_a_network_of_500_layers_stays_below_three_megabytes(report):
    rows = tuple(replace(report.cost.rows[0], address=f"layer{i}.conv#1") for i in range(500))
    assert len(page_html(replace(report, cost=replace(report.cost, rows=rows)))) < 3 * 2**20


def test_writes_the_file_whole(report, tmp_path):
    path = write_page(report, tmp_path / "out" / "page.html")
    assert path.read_text(encoding="utf-8").endswith("</html>")
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_the_licences_of_the_inlined_libraries_are_listed():
    folder = files("convscope.report.pages").joinpath("_static")
    licences = folder.joinpath("LICENSES").read_text(encoding="utf-8")
    for file in folder.iterdir():
        if file.name.endswith(".min.js"):
            assert file.name in licences


@pytest.mark.parametrize("why", ["xyz.bias can't change the loss", "a.weight is 0", "ε is 0", "b holds 170"])
def test_a_name_at_the_start_of_a_finding_keeps_its_letters(report, why):
    ranked = replace(report.findings[0], finding=replace(report.findings[0].finding, why=why))
    html = page_html(replace(report, findings=(ranked,)))
    written = why.replace("'", "&#39;")
    assert f">{written}</span>" in html
    assert "first-letter" not in html


def test_a_sentence_begins_with_a_capital_letter(report):
    ranked = replace(
        report.findings[0], finding=replace(report.findings[0].finding, why="the running statistics are old")
    )
    assert ">The running statistics are old</span>" in page_html(replace(report, findings=(ranked,)))


def test_the_page_says_when_it_was_written_where_that_is_known(report):
    assert "24 November 2026, 04:00 UTC" in page_html(replace(report, written="24 November 2026, 04:00 UTC"))
    assert "Written by convscope" in page_html(report)


def test_images_are_said_to_be_trained_on_only_after_a_training(report):
    assert "images that it was trained on" in page_html(report)
    assert "images that it was trained on" not in page_html(replace(report, training=None))


def test_a_speed_that_may_be_noise_is_no_headline(report):
    speed = replace(report.folded.speed, speedup=1.02, speedup_low=0.99, speedup_high=1.05)
    noisy = page_html(replace(report, folded=replace(report.folded, speed=speed)))
    card = noisy.split('href="#fold"><h2>')[1].split("</a>")[0]
    assert '<p class="big">About the same</p>' in card
    assert "1.02×" in card
    assert "median of paired passes" in card
    measured = page_html(report).split('href="#fold"><h2>')[1].split("</a>")[0]
    assert "1.25×" in measured.split("</p>")[0]


def test_the_notices_of_inlined_scripts_travel_with_the_page(report):
    html = page_html(report)
    notices = html.split('<details class="licences">')[1].split("</details>")[0]
    for text in (
        "dagre",
        "Chris Pettitt",
        "Mike Bostock",
        "University of Washington",
        "Permission is hereby",
    ):
        assert text in notices


def test_losses_of_the_check_up_have_their_unit(report):
    section = page_html(report).split('<section id="checkup"')[1].split("</section>")[0]
    for path in ("checkup.eval_loss", "checkup.batch_loss", "checkup.gap", "checkup.gap_error"):
        written = section.split(f'data-field="{path}"')[1].split("</dd>")[0]
        assert '<span class="unit">&#8239;nats</span>' in written, path
