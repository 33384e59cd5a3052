"""What the page about the check-up says of flags and metrics is what there is."""

import re
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

import convscope as cs
from convscope.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "checkup.md").read_text()


def test_every_flag_that_is_named_exists(capsys):
    with suppress(SystemExit):
        main(["checkup", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"--[a-z][a-z-]*", PAGE))
    assert named <= known
    assert {"--mean", "--std", "--input", "--data", "--batch", "--weights", "--classes", "--explain"} <= named


def test_every_metric_is_named_and_every_named_one_is_written():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    written = []
    with cs.watch(net, optimizer, every=1, writer=lambda values, step: written.append(values)) as log:
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(8, 3, 5, 5)).square().mean().backward()
            optimizer.step()
    kinds = {re.sub(r"_p\d+$", "_p", name.replace("/1/", "/PATH/")) for name in log.metrics()}
    rows = re.findall(r"^\| `(convscope/[^`]*)`", PAGE, re.MULTILINE)
    assert {re.sub(r"_p\d+$", "_p", name) for name in rows} == kinds
    assert set(written[-1]) == set(log.metrics())


def test_the_constants_of_the_example_are_those_of_its_preprocessing():
    mean, std = re.search(r"`--mean ([\d.]+) --std ([\d.]+)`", PAGE).groups()
    pixels = torch.arange(256, dtype=torch.float64)
    found = (pixels / 255 - float(mean)) / float(std)
    assert torch.allclose(found, (pixels - 128) / 64, atol=5e-3)


def test_worth_of_values_that_make_up_for_one_another_exceeds_their_number():
    images = torch.randn(64, 3, 1, 1)
    pairs = torch.cat([images, 0.1 * torch.randn(64, 3, 1, 1) - images], dim=3)
    found = cs.checkup(
        nn.Sequential(nn.BatchNorm2d(3)), [pairs[start : start + 16] for start in (0, 16, 32, 48)]
    )
    assert found.layers[0].num_values == 32
    assert found.layers[0].effective_values > 32
