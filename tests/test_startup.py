"""`mggc-edge --help` and `mggc-edge bench --help` start about as fast as a program that does nothing."""

from __future__ import annotations

import importlib.util
import statistics
from pathlib import Path

import pytest

STUDY = Path(__file__).parent.parent / "benchmarks/experiments/startup.py"


@pytest.mark.parametrize("command", [None, "bench"])
def test_help_takes_at_most_1_3_times_an_empty_program_with_as_many_commands(command: str | None) -> None:
    spec = importlib.util.spec_from_file_location("startup_study", STUDY)
    assert spec is not None
    assert spec.loader is not None
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    assert len(study.command_names()) == 11
    assert statistics.median(study.ratios(15, command)) <= 1.3
