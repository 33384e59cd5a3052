"""The page of one check-up: whole, offline, with the pages about its faults."""

import json
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.checkup import Left, Mended, Mending
from convscope.core.errors import ConvscopeError
from convscope.report.charts.checkup import checkup_charts
from convscope.report.pages.checkup import checkup_html, write_checkup
from convscope.report.pages.fault_links import fault_pages


def test_the_page_holds_the_check_up_and_its_pictures(checkup, hostile):
    html = checkup_html(checkup, f"net {hostile}")
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert data["checkup"] == json.loads(checkup.to_json())
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', html, re.DOTALL)[1])
    assert set(re.findall(r'data-chart="([^"]*)"', html)) == set(charts)
    assert hostile not in html
    body = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', body)
    assert "have the same hashes before and after" in html
    assert "There on purpose" in html


def test_findings_lead_to_the_page_about_their_fault(checkup):
    html = checkup_html(checkup)
    assert '<a href="#page-stale-statistics">' in html
    assert 'id="page-stale-statistics"' in html
    assert "How to mend it" in html
    assert 'id="page-dead-gamma"' not in html  # the finding names no page


def test_pages_have_no_links_and_no_title(checkup):
    ((fault, page),) = fault_pages(checkup.findings)
    assert fault == "stale-statistics"
    assert "<h1" not in page
    assert "<h2" not in page
    assert "href" not in page
    assert "<h4>What it is</h4>" in page


def test_what_is_the_same_elsewhere_is_in_its_findings_cell(checkup):
    first = checkup.findings[0]
    alike = replace(checkup, findings=(first, replace(first, address="bn7#1"), checkup.findings[1]))
    html = checkup_html(alike)
    (cell,) = re.findall(
        r'<div class="kind"[^>]*>(?:(?!<div class="kind").)*?The same at.*?</details></div>', html, re.DOTALL
    )
    assert "bn7#1" in cell
    assert "The same at 1 more place<" in cell
    assert "at other places" in cell  # the same but for its place: a line of a table
    assert cell.count("What to do") == 1
    other = replace(alike, findings=(first, replace(first, address="bn7#1", remedy="another one")))
    assert checkup_html(other).count("What to do") == 2
    falling = replace(alike, findings=(first, replace(first, effect=0.5)))
    assert "1 more place, by falling effect" in checkup_html(falling)


def test_a_network_without_batch_norm_is_said_to_have_none():
    found = cs.checkup(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(2, 3, 8, 8))
    html = checkup_html(found)
    assert html.count("No batch norm runs in this network") == 1
    assert "Judged from" not in html
    assert "Could not be checked" not in html


def test_a_mending_shows_repairs_numbers_and_what_is_left(checkup, hostile):
    after = replace(checkup, findings=checkup.findings[1:], gap=0.01)
    found = Mending(
        checkup,
        after,
        (Mended(("stale-statistics",), ("bn1#1",), f"estimated anew {hostile}", 2e-7),),
        (Left("dead-gamma", "bn2#1", "it needs a decision"),),
        nn.ReLU(),
        checkup.state,
    )
    html = checkup_html(found, "net")
    body = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    words = " ".join(re.sub(r"<[^>]*>", " ", body).split())
    assert hostile not in html
    assert "The given network has the same hashes before and after all repairs" in words
    assert "gap between them, nats 0.11 ± 0.02 0.01 ± 0.02" in words
    assert "Gone: stale-statistics at bn1#1" in words
    assert "dead-gamma at bn2#1 : it needs a decision" in words
    assert "Check-up of the batch norms of the mended copy" in words
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert data["checkup"] == json.loads(after.to_json())


def test_the_page_says_when_and_with_what_it_was_made(checkup):
    html = checkup_html(checkup)
    assert "Written on" in html
    assert torch.__version__ in html


def test_losses_have_their_unit_and_say_which_output_they_are_of(checkup):
    def words(found):
        html = re.sub(r"<script.*?</script>", "", checkup_html(found), flags=re.DOTALL)
        return " ".join(re.sub(r"<[^>]*>", " ", html).replace("&#8239;", " ").split())

    assert "Loss with running statistics 0.52 nats" in words(checkup)
    assert "Gap between them 0.11 nats" in words(checkup)
    assert "The loss is that of" not in words(checkup)
    own = replace(checkup, loss_unit="loss", loss_of="output 1 of 2, of shape (images, 3)")
    assert "Loss with running statistics 0.52 Loss with batch statistics" in words(own)
    assert "The loss is that of output 1 of 2, of shape (images, 3)" in words(own)
    specs = [checkup_charts(json.loads(each.to_json()))["checkup-gap"] for each in (checkup, own)]
    titles = [spec["layer"][0]["encoding"]["x"]["title"] for spec in specs]
    assert titles == ["of the gap, nats", "of the gap, in the loss’s unit"]


def test_files_are_whole_or_not_written(checkup, tmp_path):
    path = write_checkup(checkup, tmp_path / "page.html", "zfnet")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(ConvscopeError, match=r"name that ends with \.html"):
        write_checkup(checkup, tmp_path / "page.pdf")
    with pytest.raises(ConvscopeError, match="can't be written"):
        write_checkup(checkup, path / "page.html")
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


def test_a_watched_run_has_its_percentiles_on_the_page():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with cs.watch(net, optimizer, every=1) as log:
        for _ in range(6):
            optimizer.zero_grad()
            net(torch.randn(8, 3, 5, 5)).square().mean().backward()
            optimizer.step()
    html = checkup_html(log.checkup())
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    rows = [row for row in data["checkup"]["percentiles"] if row["path"] == "1" and row["of"] == "output"]
    assert [len(row["steps"]) for row in rows] == [6]
    assert all(
        low < middle < high for low, middle, high in zip(rows[0]["low"], rows[0]["median"], rows[0]["high"])
    )
    assert 'data-chart="checkup-percentiles"' in html
    assert "a training run while it was watched" in html
