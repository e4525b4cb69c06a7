"""Which engine opens what, and what is said of engines that do not work here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnxruntime
import pytest
import torch

from mggc_edge.backends import registry
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.backends.registry import ENGINES, Engine, EngineState, engine_states, open_artifact
from mggc_edge.errors import ArtifactError, MissingDependencyError
from mggc_edge.lazy import require


def states() -> dict[str, EngineState]:
    return {state.engine.name: state for state in engine_states()}


@pytest.mark.parametrize("name", ["g.onnx", "g.ort", "G.ONNX"])
def test_onnx_runtime_opens_its_files(name: str) -> None:
    opened = open_artifact(Path("folder", name))
    assert isinstance(opened, OnnxRuntimeRunner)
    assert opened.name == name


@pytest.mark.parametrize("name", ["g.engine", "g.pth", "onnx", ""])
def test_other_endings_are_refused(name: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        open_artifact(Path("folder", name))
    assert caught.value.message == f"no engine opens '{name or 'folder'}'"
    assert caught.value.hint == "known endings: .onnx, .ort"


def test_every_engine_has_a_state_in_the_order_of_the_table() -> None:
    assert [state.engine for state in engine_states()] == list(ENGINES)
    assert [engine.name for engine in ENGINES] == ["pytorch", "onnxruntime", "tensorrt", "openvino"]


def test_installed_engines_work_and_name_their_version() -> None:
    found = states()
    assert (found["pytorch"].works, found["pytorch"].version, found["pytorch"].hint) == (True, torch.__version__, None)
    assert found["pytorch"].detail in ("CPU", "CPU, CUDA")
    assert (found["onnxruntime"].works, found["onnxruntime"].version) == (True, onnxruntime.__version__)
    assert "CPU" in found["onnxruntime"].detail.split(", ")


@pytest.mark.parametrize(("module", "extra"), [("onnxruntime", "ort"), ("torch", "torch"), ("tensorrt", "tensorrt")])
def test_a_missing_engine_comes_with_its_install_line(module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, *, extra: str) -> ModuleType:
        if name != module:
            return require(name, extra=extra)
        try:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"{name} cannot be imported", hint=f'pip install "mggc-edge[{extra}]"'
            ) from error

    monkeypatch.setattr(registry, "require", absent)
    state = next(state for state in engine_states() if state.engine.module == module)
    assert state == EngineState(state.engine, False, None, "not installed", f'pip install "mggc-edge[{extra}]"')


def test_an_engine_that_misses_a_library_of_its_own_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "half_engine.py").write_text("import library_that_half_engine_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    state = registry._state(Engine("half", "half_engine", "half"))
    assert (state.works, state.version) == (False, None)
    assert state.detail == "half_engine cannot be imported here: No module named 'library_that_half_engine_needs'"
    assert state.hint == 'pip install "mggc-edge[half]"'


def test_an_engine_that_fails_in_its_own_way_is_no_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_engine.py").write_text("raise OSError('libvendor.so.8: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    state = registry._state(Engine("broken", "broken_engine", "broken"))
    assert state.detail == "importing it fails: libvendor.so.8: cannot open shared object file"
    assert (state.works, state.hint) == (False, 'pip install "mggc-edge[broken]"')


def test_an_engine_without_a_backend_here_is_found_but_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # A vendor build under another package name: its version is its own word.
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.5.2.2"))
    state = states()["tensorrt"]
    assert (state.works, state.version, state.hint) == (False, "8.5.2.2", None)
    assert state.detail == "installed, but this version of mggc-edge has no backend for it"
