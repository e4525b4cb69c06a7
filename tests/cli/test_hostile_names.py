"""Names out of files reach the terminal as plain text, whatever is in them, and never end in a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.cli.output import Output, json_text, shown
from mggc_edge.errors import MAX_MESSAGE, InputError, printable
from tests.cli.conftest import Command

ODD = [
    "Foo[/bold]",
    "[bold red]",
    "[link=file:///etc/passwd]x",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "a\nerror: b\r\0",
    "ends in \\",
    "\\[x]",
    "\u202egnp.exe",
    "\ud800",
    "",
    "x" * 100_000,
]
Document = dict[str, Any]


def assert_harmless(text: str) -> None:
    """Only characters that a terminal shows, and line breaks."""
    assert all(c.isprintable() for c in text.replace("\n", "")), ascii(text[:2000])


def write_onnx(path: Path, operator: str) -> None:
    nodes = [helper.make_node(operator, ["x"], ["y"], domain="elsewhere"), helper.make_node("Neg", ["y"], ["z"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xz"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("elsewhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), str(path))


@pytest.mark.parametrize("name", ["Foo[/bold]", "Esc\x1b[2J[link=x]y", "line\nbreak"])
def test_operators_of_a_hostile_onnx_file_are_shown_as_they_are(command: Command, tmp_path: Path, name: str) -> None:
    write_onnx(tmp_path / "hostile.onnx", name)
    ran = command("inspect", tmp_path / "hostile.onnx")
    assert (ran.code, ran.err) == (0, "")
    assert_harmless(ran.out)
    assert f"operators  1 {printable(name)}, 1 Neg" in ran.out
    document = command("inspect", tmp_path / "hostile.onnx", "--json").document
    assert document["operators"] == {name: 1, "Neg": 1}


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: ascii(odd)[:20])
@pytest.mark.parametrize(
    "change",
    [
        lambda document, odd: document.update(criterion=odd),
        lambda document, odd: document.update(convention=odd),
        lambda document, odd: document.update(schema=odd),
        lambda document, odd: document.update({odd: odd}),
        lambda document, odd: document.update(kept={odd: [0], **document["kept"]}),
        lambda document, odd: document.update(scores={odd: [0.0]}),
        lambda document, odd: document["spec"].update(family=odd),
        lambda document, odd: document["spec"].update(norm=odd),
        lambda document, odd: document["spec"].update(widths={odd: 4, **document["spec"]["widths"]}),
        lambda document, odd: document["spec"].update({odd: odd}),
    ],
    ids=["criterion", "convention", "schema", "key", "kept", "scores", "family", "norm", "widths", "spec"],
)
def test_plans_and_specs_with_odd_strings_are_shown_or_refused(
    command: Command, material: Path, tmp_path: Path, change: Callable[[Document, str], None], odd: str
) -> None:
    plan: Document = json.loads((material / "plan.json").read_text())
    change(plan, odd)
    for name, document in (("plan.json", plan), ("spec.json", plan["spec"])):
        (tmp_path / name).write_text(json.dumps(document))
        ran = command("inspect", tmp_path / name)
        assert ran.code in (0, 1)
        assert_harmless(ran.out + ran.err)
        assert len(ran.err.splitlines()) <= 2
        assert command("inspect", tmp_path / name, "--json", "--output", tmp_path / "o.json").code == ran.code


def test_an_odd_criterion_is_shown_as_it_is(command: Command, material: Path, tmp_path: Path) -> None:
    plan: Document = json.loads((material / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "criterion": "[/bold] \\"}))
    assert "criterion     [/bold] \\, seed 1" in command("inspect", tmp_path / "plan.json").out


@pytest.mark.parametrize("name", ["[/bold].json", "\x1b[2J.json", "\udcff.json"])
def test_odd_file_names_are_shown_spelled_out(command: Command, material: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes((material / "plan.json").read_bytes())
    ran = command("inspect", tmp_path / name)
    assert (ran.code, ran.err) == (0, "")
    assert_harmless(ran.out)
    assert printable(name) in ran.out.replace("\n", "").replace(" ", "")
    assert command("inspect", tmp_path / name, "--json").document["path"] == str(tmp_path / name)
    missing = command("inspect", tmp_path / f"no{name}")
    assert missing.code == 1
    assert_harmless(missing.err)


def test_an_error_and_its_hint_are_one_printable_line_each() -> None:
    error = InputError("a\nb\x1b[0m", hint="c\nd\x1b[0m")
    assert (error.message, error.hint) == ("a\\nb\\x1b[0m", "c\\nd\\x1b[0m")
    assert len(printable("x" * 10**6)) < MAX_MESSAGE
    assert InputError("a").hint is None


def test_shown_text_comes_out_of_rich_as_it_went_in(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("Foo[/bold]", "[bold red]", "ends in \\", "\\[x]"):
        Output().result(f"[bold]{shown(text)}[/]")
        assert capsys.readouterr().out == f"{text}\n"


def test_remarks_and_lines_hold_no_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    Output().remark("skipped: '\x1b[2J.png'")
    Output().text("in \x1b[2J")
    captured = capsys.readouterr()
    assert (captured.err, captured.out) == ("skipped: '\\x1b[2J.png'\n", "in \\x1b[2J\n")


def test_json_is_escaped_only_where_it_cannot_be_written_otherwise() -> None:
    document = {"a": "図"}
    assert "図" in json_text(document)
    assert "\\u56f3" in json_text(document, "ascii")
    assert "\\ud800" in json_text({"a": "\ud800"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"a": float(np.nan)})
