"""Power and energy in the report: rows where a board measured them, and none elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mggc_edge.errors import ArtifactError
from mggc_edge.report.numbers import joules, watts
from mggc_edge.report.page import render
from mggc_edge.report.reading import read_run
from tests.report import run_folder
from tests.report.run_folder import typed, write, write_run

TOTAL = {"kind": "input", "rails": ["VDD_IN"], "text": "VDD_IN: input of the module, through which all of it is fed"}


def measured(run: Path, *powers: dict[str, Any] | None, pool: int | None = None) -> str:
    """The page of a run whose two sides took that power."""
    bench = run_folder.bench()
    for side, power in zip(bench["runs"], powers, strict=True):
        side["power"] = power
        side["memory"]["pool_bytes"] = pool
    write(run / "bench.json", bench)
    return typed(render(read_run(run)))


@pytest.mark.parametrize(
    ("value", "text"), [(12.34, "12.3 mJ"), (999.4, "999 mJ"), (1234.0, "1.23 J"), (0.5, "0.500 mJ")]
)
def test_an_energy_has_three_digits_and_its_unit(value: float, text: str) -> None:
    assert typed(joules(value)) == text
    assert typed(watts(5.206)) == "5.21 W"


def test_what_a_board_measured_is_in_the_table_of_costs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=10)
    first = {"total": TOTAL, "mean_w": 14.2, "idle_w": 5.2, "energy_mj_per_picture": 812.0,
             "above_idle_mj_per_picture": 514.0}  # fmt: skip
    second = {**first, "mean_w": 9.1, "energy_mj_per_picture": 203.0, "above_idle_mj_per_picture": 87.0}
    page = measured(run, first, second, pool=300_000_000)
    assert "Energy a picture<small>VDD_IN: input of the module, through which all of it is fed</small>" in page
    assert "<td>812 mJ</td><td>203 mJ</td><td>4.00x</td>" in page
    assert "<td>514 mJ</td><td>87.0 mJ</td><td>5.91x</td>" in page
    assert "of the idle board before: 5.20 W and 5.20 W" in page
    assert "<td>300 MB</td><td>300 MB</td>" in page


def test_where_nothing_was_measured_there_is_no_row(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=10)
    assert "Energy" not in measured(run, None, None)
    none: dict[str, Any] = {
        "total": {"kind": None, "rails": [], "text": "nothing is known"},
        "energy_mj_per_picture": None,
    }
    assert "Energy" not in measured(run, none, none)


def test_a_power_of_the_wrong_type_is_damage(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=10)
    with pytest.raises(ArtifactError, match=r"'runs\.power\.mean_w' is no number"):
        measured(run, {"mean_w": "much"}, None)
