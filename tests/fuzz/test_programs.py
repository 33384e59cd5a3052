"""Exported programs: archives that are damaged, cut off, or hold other things than a program."""

import io
import json
import zipfile

import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from fuzz.damage import altered, damaged
from fuzz.rounds import refused
from fuzz.trial import Case, Workplace

LINES = (("cost", "odd.pt2"), ("fold", "odd.pt2"), ("gate", "odd.pt2", "--max-params", "1k"), ("checkup",
"odd.pt2"),
         ("max-batch", "odd.pt2", "--memory", "1GiB", "--most", "4"),
         ("cost", "odd.pt2", "--batch", "3"))  # fmt: skip


@pytest.fixture
def program(folder):
    """A whole program, as torch.export.save writes it."""
    whole = torch.export.export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (torch.zeros(1, 3, 8, 8),))
    torch.export.save(whole, folder / "whole.pt2")
    return folder


def _packed(entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _repacked(entries):
    """The archive with entries lost, renamed, damaged, or whose JSON says something else."""
    said = {name: json.loads(content) for name, content in entries.items() if name.endswith(".json")}

    @st.composite
    def changed(draw):
        left = dict(entries)
        for name in draw(st.lists(st.sampled_from(sorted(entries)), min_size=1, max_size=2, unique=True)):
            content = left.pop(name)
            kind = draw(st.sampled_from(("lost", "renamed", "damaged", "json", "json")))
            if kind == "renamed":
                left[draw(st.sampled_from(("x", f"{name}x", "../x", "a/b.pt", name.upper())))] = content
            elif kind == "json" and name in said:
                left[name] = json.dumps(draw(altered(said[name]))).encode()
            elif kind != "lost":
                left[name] = draw(damaged(content))
        return _packed(left)

    return changed()


def lines(folder):
    """A command, and a program that is none."""
    whole = (folder / "whole.pt2").read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    content = _repacked(entries) | _repacked(entries) | damaged(whole) | st.just(_packed({"x/y": b"z"}))
    return st.builds(lambda words, file: Case(words, {"odd.pt2": file}), st.sampled_from(LINES), content)


@pytest.mark.slow
def test_they_are_refused(program):
    refused("test_programs", lines(program), Workplace(program), 1)
