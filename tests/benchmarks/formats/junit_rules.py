"""The rules of JUnit's two schemas in use, as far as documents of ours can break them.

Ant's is JUnit.xsd of Windy Road, Jenkins' is junit-10.xsd of its xUnit plugin.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

TOKEN = re.compile(r"\S+( \S+)*")
TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}")
DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
SUREFIRE_TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")
# Attributes that must be there (Ant's), and those that may be there in both.
SUITE = {"name", "timestamp", "hostname", "tests", "failures", "errors", "time", "package", "id"}
CASE = {"name", "classname", "time"}


def check_junit(text: str) -> ET.Element:
    """Assert that a document satisfies both schemas, and that its counts are those of its cases; return its root."""
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    assert root.attrib == {}  # Ant's allows none
    for number, suite in enumerate(root):
        _check_suite(suite, number)
    return root


def _check_suite(suite: ET.Element, number: int) -> None:
    assert suite.tag == "testsuite"
    assert set(suite.attrib) - {"skipped"} == SUITE
    for name in ("name", "hostname", "package"):
        assert TOKEN.fullmatch(suite.attrib[name]), name
    assert TIMESTAMP.fullmatch(suite.attrib["timestamp"])
    assert DECIMAL.fullmatch(suite.attrib["time"])
    assert SUREFIRE_TIME.fullmatch(suite.attrib["time"])
    assert suite.attrib["id"] == str(number)
    tags = [child.tag for child in suite]
    cases = [child for child in suite if child.tag == "testcase"]
    assert tags == ["properties", *["testcase"] * len(cases), "system-out", "system-err"]  # a sequence in Ant's
    for entry in suite[0]:
        assert (entry.tag, set(entry.attrib)) == ("property", {"name", "value"})
        assert TOKEN.fullmatch(entry.attrib["name"])
    for case in cases:
        _check_case(case)
    kinds = [child.tag for case in cases for child in case]
    assert int(suite.attrib["tests"]) == len(cases)
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.attrib.get(attribute, "0")) == kinds.count(kind)


def _check_case(case: ET.Element) -> None:
    assert set(case.attrib) == CASE
    assert TOKEN.fullmatch(case.attrib["name"])
    assert TOKEN.fullmatch(case.attrib["classname"])
    assert DECIMAL.fullmatch(case.attrib["time"])
    assert len(case) <= 1  # a choice in Ant's
    for child in case:
        assert child.tag in ("failure", "error", "skipped")
        assert set(child.attrib) <= {"message", "type"}
        assert child.tag == "skipped" or "type" in child.attrib
        assert len(child) == 0
