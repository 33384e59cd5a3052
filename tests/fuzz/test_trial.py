"""What is asked of every bad input can be failed: commands that misbehave, one way each, are found out."""

import re
import sys
import time
from pathlib import Path

import pytest
from hypothesis import strategies as st

import fuzz.rounds as rounds
import fuzz.trial as trial
from convscope.core.errors import ConvscopeError
from fuzz.rounds import refused, stated
from fuzz.trial import Case

ERROR = str(ConvscopeError("one", "another", "change it"))


def refuse(line=f"convscope: {ERROR}\n", code=2):
    print(line, end="", file=sys.stderr)
    sys.exit(code)


def chatters():
    print("half a result")
    refuse()


def warns():
    print("warning: something", file=sys.stderr)
    refuse()


def loses():
    Path("picture.png").write_bytes(b"")
    refuse()


def leaves():
    Path("out").mkdir()
    refuse()


def loses_quietly():
    Path("net.py").unlink()
    print("a result")


MISBEHAVING = {
    "another code": lambda: refuse(code=1),
    "a code of its own": lambda: sys.exit(7),
    "a code and no result": lambda: sys.exit(0),
    "nothing said": lambda: refuse(""),
    "two lines": lambda: refuse("convscope: one\nconvscope: two\n"),
    "not its name": lambda: refuse("error: no\n"),
    "an escape": lambda: refuse("convscope: \x1b[31m\n"),
    "a stray byte": lambda: refuse("convscope: \udcff\n"),
    "a flood": lambda: refuse("convscope: " + 3000 * "x" + "\n"),
    "an escape in a result": lambda: print("\x1b]0;title\x07"),
    "half a result": chatters,
    "a warning": warns,
    "a lost input": loses,
    "something left": leaves,
    "an input lost by work": loses_quietly,
}


@pytest.mark.parametrize("what", MISBEHAVING)
def test_it_is_found_out(place, monkeypatch, what):
    monkeypatch.setattr(trial, "main", lambda words: MISBEHAVING[what]())
    before = (place.folder / "picture.png").read_bytes()
    with pytest.raises(AssertionError):
        place.refuses(Case(("cost",)))
    assert (place.folder / "picture.png").read_bytes() == before
    assert (place.folder / "net.py").exists()
    assert not (place.folder / "out").exists()


def test_exceptions_hanging_and_memory_are_found_out(place, monkeypatch):
    monkeypatch.setattr(trial, "main", lambda words: {}["x"])
    with pytest.raises(KeyError):
        place.refuses(Case(("cost",)))
    monkeypatch.setattr(trial, "main", lambda words: bytearray(2 * trial.MEMORY))
    with pytest.raises(MemoryError):
        place.refuses(Case(("cost",)))
    monkeypatch.setattr(trial, "SECONDS", 0.1)
    monkeypatch.setattr(trial, "main", lambda words: time.sleep(60))
    with pytest.raises(trial.Hung):
        place.refuses(Case(("cost",)))


def test_refusals_and_good_inputs_are_told_apart(place, monkeypatch):
    monkeypatch.setattr(trial, "main", lambda words: refuse())
    assert place.refuses(Case(("cost",), {"odd.png": b"x", "net.py": None}))
    assert sorted(path.name for path in place.folder.glob("*.p*")) == ["net.py", "picture.png", "weights.pth"]
    monkeypatch.setattr(trial, "main", lambda words: print("a result"))
    assert not place.refuses(Case(("cost",)))


def test_inputs_count_once_and_only_bad_ones(place, monkeypatch):
    def odd_are_bad(words):
        refuse() if int(words[0]) % 2 else print("fine")

    monkeypatch.setattr(trial, "main", odd_are_bad)
    monkeypatch.setattr(rounds, "stated", lambda: {"kind": 5})
    cases = st.integers(0, 9).map(lambda number: Case((str(number),)))
    assert refused("kind", cases, place, 1) == 5
    monkeypatch.setattr(rounds, "stated", lambda: {"kind": 6})
    with pytest.raises(AssertionError, match="only 5 of 6"):
        refused("kind", cases, place, 1)


def test_the_same_inputs_are_made_each_time(place, monkeypatch):
    made = []
    monkeypatch.setattr(trial, "main", lambda words: made.append(words[0]) or refuse())
    monkeypatch.setattr(rounds, "stated", lambda: {"kind": 20})
    cases = st.text().map(lambda text: Case((text,)))
    refused("kind", cases, place, 1)
    first = made[:]
    made.clear()
    refused("kind", cases, place, 1)
    assert made == first


def test_the_page_states_every_kind_and_their_sum():
    kinds = {file.stem for file in Path(__file__).parent.glob("test_*.py")} - {"test_trial", "test_found"}
    assert stated().keys() == kinds
    total = sum(stated().values())
    assert total >= 2000
    assert re.search(rf"\*\*{total:,} bad inputs\*\*", rounds.PAGE.read_text())
