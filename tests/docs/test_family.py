"""The picture of the family shows the sets that the layers average over, and is the committed one."""

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

import family
from convscope.norm import MEMBERS, BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm
from convscope.norm.layers.ghost import GhostBatchNorm2d

FIGURES = Path(family.__file__).with_name("figures")
SHAPE = (4, 6, 3, 3)
LAYERS = {
    "Batch norm": BatchNorm2d(6),
    "Layer norm": LayerNorm(SHAPE[1:]),
    "Instance norm": InstanceNorm2d(6),
    "Group norm": GroupNorm(2, 6),
    "Ghost batch norm": GhostBatchNorm2d(6, ghost_batch_size=2),
    "Synchronised batch norm": BatchNorm2d(6),  # all processes' samples are one batch
}


def panels(picture):
    """Every panel's sets of squares, read from the picture: positions (n, c, h, w) by number."""
    root = ElementTree.fromstring(picture)
    found = {}
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        squares = {
            path.get("data-set"): [(int(y), int(x)) for x, y in re.findall(r"M(\d+) (\d+)", path.get("d"))]
            for path in group
            if path.get("data-set")
        }
        everywhere = [corner for corners in squares.values() for corner in corners]
        rows, columns = (sorted(set(axis)) for axis in zip(*everywhere))
        assert (len(rows), len(columns)) == (4 * 3, 6 * 3)
        assert len(everywhere) == len(set(everywhere)) == torch.Size(SHAPE).numel()  # each square once
        found[group.get("data-panel")] = {
            number: {(*divmod(rows.index(y), 3), *divmod(columns.index(x), 3)) for y, x in corners}
            for number, corners in squares.items()
        }
    return {
        title: {number: {(n, c, h, w) for n, h, c, w in places} for number, places in sets.items()}
        for title, sets in found.items()
    }


def influenced(layer):
    """Which outputs an input reaches, by autograd through the layer: sets of places that share statistics."""
    x = torch.randn(SHAPE, dtype=torch.float64)
    reached = torch.autograd.functional.jacobian(layer.double(), x).abs() > 1e-9
    return {frozenset(map(tuple, reach.nonzero().tolist())) for reach in reached.flatten(0, 3)}


@pytest.mark.parametrize("title", LAYERS)
def test_one_colour_is_what_influences_one_another_in_the_layer(title):
    drawn = panels(family.family_picture())[title]
    assert {frozenset(places) for places in drawn.values()} == influenced(LAYERS[title])


def test_every_member_is_drawn_and_a_changed_member_changes_its_panel():
    before = panels(family.family_picture())
    assert len(before) == len(MEMBERS) + 2
    changed = dataclasses.replace(MEMBERS["instance"], averaged=frozenset("NGcS"))
    after = panels(family.family_picture({**MEMBERS, "instance": changed}))
    assert len(before["Instance norm"]) == 24
    assert [len(places) for places in after["Instance norm"].values()] == [216]
    assert {t: s for t, s in after.items() if t != "Instance norm"} == {
        t: s for t, s in before.items() if t != "Instance norm"
    }


def test_captions_count_means_and_values_as_drawn_and_fit_their_panel():
    picture = family.family_picture()
    captions = re.findall(r">over [^<]*: (\d+) means of (\d+) values each<", picture)
    counted = [(str(len(sets)), str(max(map(len, sets.values())))) for sets in panels(picture).values()]
    assert captions == counted
    legend, *shown = re.findall(r'class="small soft" [^>]*>([^<]*maps of[^<]*|over [^<]*)<', picture)
    assert 6.5 * len(legend) <= 2 * family.PANEL_WIDTH - family.LEFT
    assert 6.5 * max(map(len, shown)) <= family.PANEL_WIDTH - family.LEFT


def test_the_committed_picture_is_the_one_that_is_drawn():
    assert (FIGURES / "normalisation-axes.svg").read_text() == family.family_picture()
