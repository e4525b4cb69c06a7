"""Whatever runs can be opened, two of them take the same pictures, and no run folder reaches out of itself."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from mggc_edge.artifacts import MANIFEST_FILE, MANIFEST_SCHEMA, sha256_of
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.backends.pytorch import PyTorchRunner
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.to_onnx import to_onnx
from mggc_edge.errors import ArtifactError, InputError
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.weights import save_network
from mggc_edge.opening import Geometry, geometry, in_floats, open_pair, open_runner, what_is
from mggc_edge.pictures import PictureFormat
from mggc_edge.pruning.random import random_plan
from mggc_edge.quality.parity import check_parity
from mggc_edge.run_folder import run_artifact
from mggc_edge.tensors import FloatArray

SIZE = (16, 24)
SPEC = resnet_spec(blocks=1, ngf=4, norm="batch")
RGB = PictureFormat.for_channels(3)
FOLDERS: list[Path] = []  # of this session, for what is made once


@pytest.fixture(scope="module", autouse=True)
def folder_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDERS.append(tmp_path_factory.mktemp("opening"))


@functools.cache
def network() -> Network:
    generator = torch.Generator().manual_seed(0)
    made = Network(SPEC, layer_table(SPEC, SIZE)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * parameter[0].numel() ** -0.5 if parameter.ndim == 4 else 0.5 + noise.abs())
    return made


@functools.cache
def checkpoint() -> Path:
    path = Path(FOLDERS[0], "g.pth")
    torch.save(network().state_dict(), path)
    return path


@functools.cache
def saved() -> Path:
    save_network(network(), Path(FOLDERS[0], "saved"))
    return Path(FOLDERS[0], "saved")


@functools.cache
def exported(bn: str = "eval") -> Path:
    path = Path(FOLDERS[0], f"{bn}.onnx")
    settings = ExportSettings(image_size=SIZE, bn="batch" if bn == "batch" else "eval", simplify=False)
    to_onnx(network(), path, settings)
    return path


def foreign(
    path: Path, x: Sequence[int | str], y: Sequence[int | str] | None = None, metadata: dict[str, str] | None = None
) -> Path:
    """Tanh, as an ONNX file from elsewhere."""
    graph = helper.make_graph(
        [helper.make_node("Tanh", ["x"], ["y"])],
        "elsewhere",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y or x)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(model.SerializeToString())
    return path


def run_folder(folder: Path, *names: object, file: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    sha256 = None
    if file:
        sha256 = sha256_of(foreign(folder / "export" / "portable" / "generator.fp32.onnx", [1, 3, 16, 24]))
    files = [{"path": name, "sha256": sha256} if isinstance(name, str) else name for name in names]
    (folder / MANIFEST_FILE).write_text(json.dumps({"schema": MANIFEST_SCHEMA, "files": files}))
    return folder


def feed(size: tuple[int, int] = SIZE) -> FloatArray:
    return np.random.default_rng(0).uniform(-1, 1, (1, 3, *size)).astype(np.float32)


GENERATOR = "export/portable/generator.fp32.onnx"


# --- what is it ---


def test_every_kind_is_told_from_the_others(tmp_path: Path) -> None:
    plan = random_plan(network().table, 0.5)
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    (tmp_path / "SPEC.JSON").write_text(SPEC.dumps())
    assert what_is(checkpoint()) == "checkpoint"
    assert what_is(saved()) == "network"
    assert what_is(saved() / "weights.safetensors") == "checkpoint"
    assert what_is(saved() / "spec.json") == "spec"
    assert what_is(tmp_path / "SPEC.JSON") == "spec"
    assert what_is(tmp_path / "plan.json") == "plan"
    assert what_is(foreign(tmp_path / "f.onnx", [1, 3, 8, 8])) == "artifact"
    assert what_is(Path(shutil.copy(tmp_path / "f.onnx", tmp_path / "f.ORT"))) == "artifact"
    assert what_is(run_folder(tmp_path / "run", GENERATOR)) == "run"


def test_a_run_that_also_has_a_spec_is_a_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", GENERATOR)
    (folder / "spec.json").write_text(SPEC.dumps())
    assert what_is(folder) == "run"


def test_nothing_and_a_folder_of_other_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        what_is(tmp_path / "no.pth")
    assert str(caught.value) == f"there is no file '{tmp_path / 'no.pth'}'"
    with pytest.raises(InputError) as caught:
        what_is(tmp_path)
    assert caught.value.message == f"'{tmp_path}' is a folder without manifest.json or spec.json"
    assert caught.value.hint == "give a checkpoint file, a run folder, or a folder with a saved network"


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "no text", "deep"])
def test_a_json_file_that_is_none_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match="is no JSON document: "):
        what_is(path)


@pytest.mark.parametrize(
    ("text", "schema"),
    [("[]", "None"), ("{}", "None"), ('{"schema": "mggc-edge/plan/2"}', "'mggc-edge/plan/2'"), ('{"schema": 3}', "3")],
)
def test_a_json_document_of_another_kind_is_refused(text: str, schema: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        what_is(path)
    assert caught.value.message == (
        f"'{path}' is neither a network description nor a pruning plan: its schema is {schema}"
    )


def test_a_json_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(2**26 + 1)  # sparse: takes no room
    with pytest.raises(InputError) as caught:
        what_is(path)
    assert caught.value.message == f"'{path}' is too large for a spec or a plan"


# --- run folders ---


def test_the_generator_of_a_run_is_found_among_its_files(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", "plan.json", 3, {"path": 7}, {}, GENERATOR)
    assert run_artifact(run) == (run / GENERATOR).resolve()


@pytest.mark.parametrize("names", [(), ("plan.json",), ("generator.fp32.onnx",), ("export/original.fp32.onnx",)])
def test_a_run_without_an_exported_generator_is_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", *names)
    with pytest.raises(ArtifactError) as caught:
        run_artifact(run)
    assert caught.value.message == f"the run '{run}' has no exported generator"


def test_a_generator_that_is_named_but_not_there_is_refused(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", GENERATOR, file=False)
    with pytest.raises(ArtifactError) as caught:
        run_artifact(run)
    assert caught.value.message == f"'{run / GENERATOR}' is named in the manifest, but it is not there"


@pytest.mark.parametrize(
    "name",
    ["../outside/generator.fp32.onnx", "export/../../outside/generator.fp32.onnx", "{tmp}/outside/generator.fp32.onnx"],
    ids=["up", "down and up", "absolute"],
)
def test_a_manifest_does_not_reach_out_of_its_folder(name: str, tmp_path: Path) -> None:
    foreign(tmp_path / "outside" / "generator.fp32.onnx", [1, 3, 8, 8])
    run = run_folder(tmp_path / "run", name.replace("{tmp}", str(tmp_path)), GENERATOR)
    with pytest.raises(ArtifactError) as caught:
        run_artifact(run)
    assert caught.value.message == f"the manifest of '{run}' names a file outside the folder"


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_in_a_run_does_not_reach_out_of_its_folder(link: str, tmp_path: Path) -> None:
    outside = foreign(tmp_path / "outside" / "generator.fp32.onnx", [1, 3, 8, 8])
    run = run_folder(tmp_path / "run", GENERATOR, file=False)
    (run / "export").mkdir()
    if link == "folder":
        (run / "export" / "portable").symlink_to(outside.parent)
    else:
        (run / "export" / "portable").mkdir()
        (run / GENERATOR).symlink_to(outside)
    with pytest.raises(ArtifactError, match="names a file outside the folder"):
        run_artifact(run)


def test_a_run_whose_generator_was_exchanged_is_refused(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", GENERATOR)
    foreign(run / GENERATOR, [1, 3, 8, 8])
    with pytest.raises(ArtifactError, match="is not the file that the manifest describes: its hash differs"):
        run_artifact(run)


def test_a_link_to_a_run_is_a_run(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", GENERATOR)
    (tmp_path / "latest").symlink_to("run")
    assert run_artifact(tmp_path / "latest") == (run / GENERATOR).resolve()


# --- one runner ---


def test_a_checkpoint_and_a_saved_network_run_in_torch() -> None:
    with open_runner(checkpoint(), image_size=SIZE) as a, open_runner(str(saved()), image_size=SIZE) as b:
        assert (a.engine, a.name, b.name) == ("pytorch", "g.pth", "saved")
        assert isinstance(a, PyTorchRunner)
        assert geometry(a) == geometry(b) == Geometry(SIZE, RGB, RGB, "eval")
        left, right = (runner.infer({"input": feed()})["output"] for runner in (a, b))
    with torch.inference_mode():
        expected = network()(torch.from_numpy(feed())).numpy()
    assert np.array_equal(left, expected)
    assert np.array_equal(right, expected)


def test_without_a_size_a_checkpoint_takes_its_familys_usual_one() -> None:
    with open_runner(checkpoint()) as runner:
        assert geometry(runner).image_size == (256, 256)


def test_a_checkpoint_opened_with_bn_batch_says_so_and_computes_so() -> None:
    with open_runner(checkpoint(), image_size=SIZE, bn="batch") as runner:
        assert geometry(runner).bn == "batch"
        output = runner.infer({"input": feed()})["output"]
    made = Network(SPEC, layer_table(SPEC, SIZE)).train()
    made.load_state_dict(network().state_dict())
    with torch.no_grad():
        assert np.abs(output - made(torch.from_numpy(feed())).numpy()).max() < 1e-4


def test_onnx_files_and_runs_run_in_onnx_runtime(tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.onnx", [1, 3, *SIZE])
    for source in (path, run_folder(tmp_path / "run", GENERATOR)):
        with open_runner(source) as runner:
            assert isinstance(runner, OnnxRuntimeRunner)
            assert np.abs(runner.infer({"x": feed()})["y"] - np.tanh(feed())).max() < 1e-6


@pytest.mark.parametrize(("kind", "word"), [("spec.json", "spec"), ("plan.json", "plan")])
def test_what_has_no_weights_is_not_run(kind: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(SPEC.dumps())
    (tmp_path / "plan.json").write_text(json.dumps(random_plan(network().table, 0.5).to_json()))
    with pytest.raises(InputError) as caught:
        open_runner(tmp_path / kind)
    assert caught.value.message == f"'{tmp_path / kind}' is a {word} without weights, and cannot be run"


def test_a_discriminator_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "d.pth"
    torch.save(Network(patchgan_spec(ndf=4)).state_dict(), path)
    with pytest.raises(InputError) as caught:
        open_runner(path)
    assert str(caught.value) == "this is a discriminator, and only generators are exported and run"


def test_without_torch_a_checkpoint_is_refused_with_the_install_line() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mggc_edge.errors import MissingDependencyError\n"
        "from mggc_edge.opening import open_runner\n"
        "try:\n    open_runner(sys.argv[1])\nexcept MissingDependencyError as error:\n    print(error.hint)"
    )
    result = subprocess.run([sys.executable, "-c", code, checkpoint()], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ('pip install "mggc-edge[torch]"\n', "")


# --- geometry of files from elsewhere ---


def bytes_file(path: Path, x: Sequence[int | str], y: Sequence[int | str] | None = None) -> Path:
    """Gives the bytes that it takes; `y` of another shape than `x` is a claim."""
    foreign(path, x, y)
    model = onnx.load_model_from_string(path.read_bytes())
    model.graph.node[0].op_type = "Identity"
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.UINT8
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(("channels", "color"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_bytes_are_pictures_with_their_colours_last(channels: int, color: str, tmp_path: Path) -> None:
    form = PictureFormat(channels, color, 0.0, 255.0)
    with open_runner(bytes_file(tmp_path / "f.onnx", ["n", 8, 12, channels])) as runner:
        assert geometry(runner) == Geometry((8, 12), form, form, "eval", io="uint8")
        shown = in_floats(runner)
        assert shown.inputs[0].shape == (None, channels, 8, 12)
        assert geometry(shown) == geometry(runner)
        picture = np.full((1, channels, 8, 12), 7, np.float32)
        np.testing.assert_array_equal(shown.infer({"x": picture})["y"], picture)


def test_a_runner_of_floats_is_shown_as_itself(tmp_path: Path) -> None:
    with open_runner(foreign(tmp_path / "f.onnx", [1, 3, 8, 8])) as runner:
        assert in_floats(runner) is runner


def test_bytes_with_their_colours_first_are_refused(tmp_path: Path) -> None:
    with open_runner(bytes_file(tmp_path / "f.onnx", [1, 3, 8, 8])) as runner, pytest.raises(ArtifactError) as caught:
        geometry(runner)
    assert caught.value.message == "'f.onnx' takes or gives bytes, but not as pictures [N, H, W, C] in and out"


def test_floats_and_bytes_are_opened_as_a_pair_of_levels(tmp_path: Path) -> None:
    floats = foreign(tmp_path / "f.onnx", [1, 3, 8, 8])
    bytes_ = bytes_file(tmp_path / "b.onnx", [1, 8, 8, 3])
    with open_pair(floats, bytes_) as (a, b, shared):
        assert (shared.io, shared.image_size, shared.input_format) == ("uint8", (8, 8), RGB.in_bytes)
        assert a.inputs[0] == b.inputs[0]
    with pytest.raises(ArtifactError) as caught, open_pair(bytes_, bytes_file(tmp_path / "l.onnx", [1, 8, 8, 1])):
        pytest.fail("the block must not run")
    assert "do not take and give the same kind of picture" in caught.value.message


@pytest.mark.parametrize(
    ("x", "y", "size", "colors"),
    [
        ([1, 3, 16, 24], [1, 3, 16, 24], (16, 24), ("RGB", "RGB")),
        (["n", 3, "h", "w"], ["n", 3, "h", "w"], None, ("RGB", "RGB")),
        ([1, 1, 16, "w"], [1, 1, 16, "w"], None, ("L", "L")),
        ([1, 4, 8, 8], [1, 4, 8, 8], (8, 8), ("RGBA", "RGBA")),
    ],
)
def test_without_metadata_the_shapes_say_what_a_file_takes(
    x: list[int | str], y: list[int | str], size: tuple[int, int] | None, colors: tuple[str, str], tmp_path: Path
) -> None:
    with open_runner(foreign(tmp_path / "f.onnx", x, y)) as runner:
        found = geometry(runner)
    assert (found.image_size, found.bn) == (size, "eval")
    assert (found.input_format.color, found.output_format.color) == colors
    assert (found.input_format.low, found.input_format.high) == (-1, 1)


def test_metadata_say_more_than_shapes(tmp_path: Path) -> None:
    bgr = PictureFormat(3, "BGR", 0.0, 255.0)
    metadata = {"mggc_edge.input_format": json.dumps(bgr.to_json()), "mggc_edge.bn": "batch", "other.bn": "eval"}
    with open_runner(foreign(tmp_path / "f.onnx", [1, 3, 8, 8], metadata=metadata)) as runner:
        assert geometry(runner) == Geometry((8, 8), bgr, RGB, "batch")


@pytest.mark.parametrize("shape", [[1, 3], [3, 8, 8], [1, 3, 2, 8, 8]])
def test_what_is_no_picture_is_refused(shape: list[int | str], tmp_path: Path) -> None:
    with open_runner(foreign(tmp_path / "f.onnx", shape)) as runner, pytest.raises(ArtifactError) as caught:
        geometry(runner)
    assert caught.value.message == "'f.onnx' does not turn one picture [N, C, H, W] into another"


@pytest.mark.parametrize(("channels", "shown"), [(8, "8"), (2, "2"), ("c", "None")])
def test_other_numbers_of_channels_are_refused(channels: int | str, shown: str, tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.onnx", [1, channels, 8, 3])
    with open_runner(path) as runner, pytest.raises(ArtifactError) as caught:
        geometry(runner)
    assert caught.value.message == f"'f.onnx' has pictures of {shown} channels; 1, 3 and 4 are possible"


def test_a_file_with_two_inputs_is_refused(tmp_path: Path) -> None:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", infos[:2], infos[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "f.onnx")
    with open_runner(tmp_path / "f.onnx") as runner, pytest.raises(ArtifactError, match="does not turn one picture"):
        geometry(runner)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"channels": 3}', "[" * 100_000, '{"channels": 3, "color": "CMY", "low": 0, "high": 1}']
)
def test_damaged_metadata_are_refused(text: str, tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.onnx", [1, 3, 8, 8], metadata={"mggc_edge.input_format": text})
    with open_runner(path) as runner, pytest.raises(ArtifactError):
        geometry(runner)


# --- two runners ---


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("bn", ["eval", "batch"])
def test_a_checkpoint_takes_size_and_batch_norm_mode_from_its_export(order: tuple[int, int], bn: str) -> None:
    sides = (checkpoint(), exported(bn))
    with open_pair(sides[order[0]], sides[order[1]]) as (reference, candidate, shared):
        engines = ["pytorch", "onnxruntime"]
        assert [reference.engine, candidate.engine] == [engines[index] for index in order]
        assert shared == Geometry(SIZE, RGB, RGB, bn)
        report = check_parity(reference, candidate, [feed()])
    assert report.passed


def test_the_two_batch_norm_modes_differ() -> None:
    with open_pair(exported("eval"), exported("batch")) as (reference, candidate, _):
        assert not check_parity(reference, candidate, [feed()]).passed


def test_a_mode_that_is_asked_for_wins_over_the_files() -> None:
    with open_pair(checkpoint(), exported("batch"), bn="eval") as (reference, candidate, shared):
        assert shared.bn == "eval"
        assert not check_parity(reference, candidate, [feed()]).passed


def test_two_checkpoints_take_the_size_that_is_asked_for() -> None:
    with open_pair(checkpoint(), saved(), image_size=(8, 12)) as (reference, candidate, shared):
        assert shared.image_size == (8, 12)
        assert check_parity(reference, candidate, [feed((8, 12))]).identical


def test_two_checkpoints_take_the_usual_size_without_one() -> None:
    with open_pair(checkpoint(), saved()) as (_, _, shared):
        assert shared.image_size == (256, 256)


def test_a_file_of_open_size_takes_the_other_sides(tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.onnx", [1, 3, "h", "w"])
    for pair in ((path, exported()), (exported(), path)):
        with open_pair(*pair) as (_, _, shared):
            assert shared.image_size == SIZE


def test_both_runners_are_closed_afterwards() -> None:
    with open_pair(checkpoint(), exported()) as (reference, candidate, _):
        pass
    for runner in (reference, candidate):
        with pytest.raises(InputError, match="is not open"):
            _ = runner.inputs


def test_files_for_different_sizes_are_refused(tmp_path: Path) -> None:
    other = foreign(tmp_path / "f.onnx", [1, 3, 8, 8])
    with pytest.raises(ArtifactError) as caught, open_pair(exported(), other):
        pytest.fail("the block must not run")
    assert caught.value.message == f"'{other}' takes pictures of 8x8, not of 16x24"


def test_a_size_that_a_file_does_not_have_is_refused() -> None:
    with pytest.raises(ArtifactError) as caught, open_pair(checkpoint(), exported(), image_size=(32, 32)):
        pytest.fail("the block must not run")
    assert caught.value.message == f"'{exported()}' takes pictures of 16x24, not of 32x32"


def test_files_for_different_pictures_are_refused(tmp_path: Path) -> None:
    grey = foreign(tmp_path / "grey.onnx", [1, 1, *SIZE])
    with pytest.raises(ArtifactError) as caught, open_pair(exported(), grey):
        pytest.fail("the block must not run")
    assert caught.value.message == (
        f"'{exported()}' and '{grey}' do not take and give the same kind of picture: RGB to RGB and L to L"
    )


def test_two_files_of_open_size_need_one(tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.onnx", [1, 3, "h", "w"])
    with pytest.raises(ArtifactError) as caught, open_pair(path, path):
        pytest.fail("the block must not run")
    assert str(caught.value) == "neither of the two says what picture size it takes (give an image size)"
    with open_pair(path, path, image_size=(8, 8)) as (_, _, shared):
        assert shared.image_size == (8, 8)
