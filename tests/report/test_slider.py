"""The slider over the sample pictures: what a browser makes of the page, and what is there without its script."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.report.page import build_report
from tests.report.run_folder import write, write_run

COLUMNS = ["input", "original", "compressed", "truth"]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

# What a test asks the page: `state` is what is shown of every sample.
ASK = """
const stages = [...document.querySelectorAll(".stage")];
const state = () => stages.map((stage) => {
  const at = (side) => [...stage.querySelectorAll(`figure.${side}`)].map((figure) => figure.dataset.column).join();
  const pictures = [...stage.querySelectorAll("figure.left img, figure.right img")];
  const boxes = pictures.map((one) => one.getBoundingClientRect());
  const input = stage.querySelector("input");
  const sides = stage.parentElement.querySelectorAll("fieldset");
  return {
    left: at("left"), right: at("right"),
    visible: [...stage.querySelectorAll("figure")].filter((one) => getComputedStyle(one).display !== "none").length,
    checked: [...sides].map((side) => side.querySelector("input:checked").value),
    choices: [...sides].map((side) => [...side.querySelectorAll("input")].map((one) => one.value)),
    at: stage.style.getPropertyValue("--at"), label: input.getAttribute("aria-label"),
    value: input.getAttribute("aria-valuetext"),
    same: boxes.length === 2 && ["left", "top", "width", "height"].every((key) => boxes[0][key] === boxes[1][key]),
  };
});
const take = (sample, side, column) =>
  stages[sample].parentElement.querySelector(`fieldset.${side} input[value=${column}]`).click();
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose third and last sample has no truth."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", steps=3, samples=3)
    index = json.loads((folder / "samples/index.json").read_text(encoding="utf-8"))
    index["rows"][2]["truth"] = None
    write(folder / "samples/index.json", index)
    return folder


def asked(run: Path, tmp_path: Path, script: str) -> Any:
    """Open the page in a browser, and return what a script that ends with `answer(value)` answers."""
    assert BROWSER is not None
    text = build_report(run).read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)  # so that the script may ask
    answer = 'const answer = (value) => document.body.setAttribute("data-answer", JSON.stringify(value));'
    page = tmp_path / "page.html"
    page.write_text(text.replace("</body>", f"<script>{answer}{ASK}{script}</script></body>"), encoding="utf-8")
    line = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*line, "--window-size=1200,900", "--dump-dom", page.as_uri()], capture_output=True, timeout=120, check=True
    )
    found = re.search(r'data-answer="([^"]*)"', done.stdout.decode("utf-8"))
    assert found is not None, done.stderr.decode(errors="replace")[-500:]
    return json.loads(html.unescape(found[1]))


def test_without_a_script_the_pictures_stand_in_a_row_in_one_order(run: Path) -> None:
    text = build_report(run).read_text(encoding="utf-8")
    rows = re.findall(r'<div class="row">(.*?)</div><h3>', text)
    shown = [re.findall(r'<figure class="\w+" data-column="(\w+)"><img alt="(\w+): ', row) for row in rows]
    names = [(column, column.capitalize()) for column in COLUMNS]
    assert shown == [names, names, names[:3]]
    assert "stage" not in text.split("<main>")[1].split("</main>")[0]


@needs_browser
def test_any_two_of_the_four_pictures_can_be_compared_at_one_size(run: Path, tmp_path: Path) -> None:
    script = """
    const seen = [state()];
    for (const [left, right] of [["input", "truth"], ["compressed", "truth"], ["truth", "compressed"]]) {
      take(0, "left", left); take(0, "right", right);
      seen.push(state());
    }
    answer(seen);
    """
    first, *others = asked(run, tmp_path, script)
    assert [(one["left"], one["right"]) for one in first] == [("original", "compressed")] * 3
    assert first[0]["choices"] == [COLUMNS, COLUMNS]
    assert first[2]["choices"] == [COLUMNS[:3], COLUMNS[:3]]
    assert (first[0]["label"], first[0]["value"]) == (
        "Where Original ends and Compressed begins",
        "50 % Original, the rest Compressed",
    )
    found = [[(one["left"], one["right"]) for one in state] for state in others]
    pairs = [("input", "truth"), ("compressed", "truth"), ("truth", "compressed")]
    assert [state[:2] for state in found] == [[pair, pair] for pair in pairs]  # what is chosen holds for all samples
    for state in (first, *others):
        assert [one["visible"] for one in state] == [2, 2, 2]
        assert all(one["checked"] == [one["left"], one["right"]] for one in state)
        assert state[0]["same"]
    assert all("truth" not in state[2] for state in found)


@needs_browser
def test_taking_what_stands_on_the_other_side_swaps_the_two(run: Path, tmp_path: Path) -> None:
    script = (
        'take(1, "left", "compressed"); const one = state(); take(0, "right", "compressed"); answer([one, state()]);'
    )
    there, back = asked(run, tmp_path, script)
    assert [(one["left"], one["right"]) for one in there] == [("compressed", "original")] * 3
    assert [(one["left"], one["right"]) for one in back] == [("original", "compressed")] * 3


@needs_browser
def test_keys_move_the_line_and_the_choice_is_reached_by_them(run: Path, tmp_path: Path) -> None:
    script = """
    const input = stages[0].querySelector("input");
    input.value = 20;
    input.dispatchEvent(new Event("input"));
    const parts = [input, ...stages[0].parentElement.querySelectorAll("fieldset input")];
    const reached = parts.map((part) => { part.focus(); return document.activeElement === part; });
    const legends = [...document.querySelectorAll("legend")].map((one) => one.textContent);
    answer({ state: state()[0], reached, legends, groups: new Set(parts.slice(1).map((part) => part.name)).size });
    """
    found = asked(run, tmp_path, script)
    assert found["state"]["at"] == "20%"
    assert found["state"]["value"] == "20 % Original, the rest Compressed"
    assert found["reached"] == [True] * 9
    assert found["groups"] == 2
    assert found["legends"] == ["Left of the line", "Right of the line"] * 3
