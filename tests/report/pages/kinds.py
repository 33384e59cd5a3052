"""One page of every kind that the package writes, each with everything on it."""

from dataclasses import replace

import torch
from torch import nn

from convscope.checkup import Left, Mended, Mending
from convscope.cost import sweep
from convscope.data import load_data
from convscope.report import ReportConfig, report_pair
from convscope.report.pages.checkup import write_checkup
from convscope.report.pages.experiment import experiment_html
from convscope.report.pages.report import write_page
from convscope.report.pages.sweep import write_plot
from convscope.train import compare
from convscope.train.comparing import Claim, Contrast, Experiment, Published, table_of
from report.graphs import Twice, with_graph
from train.comparing.small import SETTINGS, made

KINDS = ("report", "untrained", "checkup", "experiment", "plot", "pair", "galleries", "gallery")


def pages_of(report, checkup, folder):
    """Write the pages; return their paths by kind.

    Args:
        report: one with every reading; its gallery stays where it is, so its page does too.
        checkup: one with findings of several severities.
        folder: an empty one.
    """
    graph = with_graph(report, Twice(), (2, 3, 8, 8)).graph
    pair = _pair(folder / "pair")
    return {
        "report": write_page(replace(report, graph=graph), f"{report.folder}/every-reading.html"),
        "untrained": pair / "first" / "index.html",
        "checkup": write_checkup(_mending(checkup), folder / "checkup.html", "net"),
        "experiment": _experiment(folder),
        "plot": write_plot(sweep(nn.Linear(4, 2), (1, 4), "batch", (1, 2, 4)), folder / "plot.html"),
        "pair": pair / "index.html",
        "galleries": pair / "galleries.html",
        "gallery": pair / "second" / "gallery" / "index.html",
    }


def _net(channels):
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, channels, 5, stride=2, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def _pair(folder):
    data = load_data("digits", size=24, per_class=4)
    config = ReportConfig(batch_size=8, repeats=2, top=3)
    report_pair([_net(4), _net(6)], data, out=folder, config=config)
    return folder


def _mending(checkup):
    done = Mended(("stale-statistics",), ("bn1#1",), "estimated anew", 2e-7)
    left = Left("dead-gamma", "bn2#1", "it needs a decision")
    return Mending(checkup, replace(checkup, gap=0.01), (done,), (left,), nn.ReLU(), checkup.state)


def _experiment(folder):
    """Three arms, one of which diverges, two seeds, one claim."""
    choices = {"learning_rate": [0.05, 0.2, 1e30]}
    table = table_of(*made(folder), choices, seeds=2, settings=SETTINGS, options={"norm": "none"})
    published = Published("14× fewer steps", "Ioffe & Szegedy 2015")
    contrast = Contrast("steps_to_target", ("lr 0.2",), ("lr 0.05",), scale="ratio")
    claim = Claim("quick", "A higher rate is quicker.", contrast, published, "Directions only.")
    experiment = Experiment("rates", "Which rate?", "Two seeds.", (published,), table, (claim,), (), "Small.")
    found = compare(experiment, out=folder / "compared", processes=0, threads=1)
    path = folder / "experiment.html"
    path.write_text(experiment_html(found), encoding="utf-8")
    return path
