"""All files of a target: one graph for every engine that wants another one, other precisions, and bytes around them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mggc_edge.artifacts import ORIGINAL_FILE, sha256_of
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.calibration.samples import Wanted as Pictures
from mggc_edge.calibration.samples import built_in
from mggc_edge.compiler import artifact_set, tune
from mggc_edge.compiler.artifact_set import ArtifactSet, Wanted, make_artifacts, runtime_facts
from mggc_edge.compiler.export_settings import ExportSettings, camera_for
from mggc_edge.compiler.precision.judge import NOT_MEASURED, Difference, FloatOutputs, Speed
from mggc_edge.compiler.precision.wanted import Precisions
from mggc_edge.compiler.runtimes import Checks
from mggc_edge.compiler.to_onnx import Exporter
from mggc_edge.compiler.tune import Tuned, TuneSettings, engines_for
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.quality.parity import only_output
from mggc_edge.settings import Settings
from mggc_edge.tensors import Array
from tests.compiler.export_helpers import SIZE, network_of

TARGET = "x86-avx512"
SPEC = resnet_spec(blocks=1, ngf=4)
WHOLE = resnet_spec(blocks=1, ngf=8)
SETTINGS = ExportSettings(image_size=SIZE, target=TARGET, simplify=False, tune=TuneSettings())
PASSES = ("thin_layer", "depth_to_space")


@functools.cache
def exporter(spec: Any) -> Exporter:
    """Writes the graph of a network once for all tests."""
    return Exporter(network_of(spec), SETTINGS)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is the target, and passes are chosen without a measurement: OpenVINO wants none of the two."""
    monkeypatch.setattr(tune, "this_target", lambda *_: TARGET)
    choose(monkeypatch, {"onnxruntime": PASSES, "openvino": ()})


def choose(monkeypatch: pytest.MonkeyPatch, passes: Mapping[str, tuple[str, ...]]) -> None:
    def tuned(_model: Any, _target: str, settings: TuneSettings, **_: Any) -> Tuned:
        return Tuned(passes[settings.engine], engine=settings.engine)

    monkeypatch.setattr(tune, "tune", tuned)


def precisions(*names: str, **values: object) -> Precisions:
    settings = Settings({name.replace("_", ".", 1): value for name, value in values.items()})
    return Precisions(names, lambda size, form: built_in(size, form, Pictures(4, 2)), 15.0, settings)


def made(place: Path, *runtimes: str, original: bool = False, **more: Any) -> tuple[ArtifactSet, ...]:
    wanted = Wanted(TARGET, Checks(1, 1e-4, 20.0), runtimes, tunes=True, **more)
    other = exporter(WHOLE).source("exporting the original", ORIGINAL_FILE) if original else None
    return make_artifacts(place / TARGET, exporter(SPEC).source("exporting the generator"), other, wanted)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def rows(sets: tuple[ArtifactSet, ...], root: Path) -> list[tuple[str, str, str]]:
    return [(row["path"], row["runtime"], row["precision"]) for one in sets for row in one.documents(root)]


@pytest.mark.parametrize(
    ("runtimes", "engines"),
    [
        (("onnxruntime",), ("onnxruntime",)), (("onnxruntime", "openvino"), ("onnxruntime", "openvino")),
        (("openvino",), ("openvino",)), (("openvino", "tensorrt"), ("openvino",)), (("tensorrt",), ("onnxruntime",)),
        (("ort-mobile", "openvino"), ("onnxruntime", "openvino")), (("ort-mobile",), ("onnxruntime",)),
    ],
)  # fmt: skip
def test_passes_are_chosen_in_the_engines_that_run_here(runtimes: tuple[str, ...], engines: tuple[str, ...]) -> None:
    assert engines_for(runtimes) == engines


def test_an_engine_that_wants_another_graph_has_a_folder_of_its_own(tmp_path: Path) -> None:
    sets = made(tmp_path, "onnxruntime", "openvino", original=True)
    names = ("generator.fp32.onnx", "original.fp32.onnx")
    assert files(tmp_path) == sorted(f"{TARGET}/{place}{name}" for place in ("", "openvino/") for name in names)
    assert rows(sets, tmp_path) == [
        *((f"{TARGET}/{name}", "onnxruntime", "fp32") for name in names),
        *((f"{TARGET}/openvino/{name}", "openvino", "fp32") for name in names),
    ]
    for one, applied in zip(sets, (PASSES, ()), strict=True):
        for row in one.documents():
            assert row["sha256"] == sha256_of(Path(row["path"]))
            assert row["tuning"]["engine"] == one.engine == row["runtime"]
            assert tuple(found["name"] for found in row["passes"] if found["applied"]) == applied
            assert (row["accepted"], row["parity"]["passed"]) == (True, True)
            assert ("runtime_parity" in row) is (one.engine == "openvino")
    paths = [entry["path"] for one in sets for entry in one.entries(tmp_path)]
    assert sorted(paths) == files(tmp_path)
    proven = runtime_facts(sets, tmp_path)["runtimes"]
    assert [(row["path"], row["runtime"]) for row in proven] == [(f"{TARGET}/openvino/{n}", "openvino") for n in names]


def test_engines_that_want_the_same_graph_share_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, {"onnxruntime": PASSES, "openvino": PASSES})
    sets = made(tmp_path, "onnxruntime", "openvino")
    assert files(tmp_path) == [f"{TARGET}/generator.fp32.onnx"]
    assert [runtime for _, runtime, _ in rows(sets, tmp_path)] == ["onnxruntime", "openvino"]


def test_an_engine_alone_has_its_graph_in_the_first_place(tmp_path: Path) -> None:
    (one,) = made(tmp_path, "openvino")
    (row,) = one.documents(tmp_path)
    assert (row["path"], row["runtime"]) == (f"{TARGET}/generator.fp32.onnx", "openvino")
    assert row["runtime_parity"]["passed"]
    assert [found["applied"] for found in row["passes"]] == []


def test_what_is_not_tuned_is_one_graph_for_all(tmp_path: Path) -> None:
    wanted = Wanted("portable", Checks(1, 1e-4, 20.0), ("onnxruntime", "openvino"))
    source = exporter(SPEC).source("exporting the generator", target="portable")
    sets = make_artifacts(tmp_path / "portable", source, None, wanted)
    assert files(tmp_path) == ["portable/generator.fp32.onnx"]
    assert [row["runtime"] for row in sets[0].documents()] == ["onnxruntime", "openvino"]
    assert sets[0].documents()[0]["tuning"] is None


# --- other precisions ---


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What is measured: int8 is slower than fp32 in ONNX Runtime and faster in OpenVINO."""
    asked: list[tuple[str, list[str]]] = []

    def speeds(fp32: Path, candidates: Mapping[str, Path], *_: Any, **how: Any) -> dict[str, Speed]:
        asked.append((how["runtime"], [path.name for path in (fp32, *candidates.values())]))
        fast = how["runtime"] == "openvino"
        return {name: Speed("faster" if fast else "slower", 1.5 if fast else 0.7, None, None) for name in candidates}

    def measure(fp32: Path, found: Mapping[str, Path], *_: Any, runtime: str, **__: Any) -> Mapping[str, Speed]:
        return speeds(fp32, found, runtime=runtime) if found else {}

    monkeypatch.setattr(artifact_set, "measure_variants", measure)
    return asked


def test_every_engine_judges_speed_for_itself(
    tmp_path: Path, measured: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, {"onnxruntime": PASSES, "openvino": PASSES})  # one file for both
    sets = made(tmp_path, "onnxruntime", "openvino", precisions=precisions("int8"))
    pair = ["generator.fp32.onnx", "generator.int8.onnx"]
    assert measured == [("onnxruntime", pair), ("openvino", pair)]
    verdicts = {
        (row["runtime"], row["precision"]): (row["accepted"], row["reason"])
        for one in sets
        for row in one.documents()
        if row["precision"] == "int8"
    }
    assert verdicts == {
        ("onnxruntime", "int8"): (False, "not faster than float here: 0.70 times as fast"),
        ("openvino", "int8"): (True, None),
    }


def far_in(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pictures of an engine be 14 dB from the float ones."""
    inner = FloatOutputs.of

    def of(self: FloatOutputs, path: Path, runtime: str = "onnxruntime") -> Difference:
        return Difference(14.0, 0.5, 0.0) if runtime == engine else inner(self, path, runtime)

    monkeypatch.setattr(FloatOutputs, "of", of)


FAR = "PSNR to the float output 14.0 dB, below 15 dB"


@pytest.mark.parametrize(("far", "near"), [("openvino", "onnxruntime"), ("onnxruntime", "openvino")])
def test_every_engine_judges_pictures_for_itself(
    far: str, near: str, tmp_path: Path, measured: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    far_in(far, monkeypatch)
    choose(monkeypatch, {"onnxruntime": PASSES, "openvino": PASSES})  # one file for both
    (one,) = made(tmp_path, "onnxruntime", "openvino", precisions=precisions("int8", quantize_sensitivity="never"))
    assert [(engine, len(paths)) for engine, paths in measured if len(paths) > 1] == [(near, 2)]  # the far one is not
    rows = {row["runtime"]: row for row in one.documents() if row["precision"] == "int8"}
    assert (rows[far]["accepted"], rows[far]["reason"]) == (False, FAR)
    assert (rows[far]["psnr"], rows[far]["max_abs"]) == (14.0, 0.5)
    assert rows[near]["psnr"] > 15
    assert rows["openvino"]["accepted"] is (near == "openvino")  # in ONNX Runtime it is slower


@pytest.mark.parametrize(("far", "accepted"), [("openvino", False), ("onnxruntime", True)])
def test_a_graph_of_an_engines_own_has_the_pictures_of_that_engine_everywhere(
    far: str,
    accepted: bool,
    tmp_path: Path,
    measured: list[tuple[str, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far_in(far, monkeypatch)
    sets = made(tmp_path, "onnxruntime", "openvino", precisions=precisions("int8", quantize_sensitivity="never"))
    (row,) = [row for row in sets[1].documents() if row["precision"] == "int8"]
    (entry,) = [entry for entry in sets[1].entries(tmp_path) if entry["path"].endswith("int8.onnx")]
    assert (row["runtime"], row["accepted"], row["psnr"] == 14.0) == ("openvino", accepted, not accepted)
    assert (entry["accepted"], entry["psnr"]) == (row["accepted"], row["psnr"])


def test_a_file_for_phones_is_judged_by_the_arithmetic_of_onnx_runtime(
    tmp_path: Path, measured: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    far_in("onnxruntime", monkeypatch)
    choose(monkeypatch, {"onnxruntime": PASSES, "openvino": PASSES})
    (one,) = made(tmp_path, "ort-mobile", "openvino", precisions=precisions("int8", quantize_sensitivity="never"))
    verdicts = {row["runtime"]: row["accepted"] for row in one.documents() if row["precision"] == "int8"}
    assert verdicts == {"onnxruntime": False, "ort-mobile": False, "openvino": True}
    assert f"'generator.int8.ort' in ort-mobile is rejected: {FAR}" in one.remarks


def test_graphs_of_two_engines_have_8_bit_files_of_their_own(
    tmp_path: Path, measured: list[tuple[str, list[str]]]
) -> None:
    sets = made(tmp_path, "onnxruntime", "openvino", precisions=precisions("int8"))
    assert [runtime for runtime, _ in measured] == ["openvino", "onnxruntime"]
    int8 = [row for one in sets for row in one.documents(tmp_path) if row["precision"] == "int8"]
    assert [(row["path"], row["runtime"], row["accepted"]) for row in int8] == [
        (f"{TARGET}/generator.int8.onnx", "onnxruntime", False),
        (f"{TARGET}/openvino/generator.int8.onnx", "openvino", True),
    ]
    entries = {entry["path"]: entry for one in sets for entry in one.entries(tmp_path)}
    for row in int8:
        fp32 = row["path"].replace("int8", "fp32")
        assert entries[row["path"]]["parent"] == entries[fp32]["sha256"]
    assert sorted(entries) == files(tmp_path)


def test_what_a_runtime_does_not_measure_says_so(tmp_path: Path) -> None:
    wanted = Wanted(
        "ort-mobile", Checks(1, 1e-4, 20.0), ("onnxruntime", "ort-mobile"), precisions("int8"), seed=1
    )  # for phones
    source = exporter(SPEC).source("exporting the generator", target="ort-mobile")
    (one,) = make_artifacts(tmp_path / "ort-mobile", source, None, wanted)
    said = {(row["runtime"], row["precision"]): row["reason"] for row in one.documents()}
    assert said == {
        ("onnxruntime", "fp32"): None, ("onnxruntime", "int8"): NOT_MEASURED,
        ("ort-mobile", "fp32"): None, ("ort-mobile", "int8"): NOT_MEASURED,
    }  # fmt: skip


def test_the_ranges_go_into_the_bundle_of_tensorrt(tmp_path: Path) -> None:
    wanted = Wanted("tensorrt", Checks(1, 1e-4, 20.0), ("onnxruntime", "tensorrt"), precisions("int8"))
    source = exporter(SPEC).source("exporting the generator", target="tensorrt")
    make_artifacts(tmp_path / "tensorrt", source, None, wanted)
    table = tmp_path / "tensorrt/tensorrt/calibration.json"
    assert table.read_bytes() == (tmp_path / "tensorrt/generator.ranges.json").read_bytes()


# --- bytes ---


def pictures(path: Path, levels: Array) -> Array:
    with OnnxRuntimeRunner(path) as runner:
        return only_output(runner, levels)


def test_8_bit_files_of_bytes_give_the_pictures_of_their_floats(tmp_path: Path) -> None:
    settings = replace(SETTINGS, io="uint8")
    wanted: dict[str, Any] = {"precisions": precisions("fp16", "int8", precision_speed="never")}
    (floats,) = made(tmp_path / "floats", "onnxruntime", **wanted)
    (camera,) = made(tmp_path / "bytes", "onnxruntime", **wanted, camera=camera_for(SPEC, settings))
    levels = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    values = SPEC.input_format.levels()[
        levels.transpose(0, 3, 1, 2)
    ]  # bit for bit what is inside: 8 bits flip otherwise
    for a, b in zip(floats.generator.variants, camera.generator.variants, strict=True):
        assert a.artifact.precision == b.artifact.precision
        assert [tensor.dtype for tensor in (*b.artifact.inputs, *b.artifact.outputs)] == ["uint8", "uint8"]
        given = pictures(b.artifact.path, levels).astype(float)
        expected = (pictures(a.artifact.path, values).transpose(0, 2, 3, 1).astype(float) + 1) * 127.5
        assert np.abs(given - np.rint(expected).clip(0, 255)).max() <= 1
        assert b.difference == a.difference  # judged before, on the same floats
        assert b.artifact.parent_sha256 == camera.generator.artifact.sha256
        model = onnx.load(b.artifact.path)
        said = {entry.key: entry.value for entry in model.metadata_props}
        assert (said["mggc_edge.io"], said["mggc_edge.precision"]) == ("uint8", b.artifact.precision)
        assert said["mggc_edge.parent_sha256"] == camera.generator.artifact.sha256
        operators = [node.op_type for node in model.graph.node]
        assert (operators[0], operators[-1]) == ("Cast", "Cast")
        assert ("QuantizeLinear" in operators) is (b.artifact.precision == "int8")
