"""Building, loading, describing and running engines, with the fake of every version."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mggc_edge.backends import trt_api, trt_run
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from tests.backends.trt_helpers import VERSIONS, install, picture, small_file, without_cuda

OPTIONS = trt_api.BuildOptions()
NO_DRIVER = "there is no NVIDIA driver, or it is older than the CUDA that this TensorRT was built for"


def expected(path: Path, feed: Any) -> Any:
    with OnnxRuntimeRunner(path) as runner:
        return runner.infer({"input": feed})["output"]


def logged(fake: Any, kind: str) -> list[Any]:
    return [entry[1:] for entry in fake.world.log if entry[0] == kind]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_is_built_loaded_and_gives_what_its_file_gives(
    version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, version)
    path = small_file(tmp_path / "g.onnx")
    library = trt_api.TensorRT()
    built = library.build(path, OPTIONS)
    engine = library.load(built.plan, "g.engine")
    assert engine.tensors == (
        trt_api.EngineTensor("input", "float32", (1, 3, 8, 8), True),
        trt_api.EngineTensor("output", "float32", (1, 3, 8, 8), False),
    )
    assert engine.device_memory_bytes == (1000 if version == "8.6.1" else 2000)
    assert engine.layers() == ["conv + relu"]
    memory = trt_run.open_memory()
    session = trt_run.Session(engine, memory)
    for seed in (0, 1, 2):
        assert np.array_equal(session.infer({"input": picture(seed)})["output"], expected(path, picture(seed)))
    assert (session.graph_remark, fake.cudart.launched) == (None, [1, 1, 1])
    session.close()
    memory.close()
    assert fake.cudart.held == {}


@pytest.mark.parametrize(("version", "flags"), [("8.6.1", 1), ("10.3.0", 2), ("11.4.0.106", 1)])
def test_a_network_is_typed_where_that_exists_and_of_explicit_batch_before(
    version: str, flags: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, version)
    built = trt_api.TensorRT().build(small_file(tmp_path / "g.onnx"), OPTIONS)
    assert logged(fake, "network") == [(flags,)]
    assert built.typed is (version != "8.6.1")


@pytest.mark.parametrize(
    ("version", "precision", "flags"),
    [
        ("8.6.1", "fp32", ["TF32"]),
        ("8.6.1", "fp16", ["FP16", "OBEY_PRECISION_CONSTRAINTS", "TF32"]),
        ("8.6.1", "int8", ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "TF32"]),
        ("10.3.0", "fp16", ["TF32"]),
        ("11.4.0.106", "int8", ["TF32"]),
    ],
)
def test_flags_say_a_precision_only_where_types_are_hints(
    version: str, precision: str, flags: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, version)
    built = trt_api.TensorRT().build(small_file(tmp_path / "g.onnx"), trt_api.BuildOptions(precision))
    assert sorted(built.flags) == flags == logged(fake, "config")[0][0][0]
    norms = [("NORMALIZATION", fake.DataType.FLOAT)] if version == "8.6.1" and precision != "fp32" else []
    assert logged(fake, "precision") == norms


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_norm_that_is_a_plugin_is_held_to_float32_too(
    precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "8.6.1")
    options = trt_api.BuildOptions(precision, native_norm=False)
    trt_api.TensorRT().build(small_file(tmp_path / "g.onnx"), options)
    assert logged(fake, "precision") == [("PLUGIN_V2", fake.DataType.FLOAT)]


@pytest.mark.parametrize(("version", "plugins"), [("8.6.1", ["", "_V2"]), ("10.3.0", ["", "_V2", "_V3"])])
def test_every_kind_of_plugin_that_a_version_has_is_held_and_a_convolution_never(
    version: str, plugins: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, version)
    network = fake.INetworkDefinition()
    network._layers = [fake.ILayer(kind) for kind in fake.LayerType]
    trt_api._keep_norms_in_float(fake, network)
    held = [layer.type.name for layer in network._layers if layer.precision == fake.DataType.FLOAT]
    assert held == ["NORMALIZATION", *(f"PLUGIN{kind}" for kind in plugins)]
    assert [layer.type.name for layer in network._layers if layer.precision is None] == ["CONVOLUTION"]


def test_what_the_options_say_reaches_the_builder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = install(monkeypatch, "10.16.1.11")
    options = trt_api.BuildOptions(tf32=False, native_norm=False, workspace_bytes=2**28, optimization_level=5)
    assert trt_api.TensorRT().build(small_file(tmp_path / "g.onnx"), options).flags == ()
    assert logged(fake, "config") == [(([], {"WORKSPACE": 2**28}, 5, "DETAILED", 0),)]
    assert logged(fake, "parser") == [("NATIVE_INSTANCENORM", False)]


def test_instance_norm_is_a_layer_of_tensorrts_own_where_the_parser_has_that_flag(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "8.6.1")
    trt_api.TensorRT().build(small_file(tmp_path / "g.onnx"), OPTIONS)
    assert logged(fake, "parser") == [("NATIVE_INSTANCENORM", True)]
    del fake.OnnxParserFlag
    fake.OnnxParserFlag = SimpleNamespace()
    trt_api.TensorRT().build(small_file(tmp_path / "g.onnx"), OPTIONS)
    assert len(logged(fake, "parser")) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "bf16"}, "'bf16' is no precision"),
        ({"workspace_bytes": 5}, "a workspace of 5 bytes is too small"),
        ({"optimization_level": 6}, "there is no optimization level 6"),
    ],
)
def test_options_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(trt_api.TensorRTError) as caught:
        trt_api.BuildOptions(**values)
    assert caught.value.message == message


def test_an_open_batch_takes_the_shapes_that_are_given_and_runs_at_any_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "10.3.0")
    path, library = small_file(tmp_path / "g.onnx", batch="n"), trt_api.TensorRT()
    with pytest.raises(trt_api.TensorRTError, match=r"input 'input' has open sizes \(-1, 3, 8, 8\), and no shapes"):
        library.build(path, OPTIONS)
    shapes = [[1, 3, 8, 8], [2, 3, 8, 8], [4, 3, 8, 8]]
    built = library.build(path, trt_api.BuildOptions(shapes={"input": shapes}))
    assert logged(fake, "shape") == [("input", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))]
    session = trt_run.Session(library.load(built.plan), trt_run.open_memory())
    for batch in (1, 4, 2):
        feed = picture(batch, batch)
        assert np.array_equal(session.infer({"input": feed})["output"], expected(path, feed))
    assert len(fake.cudart.held) == 2
    with pytest.raises(trt_api.TensorRTError, match=r"does not take \(1, 3, 8, 9\) as 'input'"):
        session.infer({"input": np.zeros((1, 3, 8, 9), np.float32)})
    with pytest.raises(trt_api.TensorRTError, match="do not fit the network"):
        library.build(path, trt_api.BuildOptions(shapes={"input": shapes[::-1]}))


# --- timings ---


def test_timings_are_kept_for_a_device_and_a_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "10.3.0")
    path, library = small_file(tmp_path / "g.onnx"), trt_api.TensorRT()
    cache = trt_api.timing_cache_file(tmp_path / "cache", "NVIDIA Orin (nvgpu) sm87", library.version)
    assert cache.name == "nvidia-orin-nvgpu-sm87-tensorrt-10.3.0.cache"
    built = library.build(path, OPTIONS, cache)
    assert built.remarks == ()
    first = json.loads(cache.read_text())
    assert first[0] == "10.3.0 Fake sm87"
    library.build(small_file(tmp_path / "h.onnx", batch=2), OPTIONS, cache)
    assert set(first[1]) < set(json.loads(cache.read_text())[1])
    assert [file.name for file in cache.parent.iterdir()] == [cache.name]


def test_timings_that_another_process_wrote_meanwhile_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = install(monkeypatch, "11.4.0.106")
    library, cache = trt_api.TensorRT(), tmp_path / "t.cache"
    build = fake.Builder.build_serialized_network

    def slowly(self: Any, network: Any, config: Any) -> Any:
        cache.write_text(json.dumps(["11.4.0.106 Fake sm87", ["another"]]))
        return build(self, network, config)

    monkeypatch.setattr(fake.Builder, "build_serialized_network", slowly)
    library.build(small_file(tmp_path / "g.onnx"), OPTIONS, cache)
    entries = json.loads(cache.read_text())[1]
    assert (len(entries), "another" in entries) == (2, True)


def test_timings_of_another_device_are_left_out_with_a_remark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "10.3.0")
    (tmp_path / "t.cache").write_text(json.dumps(["10.3.0 Other sm72", ["old"]]))
    built = trt_api.TensorRT().build(small_file(tmp_path / "g.onnx"), OPTIONS, tmp_path / "t.cache")
    assert built.remarks == ("the timings in 't.cache' are of another device or TensorRT: begun anew",)


# --- what goes wrong ---


def test_a_missing_library_comes_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(trt_api.TensorRTMissingError) as caught:
        trt_api.TensorRT()
    assert caught.value.message.startswith("tensorrt cannot be imported here: ")
    assert caught.value.hint == trt_api.INSTALL_HINT


@pytest.mark.parametrize(("code", "words"), [(35, NO_DRIVER), (100, "there is no CUDA device")])
def test_a_missing_driver_or_device_is_said_in_words(
    code: int, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "10.3.0")
    fake.world.driver_error = code
    library = trt_api.TensorRT()
    for use in (library.check_device, lambda: library.build(tmp_path / "g.onnx", OPTIONS), lambda: library.load(b"")):
        with pytest.raises(trt_api.TensorRTMissingError) as caught:
            use()
        assert caught.value.message == f"TensorRT 10.3.0 finds no device that it can use: {words}"
        assert caught.value.hint is not None
        assert "--gpus all" in caught.value.hint


def test_an_unknown_start_error_is_quoted_and_silence_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(monkeypatch, "10.3.0")
    fake.world.driver_error = 999
    library = trt_api.TensorRT()
    with pytest.raises(trt_api.TensorRTMissingError, match="CUDA initialization failure with error: 999"):
        library.check_device()
    monkeypatch.setattr(fake, "Runtime", lambda logger: None)
    with pytest.raises(trt_api.TensorRTMissingError, match="finds no device that it can use: it does not say why"):
        library.check_device()


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("8.6.1", "node 0: no importer; node 1: no plugin"),
        ("10.3.0", "node 0 ('n0', Einsum): no importer; node 1 ('n1', Einsum): no plugin"),
    ],
)
def test_what_the_parser_does_not_understand_is_named_by_node(
    version: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, version)
    fake.world.parser_errors = ["no\n importer", "no plugin"]
    with pytest.raises(trt_api.TensorRTError) as caught:
        trt_api.TensorRT().build(Path("g.onnx"), OPTIONS)
    assert caught.value.message == f"TensorRT {version} does not understand 'g.onnx': {text}"


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("OutOfMemory (Requested size was 9 bytes.)", "free memory on the device, or allow a larger workspace"),
        ("Could not find any implementation for node Conv_3.", None),
    ],
)
def test_a_build_that_fails_gives_tensorrts_reason(
    reason: str, hint: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "11.4.0.106")
    fake.world.build_error = reason
    path = small_file(tmp_path / "g.onnx")
    with pytest.raises(trt_api.TensorRTError) as caught:
        trt_api.TensorRT().build(path, OPTIONS)
    assert caught.value.message == f"TensorRT cannot build an engine from '{path}': {reason}"
    assert caught.value.hint == hint


def test_an_engine_of_another_device_version_or_kind_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "10.3.0")
    library = trt_api.TensorRT()
    plan = library.build(small_file(tmp_path / "g.onnx"), OPTIONS).plan
    fake.world.device = "Other sm72"
    for data, reason in ((plan, "expecting device Other sm72 got Fake sm87"), (b"\x00", "magic tag does not match")):
        with pytest.raises(trt_api.TensorRTError, match=reason) as caught:
            library.load(data, "g.engine")
        assert caught.value.message.startswith("TensorRT 10.3.0 cannot read 'g.engine': ")
        assert caught.value.hint == trt_api.REBUILD_HINT


def test_a_type_that_numpy_lacks_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = install(monkeypatch, "10.3.0")
    library = trt_api.TensorRT()
    plan = library.build(small_file(tmp_path / "g.onnx"), OPTIONS).plan
    fake.world.executor.describe = lambda path: ([("x", "BF16", (1,))], [], [])
    with pytest.raises(trt_api.TensorRTError, match="'x' of 'g' has the type BF16, which numpy does not have"):
        library.load(plan, "g")


def test_every_use_of_a_module_shares_the_logger_that_tensorrt_was_given_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "10.3.0")
    first, second = trt_api.TensorRT(), trt_api.TensorRT()
    assert first.logger is second.logger
    first.logger.log(first.trt.ILogger.Severity.INFO, "loaded")
    first.logger.log(first.trt.ILogger.Severity.ERROR, "broken")
    assert second.reason() == "broken"


# --- running ---


def loaded(fake: Any, folder: Path) -> trt_api.Engine:
    library = trt_api.TensorRT()
    return library.load(library.build(small_file(folder / "g.onnx"), OPTIONS).plan, "g")


def test_without_a_graph_every_run_is_enqueued(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = install(monkeypatch, "10.3.0")
    session = trt_run.Session(loaded(fake, tmp_path), trt_run.open_memory(), graph=False)
    for _ in range(3):
        session.infer({"input": picture()})
    assert session.graph_remark == "no CUDA graph: switched off"
    assert (fake.cudart.launched, len(logged(fake, "run"))) == ([], 3)


def test_an_engine_that_cannot_be_recorded_runs_without_a_graph_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "10.3.0")
    fake.world.no_capture = True
    session = trt_run.Session(loaded(fake, tmp_path), trt_run.open_memory())
    for seed in (0, 1):
        feed = picture(seed)
        assert np.array_equal(session.infer({"input": feed})["output"], expected(tmp_path / "g.onnx", feed))
    assert session.graph_remark is not None
    assert session.graph_remark.startswith("no CUDA graph: TensorRT failed while running 'g': operation not permitted")
    assert fake.world.stream.recording is None


def test_a_run_that_fails_and_a_context_that_cannot_be_made_give_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "10.3.0")
    engine, memory = loaded(fake, tmp_path), trt_run.open_memory()
    fake.world.run_error = "Cuda Runtime (an illegal memory access was encountered)"
    with pytest.raises(trt_api.TensorRTError, match="TensorRT failed while running 'g': Cuda Runtime"):
        trt_run.Session(engine, memory).infer({"input": picture()})
    fake.world.no_context = True
    with pytest.raises(trt_api.TensorRTError, match=r"'g' cannot be prepared to run: .*; OutOfMemory") as caught:
        trt_run.Session(engine, memory)
    assert caught.value.hint == "free memory on the device"


def test_where_nothing_gives_access_to_a_device_every_reason_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without_cuda(monkeypatch)
    with pytest.raises(trt_run.CudaError) as caught:
        trt_run.open_memory()
    assert caught.value.message == (
        "no memory of a CUDA device can be had: cuda-python is not installed; pycuda is not installed"
    )
    assert caught.value.hint == trt_run.INSTALL_HINT
