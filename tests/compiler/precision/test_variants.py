"""fp16 and int8 files beside an fp32 one: what is written, and what becomes of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.artifacts import OnnxArtifact, sha256_of
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.calibration.ranges import ActivationRanges
from mggc_edge.calibration.samples import Wanted, built_in
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.facts import onnx_facts
from mggc_edge.compiler.finishing import written_artifact
from mggc_edge.compiler.precision import variants as module
from mggc_edge.compiler.precision.judge import Speed
from mggc_edge.compiler.precision.variants import Variant, make_variants, measure_variants, with_speeds
from mggc_edge.compiler.precision.wanted import MIN_PSNR, Precisions, chosen_from
from mggc_edge.compiler.tensorrt_lint import lint_file
from mggc_edge.errors import ArtifactError, PictureError, SettingError
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pictures import PictureFormat
from mggc_edge.settings import Settings
from tests.compiler.export_helpers import FOLDERS, SIZE, exported
from tests.compiler.passes.pass_helpers import build
from tests.compiler.precision.precision_helpers import operators_in_onnxruntime, three_convolutions

RESNET = resnet_spec(blocks=1, ngf=8)
UNET = unet_spec(halvings=5, ngf=8, norm="batch")
X86 = ExportSettings(image_size=SIZE, target="x86-avx512", simplify=False)


@pytest.fixture(scope="module", autouse=True)
def folder_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDERS.append(tmp_path_factory.mktemp("exports"))


def fp32(folder: Path, spec: NetworkSpec = RESNET, settings: ExportSettings = X86) -> OnnxArtifact:
    """A copy of an export under the name that it has in a run folder."""
    artifact = exported(spec, settings).artifact
    path = folder / "generator.fp32.onnx"
    path.write_bytes(artifact.path.read_bytes())
    return replace(artifact, path=path)


def wanted(*names: str, min_psnr: float = 30.0, **more: object) -> Precisions:
    """Of 8 built-in pictures to observe and 3 to judge by; settings with `_` for the point."""
    settings = Settings({name.replace("_", ".", 1): value for name, value in more.items()})
    return Precisions(names, lambda size, format_: built_in(size, format_, Wanted(8, 3)), min_psnr, settings)


def make(artifact: OnnxArtifact, precisions: Precisions, *, target: str = "portable") -> tuple[Variant, ...]:
    """Make files of other precisions, and measure those that are near enough, as an export does."""
    made = make_variants(artifact, precisions, target=target, tell=lambda _: None)
    files = {one.artifact.precision: one.artifact.path for one in made if one.near}
    found = measure_variants(
        artifact.path, files, precisions, target=target, runtime="onnxruntime", seed=0, tell=lambda _: None
    )
    return with_speeds(made, found)


@pytest.mark.parametrize(
    ("spec", "least", "convolutions"), [(RESNET, 33.0, 5), (UNET, 40.0, 9)], ids=["resnet", "unet"]
)
def test_int8_of_an_untrained_small_network_reaches_these_decibels_with_its_convolutions_in_int8(
    tmp_path: Path, spec: NetworkSpec, least: float, convolutions: int
) -> None:
    (int8,) = make(fp32(tmp_path, spec), wanted("int8", min_psnr=least))
    assert int8.accepted, int8.reason
    assert int8.difference.psnr is not None
    assert int8.difference.psnr > least
    found = operators_in_onnxruntime(onnx.load(int8.artifact.path), tmp_path)
    assert found["QLinearConv"] == convolutions


def test_fp16_keeps_norms_in_float32_and_is_nearer_than_sixty_decibels(tmp_path: Path) -> None:
    (fp16,) = make(fp32(tmp_path), wanted("fp16", min_psnr=60.0))
    assert fp16.accepted, fp16.reason
    assert {reason for _, reason in fp16.in_float} == {"norms square their input, which float16 does not hold"}
    norms = [node for node in onnx.load(fp16.artifact.path).graph.node if node.op_type == "InstanceNormalization"]
    assert [name for name, _ in fp16.in_float] == [node.name for node in norms]
    assert fp16.artifact.size_bytes < 0.6 * exported(RESNET, X86).artifact.size_bytes


def test_files_lie_beside_the_fp32_one_with_their_lineage_and_the_ranges(tmp_path: Path) -> None:
    artifact = fp32(tmp_path)
    both = make(artifact, wanted("fp32", "fp16", "int8", "int8"))
    assert [one.artifact.path.name for one in both] == ["generator.fp16.onnx", "generator.int8.onnx"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "generator.fp32.onnx", "generator.fp16.onnx", "generator.int8.onnx", "generator.ranges.json"
    }  # fmt: skip
    for one in both:
        facts = onnx_facts(one.artifact.path)
        assert facts.precision == facts.metadata["precision"] == one.artifact.precision
        assert facts.metadata["parent_sha256"] == one.artifact.parent_sha256 == artifact.sha256
        assert (facts.spec, facts.macs_true) == (RESNET, onnx_facts(artifact.path).macs_true)
        assert one.artifact.sha256 == sha256_of(one.artifact.path)
        assert json.loads(facts.metadata["calibration"])["sha256"] == one.calibration["sha256"]
    ranges = ActivationRanges.from_json(json.loads((tmp_path / "generator.ranges.json").read_text()))
    assert (ranges.pictures, ranges.pictures_sha256) == (8, both[1].calibration["sha256"])
    assert (ranges.method, both[0].calibration["method"]) == (both[1].calibration["method"], "min-max")
    again = tmp_path / "again"
    again.mkdir()
    assert [one.artifact.sha256 for one in make(fp32(again), wanted("fp16", "int8"))] == [
        one.artifact.sha256 for one in both
    ]


def test_a_file_below_the_psnr_is_rejected_stays_and_says_which_layers_cost_most(tmp_path: Path) -> None:
    (int8,) = make(fp32(tmp_path), wanted("int8", min_psnr=60.0))
    psnr = int8.difference.psnr
    assert psnr is not None
    assert int8.reason == f"PSNR to the float output {psnr:.1f} dB, below 60 dB"
    assert int8.artifact.path.is_file()
    verdict = int8.verdict()
    assert (verdict["accepted"], verdict["reason"], verdict["psnr"]) == (False, int8.reason, psnr)
    assert int8.sensitivity is not None
    alone = [one.alone for one in int8.sensitivity.layers]
    assert alone == sorted(alone, key=lambda value: value or 0)
    assert len(alone) == 5
    json.dumps(verdict, allow_nan=False)


def test_layers_are_left_in_float_until_it_passes_where_that_is_asked_for(tmp_path: Path) -> None:
    (plain,) = make(fp32(tmp_path), wanted("int8", quantize_sensitivity="always"))
    assert plain.sensitivity is not None
    assert (plain.accepted, plain.sensitivity.keep_float, plain.sensitivity.psnr) == (True, (), plain.difference.psnr)
    assert plain.difference.psnr is not None
    least = plain.difference.psnr + 0.5
    (auto,) = make(fp32(tmp_path), wanted("int8", min_psnr=least, quantize_keep_float="auto"))
    assert auto.accepted, auto.reason
    assert auto.sensitivity is not None
    assert auto.sensitivity.keep_float
    asked = [name for name, reason in auto.in_float if reason == "left in float as asked for"]
    assert sorted(asked) == sorted(auto.sensitivity.keep_float)
    assert auto.difference.psnr == pytest.approx(auto.sensitivity.psnr)
    (named,) = make(fp32(tmp_path), wanted("int8", quantize_keep_float=", ".join(asked)))
    assert named.artifact.sha256 == auto.artifact.sha256
    (never,) = make(fp32(tmp_path), wanted("int8", min_psnr=60.0, quantize_sensitivity="never"))
    assert (never.accepted, never.sensitivity) == (False, None)


def test_a_last_layer_in_8_bits_is_rejected_where_it_bands(tmp_path: Path) -> None:
    (int8,) = make(fp32(tmp_path), wanted("int8", quantize_last_layer="int8"))
    assert int8.difference.step > 1
    assert int8.reason == (
        f"its last layer bands: from one value to the next it is {int8.difference.step:.1f} of 255 levels"
    )


@pytest.mark.parametrize(("said", "white"), [("", 1.0), ("0,255", 255.0)])
def test_pictures_of_a_file_from_elsewhere_have_the_values_that_the_user_says_and_otherwise_it_is_noted(
    tmp_path: Path, said: str, white: float
) -> None:
    path = tmp_path / "generator.fp32.onnx"
    path.write_bytes(three_convolutions().SerializeToString())
    with OnnxRuntimeRunner(path) as runner:
        tensors = runner.inputs, runner.outputs
    artifact = written_artifact(path, tensors=tensors, precision="fp32", parent_sha256=None, settings={})
    told: list[str] = []
    how = wanted("int8", calibration_method="min-max", quantize_sensitivity="never", export_picture_range=said)
    make_variants(artifact, how, target="portable", tell=told.append)
    ranges = ActivationRanges.from_json(json.loads((tmp_path / "generator.ranges.json").read_text()))
    assert white / 2 < ranges.of("x")[1] <= white
    assert (ranges.of("x")[0] < 0) is (not said)
    assert any("does not say which values black and white have" in line for line in told) is (not said)


def measured(monkeypatch: pytest.MonkeyPatch, verdicts: Mapping[str, str]) -> list[list[str]]:
    """Let measurements say this of precisions; return what was measured."""
    asked: list[list[str]] = []

    def speeds(_reference: Path, candidates: Mapping[str, Path], *_: Any) -> dict[str, Speed]:
        asked.append(list(candidates))
        return {name: Speed(verdicts[name], 1.02, (0.98, 1.05), None) for name in candidates}

    monkeypatch.setattr(module, "speeds", speeds)
    return asked


def test_speed_is_measured_where_the_target_is_this_machine_and_what_is_not_faster_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "this_target", lambda: "x86-avx512")
    asked = measured(monkeypatch, {"fp16": "same", "int8": "faster"})
    fp16, int8 = make(fp32(tmp_path), wanted("fp16", "int8"), target="x86-avx512")
    assert asked == [["fp16", "int8"]]
    assert fp16.reason == "not faster than float here: 1.02 times as fast (99 % interval 0.98 to 1.05)"
    assert (int8.accepted, int8.verdict()["reason"], int8.verdict()["speed"]["verdict"]) == (True, None, "faster")


@pytest.mark.parametrize(
    ("target", "how", "measures"),
    [("portable", "auto", 0), ("portable", "always", 1), ("x86-avx512", "never", 0), ("x86-avx512", "auto", 1)],
)
def test_elsewhere_it_is_said_that_speed_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, how: str, measures: int
) -> None:
    monkeypatch.setattr(module, "this_target", lambda: "x86-avx512")
    asked = measured(monkeypatch, {"fp16": "faster"})
    (fp16,) = make(fp32(tmp_path), wanted("fp16", precision_speed=how), target=target)
    assert len(asked) == measures
    assert fp16.verdict()["reason"] == (None if measures else "speed not measured here")


def test_a_measurement_that_fails_costs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> Mapping[str, Speed]:
        raise ArtifactError("the process that measures 'fp16' ended by SIGKILL")

    monkeypatch.setattr(module, "speeds", killed)
    (fp16,) = make(fp32(tmp_path), wanted("fp16", precision_speed="always"))
    said = "its speed could not be measured: the process that measures 'fp16' ended by SIGKILL"
    assert (fp16.accepted, fp16.verdict()["reason"], fp16.verdict()["speed"]["verdict"]) == (True, said, None)


def test_a_file_that_was_rejected_for_its_pictures_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measured(monkeypatch, {})
    (int8,) = make(
        fp32(tmp_path), wanted("int8", min_psnr=90.0, precision_speed="always", quantize_sensitivity="never")
    )
    assert (asked, int8.accepted) == ([], False)


def test_an_8_bit_file_and_a_graph_without_convolutions_to_quantize_are_refused(tmp_path: Path) -> None:
    (int8,) = make(fp32(tmp_path), wanted("int8"))
    with pytest.raises(ArtifactError, match=r"^'generator\.int8\.onnx' is in int8 already") as again:
        make(int8.artifact, wanted("int8"))
    assert again.value.hint == "give the network in floats that it was made from, or leave out --precision"
    names = ",".join(name for name in _convolutions(tmp_path))
    with pytest.raises(ArtifactError, match=r"^no convolution of 'generator\.fp32\.onnx' can be quantized") as none:
        make(fp32(tmp_path), wanted("int8", quantize_keep_float=names))
    assert none.value.hint == "leave out int8"
    (tmp_path / "generator.fp32.onnx").write_bytes(b"\x08" * 50)
    with pytest.raises(ArtifactError, match="is not a valid ONNX file"):
        make(replace(exported(RESNET, X86).artifact, path=tmp_path / "generator.fp32.onnx"), wanted("int8"))


def test_for_tensorrt_convolutions_of_few_channels_stay_in_float_unless_there_are_no_others(tmp_path: Path) -> None:
    quick = wanted("int8", calibration_method="min-max", quantize_sensitivity="never")
    settings = replace(X86, target="tensorrt")
    for spec, thin, slow in ((RESNET, 1, 0), (resnet_spec(blocks=1, ngf=2), 0, 5)):
        (int8,) = make_variants(fp32(tmp_path, spec, settings), quick, target="tensorrt", tell=lambda _: None)
        reasons = [reason for _, reason in int8.in_float]
        assert reasons.count("it has too few channels to be faster in 8 bits") == thin
        found = [finding.rule for finding in lint_file(int8.artifact.path)]
        assert found.count("int8_channels") == slow


def _convolutions(folder: Path) -> list[str]:
    nodes = onnx.load(fp32(folder).path).graph.node
    return [node.name for node in nodes if node.op_type in ("Conv", "ConvTranspose")]


def test_built_in_pictures_are_taken_and_named_where_there_is_no_folder(tmp_path: Path) -> None:
    told: list[str] = []
    settings = Settings({"calibration.pictures": 3, "calibration.held_out": 2})
    rgb = PictureFormat(3, "RGB")
    samples = chosen_from(None, settings, 1, told.append)((16, 16), rgb)
    assert (samples.where, samples.observed_count, samples.held_out_count) == ("built-in", 3, 2)
    assert told == [
        "note: no --calibration pictures were given; other precisions are calibrated and judged on built-in ones"
    ]
    with pytest.raises(PictureError, match="there is no folder"):
        chosen_from(tmp_path / "none", settings, 1, told.append)


def test_what_is_no_precision_and_no_psnr_cannot_be_wanted() -> None:
    with pytest.raises(SettingError, match="'fp64' is no precision"):
        wanted("fp64")
    with pytest.raises(SettingError, match="--min-precision-psnr must be a number of dB from 0 to 1000, not -1"):
        wanted("int8", min_psnr=-1.0)
    assert CompressRequest("m", "0.5").min_precision_psnr == MIN_PSNR


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (2, 3, 16, 16),
            "'generator.fp32.onnx' takes 2 pictures at once, and other precisions are made from files of one",
        ),
        (
            (1, 16, 16, 3),
            "'generator.fp32.onnx' takes [N, H, W, C], and other precisions are made from files that take [N, C, H, W]",
        ),
    ],
)
def test_files_of_several_pictures_or_with_channels_last_are_refused_before_anything_is_made(
    tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    path = tmp_path / "generator.fp32.onnx"
    onnx.save(build([helper.make_node("Relu", ["x"], ["y"])], shape, {}, kind=TensorProto.FLOAT), path)
    artifact = replace(exported(RESNET, X86).artifact, path=path)
    with pytest.raises(ArtifactError) as caught:
        make_variants(artifact, wanted("fp16"), target="portable", tell=lambda _: None)
    assert caught.value.message == message
