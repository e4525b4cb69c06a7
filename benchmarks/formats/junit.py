"""JUnit's XML, as it satisfies both schemas in use: Ant's (Windy Road's JUnit.xsd) and Jenkins' (xUnit's junit-10.xsd).

What failed is a `failure`; what the samples cannot tell is an `error`, or `skipped` where that is let pass.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from mggc_edge.benchmarks.formats.case import Case
from mggc_edge.errors import printable

SUITE, PACKAGE = "mggc-edge bench", "mggc_edge.bench"


def junit(cases: Sequence[Case], context: Mapping[str, Any], *, warn: bool) -> str:
    """Return a document with one test case for each thing that was judged or measured.

    Args:
        cases: at least one.
        context: of the report: `created`, `seconds`, and what machine it was.
        warn: whether what is inconclusive is let pass.
    """
    kinds = [_kind(case, warn=warn) for case in cases]
    root = ET.Element("testsuites")
    suite = ET.SubElement(
        root,
        "testsuite",
        {
            "name": SUITE,
            "package": PACKAGE,
            "id": "0",
            "timestamp": str(context.get("created", "1970-01-01T00:00:00"))[:19],  # the schema has no time zone
            "hostname": printable(platform.node()) or "localhost",
            "tests": str(len(cases)),
            "failures": str(kinds.count("failure")),
            "errors": str(kinds.count("error")),
            "skipped": str(kinds.count("skipped")),
            "time": f"{float(context.get('seconds') or 0):.3f}",
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _facts(context):
        ET.SubElement(properties, "property", {"name": name, "value": printable(value)})
    for case, kind in zip(cases, kinds, strict=True):
        found = ET.SubElement(
            suite,
            "testcase",
            {"name": _token(case.name), "classname": PACKAGE, "time": f"{case.seconds:.3f}"},
        )
        if kind is not None:
            said = ET.SubElement(found, kind, {"message": printable(case.message), "type": case.outcome})
            said.text = printable(case.details) or None
    passed = [f"{case.message} {case.details}".strip() for case, kind in zip(cases, kinds, strict=True) if kind is None]
    ET.SubElement(suite, "system-out").text = "\n".join(map(printable, passed))
    ET.SubElement(suite, "system-err")
    ET.indent(root)
    text: str = ET.tostring(root, encoding="us-ascii").decode()
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _kind(case: Case, *, warn: bool) -> str | None:
    if case.outcome == "fail":
        return "failure"
    if case.outcome == "inconclusive":
        return "skipped" if warn else "error"
    return None


def _token(text: str) -> str:
    """Return text as the schema's tokens are: no spaces at the ends, and no two in a row."""
    return " ".join(printable(text).split()) or "model"


def _facts(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    cpu, versions = context.get("cpu", {}), context.get("versions", {})
    known = {"device": context.get("device"), "cpu": cpu.get("model"), "threads": context.get("threads")}
    known |= {f"version.{name}": version for name, version in versions.items()}
    return [(name, str(value)) for name, value in known.items() if value is not None]
