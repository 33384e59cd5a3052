"""The page of one check-up: whole, offline, with the pages about its faults."""

import json
import re

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.report.checkup_page import checkup_html, write_checkup
from convscope.report.fault_pages import fault_pages


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
