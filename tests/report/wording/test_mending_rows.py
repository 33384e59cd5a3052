"""A mending's rows name the layers that numbers are of, the same one before and after."""

from dataclasses import replace

import torch
from bench.checkup_suite.networks import grown, images

from convscope.checkup import mend
from convscope.report.wording.mending_rows import mending_rows


def test_residuals_are_of_one_layer_before_and_after():
    model = grown("plain")
    with torch.no_grad():
        model[4].weight.mul_(4)
    found = mend(model, list(images(160).split(16)))
    rows = [row for row in mending_rows(found) if row.name.startswith("variance off by ln, ")]
    worst = {}
    for checkup in (found.before, found.after):
        layer = max(checkup.layers, key=lambda each: each.variance_residual)
        worst[layer.address] = None
    assert [row.name for row in rows] == [f"variance off by ln, worst channel of {each}" for each in worst]
    for row, address in zip(rows, worst, strict=True):
        before, after = (
            next(each for each in checkup.layers if each.address == address)
            for checkup in (found.before, found.after)
        )
        assert (row.before, row.before_error) == (before.variance_residual, before.variance_error)
        assert (row.after, row.after_error) == (after.variance_residual, after.variance_error)
    assert rows[0].before > 2 > rows[0].after


def test_another_layer_that_is_furthest_off_after_has_a_row_of_its_own():
    model = grown("plain")
    found = mend(model, list(images(160).split(16)))
    worse = max(found.after.layers, key=lambda each: each.mean_residual or 0.0).address
    layers = tuple(
        replace(each, mean_residual=9.0 if each.address != worse else 0.5) for each in found.before.layers
    )
    rows = mending_rows(replace(found, before=replace(found.before, layers=layers)))
    named = [row.name for row in rows if row.name.startswith("mean off by σ")]
    first = next(each.address for each in layers if each.address != worse)
    assert named == [f"mean off by σ, worst channel of {each}" for each in (first, worse)]
