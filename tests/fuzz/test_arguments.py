"""Every flag of every command, with numbers, sizes and words that aren't meant for it."""

import pytest
from hypothesis import strategies as st

from convscope.cli.main import COMMANDS, app
from fuzz.rounds import QUICK, refused
from fuzz.trial import Case
from fuzz.words import NUMBERS, TERMINAL, TEXTS

NET = "net.py:build"
LINES = {
    "cost": f"{NET}",
    "max-batch": f"{NET} --memory 1GiB --most 8",
    "checkup": f"{NET} --data pictures --batch 2",
    "fold": f"{NET}",
    "project": f"{NET} picture.png --layer 2 --unit 0",
    "gallery": f"{NET} --data pictures --layers 2 --top 1",
    "gallery-compare": "gallery gallery",
    "stem": f"{NET} --data pictures",
    "occlusion": f"{NET} picture.png",
    "invariance": f"{NET} --data pictures --images 1",
    "train": f"{NET} --data pictures --epochs 1",
    "compare": f"{NET} --data pictures --list",
    "report": f"{NET} --data gone",  # a whole one takes seconds
    "gate": f"{NET} --max-params 1k --no-fault error",
    "completion": "bash",
    "networks": "",
}
LEFT = {"--out", "--plot", "--csv", "--page", "--junit"}
"""Files that are written; they are tried in tests/core/test_files.py."""
FLAGS = {
    command: sorted(
        flag
        for argument in app[command].assemble_argument_collection()
        for flag in argument.names
        if flag.startswith("--") and flag not in LEFT
    )
    for command in COMMANDS
}


@st.composite
def lines(draw):
    """A command line with one thing wrong, or a few."""
    command = draw(st.sampled_from(sorted(LINES)))
    words = [command, *LINES[command].split()]
    for _ in range(draw(st.sampled_from((1, 1, 1, 2)))):
        flags = FLAGS[command] or ["--json"]
        value = draw(st.sampled_from(NUMBERS) | st.sampled_from(TEXTS))
        kind = draw(
            st.sampled_from(("flag", "flag", "flag", "flag", "flag", "spelling", "bare", "more", "less"))
        )
        flag = draw(st.sampled_from(flags))
        if kind == "flag":
            words += [f"{flag}={value}"] if draw(st.booleans()) else [flag, value]
        elif kind == "spelling":
            place = draw(st.integers(2, len(flag)))
            words += [flag[:place] + draw(st.sampled_from(("x", "-", *TERMINAL))) + flag[place:], value]
        elif kind == "bare":
            words += [flag]
        elif kind == "more":
            words.insert(draw(st.integers(0, len(words))), value)
        elif len(words) > 1 and command != "report":  # without its words it trains a network, for minutes
            words.pop(draw(st.integers(1, len(words) - 1)))
    return Case(tuple(words))


@pytest.mark.parametrize("share", [QUICK, pytest.param(1, marks=pytest.mark.slow)])
def test_they_are_refused(place, share):
    refused("test_arguments", lines(), place, share)
