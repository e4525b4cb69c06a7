"""Bars of latency: as long as their number, whiskers at their interval, every label escaped."""

from __future__ import annotations

import re
from pathlib import Path

from mggc_edge.artifacts import write_json
from mggc_edge.report.bars import LONGEST, Bar, bar_chart
from mggc_edge.report.page import render
from mggc_edge.report.reading import read_run
from tests.report import run_folder


def test_bars_are_as_long_as_their_numbers_and_whiskers_lie_at_the_interval() -> None:
    text = bar_chart([Bar("original", 1, 20.0, (19.0, 22.0)), Bar("compressed", 2, 5.0)], title="Latency")
    widths = [float(width) for width in re.findall(r'<rect class="s\d" x="0" y="\d+" width="([\d.]+)%"', text)]
    assert widths[0] == 4 * widths[1]
    (low, high), = re.findall(r'class="whisker" x1="([\d.]+)%" x2="([\d.]+)%" y1="29"', text)  # fmt: skip
    assert (float(low) / widths[0], float(high) / widths[0]) == (0.95, 1.1)
    assert text.count("whisker") == 3
    assert max(widths) <= 100 * LONGEST
    assert 'height="94"' in text


def test_numbers_stand_beside_the_bars_and_in_words() -> None:
    text = bar_chart([Bar("a", 1, 20.0, (19.0, 22.0))], title="a < b")
    assert "<title>a &lt; b</title><desc>a: 20.0\u00a0ms, " in text
    assert ">20.0\u00a0ms</text>" in text


def test_labels_out_of_files_are_escaped_and_cut() -> None:
    text = bar_chart([Bar(f"<script>{'x' * 100}", 1, 0.0)], title="")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "x" * 80 not in text


def test_every_model_that_was_measured_has_a_bar(tmp_path: Path) -> None:
    bench = run_folder.bench()
    bench["runs"].append({**bench["runs"][1], "model": "compressed int8", "precision": "int8"})
    for name, document in (("manifest", run_folder.manifest()), ("plan", run_folder.plan()), ("bench", bench)):
        write_json(tmp_path / f"{name}.json", document)
    page = render(read_run(tmp_path))
    assert page.count('<rect class="s1"') == 1
    assert page.count('<rect class="s2"') == 2
    assert "compressed int8, onnxruntime, int8" in page
