"""A chart of the page as Vega draws it, with the page's data put in."""

import json
import re

import pytest


def filled(spec, data):
    """A specification with its data put in, as the page's script does."""
    if isinstance(spec, list):
        return [filled(part, data) for part in spec]
    if not isinstance(spec, dict):
        return spec
    if "$field" in spec:
        for key in spec["$field"].split("."):
            data = data[int(key) if isinstance(data, list | tuple) else key]
        return data
    return {key: filled(part, data) for key, part in spec.items()}


def drawn(spec, data, **chosen):
    """The labels of all marks of a chart: ``[(kind, label)]``."""
    spec = {**filled(spec, data), "width": 400}
    for param in spec.get("params", ()):
        param["value"] = chosen.get(param["name"], param["value"])
    svg = pytest.importorskip("vl_convert").vegalite_to_svg(json.dumps(spec))
    marks = re.findall(r'aria-label="([^"]*)"[^>]*?aria-roledescription="([^"]*)"', svg)
    found = [(kind, label) for label, kind in marks if ": " in label]
    assert not found or "NaN" not in svg
    return found
