"""What `compress` exports for, the record of it, and which files its latency is measured on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mggc_edge.artifacts import RECORD_FILE, sha256_of, write_json
from mggc_edge.benchmarks.extent import Extent
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.workload import MAX_MODELS, Workload
from mggc_edge.errors import ArtifactError, MissingDependencyError, SettingError
from mggc_edge.jobs import exports as module
from mggc_edge.jobs import latency
from mggc_edge.jobs.exports import Exports, check_exports, is_original, known_exports, targets_of
from mggc_edge.jobs.latency import candidates, measure_fastest
from mggc_edge.jobs.precisions import precisions_for
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.settings import Settings
from tests.benchmarks.bench_helpers import run_of

ORT, OPENVINO, MOBILE, TENSORRT = "onnxruntime", "openvino", "ort-mobile", "tensorrt"
EXTENT = Extent(pairs=40, processes=10, max_seconds=300.0, margin=0.05, warmup_seconds=1.0)
TABLES = {
    name: layer_table(resnet_spec(blocks=1, ngf=width), (32, 32))
    for name, width in (("original", 8), ("compressed", 4))
}
NETWORK = Network(resnet_spec(blocks=1, ngf=4), TABLES["compressed"]).eval()


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (module, latency):
        monkeypatch.setattr(room, "this_target", lambda: "x86-avx2")


@pytest.mark.parametrize(
    ("asked", "runtimes", "wanted"),
    [
        ("auto", (ORT,), {"portable": (ORT,), "x86-avx2": (ORT,)}),
        ("none", (ORT,), {"portable": (ORT,)}),
        ("none", (ORT, OPENVINO), {"portable": (ORT, OPENVINO)}),
        ("auto", (ORT, OPENVINO), {"portable": (ORT,), "x86-avx2": (ORT, OPENVINO)}),
        ("auto", (OPENVINO,), {"portable": (ORT,), "x86-avx2": (OPENVINO,)}),
        ("arm64, auto", (ORT,), {"portable": (ORT,), "arm64": (ORT,), "x86-avx2": (ORT,)}),
        (
            "auto",
            (MOBILE, TENSORRT),
            {"portable": (ORT,), "x86-avx2": (ORT,), MOBILE: (ORT, MOBILE), TENSORRT: (ORT, TENSORRT)},
        ),
        ("portable", (OPENVINO,), {"portable": (OPENVINO,)}),
        ("tensorrt", (ORT,), {"portable": (ORT,), TENSORRT: (ORT,)}),
    ],
)
def test_every_target_has_the_runtimes_that_run_it(
    asked: str, runtimes: tuple[str, ...], wanted: dict[str, tuple[str, ...]]
) -> None:
    found = targets_of(Settings({"compress.targets": asked}), runtimes)
    assert found == wanted
    assert next(iter(found)) == "portable"


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("fp32", {"portable": None, "x86-avx512": None, TENSORRT: None}),
        ("fp16, int8", {name: {"fp16", "int8"} for name in ("portable", "x86-avx512", TENSORRT)}),
        ("auto", {"portable": None, "x86-avx512": {"fp32", "int8"}, TENSORRT: {"fp32", "fp16", "int8"}}),
    ],
)
def test_every_target_has_the_precisions_that_were_asked_for_or_its_own(
    asked: str, wanted: dict[str, set[str] | None]
) -> None:
    request = CompressRequest("g.pth", "0.5", precision=asked, min_precision_psnr=20.0)
    material: Any = SimpleNamespace(source=None)
    found = {target: precisions_for(request, target, Settings(), material, 0) for target in wanted}
    assert {target: None if one is None else set(one.names) for target, one in found.items()} == wanted
    assert {one.min_psnr for one in found.values() if one is not None} <= {20.0}


@pytest.mark.parametrize(
    ("asked", "quantize", "message"),
    [
        ("auto,int8", "none", "precision auto takes no other names with it, as in 'auto,int8'"),
        ("int4", "none", "precision must be auto, or some of fp32, fp16, int8, not 'int4'"),
        (
            "auto",
            "8",
            "--quantize 8 trains the 8-bit grids of the file, and --precision auto is for a network in floats",
        ),
    ],
)
def test_precisions_that_make_no_sense_are_refused(asked: str, quantize: Any, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        CompressRequest("g.pth", "0.5", precision=asked, quantize=quantize)
    assert caught.value.message == message


def test_what_cannot_be_exported_is_found_before_anything_long(monkeypatch: pytest.MonkeyPatch) -> None:
    request = CompressRequest("g.pth", "0.5", runtime="tensorrt")
    check_exports(Settings(), request, NETWORK)
    with pytest.raises(ArtifactError, match="opset 23 is too high for the target tensorrt"):
        check_exports(Settings({"export.opset": 23}), request, NETWORK)
    with pytest.raises(ArtifactError, match="a graph of opset 18 cannot be had in opset 13"):
        check_exports(Settings({"export.opset": 13}), request, NETWORK)
    with pytest.raises(SettingError, match="there is no target 'abacus'"):
        check_exports(Settings({"compress.targets": "abacus"}), request, NETWORK)

    def absent(_names: Sequence[str]) -> None:
        raise MissingDependencyError("openvino cannot be imported here")

    monkeypatch.setattr(module, "check_installed", absent)
    with pytest.raises(MissingDependencyError):
        check_exports(Settings(), request, NETWORK)


@pytest.mark.parametrize(("runtime", "quantize"), [("abacus", "none"), ("onnxruntime,", "none"), ("tensorrt", "8")])
def test_a_runtime_that_is_none_or_takes_no_trained_grids_is_refused(runtime: str, quantize: Any) -> None:
    with pytest.raises(SettingError):
        CompressRequest("g.pth", "0.5", runtime=runtime, quantize=quantize)


# --- the record ---


def row(name: str, **more: Any) -> dict[str, Any]:
    precision, target = name.rsplit("/", maxsplit=1)[-1].split(".")[1], name.split("/")[1]
    usual = {"path": name, "target": target, "runtime": ORT, "precision": precision, "accepted": True, "sha256": ""}
    return {**usual, **more}


NAMES = ("export/portable/generator.fp32.onnx", "export/portable/original.fp32.onnx")


@pytest.fixture
def record(tmp_path: Path) -> Exports:
    rows = []
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        rows.append(row(name, sha256=sha256_of(path)))
    (tmp_path / "export/portable/generator.ranges.json").write_text("{}")
    parents = {**dict.fromkeys(NAMES), "export/portable/generator.ranges.json": rows[0]["sha256"]}
    made = Exports(tuple(rows), parents, {"disk": {}}, {"original": 2, "compressed": 1})
    write_json(tmp_path / RECORD_FILE, made.to_json())
    return made


def test_what_was_exported_is_known_again(record: Exports, tmp_path: Path) -> None:
    assert known_exports(tmp_path) == record
    assert (record.portable("original"), record.portable("compressed")) == (NAMES[1], NAMES[0])
    assert [is_original(one) for one in record.artifacts] == [False, True]


@pytest.mark.parametrize("harm", ["changed", "gone", "ranges gone", "no record", "damaged", "other schema"])
def test_what_is_not_as_it_was_exported_is_exported_again(record: Exports, tmp_path: Path, harm: str) -> None:
    file, path = tmp_path / NAMES[0], tmp_path / RECORD_FILE
    if harm == "changed":
        file.write_text("another")
    elif harm == "gone":
        file.unlink()
    elif harm == "ranges gone":
        (tmp_path / "export/portable/generator.ranges.json").unlink()
    elif harm == "no record":
        path.unlink()
    elif harm == "damaged":
        path.write_text(path.read_text()[:50])
    else:
        path.write_text(json.dumps({**record.to_json(), "schema": "mggc-edge/exported/0"}))
    assert known_exports(tmp_path) is None


# --- latency ---


def exports_of(*rows: dict[str, Any]) -> Exports:
    return Exports(rows, {}, {}, {})


def test_files_of_this_machine_are_measured_and_only_accepted_ones(tmp_path: Path) -> None:
    place = "export/x86-avx2"
    found = candidates(
        tmp_path,
        exports_of(
            row("export/portable/generator.fp32.onnx"), row("export/portable/original.fp32.onnx"),
            row(f"{place}/generator.fp32.onnx"), row(f"{place}/generator.fp16.onnx", accepted=False),
            row(f"{place}/generator.int8.onnx"), row(f"{place}/original.fp32.onnx"),
            row(f"{place}/openvino/generator.int8.onnx", target="x86-avx2", runtime=OPENVINO),
            row(f"{place}/openvino/original.fp32.onnx", target="x86-avx2", runtime=OPENVINO),
            row("export/tensorrt/tensorrt/generator.fp32.onnx", runtime=TENSORRT),
        ),
        TABLES,
    )  # fmt: skip
    named = {
        side: [(model.name, model.path.relative_to(tmp_path).as_posix()) for model in models]
        for side, models in found.items()
    }
    assert named == {
        "original": [
            ("original", f"{place}/original.fp32.onnx"), ("original openvino", f"{place}/openvino/original.fp32.onnx"),
        ],
        "compressed": [
            ("compressed", f"{place}/generator.fp32.onnx"), ("compressed int8", f"{place}/generator.int8.onnx"),
            ("compressed openvino int8", f"{place}/openvino/generator.int8.onnx"),
        ],
    }  # fmt: skip
    assert found["original"][0].macs_true == 4_767_744 > (found["compressed"][0].macs_true or 0) > 0


def test_engines_that_were_built_here_are_measured(tmp_path: Path) -> None:
    names = [f"export/portable/{side}.fp32.onnx" for side in ("generator", "original")]
    bundle = "export/tensorrt/tensorrt"
    built = row(f"{bundle}/engines/generator.fp16.engine", runtime=TENSORRT)
    left = row(f"{bundle}/generator.int8.onnx", runtime=TENSORRT, reason="to be built on the device")
    found = candidates(tmp_path, exports_of(*map(row, names), built, left), TABLES)
    assert [model.name for models in found.values() for model in models] == [
        "original", "compressed", "compressed tensorrt fp16",
    ]  # fmt: skip


def test_a_run_of_another_machine_is_measured_with_its_portable_files(tmp_path: Path) -> None:
    names = [
        f"export/{target}/{side}.fp32.onnx" for target in ("portable", "arm64") for side in ("generator", "original")
    ]
    found = candidates(tmp_path, exports_of(*map(row, names)), TABLES)
    assert [model.path.parent.name for models in found.values() for model in models] == ["portable", "portable"]


def test_a_trained_8_bit_generator_is_called_compressed(tmp_path: Path) -> None:
    names = ("export/portable/generator.int8.onnx", "export/portable/original.fp32.onnx")
    found = candidates(tmp_path, exports_of(*map(row, names)), TABLES)
    assert [model.name for models in found.values() for model in models] == ["original", "compressed"]


class Measured:
    """A measurement that gives every model its latency in ms."""

    def __init__(self, latencies: dict[str, int], disturbed: Sequence[str] = ()) -> None:
        self._latencies, self._disturbed = latencies, disturbed
        self.asked: list[tuple[list[str], int]] = []

    def __call__(self, models: Sequence[Workload], *, pairs: int, **_: Any) -> BenchmarkReport:
        self.asked.append(([model.name for model in models], pairs))
        codes = {model.name: ("preempted",) if model.name in self._disturbed else () for model in models}
        runs = [run_of(name, [[[self._latencies[name]]]] * 5, warnings=found) for name, found in codes.items()]
        return BenchmarkReport({}, tuple(runs), 0.05)


def sides(original: Sequence[str], compressed: Sequence[str]) -> dict[str, list[Workload]]:
    both = {"original": original, "compressed": compressed}
    return {side: [Workload(name, Path(f"{name}.onnx")) for name in names] for side, names in both.items()}


def test_the_fastest_of_both_sides_stand_first(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Measured({"a": 90, "b": 80, "x": 9, "y": 7, "z": 100})
    monkeypatch.setattr(latency, "measure", measured)
    report = measure_fastest(sides(["a", "b"], ["x", "y", "z"]), EXTENT, seed=0)
    assert [run.model.name for run in report.runs] == ["b", "y", "x", "a", "z"]
    assert measured.asked == [(["a", "b", "x", "y", "z"], 40)]


@pytest.mark.parametrize("disturbed", ["a", "b", "x", "y"])
def test_which_is_the_fastest_is_not_known_where_one_of_them_was_disturbed(
    monkeypatch: pytest.MonkeyPatch, disturbed: str
) -> None:
    for stopped, verdict in ((disturbed, "inconclusive"), ("", "faster")):
        monkeypatch.setattr(latency, "measure", Measured({"a": 90, "b": 80, "x": 9, "y": 7}, stopped))
        (comparison, *_) = measure_fastest(sides(["a", "b"], ["x", "y"]), EXTENT, seed=0).comparisons
        assert (comparison.a, comparison.b, comparison.verdict) == ("b", "y", verdict)
        assert comparison.disturbed == (("preempted",) if stopped else ())


def test_of_many_files_a_short_measurement_says_which_are_worth_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"c{number}" for number in range(MAX_MODELS + 1)]
    measured = Measured({"a": 90, "b": 80, "o": 500, **{name: 40 - number for number, name in enumerate(many)}})
    monkeypatch.setattr(latency, "measure", measured)
    report = measure_fastest(sides(["a", "b", "o"], many), EXTENT, seed=0)
    assert measured.asked[:3] == [(["a", "b", "o"], 10), (many[:-1], 10), (many[-1:], 10)]
    names, pairs = measured.asked[3]
    assert (len(names), pairs, names[:2]) == (MAX_MODELS, 40, ["b", many[-1]])
    assert set(names) == {"b", *many[2:]}
    assert [run.model.name for run in report.runs][:2] == ["b", many[-1]]
