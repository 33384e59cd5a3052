"""The XML that CI services read."""

from xml.etree import ElementTree

from convscope.gate.junit import Case, junit

CASES = [Case("small", 0.25, "12 <b> & \x07 of it"), Case('"large"', 1.5, "both\nlines", "too \ud800 large")]


def test_cases_and_failures_are_counted_and_told():
    (suite,) = ElementTree.fromstring(junit("gate", "net.py:build<x>", CASES).encode())
    assert suite.attrib == {
        "name": "gate", "tests": "2", "failures": "1", "errors": "0", "skipped": "0", "time": "1.750",
    }  # fmt: skip
    passed, failed = suite
    assert passed.attrib == {"classname": "net.py:build<x>", "name": "small", "time": "0.250"}
    assert [element.tag for element in passed] == ["system-out"]
    assert failed.find("failure").text == "both\nlines"


def test_what_xml_cant_hold_is_replaced():
    (suite,) = ElementTree.fromstring(junit("gate", "net", CASES).encode())
    assert suite[0].find("system-out").text == "12 <b> & � of it"
    assert suite[1].find("failure").get("message") == "too � large"


def test_what_is_said_of_all_cases_stands_behind_them():
    (suite,) = ElementTree.fromstring(junit("gate", "net", CASES, "of \x07 all").encode())
    assert [element.tag for element in suite] == ["testcase", "testcase", "system-out"]
    assert suite[2].text == "of � all"
