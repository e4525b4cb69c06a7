"""TensorRT engines of bundles: built on the device by the bundle's script, kept, and measured."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks.agent.bundle import FOLDER_SUFFIX
from mggc_edge.benchmarks.agent.store import Store
from mggc_edge.benchmarks.bundles import packed, prepare
from mggc_edge.benchmarks.devices import ssh
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.isolation import read_answer
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import ArtifactError
from tests.backends.trt_helpers import VERSIONS, install
from tests.benchmarks.agent.test_worker import served
from tests.compiler.test_tensorrt_bundle import bundle, without_tensorrt


class Served:
    """A worker in this process, where TensorRT is a fake."""

    def __init__(self, model: Workload, log: list[dict[str, Any]]) -> None:
        self._model, self._log, self._opened = model, log, dict[str, Any]()

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        self._log.append(request)
        if request["do"] == "open":
            self._opened = request
        before = [] if request["do"] in ("open", "build", "close") else [self._opened]
        return read_answer(self._model, request, json.dumps(served(*before, request)[-1]))

    def end(self) -> None:
        """Nothing is to be ended."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workload]:
    """A bundle that was exported away from any device, and the fake of TensorRT 10.3 since then."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as away:
        without_tensorrt(away)
        folder = bundle(tmp_path).folder

    def make(version: str = "10.3.0", error: float = 0.0, precision: str = "fp16") -> Workload:
        fake = install(monkeypatch, version, error)
        fake.world.executor.moved_to = folder
        path = folder / f"generator.{precision}.onnx"
        return Workload("generator", path, runtime="tensorrt", precision=precision)

    return make


def place(model: Workload, log: list[dict[str, Any]] | None = None) -> Path:
    """Where its engine lies once it was prepared."""
    device = LocalDevice(lambda started: Served(started, [] if log is None else log))
    (found,) = prepare([model], device)
    return Path(found)


def test_an_engine_is_built_by_the_script_of_its_bundle_and_kept(here: Callable[..., Workload]) -> None:
    model = here()
    engine = place(model)
    facts = json.loads(Path(f"{engine}.json").read_text())
    assert (facts["device"], facts["tensorrt"], facts["onnx"]) == ("Fake sm87", "10.3.0", "generator.fp16.onnx")
    assert facts["parity"]["psnr"] > 35
    assert engine.parents[2].name == "mggc-edge"
    written = engine.stat().st_mtime_ns
    assert place(model) == engine
    assert engine.stat().st_mtime_ns == written  # it was there


def test_it_is_built_anew_under_another_tensorrt_or_where_it_is_damaged(here: Callable[..., Workload]) -> None:
    engine = place(here())
    assert place(here(VERSIONS[-1])) == engine
    assert json.loads(Path(f"{engine}.json").read_text())["tensorrt"] == VERSIONS[-1]
    engine.write_bytes(b"half")
    assert place(here(VERSIONS[-1])).stat().st_size > 4


def test_an_engine_that_gives_other_pictures_is_none(here: Callable[..., Workload]) -> None:
    with pytest.raises(
        ArtifactError, match=r"its engine gives other pictures here: -?\d+\.\d dB, and 35 dB are needed"
    ):
        place(here(error=10.0))
    assert not list(Path("cache").rglob("generator.fp16.engine"))


def test_a_bundle_that_was_changed_is_refused(here: Callable[..., Workload]) -> None:
    model = here()
    (model.path.parent / "README.md").write_text("changed")
    with pytest.raises(ArtifactError, match=r"its engine cannot be built: 'README.md' is not the file that was export"):
        place(model)
    (model.path.parent / "build.py").unlink()
    with pytest.raises(ArtifactError, match=r"its bundle has no build\.py"):
        place(model)


def test_the_engine_is_measured_and_the_report_is_about_its_file(here: Callable[..., Workload]) -> None:
    log: list[dict[str, Any]] = []
    device = LocalDevice(lambda model: Served(model, log))
    report = measure([here()], threads=1, pairs=1, processes=1, warmup_seconds=0.001, device=device)
    opened = next(request for request in log if request["do"] == "open")
    assert opened["path"].endswith("generator.fp16.engine")
    (run,) = report.to_json()["runs"]
    assert (run["runtime"], run["precision"], run["provider"]) == ("tensorrt", "fp16", "Fake sm87")
    assert run["memory"]["device_bytes"] == 2000
    assert report.to_json()["models"][0]["path"].endswith("generator.fp16.onnx")


def test_what_is_sent_is_an_archive_of_the_bundle_always_the_same(
    here: Callable[..., Workload], tmp_path: Path
) -> None:
    model = here()
    other = Workload("float", model.path.with_name("generator.fp32.onnx"), runtime="tensorrt")
    plain = Workload("plain", model.path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second, third = ssh._carried([model, other, plain], tmp_path / "a")
    assert (first, third) == (second, model.path)
    assert ssh._carried([model], tmp_path / "b")[0].read_bytes() == first.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert set(archive.namelist()) == {path.name for path in model.path.parent.iterdir()}
    with pytest.raises(ArtifactError, match="cannot be read"):
        packed(tmp_path / "none", tmp_path / "c.zip")


def test_from_an_archive_engines_are_kept_beside_it_and_go_with_it(
    here: Callable[..., Workload], tmp_path: Path
) -> None:
    model, store = here(), tmp_path / "store"
    store.mkdir()
    archive = packed(model.path.parent, store / f"{'0' * 64}.zip")
    request = {"do": "build", "bundle": str(archive), "file": "generator.fp16.onnx", "precision": "fp16"}
    (answer,) = served(request)
    engine = Path(answer["engine"])
    assert engine.parent == store / f"{'0' * 64}{FOLDER_SUFFIX}"
    assert engine.is_file()
    assert [path.name for path in tmp_path.glob("bundle-*")] == []
    Store(store).close()
    assert engine.is_file()
    archive.unlink()
    Store(store).close()
    assert not engine.parent.exists()
    archive.write_bytes(b"no archive")
    assert served(request)[0]["message"].startswith("its bundle cannot be read: ")


def test_without_tensorrt_it_is_said_before_anything_is_built(
    here: Callable[..., Workload], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = here()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(Exception, match="tensorrt cannot be imported here"):
        place(model)
    shutil.rmtree(model.path.parent)
