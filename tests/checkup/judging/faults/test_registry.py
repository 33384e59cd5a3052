"""A rule of the user's that goes wrong is named in one error."""

import re
from contextlib import contextmanager, suppress

import pytest
from torch import nn

from convscope.checkup import checkup, fault, remove_fault
from convscope.checkup.explain import page_names, page_of
from convscope.cli.main import main
from convscope.core.errors import ConvscopeError
from convscope.core.finding import Finding

NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@contextmanager
def _added(name, rule):
    fault(name)(rule)
    try:
        yield
    finally:
        remove_fault(name)


def raises(observation):
    """What it looks for."""
    raise ValueError("oops")
    yield


def strange_severity(observation):
    yield Finding("mine", "bad", "1#1", (), "why")


def other_name(observation):
    yield Finding("other-name", "advice", "1#1", (), "why")


def text(observation):
    yield "a gain is large"


def returns_a_number(observation):
    return 3


WRONG = [
    (raises, "fails (ValueError: oops)"),
    (strange_severity, "yields a finding of severity 'bad'; expected one of 'error', 'warning'"),
    (other_name, "yields a finding of 'other-name'; expected Finding('mine', ...)"),
    (text, "yields 'a gain is large'; expected Finding(...) or Unchecked(what, why)"),
    (returns_a_number, "fails (TypeError: "),
]


@pytest.mark.parametrize(("rule", "said"), WRONG)
def test_the_rule_is_named(rule, said):
    with _added("mine", rule), pytest.raises(ConvscopeError, match=re.escape(said)) as caught:
        checkup(NET)
    assert f"rule {rule.__name__!r} of the fault 'mine'" in str(caught.value)
    assert "cs.checkup.remove_fault" in str(caught.value)
    assert checkup(NET).findings[0].fault == "young-statistics"


def test_a_rule_that_returns_nothing_finds_nothing():
    with _added("mine", lambda observation: None):
        assert "mine" not in {each.fault for each in checkup(NET).findings}


def test_its_docstring_is_its_page():
    with _added("mine", raises):
        page = page_of("mine")
        assert page.startswith("# mine: ")
        assert "What it looks for." in page
        assert f"{__name__}.raises" in page
        assert "mine" not in page_names()
    with pytest.raises(ConvscopeError, match="no page about the fault 'mine'"):
        page_of("mine")


def test_a_rule_in_the_networks_file_is_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net_with_rule.py").write_text(
        "from torch import nn\nimport convscope as cs\n\n"
        "@cs.checkup.fault('flat-gain')\ndef flat(observation):\n"
        "    '''Gains that never moved.'''\n    return ()\n\n"
        "def build():\n    return nn.BatchNorm2d(3), (2, 3, 4, 4)\n"
    )
    try:
        with suppress(SystemExit):
            main(["checkup", "net_with_rule.py:build", "--explain", "flat-gain"])
    finally:
        remove_fault("flat-gain")
    assert "Gains that never moved." in capsys.readouterr().out
