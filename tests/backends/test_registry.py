"""Which engine opens what, and what is said of engines that do not work here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch

from mggc_edge.backends import registry
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.backends.registry import ENGINES, LIBRARIES, Library, LibraryState, library_states, open_artifact
from mggc_edge.backends.tensorrt import TrtRunner
from mggc_edge.backends.trt_run import INSTALL_HINT
from mggc_edge.errors import ArtifactError, InputError, MissingDependencyError
from mggc_edge.lazy import require
from tests.backends.trt_helpers import install, without_cuda


def states() -> dict[str, LibraryState]:
    return {state.library.name: state for state in library_states((*ENGINES, *LIBRARIES))}


@pytest.mark.parametrize("name", ["g.onnx", "g.ort", "G.ONNX"])
def test_onnx_runtime_opens_its_files(name: str) -> None:
    opened = open_artifact(Path("folder", name))
    assert isinstance(opened, OnnxRuntimeRunner)
    assert opened.name == name


def test_tensorrt_opens_engines() -> None:
    assert isinstance(open_artifact(Path("folder", "g.engine")), TrtRunner)


@pytest.mark.parametrize(
    ("name", "runtime", "engine"),
    [
        ("g.onnx", None, "onnxruntime"), ("g.onnx", "openvino", "openvino"), ("g.ort", None, "ort-mobile"),
        ("g.ort", "ort-mobile", "ort-mobile"), ("g.onnx", "onnxruntime", "onnxruntime"),
    ],
)  # fmt: skip
def test_a_file_is_opened_by_the_runtime_that_is_named(name: str, runtime: str | None, engine: str) -> None:
    assert open_artifact(Path(name), runtime).engine == engine


@pytest.mark.parametrize(
    ("name", "runtime", "chosen", "message", "hint"),
    [
        (
            "g.ort", "openvino", {}, "the runtime 'openvino' opens .onnx files, and 'g.ort' is none",
            "runtimes for it: ort-mobile",
        ),
        (
            "g.onnx", "ort-mobile", {}, "the runtime 'ort-mobile' opens .ort files, and 'g.onnx' is none",
            "runtimes for it: onnxruntime, openvino",
        ),
        ("g.onnx", "abacus", {}, "'abacus' is no runtime", "one of onnxruntime, ort-mobile, openvino, tensorrt"),
        (
            "g.onnx", "onnxruntime", {"precision": "bf16"}, "the runtime 'onnxruntime' has no precision 'bf16'",
            "for openvino",
        ),
        (
            "g.onnx", "openvino", {"provider": "cuda"}, "the runtime 'openvino' has no provider 'cuda'",
            "for onnxruntime, ort-mobile",
        ),
        ("g.onnx", None, {"provider": "npu"}, "'npu' is no provider", "one of cpu, cuda, tensorrt"),
        ("g.onnx", "openvino", {"precision": "fp16"}, "OpenVINO runs files in fp32 or bf16, not in 'fp16'", None),
    ],
)  # fmt: skip
def test_what_a_runtime_does_not_take_is_one_sentence(
    name: str, runtime: str | None, chosen: dict[str, Any], message: str, hint: str | None
) -> None:
    with pytest.raises(InputError) as caught:
        open_artifact(Path(name), runtime, **chosen)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize("name", ["g.plan", "g.pth", "onnx", ""])
def test_other_endings_are_refused(name: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        open_artifact(Path("folder", name))
    assert caught.value.message == f"no engine opens '{name or 'folder'}'"
    assert caught.value.hint == "known endings: .onnx, .ort, .engine"


def test_every_engine_has_a_state_in_the_order_of_the_table() -> None:
    assert [state.library for state in library_states(ENGINES)] == list(ENGINES)
    assert [engine.name for engine in ENGINES] == ["pytorch", "onnxruntime", "tensorrt", "openvino"]


def test_installed_engines_work_and_name_their_version() -> None:
    found = states()
    assert (found["pytorch"].works, found["pytorch"].version, found["pytorch"].hint) == (True, torch.__version__, None)
    assert found["pytorch"].detail in ("CPU", "CPU, CUDA")
    assert (found["onnxruntime"].works, found["onnxruntime"].version) == (True, onnxruntime.__version__)
    assert "CPU" in found["onnxruntime"].detail.split(", ")
    assert (found["openvino"].works, "CPU" in found["openvino"].detail.split(", ")) == (True, True)


@pytest.mark.parametrize(("module", "extra"), [("onnxruntime", "ort"), ("torch", "torch"), ("openvino", "openvino")])
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
    state = next(state for state in states().values() if state.library.module == module)
    assert state == LibraryState(state.library, False, None, "not installed", f'pip install "mggc-edge[{extra}]"')


def test_an_engine_that_misses_a_library_of_its_own_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "half_engine.py").write_text("import library_that_half_engine_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    state = registry._state(Library("half", "half_engine", "half"))
    assert (state.works, state.version) == (False, None)
    assert state.detail == "half_engine cannot be imported here: No module named 'library_that_half_engine_needs'"
    assert state.hint == 'pip install "mggc-edge[half]"'


def test_an_engine_that_fails_in_its_own_way_is_no_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_engine.py").write_text("raise OSError('libvendor.so.8: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    state = registry._state(Library("broken", "broken_engine", "broken"))
    assert state.detail == "importing it fails: libvendor.so.8: cannot open shared object file"
    assert (state.works, state.hint) == (False, 'pip install "mggc-edge[broken]"')


def test_an_installed_engine_that_answers_wrongly_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__="2"))
    state = states()["pytorch"]
    assert (state.works, state.hint) == (False, 'pip install "mggc-edge[torch]"')
    assert "has no attribute 'cuda'" in state.detail


def test_tensorrt_works_where_there_is_a_device_and_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6.1")
    state = states()["tensorrt"]
    assert (state.works, state.version, state.hint) == (True, "8.6.1", None)
    assert state.detail == "Fake sm87, through cuda-python, networks with hints"
    install(monkeypatch, "11.4.0.106")
    assert states()["tensorrt"].detail == "Fake sm87, through cuda-python, networks typed"


def test_tensorrt_without_a_driver_or_without_access_to_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(monkeypatch, "10.3.0")
    without_cuda(monkeypatch)
    state = states()["tensorrt"]
    assert (state.works, state.version) == (False, "10.3.0")
    assert state.detail.startswith("no memory of a CUDA device can be had: cuda-python is not installed")
    assert state.hint == INSTALL_HINT
    fake.world.driver_error = 100
    assert states()["tensorrt"].detail == "TensorRT 10.3.0 finds no device that it can use: there is no CUDA device"


def test_a_library_says_what_needs_it_whether_it_works_or_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (states()["onnxscript"].works, states()["onnxscript"].detail) == (True, "export")
    (tmp_path / "broken_library.py").write_text("raise RuntimeError('built for another processor')\n")
    monkeypatch.syspath_prepend(tmp_path)
    state = registry._state(Library("broken", "broken_library", "onnx", "export"))
    assert state.detail == "importing it fails: built for another processor; needed by export"
    assert (state.works, state.hint) == (False, 'pip install "mggc-edge[onnx]"')


def test_a_library_without_metadata_has_the_version_it_names_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bare_library.py").write_text("__version__ = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    state = registry._state(Library("bare", "bare_library", "onnx", "export"))
    assert (state.works, state.version, state.detail) == (True, "3", "export")
