"""Test cases as JUnit's XML, in the part of it that CI services agree on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 doesn't have, not even escaped."""


@dataclass(frozen=True)
class Case:
    """A test case.

    Attributes:
        name: of the case.
        seconds: that it took.
        said: its output.
        failure: why it failed, in a line; empty if it passed.
    """

    name: str
    seconds: float
    said: str
    failure: str = ""


def junit(suite: str, subject: str, cases: Sequence[Case], said: str = "") -> str:
    """Return a suite of test cases as XML.

    Args:
        suite: its name.
        subject: what was tested: the cases' class name.
        cases: in order.
        said: of all of them; empty for nothing.

    Source: the schema of Jenkins' xUnit plugin, and what pytest writes.
    """
    failures = sum(bool(case.failure) for case in cases)
    numbers = {
        "tests": str(len(cases)),
        "failures": str(failures),
        "errors": "0",
        "skipped": "0",
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }
    root = ElementTree.Element("testsuites")
    group = ElementTree.SubElement(root, "testsuite", {"name": _clean(suite), **numbers})
    for case in cases:
        names = {"classname": _clean(subject), "name": _clean(case.name), "time": f"{case.seconds:.3f}"}
        element = ElementTree.SubElement(group, "testcase", names)
        if case.failure:
            told = ElementTree.SubElement(element, "failure", {"message": _clean(case.failure)})
        else:
            told = ElementTree.SubElement(element, "system-out")
        told.text = _clean(case.said)
    if said:
        ElementTree.SubElement(group, "system-out").text = _clean(said)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", text)
