"""Limits of a gate, and sizes, batches and memories of commands that forecast."""

import pytest
from hypothesis import strategies as st

from fuzz.rounds import QUICK, refused
from fuzz.trial import Case
from fuzz.words import NUMBERS, TERMINAL

FLAGS = {
    "gate": ("--max-memory", "--max-flops", "--max-macs", "--max-params", "--max-unfolded", "--no-fault",
    "--allow",
             "--max-batches", "--batch", "--input", "--num-classes", "--width", "--clip-grad-norm"),
    "max-batch": ("--memory", "--most", "--input", "--num-classes", "--width", "--clip-grad-norm", "--gpu"),
    "cost": ("--batch", "--input", "--sweep", "--top", "--depth", "--num-classes", "--width",
    "--clip-grad-norm"),
}  # fmt: skip
NETWORKS = ("net.py:build",) * 5 + ("zfnet",)  # which is large


def _texts():
    digits = st.text("0123456789٣５²½eE.,-+_xX×kKMGTiB /%:=", max_size=9)
    units = st.sampled_from(("", "GiB", "MB", "k", "T", "G", "gib", "XB", "iB", "B", "GiB GiB", "\x1b[0m"))
    return st.sampled_from(NUMBERS) | st.builds(str.__add__, digits | st.sampled_from(NUMBERS), units)


@st.composite
def lines(draw):
    """A command with one or two limits that are none."""
    command = draw(st.sampled_from(sorted(FLAGS)))
    words = [command, draw(st.sampled_from(NETWORKS))]
    for _ in range(draw(st.sampled_from((1, 1, 2)))):
        flag = draw(st.sampled_from(FLAGS[command]))
        value = draw(_texts() | st.sampled_from(TERMINAL))
        if flag == "--sweep":
            axis = draw(st.sampled_from(("batch", "resolution", "width", "", "x")))
            value = f"{axis}={value}:{draw(_texts())}" if draw(st.booleans()) else f"{axis}={value}"
        words.append(f"{flag}={value}")
    return Case(tuple(words))


@pytest.mark.parametrize("share", [QUICK, pytest.param(1, marks=pytest.mark.slow)])
def test_they_are_refused(place, share):
    refused("test_limits", lines(), place, share)
