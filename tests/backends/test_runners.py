"""The contract of every runner, and what each engine adds to it."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from mggc_edge.backends.base import BaseRunner
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.backends.openvino import OpenVinoRunner
from mggc_edge.backends.pytorch import PyTorchRunner
from mggc_edge.backends.registry import open_artifact
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.to_onnx import to_onnx
from mggc_edge.compiler.torch_graph import torch_runner
from mggc_edge.errors import ArtifactError, FeedError, MissingDependencyError
from mggc_edge.machine import this_machine
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.tensors import FloatArray, TensorSpec

SIZE = (16, 16)
FOLDERS: list[Path] = []  # of this session, for what is made once


@pytest.fixture(scope="module", autouse=True)
def folder_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDERS.append(tmp_path_factory.mktemp("runners"))


@cache
def network() -> Network:
    generator = torch.Generator().manual_seed(0)
    made = Network(resnet_spec(blocks=1, ngf=4), layer_table(resnet_spec(blocks=1, ngf=4), SIZE)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (parameter[0].numel() ** -0.5 if parameter.ndim == 4 else 0.2))
    return made


@cache
def onnx_file() -> Path:
    path = Path(FOLDERS[0], "generator.onnx")
    to_onnx(network(), path, ExportSettings(image_size=SIZE, dynamic_batch=True))
    return path


@cache
def ort_file() -> Path:
    folder = Path(FOLDERS[0], "ort")
    folder.mkdir()
    # In a process of its own: the tool leaves files open.
    tool = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", "--optimization_style", "Fixed"]
    subprocess.run([*tool, "--output_dir", folder, onnx_file()], check=True, capture_output=True)
    return folder / "generator.ort"


@pytest.fixture(params=["pytorch", "onnx", "ort", "openvino"])
def runner(request: pytest.FixtureRequest) -> BaseRunner:
    if request.param == "pytorch":
        return torch_runner(network(), SIZE, name="g")
    if request.param == "openvino":
        return OpenVinoRunner(onnx_file())
    return OnnxRuntimeRunner(onnx_file() if request.param == "onnx" else ort_file())


@pytest.fixture
def entered(runner: BaseRunner) -> Iterator[BaseRunner]:
    with runner:
        yield runner


def picture(batch: int = 1, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).uniform(-1, 1, (batch, 3, *SIZE)).astype(np.float32)


def expected(feed: FloatArray) -> FloatArray:
    with torch.inference_mode():
        output: FloatArray = network()(torch.from_numpy(feed.copy())).numpy()
    return output


def identity(path: Path, kind: int, shape: list[int | str], operator: str = "Identity") -> Path:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


# --- the contract ---


def test_an_entered_runner_describes_itself_and_gives_what_torch_gives(entered: BaseRunner) -> None:
    assert entered.inputs == (TensorSpec("input", "float32", (None, 3, 16, 16)),)
    assert entered.outputs == (TensorSpec("output", "float32", (None, 3, 16, 16)),)
    for batch in (1, 3):
        outputs = entered.infer({"input": picture(batch)})
        assert list(outputs) == ["output"]
        assert outputs["output"].dtype == np.float32
        assert np.abs(outputs["output"] - expected(picture(batch))).max() < 1e-5


@pytest.mark.parametrize("use", ["inputs", "outputs", "infer"])
def test_a_runner_that_is_not_entered_says_so(runner: BaseRunner, use: str) -> None:
    with pytest.raises(FeedError) as caught:
        _ = runner.infer({"input": picture()}) if use == "infer" else getattr(runner, use)
    assert (caught.value.message, caught.value.hint) == (f"{runner.name} is not open", "use it in a `with` block")


@pytest.mark.parametrize("names", [("picture",), ("input", "more"), ()])
def test_wrong_names_are_refused(entered: BaseRunner, names: tuple[str, ...]) -> None:
    with pytest.raises(FeedError) as caught:
        entered.infer({name: picture() for name in names})
    assert caught.value.message == f"{entered.name} takes the inputs input, not {', '.join(names) or 'none'}"


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int64"])
def test_another_element_type_is_refused(entered: BaseRunner, dtype: str) -> None:
    with pytest.raises(FeedError) as caught:
        entered.infer({"input": np.zeros((1, 3, 16, 16), dtype)})
    assert caught.value.message == f"input 'input' must be float32 anyx3x16x16, not {dtype} 1x3x16x16"


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 4, 16, 16), (1, 3, 16, 17), (1, 16, 16, 3), (1, 1, 3, 16, 16), ()])
def test_another_shape_is_refused(entered: BaseRunner, shape: tuple[int, ...]) -> None:
    with pytest.raises(FeedError) as caught:
        entered.infer({"input": np.zeros(shape, np.float32)})
    given = "x".join(map(str, shape))
    assert caught.value.message == f"input 'input' must be float32 anyx3x16x16, not float32 {given}"


def test_a_refused_feed_does_not_close_the_runner(entered: BaseRunner) -> None:
    with pytest.raises(FeedError):
        entered.infer({})
    assert entered.infer({"input": picture()})["output"].shape == (1, 3, 16, 16)


def test_the_input_is_not_changed(entered: BaseRunner) -> None:
    feed = picture()
    before = feed.copy()
    output = entered.infer({"input": feed})["output"]
    output[:] = 9
    assert np.array_equal(feed, before)


def test_arrays_that_are_read_only_turned_or_strided_are_taken(entered: BaseRunner) -> None:
    frozen = picture()
    frozen.setflags(write=False)
    turned, strided = picture()[:, ::-1], np.repeat(picture(), 2, axis=3)[..., ::2]
    interleaved = np.ascontiguousarray(picture().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for feed in (frozen, turned, strided, interleaved):
        assert np.abs(entered.infer({"input": feed})["output"] - expected(feed)).max() < 1e-5


def test_outputs_of_earlier_calls_stay_as_they_were(entered: BaseRunner) -> None:
    first = entered.infer({"input": picture(seed=0)})["output"]
    kept = first.copy()
    entered.infer({"input": picture(seed=1)})
    assert np.array_equal(first, kept)


def test_the_same_feed_gives_the_same_output(entered: BaseRunner) -> None:
    first, second = (entered.infer({"input": picture()})["output"] for _ in range(2))
    assert np.array_equal(first, second)


def test_a_left_runner_is_closed_and_can_be_entered_again(runner: BaseRunner) -> None:
    with runner:
        first = runner.infer({"input": picture()})["output"]
    with pytest.raises(FeedError, match="is not open"):
        runner.infer({"input": picture()})
    with runner:
        assert np.array_equal(runner.infer({"input": picture()})["output"], first)


def test_a_runner_is_closed_by_an_exception_as_well(runner: BaseRunner) -> None:
    with pytest.raises(ZeroDivisionError), runner:
        raise ZeroDivisionError
    with pytest.raises(FeedError, match="is not open"):
        _ = runner.inputs


# --- PyTorch ---


def test_the_pytorch_runner_needs_no_gradients_and_leaves_none() -> None:
    with torch_runner(network(), SIZE) as opened:
        opened.infer({"input": picture()})
    assert all(parameter.grad is None for parameter in network().parameters())


def test_the_pytorch_runner_runs_without_dropout() -> None:
    module = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Dropout(0.5)).train()
    spec = TensorSpec("input", "float32", (None, 3, 16, 16))
    with PyTorchRunner(module, (spec,), (spec,), name="dropout") as opened:
        assert np.array_equal(opened.infer({"input": picture()})["input"], picture())


def test_without_torch_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = torch_runner(network(), SIZE)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError) as caught, made:
        pass
    assert caught.value.hint == 'pip install "mggc-edge[torch]"'


# --- ONNX Runtime ---


def test_an_ort_file_gives_what_its_onnx_file_gives() -> None:
    with OnnxRuntimeRunner(onnx_file()) as a, OnnxRuntimeRunner(ort_file()) as b:
        assert (a.inputs, a.outputs) == (b.inputs, b.outputs)
        assert dict(a.metadata) == dict(b.metadata)
        assert b.metadata["mggc_edge.image_size"] == "16x16"
        left, right = (opened.infer({"input": picture(2)})["output"] for opened in (a, b))
    assert np.abs(left - right).max() < 1e-5


def test_leaving_frees_the_session() -> None:
    opened = OnnxRuntimeRunner(onnx_file())
    with opened:
        session = weakref.ref(opened._session)
        assert session() is not None
    gc.collect()
    assert session() is None


def test_nothing_is_opened_before_the_runner_is_entered(tmp_path: Path) -> None:
    made = OnnxRuntimeRunner(tmp_path / "not there.onnx")
    assert (made.name, made.engine, dict(made.metadata)) == ("not there.onnx", "onnxruntime", {})
    with pytest.raises(ArtifactError, match="ONNX Runtime cannot run"), made:
        pass


def test_the_number_of_threads_reaches_the_session() -> None:
    opened = OnnxRuntimeRunner(onnx_file(), threads=1)
    with opened:
        assert opened._session is not None
        assert opened._session.get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize(
    ("instruction_sets", "asked"),
    [(("AVX2",), True), (("AVX2", "AVX-512"), True), (("AVX2", "AVX-VNNI"), False), (("NEON dot product",), False)],
)
def test_8_bit_sums_are_exact_where_the_processor_would_cut_them_off(
    monkeypatch: pytest.MonkeyPatch, instruction_sets: tuple[str, ...], asked: bool
) -> None:
    machine = replace(this_machine(), instruction_sets=instruction_sets)
    monkeypatch.setattr("mggc_edge.backends.onnxruntime.this_machine", lambda: machine)
    opened = OnnxRuntimeRunner(onnx_file())
    with opened:
        assert opened._session is not None
        options = opened._session.get_session_options()
        if asked:
            assert options.get_session_config_entry("session.x64quantprecision") == "1"
        else:
            with pytest.raises(RuntimeError, match="x64quantprecision"):
                options.get_session_config_entry("session.x64quantprecision")


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
@pytest.mark.parametrize("damage", ["empty", "text", "half", "zeros"])
def test_a_damaged_file_is_refused_in_one_line(
    suffix: str, damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = (onnx_file() if suffix == ".onnx" else ort_file()).read_bytes()
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(
        {"empty": b"", "text": b"hello world", "half": data[: len(data) // 2], "zeros": bytes(4096)}[damage]
    )
    with pytest.raises(ArtifactError) as caught, OnnxRuntimeRunner(path):
        pass
    assert caught.value.message.startswith(f"ONNX Runtime cannot run '{path}': ")
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_onnx_runtime_lacks_is_named(tmp_path: Path) -> None:
    path = identity(tmp_path / "x.onnx", TensorProto.FLOAT, [1, 3])
    model = onnx.load(path)
    model.graph.node[0].op_type, model.graph.node[0].domain = "Magic", "com.acme"
    model.opset_import.append(helper.make_opsetid("com.acme", 1))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError) as caught, OnnxRuntimeRunner(path):
        pass
    assert caught.value.message == f"ONNX Runtime cannot run '{path}': it has no operator com.acme:Magic"


def test_metadata_that_are_no_text_are_refused_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = identity(tmp_path / "x.onnx", TensorProto.FLOAT, [1, 3])
    model = onnx.load(path)
    helper.set_model_props(model, {"key": "VALUE"})
    path.write_bytes(model.SerializeToString().replace(b"VALUE", b"\xff\xfe\xfd\xfc\xfb"))
    with pytest.raises(ArtifactError, match="ONNX Runtime cannot run"), OnnxRuntimeRunner(path):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("FLOAT16", "float16"), ("DOUBLE", "float64"), ("UINT8", "uint8"), ("INT64", "int64"), ("BOOL", "bool")],
)
def test_element_types_have_numpys_names(kind: str, name: str, tmp_path: Path) -> None:
    path = identity(tmp_path / "x.onnx", getattr(TensorProto, kind), ["n", 2])
    with OnnxRuntimeRunner(path) as opened:
        assert opened.inputs == (TensorSpec("x", name, (None, 2)),)
        feed = np.ones((3, 2), name)
        assert np.array_equal(opened.infer({"x": feed})["y"], feed)


def test_an_element_type_that_cannot_be_fed_is_refused(tmp_path: Path) -> None:
    path = identity(tmp_path / "x.onnx", TensorProto.STRING, [1])
    with pytest.raises(ArtifactError) as caught, OnnxRuntimeRunner(path):
        pass
    assert caught.value.message == "'x' has the type tensor(string), which mggc-edge cannot feed"


def test_a_file_that_fails_while_it_runs_is_at_fault(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [7])],
        [helper.make_tensor("s", TensorProto.INT64, [1], [7])],
    )
    path = tmp_path / "x.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with OnnxRuntimeRunner(path) as opened, pytest.raises(ArtifactError) as caught:
        opened.infer({"x": np.zeros((1, 3), np.float32)})
    assert caught.value.message.startswith(f"ONNX Runtime failed while running '{path}': ")


def test_without_onnxruntime_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError) as caught, OnnxRuntimeRunner(onnx_file()):
        pass
    assert caught.value.message.startswith("onnxruntime cannot be imported here: ")
    assert caught.value.hint == 'pip install "mggc-edge[ort]"'


def test_upper_case_endings_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "G.ONNX"
    path.write_bytes(onnx_file().read_bytes())
    with open_artifact(path) as opened:
        assert opened.infer({"input": picture()})["output"].shape == (1, 3, 16, 16)
