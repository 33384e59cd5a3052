import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convscope.report.pages.fields import Fields, at, script_json

NUMBERS = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_json_in_a_script_reads_back_and_cannot_end_the_script(value):
    text = str(script_json(value))
    assert json.loads(text) == value
    assert not re.search(r"[<>&\u2028\u2029]", text)


def test_a_path_leads_through_dictionaries_and_lists():
    data = {"a": [{"b": 1}, {"b": None}], "live.role": {"x.y": 2}}
    assert at(data, "a.0.b") == 1
    assert at(data, "a.1.b.c") is None
    assert at(data, "live.role.x.y") == 2
    with pytest.raises(KeyError):
        at(data, "a.0.missing")
    with pytest.raises(IndexError):
        at(data, "a.7")


def test_a_number_carries_its_field_its_exact_value_and_its_method():
    fields = Fields({"params": 62_378_344})
    html = str(fields.number("params", "count", " elements", "tied ones once"))
    assert 'data-field="params"' in html
    assert 'data-format="count"' in html
    assert 'title="62,378,344 elements · tied ones once"' in html
    assert ">62.4 M</span>" in html


def test_names_are_escaped(hostile):
    fields = Fields({"name": hostile, "list": [hostile]})
    for html in (fields.text("name"), fields.text("list", "joined")):
        assert "<img" not in str(html)
    assert "&lt;img" in str(fields.text("name"))


def test_a_hostile_unit_or_method_is_escaped(hostile):
    data = {"e": {"name": hostile, "value": 2.0, "unit": hostile, "method": hostile}}
    assert "<img" not in str(Fields(data).evidence("e"))


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({"why": "3 of 64 channels, by up to 2.5e-03"}, True),
        ({"evidence": [{"name": "share", "value": 9.0, "unit": "1"}]}, True),
        ({"why": "1 of 24 channels in another way"}, False),
        ({"remedy": "wait"}, False),
        ({"source": "another page"}, False),
        ({"evidence": [{"name": "share", "value": 0.5, "unit": "σ"}]}, False),
        ({"evidence": []}, False),
    ],
)
def test_findings_are_alike_if_only_their_numbers_differ(change, alike):
    evidence = [{"name": "share", "value": 0.5, "unit": "1"}]
    first = {
        "why": "1 of 24 channels, by up to 0.3",
        "remedy": "go",
        "source": "a page",
        "evidence": evidence,
    }
    fields = Fields({"found": [first, {**first, **change}]})
    assert fields.alike("found.0", "found.1") == alike


def test_a_bar_is_a_share_of_the_largest():
    fields = Fields({"rows": [{"macs": 5}, {"macs": 20}, {"macs": None}]})
    rows = fields.items("rows")
    largest = fields.largest(rows, "macs")
    bars = [str(fields.bar(f"{row}.macs", largest)) for row in rows]
    assert [re.findall(r"width:([\d.]+)%", each) for each in bars] == [["25.00"], ["100.00"], []]
    assert bars[2] == ""
    assert "width:0.00%" in str(fields.bar("rows.0.macs", 0))
