"""A library that is absent is explained with the line that installs it."""

from __future__ import annotations

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mggc_edge.errors import MggcEdgeError, MissingDependencyError
from mggc_edge.lazy import install_line, require


def test_a_library_that_is_there_is_returned() -> None:
    assert require("json", extra="none") is json
    assert require("json.decoder", extra="none") is sys.modules["json.decoder"]


def test_the_install_line_names_the_extra() -> None:
    assert install_line("ort") == 'pip install "mggc-edge[ort]"'


def test_a_library_that_is_absent_is_named_with_its_install_line() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        require("no_such_library_anywhere", extra="ort")
    assert caught.value.message == (
        "no_such_library_anywhere cannot be imported here: No module named 'no_such_library_anywhere'"
    )
    assert caught.value.hint == 'pip install "mggc-edge[ort]"'
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert isinstance(caught.value, MggcEdgeError)


def test_a_library_that_misses_another_names_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more_than_there_is.py").write_text("from json import no_such_function\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError, match="cannot import name 'no_such_function' from 'json'"):
        require("needs_more_than_there_is", extra="x")


def test_a_bug_inside_a_library_stays_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaks_while_it_loads.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        require("breaks_while_it_loads", extra="x")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ending", ["whole = True", "import no_such_library_anywhere"])
def test_an_interrupt_while_a_library_loads_arrives_when_it_is_loaded(
    number: signal.Signals, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"is_interrupted_{number}_{len(ending)}"
    (tmp_path / f"{name}.py").write_text(
        f"import signal, sys\nsignal.raise_signal({int(number)})\nsys.reached_by_{name} = True\n{ending}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, f"reached_by_{name}", False, raising=False)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            require(name, extra="x")
        assert getattr(sys, f"reached_by_{name}")
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_a_second_interrupt_ends_a_library_that_does_not_end_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hangs_while_it_loads.py").write_text(
        "import signal, sys\nfor _ in range(2):\n    signal.raise_signal(signal.SIGINT)\nsys.has_loaded = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "has_loaded", False, raising=False)
    with pytest.raises(KeyboardInterrupt):
        require("hangs_while_it_loads", extra="x")
    assert not sys.has_loaded  # type: ignore[attr-defined]


def test_another_thread_loads_a_library_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "is_loaded_by_a_thread.py").write_text("there = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with ThreadPoolExecutor() as threads:
        assert threads.submit(require, "is_loaded_by_a_thread", extra="x").result().there == 1
