"""Tables of compare: TOML with wrong keys, kinds, nesting and syntax, and bytes that aren't UTF-8."""

import json

import pytest
from hypothesis import strategies as st

from fuzz.damage import altered, damaged
from fuzz.rounds import QUICK, refused
from fuzz.trial import Case

TABLE = {
    "network": "net.py:build", "data": "pictures", "seeds": [0, 1], "target": 0.5, "baseline": "wide",
    "out": "compared",
    "processes": 0, "threads": 1, "settings": {"epochs": 1, "batch_size": 2, "learning_rate": 0.1,
    "augment": "shift"},
    "options": {"norm": "batch"}, "arms": [
        {"name": "wide", "options": {"width": 1.0}, "settings": {"momentum": 0.5}},
        {"name": "narrow", "options": {"width": 0.5}, "network": "net.py:build"},
    ],
}  # fmt: skip
CROSSED = {
    "network": "zfnet", "data": "pictures", "seeds": 2, "image_size": [16, 16], "settings": {"epochs": 1},
    "options": {"width": 0.0625, "input_shape": [3, 67, 67]},
    "choices": {"norm": ["none", "batch"], "learning_rate": [0.1, 0.01]},
}  # fmt: skip
SYNTAX = (
    "=", "a =", "[a", "[[a]]\n[a]", "a = 1\na = 2", "a.b = 1\na = 2", 'a = "', "a = '''", "a = 01",
    "a = 1__0", "a = +nan",
    "a = 2026-13-40", "a = 2026-01-01T00:00:00Z", "a = \x00", "\t[ a . b ]\n= 3", "a = {b = 1,}",
    "# only\r", "a = [1, 2",
    "'' = ''", "data = 3", 'data = "photos"', "\x1b[31m = 1", '"\\u001b[31m" = 1', "a = 1e999999",
    "x = " + "[" * 3000,
    "choices = 3", "arms = {}", "settings = []", 'network = "zfnet"', "seeds = 1_000_000_000_000",
    "a" * 70_000 + " = 1",
)  # fmt: skip


def written(value):
    """A value as TOML writes it; what TOML lacks becomes a text."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(str(key))} = {written(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if value is None:
        return '"None"'
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


def table(content):
    """A table as a file, nested tables inline."""
    if not isinstance(content, dict):
        return written(content).encode()
    return "".join(f"{json.dumps(str(key))} = {written(item)}\n" for key, item in content.items()).encode()


def lines():
    """A comparison from a file that says something impossible, or nothing that can be read."""
    whole = st.sampled_from((TABLE, CROSSED))
    more = st.builds(lambda content, text: table(content) + text.encode(), whole, st.sampled_from(SYNTAX))
    content = st.one_of(
        whole.flatmap(altered).map(table),
        whole.flatmap(altered).map(table),
        st.sampled_from((table(TABLE), table(CROSSED))).flatmap(damaged),
        more,
        st.sampled_from(SYNTAX).map(str.encode),
    )
    # Workers take seconds to begin: few tables, and those in this process, come to their runs.
    how = st.sampled_from((("--list",),) * 10 + (("--list", "--json"), ("--processes", "0")))
    return st.builds(
        lambda file, words: Case(("compare", "odd.toml", *words), {"odd.toml": file}), content, how
    )


@pytest.mark.parametrize("share", [QUICK, pytest.param(1, marks=pytest.mark.slow)])
def test_they_are_refused(place, share):
    refused("test_tables", lines(), place, share)
