"""A camera-ready graph takes and gives the bytes that the conversion of pictures would give around the float graph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from mggc_edge.artifacts import METADATA_PREFIX
from mggc_edge.compiler.camera import camera_ready, exact_formula, formats_of, make_camera_ready
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.facts import onnx_facts
from mggc_edge.compiler.finishing import Exported
from mggc_edge.compiler.rewrite import Rewritten, rewrite_folder
from mggc_edge.compiler.to_onnx import to_onnx
from mggc_edge.errors import ArtifactError, CheckFailedError, SettingError, SpecError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pictures import PictureFormat, to_array, to_picture
from mggc_edge.settings import Settings
from mggc_edge.tensors import TensorSpec
from tests.compiler.export_helpers import SIZE, model_of, network_of, spec_id, without_torch_export
from tests.compiler.passes.pass_helpers import Shape, build, random

Bytes = NDArray[np.uint8]
GREY = PictureFormat.for_channels(1)
RGB = PictureFormat.for_channels(3)
BGR = PictureFormat(3, "BGR", 0.0, 1.0)
RGBA = PictureFormat(4, "RGBA", -2.0, 3.0)
SPECS = [
    cartoongan_spec(blocks=1, ngf=4),
    resnet_spec(blocks=1, ngf=4, in_channels=1, out_channels=3),
    unet_spec(halvings=5, ngf=4, norm="instance", in_channels=3, out_channels=1),
]


def run(model: onnx.ModelProto, feed: NDArray[np.generic]) -> NDArray[np.generic]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: feed})
    assert isinstance(output, np.ndarray)
    return output


def identity(form: PictureFormat, shape: Shape | None = None) -> onnx.ModelProto:
    """A graph that gives the values that it takes."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return build([node], shape or (1, form.channels, 16, 16), kind=TensorProto.FLOAT)


def picture_of(pixels: Bytes) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def by_way_of_floats(
    model: onnx.ModelProto, pixels: Bytes, formats: tuple[PictureFormat, PictureFormat]
) -> NDArray[np.int16]:
    """What `mggc_edge.pictures` makes of a float graph: picture -> array -> graph -> array -> picture."""
    feed = to_array(picture_of(pixels), (pixels.shape[0], pixels.shape[1]), formats[0])
    made = np.asarray(to_picture(run(model, feed), formats[1]))
    return made.reshape(*made.shape[:2], -1).astype(np.int16)


def noise(height: int, width: int, channels: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


# --- the two conversions ---


@pytest.mark.parametrize("form", [GREY, RGB, BGR, RGBA, PictureFormat(3, "RGB", 0.0, 100.0)], ids=lambda f: f.color)
def test_all_levels_go_through_unchanged(form: PictureFormat) -> None:
    model = camera_ready(identity(form), form, form)
    pixels = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), form.channels, axis=3)
    pixels = (pixels + np.arange(form.channels, dtype=np.uint8) * 60).astype(np.uint8)
    np.testing.assert_array_equal(run(model, pixels), pixels)


@pytest.mark.parametrize("form", [GREY, RGB, BGR, RGBA, PictureFormat(3, "RGB", 0.0, 100.0)], ids=lambda f: f.color)
def test_a_network_sees_bit_for_bit_what_it_sees_of_a_picture_read_in_floats(form: PictureFormat) -> None:
    model = camera_ready(identity(form), form, form)
    (values,) = (node.input[0] for node in model.graph.node if node.op_type == "Identity")
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(values, TensorProto.FLOAT, [None] * 4))
    pixels = noise(16, 16, form.channels)
    np.testing.assert_array_equal(run(model, pixels[None]), to_array(picture_of(pixels), (16, 16), form))


def test_ranges_whose_formula_is_exact_need_no_table() -> None:
    assert exact_formula(RGB) == (127.5, 127.5)
    assert exact_formula(PictureFormat(3, "RGB", 0.0, 255.0)) == (0, 1)
    odd = PictureFormat(3, "RGB", 0.0, 100.0)
    assert exact_formula(odd) is None
    assert "Div" not in {node.op_type for node in camera_ready(identity(odd), odd, odd).graph.node}


def test_values_beyond_the_range_are_clipped_and_ties_go_to_even_levels() -> None:
    scale = np.array(3.0, np.float32)
    nodes = [helper.make_node("Mul", ["x", "s"], ["y"])]
    loud = build(nodes, (1, 3, 16, 16), {"s": scale}, kind=TensorProto.FLOAT)
    pixels = noise(16, 16, 3)
    ready = run(camera_ready(loud, RGB, RGB), pixels[None])[0]
    assert {0, 255} <= set(ready.reshape(-1).tolist())
    np.testing.assert_array_equal(ready, by_way_of_floats(loud, pixels, (RGB, RGB)))
    plain = PictureFormat(3, "RGB", 0.0, 255.0)
    halves = build(nodes, (1, 3, 16, 16), {"s": np.array(0.5, np.float32)}, kind=TensorProto.FLOAT)
    ready = run(camera_ready(halves, plain, plain), pixels[None])[0]
    assert (pixels % 2).any()
    np.testing.assert_array_equal(ready, np.rint(pixels / 2))


def test_channels_may_differ_between_what_goes_in_and_what_comes_out() -> None:
    weight = random(1, 3, 1, 1).astype(np.float32)
    model = build([helper.make_node("Conv", ["x", "w"], ["y"])], (1, 3, 16, 16), {"w": weight}, kind=TensorProto.FLOAT)
    pixels = noise(16, 16, 3)
    ready = run(camera_ready(model, BGR, GREY), pixels[None])
    assert ready.shape == (1, 16, 16, 1)
    assert np.abs(ready[0] - by_way_of_floats(model, pixels, (BGR, GREY))).max() <= 1


# --- the graph around ---


def test_input_and_output_keep_their_names_and_the_model_that_was_given_survives() -> None:
    model = identity(RGB, ("n", 3, 16, 24))
    before = model.SerializeToString()
    ready = camera_ready(model, RGB, RGB)
    assert model.SerializeToString() == before
    (picture,), (result,) = ready.graph.input, ready.graph.output
    assert (picture.name, result.name) == ("x", "y")
    assert [dim.dim_param or dim.dim_value for dim in picture.type.tensor_type.shape.dim] == ["n", 16, 24, 3]
    assert (ready.graph.node[0].op_type, ready.graph.node[-1].op_type) == ("Cast", "Cast")
    feed = np.stack([noise(16, 24, 3, seed) for seed in range(3)])
    np.testing.assert_array_equal(run(ready, feed), feed)


def test_names_that_are_taken_are_not_taken_again_and_subgraphs_see_the_renamed_picture() -> None:
    shape = [None] * 4
    branches = {
        name: helper.make_graph(
            [helper.make_node(operator, ["x"], [f"{name}_y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, shape)],
        )
        for name, operator in (("then_branch", "Neg"), ("else_branch", "Identity"))
    }
    nodes = [helper.make_node("If", ["yes"], ["x_values"], **branches), helper.make_node("Abs", ["x_values"], ["y"])]
    model = build(nodes, (1, 3, 8, 8), {"yes": np.array(True), "camera_k": np.zeros(1, np.float32)}, kind=1)
    plain = PictureFormat(3, "RGB", 0.0, 255.0)
    pixels = noise(8, 8, 3)[None]
    np.testing.assert_array_equal(run(camera_ready(model, plain, plain), pixels), pixels)


def test_the_metadata_says_what_the_file_takes() -> None:
    model = identity(BGR)
    helper.set_model_props(model, {"other": "kept", f"{METADATA_PREFIX}input_format": json.dumps(BGR.to_json())})
    found = {entry.key: entry.value for entry in camera_ready(model, BGR, BGR).metadata_props}
    form = json.dumps({"channels": 3, "color": "RGB", "low": 0.0, "high": 255.0})
    assert found == {
        "other": "kept", "mggc_edge.io": "uint8", "mggc_edge.input_format": form, "mggc_edge.output_format": form,
    }  # fmt: skip


def test_a_graph_of_bytes_that_gives_other_pictures_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    path.write_bytes(identity(RGB).SerializeToString())
    other = build([helper.make_node("Neg", ["x"], ["y"])], (1, 3, 16, 16), kind=TensorProto.FLOAT)
    with pytest.raises(
        CheckFailedError, match="does not give the pictures of the graph of floats, in levels"
    ) as caught:
        make_camera_ready(path, other, (RGB, RGB), (16, 16), pictures=1)
    assert "wanted was at most 1" in caught.value.message
    assert path.read_bytes() == identity(RGB).SerializeToString()
    assert list(tmp_path.iterdir()) == [path]


# --- exports of networks ---


def both(spec: NetworkSpec, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Exported]:
    """The export of floats and that of bytes."""
    without_torch_export(monkeypatch, spec)
    settings = ExportSettings(image_size=SIZE, target="x86-avx512", simplify=False)
    return [to_onnx(network_of(spec), folder / f"{io}.onnx", replace(settings, io=io)) for io in ("float", "uint8")]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec_id(spec)}-{spec.in_channels}-{spec.out_channels}")
def test_an_export_of_bytes_gives_the_pictures_of_the_float_export(
    spec: NetworkSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain, ready = both(spec, monkeypatch, tmp_path)
    assert (plain.camera, plain.artifact.settings["io"]) == (None, "float")
    assert ready.camera is not None
    assert (ready.camera.atol, ready.camera.passed, ready.camera.images) == (1.0, True, 2)
    assert ready.parity == plain.parity
    (tensor,), (result,) = ready.artifact.inputs, ready.artifact.outputs
    assert (tensor.name, tensor.dtype, tensor.shape) == ("input", "uint8", (1, *SIZE, spec.in_channels))
    assert (result.name, result.dtype, result.shape) == ("output", "uint8", (1, *SIZE, spec.out_channels))
    pixels = noise(*SIZE, spec.in_channels)
    found = run(model_of(ready), pixels[None])[0].astype(np.int16)
    expected = by_way_of_floats(model_of(plain), pixels, (spec.input_format, spec.output_format))
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 1e-3
    assert expected.std() > 20
    # Passes run over the float graph: what lies around it is no site of theirs.
    assert (ready.passes, ready.macs_executed) == (plain.passes, plain.macs_executed)
    facts, before = onnx_facts(ready.artifact.path), onnx_facts(plain.artifact.path)
    assert (facts.macs_true, facts.macs_paper) == (before.macs_true, before.macs_paper)
    assert (facts.metadata["io"], facts.spec) == ("uint8", spec)


@pytest.mark.slow
def test_an_open_batch_stays_open(tmp_path: Path) -> None:
    settings = ExportSettings(image_size=SIZE, dynamic_batch=True, io="uint8", simplify=False)
    made = to_onnx(network_of(SPECS[0]), tmp_path / "g.onnx", settings)
    assert made.artifact.inputs[0].shape == (None, *SIZE, 3)
    assert made.camera is not None
    assert made.camera.images == 2 + 2 * 3


def test_another_kind_of_picture_is_refused() -> None:
    with pytest.raises(ArtifactError, match="a graph takes and gives float or uint8, not 'int16'"):
        ExportSettings(io="int16")


def test_a_discriminator_takes_no_pictures_from_a_camera(tmp_path: Path) -> None:
    spec = patchgan_spec(ndf=4, layers=2)
    judge = Network(spec, layer_table(spec, SIZE)).eval()
    with pytest.raises(SpecError, match="this is a discriminator, and only generators are exported and run"):
        to_onnx(judge, tmp_path / "d.onnx", ExportSettings(image_size=SIZE, io="uint8"))


# --- files of any producer ---


def foreign(path: Path, metadata: dict[str, str] | None = None, *, opset: int = 18) -> Path:
    constants = {"w": (random(3, 3, 7, 7) * 0.05).astype(np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[3] * 4)
    model = build([node], (1, 3, 16, 24), constants, kind=TensorProto.FLOAT, opset=opset)
    helper.set_model_props(model, metadata or {})
    path.write_bytes(model.SerializeToString())
    return path


def rewritten(source: Path, folder: Path, **more: object) -> Rewritten:
    settings = Settings({"export.simplify": False, **{f"export.{name}": value for name, value in more.items()}})
    return rewrite_folder(
        source, folder, target="x86-avx512", settings=settings, command="export", effective={}, io="uint8"
    )


@pytest.mark.parametrize("said", ["by the file", "by the user"])
def test_a_file_whose_values_are_known_becomes_one_of_bytes(said: str, tmp_path: Path) -> None:
    form = {f"{METADATA_PREFIX}{key}": json.dumps(BGR.to_json()) for key in ("input_format", "output_format")}
    source = foreign(tmp_path / "g.onnx", form if said == "by the file" else None)
    more = {} if said == "by the file" else {"picture_range": "0,1", "picture_color": "BGR"}
    result = rewritten(source, tmp_path / "out", **more)
    path = tmp_path / "out/export/x86-avx512/generator.fp32.onnx"
    assert result.generator.camera is not None
    assert result.generator.camera.passed
    assert result.generator.artifact.inputs[0].shape == (1, 16, 24, 3)
    assert result.generator.artifact.size_bytes == path.stat().st_size
    pixels = noise(16, 24, 3)
    expected = by_way_of_floats(onnx.load_model_from_string(source.read_bytes()), pixels, (BGR, BGR))
    found = run(onnx.load_model_from_string(path.read_bytes()), pixels[None])[0]
    assert np.abs(found - expected).max() <= 1
    with pytest.raises(ArtifactError, match="is no float32 network: uint8"):
        rewritten(path, tmp_path / "again", **more)


def test_a_file_that_does_not_say_its_values_is_refused_with_how_to_say_them(tmp_path: Path) -> None:
    source = foreign(tmp_path / "g.onnx")
    with pytest.raises(ArtifactError) as caught:
        rewritten(source, tmp_path / "out")
    assert caught.value.message == (
        f"'{source}' does not say which values black and white have, so that it cannot be given bytes"
    )
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("say them: --set export.picture_range=-1,1, and export.picture_color=BGR")
    assert not (tmp_path / "out").exists()


def test_an_old_file_is_brought_to_operators_that_bytes_can_be_put_around_with(tmp_path: Path) -> None:
    source = foreign(tmp_path / "g.onnx", opset=9)
    result = rewritten(source, tmp_path / "out", passes="none", picture_range="-1,1")
    assert result.after.opset == 13
    assert result.generator.remarks == (f"its operators are those of opset 13 now; '{source}' has opset 9",)
    assert result.generator.camera is not None
    assert result.generator.camera.passed


@pytest.mark.parametrize("text", ["1", "a,b", "0,1,2", "black,1"])
def test_a_range_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    tensors = TensorSpec("x", "float32", (1, 3, 8, 8)), TensorSpec("y", "float32", (1, 3, 8, 8))
    with pytest.raises(SettingError) as caught:
        formats_of(tmp_path / "g.onnx", tensors, {}, text, "RGB")
    assert caught.value.message == f"setting export.picture_range must be two numbers, not '{text}'"
    with pytest.raises(SettingError, match="low must be below high"):
        formats_of(tmp_path / "g.onnx", tensors, {}, "1,-1", "RGB")


def test_what_a_file_says_itself_comes_before_what_the_user_does(tmp_path: Path) -> None:
    tensors = TensorSpec("x", "float32", (1, 3, 8, 8)), TensorSpec("y", "float32", (1, 3, 8, 8))
    found = formats_of(tmp_path / "g.onnx", tensors, {"input_format": json.dumps(BGR.to_json())}, "0,255", "RGB")
    assert found == (BGR, PictureFormat(3, "RGB", 0.0, 255.0))


def test_other_channels_and_damaged_metadata_are_refused(tmp_path: Path) -> None:
    good, wide = TensorSpec("x", "float32", (1, 3, 8, 8)), TensorSpec("x", "float32", (1, 5, 8, 8))
    with pytest.raises(ArtifactError, match="has pictures of 5 channels; as bytes 1, 3 and 4 are possible"):
        formats_of(tmp_path / "g.onnx", (good, wide), {}, "-1,1", "RGB")
    with pytest.raises(ArtifactError, match=r"the metadata of .* is damaged"):
        formats_of(tmp_path / "g.onnx", (good, good), {"input_format": "{"}, "", "RGB")
