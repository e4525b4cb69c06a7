"""Engines of TensorRT in the worker, with the fake of tests/backends in the place of TensorRT and of the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.backends import trt_api, trt_run
from mggc_edge.backends.tensorrt import read_engine_facts
from mggc_edge.benchmarks.agent import engines
from mggc_edge.benchmarks.agent import trt_run as carried
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.devices.pack import agent
from mggc_edge.benchmarks.isolation import open_request, read_answer
from mggc_edge.benchmarks.profiling import check_profiled
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import ArtifactError, InputError, MissingDependencyError
from tests.backends.trt_helpers import VERSIONS, install, small_file
from tests.benchmarks.agent.test_worker import CLOSE, served

DEVICE = "Fake sm87"


def built(folder: Path, version: str, **changes: str) -> Workload:
    """An engine as `build.py` leaves it: its plan, and its facts beside it."""
    onnx = small_file(folder / "generator.fp16.onnx")
    path = folder / "generator.fp16.engine"
    plan = json.dumps({"version": version, "device": DEVICE, "onnx": str(onnx)}).encode()
    path.write_bytes(plan)
    form = {"mggc_edge.input_format": '{"low": 0.0, "high": 255.0}'}
    facts = {"schema": trt_api.FACTS_SCHEMA, "device": DEVICE, "tensorrt": version, "size_bytes": len(plan),
             "metadata": form, **changes}  # fmt: skip
    (folder / "generator.fp16.engine.json").write_text(json.dumps(facts))
    return Workload("generator", path, runtime="tensorrt", precision="fp16")


def opened(model: Workload, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    (place,) = LocalDevice().prepare([model])
    return served(open_request(model, place, 1, 0), *requests)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_is_opened_warmed_up_and_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    fake = install(monkeypatch, version)
    first, sampled, closed = opened(built(tmp_path, version), {"do": "sample", "runs": 3, "untimed": 1}, CLOSE)
    assert first["provider"].startswith("Fake")
    assert first["inputs"] == [{"name": "input", "dtype": "float32", "shape": [1, 3, 8, 8]}]
    assert first["versions"]["tensorrt"] == version
    assert first["device_bytes"] == (1000 if version.startswith("8") else 2000)
    assert len(sampled["samples_ns"]) == 3
    assert 0 < sampled["noted"]["enqueue_ns"] < sum(sampled["samples_ns"])  # of the timed runs alone
    assert closed["rss_peak_bytes"] > 2**20
    assert fake.world.log.count(("run",)) >= 5  # the first, one that is recorded as a graph, and four more


def test_feeds_have_the_values_that_the_facts_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.3.0")
    model = built(tmp_path, "10.3.0")
    assert read_engine_facts(model.path) == {
        "device": DEVICE, "tensorrt": "10.3.0", "metadata": {"mggc_edge.input_format": '{"low": 0.0, "high": 255.0}'},
    }  # fmt: skip
    engine = engines.TensorRt()
    engine.open(open_request(model, str(model.path), 1, 0))
    assert dict(engine.metadata) == {"mggc_edge.input_format": '{"low": 0.0, "high": 255.0}'}


def refused(model: Workload) -> Exception:
    (answer,) = opened(model)
    with pytest.raises((ArtifactError, InputError, MissingDependencyError)) as caught:
        read_answer(model, {}, json.dumps(answer))
    return caught.value


@pytest.mark.parametrize(
    ("changes", "built_for"),
    [
        ({"device": "Orin sm87"}, "Orin sm87 with TensorRT 10.3.0"),
        ({"tensorrt": "8.6.1"}, "Fake sm87 with TensorRT 8.6.1"),
    ],
)
def test_an_engine_of_another_device_or_version_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], built_for: str
) -> None:
    install(monkeypatch, "10.3.0")
    error = refused(built(tmp_path, "10.3.0", **changes))
    assert isinstance(error, InputError)
    assert error.message == (
        f"'generator' cannot be measured: it was built for {built_for}, and this is Fake sm87 with TensorRT 10.3.0"
    )
    assert error.hint is not None
    assert error.hint.startswith("build it on that device: python3 build.py")


def test_an_engine_without_facts_is_refused_by_tensorrt_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.3.0")
    model = built(tmp_path, "11.4.0")
    (tmp_path / "generator.fp16.engine.json").unlink()
    error = refused(model)
    assert isinstance(error, InputError)
    assert "TensorRT 10.3.0 cannot read 'generator.fp16.engine': The engine plan file is not compatible" in str(error)
    assert "build it on that device" in str(error)


def test_facts_of_another_engine_are_not_believed(tmp_path: Path) -> None:
    model = built(tmp_path, "10.3.0")
    model.path.write_bytes(b"longer than the other one was" * 9)
    with pytest.raises(ArtifactError, match="is about another engine"):
        open_request(model, str(model.path), 1, 0)


def test_without_tensorrt_or_a_device_it_is_said_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, "10.3.0")
    fake.world.driver_error = 35
    error = refused(built(tmp_path, "10.3.0"))
    assert isinstance(error, MissingDependencyError)
    assert "there is no NVIDIA driver" in error.message
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    error = refused(built(tmp_path, "10.3.0"))
    assert "tensorrt cannot be imported here" in str(error)


def test_a_failure_while_it_runs_is_one_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(monkeypatch, "10.3.0")
    fake.world.run_error = "an illegal memory access was encountered"
    error = refused(built(tmp_path, "10.3.0"))
    assert isinstance(error, ArtifactError)
    assert "illegal memory access" in error.message


def test_an_engine_runs_on_no_provider_and_is_not_profiled(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be measured on 'cuda' by tensorrt"):
        Workload("a", tmp_path / "a.engine", runtime="tensorrt", provider="cuda")
    with pytest.raises(InputError, match="the layers of a TensorRT engine are not timed"):
        check_profiled([Workload("a", tmp_path / "a.engine", runtime="tensorrt")])


def test_the_agent_carries_the_files_that_know_tensorrt() -> None:
    for module in (trt_api, trt_run):
        path = Path(str(module.__file__))
        assert path.read_bytes() in agent().data
        assert (Path(str(carried.__file__)).parent / path.name).resolve() == path.resolve()
