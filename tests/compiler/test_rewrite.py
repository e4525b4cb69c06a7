"""Any ONNX file is rewritten for a target, and proven equal to what it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.artifacts import read_manifest
from mggc_edge.compiler import rewrite, rewrite_proof
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.facts import onnx_facts
from mggc_edge.compiler.finishing import random_pictures
from mggc_edge.compiler.passes.contract import apply_passes
from mggc_edge.compiler.rewrite import Rewritten, rewrite_folder
from mggc_edge.errors import ArtifactError, CheckFailedError, SettingError
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.settings import Settings
from mggc_edge.tensors import Array
from tests.compiler.export_helpers import FOLDERS, SIZE, exported
from tests.compiler.passes.pass_helpers import Shape, build, random

SMALL = resnet_spec(blocks=1, ngf=4)


@pytest.fixture(scope="module", autouse=True)
def folder_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDERS.append(tmp_path_factory.mktemp("exports"))


def network(shape: Shape = (1, 3, 16, 24), *, kind: int = TensorProto.FLOAT, gain: float = 0.05) -> onnx.ModelProto:
    """Reflection and a 7x7 convolution to 3 channels; `gain` makes its values large or small."""
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"], mode="reflect"),
        helper.make_node("Conv", ["p", "w"], ["y"]),
    ]
    constants = {"w": (random(3, 3, 7, 7) * gain).astype(dtype), "pads": np.array([0, 0, 3, 3, 0, 0, 3, 3])}
    return build(nodes, shape, constants, kind=kind)


def saved(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def rewritten(
    source: Path, folder: Path, *, size: tuple[int, int] | None = None, target: str = "x86-avx512", **more: object
) -> Rewritten:
    settings = Settings({"export.simplify": False, **{f"export.{name}": value for name, value in more.items()}})
    return rewrite_folder(
        source, folder, target=target, settings=settings, image_size=size, command="export", effective={}, seed=3
    )


def test_the_folder_holds_the_new_file_the_old_one_and_the_manifest(tmp_path: Path) -> None:
    source = saved(tmp_path / "g.onnx", network())
    result = rewritten(source, tmp_path / "out")
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {
        "manifest.json", "export/x86-avx512/generator.fp32.onnx", "export/x86-avx512/original.fp32.onnx",
    }  # fmt: skip
    assert (tmp_path / "out/export/x86-avx512/original.fp32.onnx").read_bytes() == source.read_bytes()
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    manifest = read_manifest(tmp_path / "out")
    assert (manifest["source_sha256"], manifest["settings"]["target"]) == (sha256, "x86-avx512")
    assert manifest["files"][0]["parent"] == sha256
    assert result.generator.artifact.path == tmp_path / "out/export/x86-avx512/generator.fp32.onnx"
    assert result.generator.parity.passed
    assert (result.generator.parity.images, result.generator.parity.atol) == (2, 1e-4)


def test_macs_are_those_of_the_file_before_and_what_is_executed_is_told_apart(tmp_path: Path) -> None:
    result = rewritten(saved(tmp_path / "g.onnx", network()), tmp_path / "out")
    true, executed = 3 * 3 * 49 * 16 * 24, 12 * 3 * 64 * 8 * 12
    assert (result.before.macs_true, result.generator.macs_executed) == (true, executed)
    after = onnx_facts(result.generator.artifact.path)
    assert (after.macs_true, after.macs_paper, after.macs_executed) == (true, true, executed)
    assert after.metadata["passes"] == "thin_layer,depth_to_space"
    again = rewritten(result.generator.artifact.path, tmp_path / "again")
    third = onnx_facts(again.generator.artifact.path)
    assert (third.macs_true, third.metadata["passes"]) == (true, "thin_layer,depth_to_space")
    assert [report.applied for report in again.generator.passes] == [0] * 6


@pytest.mark.parametrize("claim", ["1" * 30, "0", "-5", "many", "9" * 5000])
def test_a_claim_above_what_is_executed_or_no_number_is_not_believed(tmp_path: Path, claim: str) -> None:
    model = network()
    metadata = {"mggc_edge.passes": "thin_layer", "mggc_edge.macs_true": claim, "mggc_edge.macs_paper": claim}
    helper.set_model_props(model, metadata)
    assert onnx_facts(saved(tmp_path / "g.onnx", model)).macs_true == 3 * 3 * 49 * 16 * 24


def said_of_pictures(path: Path) -> dict[str, object]:
    keys = ("input_format", "output_format")
    return {key: json.loads(text) for key, text in onnx_facts(path).metadata.items() if key in keys}


def test_what_the_user_says_of_pictures_goes_with_the_new_file_and_into_its_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[tuple[float, float]] = []

    def pictures(*arguments: Any) -> Iterator[Array]:
        fed.append(arguments[4])
        return random_pictures(*arguments)

    monkeypatch.setattr(rewrite_proof, "random_pictures", pictures)
    source = saved(tmp_path / "g.onnx", network())
    result = rewritten(source, tmp_path / "out", picture_range="0,255", picture_color="BGR")
    form = {"channels": 3, "color": "BGR", "low": 0.0, "high": 255.0}
    assert said_of_pictures(result.generator.artifact.path) == {"input_format": form, "output_format": form}
    again = rewritten(result.generator.artifact.path, tmp_path / "again")  # which says it itself
    assert said_of_pictures(again.generator.artifact.path) == {"input_format": form, "output_format": form}
    assert set(fed) == {(0.0, 255.0)}
    assert said_of_pictures(rewritten(source, tmp_path / "silent").generator.artifact.path) == {}


def test_what_a_file_says_of_its_pictures_stays(tmp_path: Path) -> None:
    model, form = network(), {"channels": 3, "color": "RGB", "low": 0.0, "high": 1.0}
    helper.set_model_props(model, {"mggc_edge.input_format": json.dumps(form)})
    result = rewritten(saved(tmp_path / "g.onnx", model), tmp_path / "out", picture_range="0,255")
    found = said_of_pictures(result.generator.artifact.path)
    assert found == {"input_format": form, "output_format": {**form, "high": 255.0}}


def test_a_network_of_other_channels_takes_no_pictures_that_could_be_described(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    model = build(nodes, (1, 5, 8, 8), {"w": random(3, 5, 1, 1).astype(np.float32)}, kind=TensorProto.FLOAT)
    result = rewritten(saved(tmp_path / "g.onnx", model), tmp_path / "out", picture_range="0,255")
    assert said_of_pictures(result.generator.artifact.path) == {}


def test_a_file_of_ours_keeps_its_metadata_and_its_count(tmp_path: Path) -> None:
    source = exported(SMALL, ExportSettings(image_size=SIZE)).artifact.path
    result = rewritten(source, tmp_path / "out")
    before, after = onnx_facts(source), onnx_facts(result.generator.artifact.path)
    assert (after.spec, after.macs_true) == (before.spec, before.macs_true)
    assert after.macs_executed is not None
    assert before.macs_executed is not None
    assert after.macs_executed > before.macs_executed
    assert before.metadata["target"] == "portable"
    assert (after.metadata["target"], after.metadata["bn"]) == ("x86-avx512", "eval")
    assert after.metadata["parent_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_open_sizes_are_fixed_to_the_size_that_is_given(tmp_path: Path) -> None:
    source = saved(tmp_path / "g.onnx", network(("batch", 3, "height", "width")))
    with pytest.raises(ArtifactError, match="takes pictures of any size") as caught:
        rewritten(source, tmp_path / "out")
    assert caught.value.hint == "give one with --image-size"
    result = rewritten(source, tmp_path / "out", size=(16, 24), simplify=True)
    assert result.generator.artifact.inputs[0].shape == (None, 3, 16, 24)
    assert result.generator.artifact.outputs[0].shape[2:] == (16, 24)
    assert (result.before.macs_true, result.generator.remarks) == (3 * 3 * 49 * 16 * 24, ())
    assert [report.applied for report in result.generator.passes][3:] == [1, 0, 1]


def test_the_tolerance_grows_with_outputs_that_reach_beyond_1(tmp_path: Path) -> None:
    result = rewritten(saved(tmp_path / "g.onnx", network(gain=50)), tmp_path / "out")
    assert result.generator.parity.atol is not None
    assert 1e-2 < result.generator.parity.atol < 1


def test_without_passes_the_graph_is_as_it_was(tmp_path: Path) -> None:
    result = rewritten(saved(tmp_path / "g.onnx", network()), tmp_path / "out", passes="none")
    assert (result.generator.passes, result.generator.parity.identical) == ((), True)


def broken(tmp_path: Path) -> dict[str, Path]:
    two = build([helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Tanh", ["x"], ["z"])], (1, 3, 8, 8),
                kind=TensorProto.FLOAT, outputs=("y", "z"))  # fmt: skip
    quantized = build(
        [
            helper.make_node("QuantizeLinear", ["x", "scale"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]),
        ],
        (1, 3, 8, 8),
        {"scale": np.array(0.1, np.float32)},
        kind=TensorProto.FLOAT,
    )
    inside = build(
        [
            helper.make_node(
                "Constant", [], ["w"], value=onnx.numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float16))
            ),
            helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
            helper.make_node("Conv", ["h", "w"], ["c"]),
            helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
        ],
        (1, 3, 8, 8),
        kind=TensorProto.FLOAT,
    )
    number = build([helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)], (1, 3, 8, 8), kind=TensorProto.FLOAT)
    said = onnx.ModelProto()
    said.CopyFrom(number)
    del said.graph.output[0].type.tensor_type.shape.dim[:]
    pixels = build([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], (1, 3, 8, 8), kind=TensorProto.FLOAT)
    pixels.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    constant = build([helper.make_node("Relu", ["x"], ["z"])], (1, 3, 8, 8), {"y": np.ones((1, 3, 8, 8), np.float32)},
                     kind=TensorProto.FLOAT)  # fmt: skip
    models = {
        "half in a node": inside, "number": number, "number said": said, "bytes": pixels, "constant": constant,
        "half": network(kind=TensorProto.FLOAT16), "two": two, "int8": quantized, "fixed": network(),
        "wide": build([helper.make_node("Relu", ["x"], ["y"])], (1, None, 8, 8), kind=TensorProto.FLOAT),
    }  # fmt: skip
    return {name: saved(tmp_path / f"{name}.onnx", model) for name, model in models.items()}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("half", "is no float32 network: fp16"),
        ("int8", "is no float32 network: int8"),
        ("half in a node", "is no float32 network: fp16"),
        ("bytes", "is no float32 network: uint8 to float32"),
        ("two", "does not turn one picture [N, C, H, W] into one picture [N, C, H, W]"),
        ("number", "does not turn one picture [N, C, H, W] into one picture [N, C, H, W]"),
        ("number said", "does not turn one picture [N, C, H, W] into one picture [N, C, H, W]"),
        ("constant", "does not turn one picture [N, C, H, W] into one picture [N, C, H, W]"),
        ("wide", "leaves open how many channels its pictures have"),
        ("fixed", "takes pictures of 16x24 only"),
    ],
)
def test_what_is_not_rewritten_is_refused_by_name(tmp_path: Path, name: str, reason: str) -> None:
    source = broken(tmp_path)[name]
    with pytest.raises(ArtifactError) as caught:
        rewritten(source, tmp_path / "out", size=(32, 24) if name == "fixed" else None)
    assert caught.value.message == f"'{source}' {reason}"
    assert not (tmp_path / "out").exists()


def test_an_unknown_pass_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="names 'x'"):
        rewritten(tmp_path / "nowhere.onnx", tmp_path / "out", passes="x")


def test_a_graph_that_passes_stumble_over_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(model: onnx.ModelProto, passes: object) -> object:
        raise ValueError("one\ntwo")

    monkeypatch.setattr(rewrite, "apply_passes", stumble)
    source = saved(tmp_path / "g.onnx", network())
    with pytest.raises(ArtifactError, match="cannot be rewritten") as caught:
        rewritten(source, tmp_path / "out")
    assert caught.value.message == f"'{source}' cannot be rewritten: one"
    assert caught.value.hint == "leave the passes out: --set export.passes=none"


def test_a_rewrite_that_is_not_exact_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: onnx.ModelProto, passes: object) -> object:
        other, reports = apply_passes(model, ())
        weight = next(tensor for tensor in other.graph.initializer if tensor.name == "w")
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.01), "w"))
        return other, reports

    monkeypatch.setattr(rewrite, "apply_passes", wrong)
    with pytest.raises(CheckFailedError, match=r"^the rewritten 'generator.fp32.onnx' does not equal") as caught:
        rewritten(saved(tmp_path / "g.onnx", network()), tmp_path / "out")
    assert caught.value.hint == "leave the passes out: --set export.passes=none, or name fewer of them"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("passes", ["auto", "none"])
@pytest.mark.parametrize("operator", ["Sqrt", "Exp"])
def test_a_file_that_itself_gives_no_finite_values_is_named(tmp_path: Path, operator: str, passes: str) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node(operator, ["c"], ["y"])]
    constants = {"w": (random(3, 3, 1, 1) * 1e4).astype(np.float32)}
    source = saved(tmp_path / "g.onnx", build(nodes, (1, 3, 8, 8), constants, kind=TensorProto.FLOAT))
    with pytest.raises(ArtifactError) as caught:
        rewritten(source, tmp_path / "out", passes=passes)
    assert caught.value.message == (
        f"'{source}' itself gives values that are not finite, so that no other file can be proven equal to it"
    )
    assert caught.value.hint is not None
    assert not (tmp_path / "out").exists()


def test_a_later_picture_without_finite_values_is_the_files_own_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pictures(*_: object) -> Iterator[Array]:
        return iter([np.ones((1, 3, 8, 8), np.float32), -np.ones((1, 3, 8, 8), np.float32)])

    monkeypatch.setattr(rewrite_proof, "random_pictures", pictures)
    nodes = [helper.make_node("Sqrt", ["x"], ["y"])]
    source = saved(tmp_path / "g.onnx", build(nodes, (1, 3, 8, 8), kind=TensorProto.FLOAT))
    with pytest.raises(ArtifactError, match="itself gives values that are not finite"):
        rewritten(source, tmp_path / "out")


def test_what_onnx_runtime_cannot_run_is_named_as_it_was_given(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="first", group=3)]
    model = build(nodes, (1, 3, 8, 8), {"w": np.ones((3, 3, 1, 1), np.float32)}, kind=TensorProto.FLOAT)
    twice = build(
        [helper.make_node("Relu", ["x"], ["r"], name="same"), helper.make_node("Relu", ["r"], ["y"], name="same")],
        (1, 3, 8, 8), kind=TensorProto.FLOAT,
    )  # fmt: skip
    for name, broken_model, words in (("a", model, "failed while running"), ("b", twice, "cannot run")):
        source = saved(tmp_path / f"{name}.onnx", broken_model)
        with pytest.raises(ArtifactError) as caught:
            rewritten(source, tmp_path / "out")
        assert caught.value.message.startswith(f"ONNX Runtime {words} '{source}': [ONNXRuntimeError]")
        assert "partial" not in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.hint == "is it complete, and does the tool that wrote it run it?"


def test_a_new_file_that_cannot_be_run_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: onnx.ModelProto, passes: object) -> object:
        model.graph.node[0].name = model.graph.node[1].name = "same"
        return model, ()

    monkeypatch.setattr(rewrite, "apply_passes", wrong)
    source = saved(tmp_path / "g.onnx", network())
    with pytest.raises(ArtifactError) as caught:
        rewritten(source, tmp_path / "out")
    start = f"'{source}' cannot be run once it is rewritten: ONNX Runtime cannot run 'generator.fp32.onnx'"
    assert caught.value.message.startswith(start)
    assert str(tmp_path / ".out") not in caught.value.message
    assert caught.value.hint == "leave the passes out: --set export.passes=none, or name fewer of them"


def test_size_and_parameters_are_those_of_each_file(tmp_path: Path) -> None:
    source = saved(tmp_path / "g.onnx", network())
    result = rewritten(source, tmp_path / "out")
    assert result.source_bytes == source.stat().st_size < result.generator.artifact.size_bytes
    assert (result.before.parameters, result.after.parameters) == (3 * 3 * 49, 12 * 3 * 64)
