"""Memory of a device through each of the three libraries, with fakes over memory of the host; and `TrtRunner`."""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mggc_edge.backends import trt_api, trt_run
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.backends.tensorrt import TrtRunner
from mggc_edge.errors import ArtifactError, FeedError, MggcEdgeError, MissingDependencyError
from mggc_edge.tensors import TensorSpec
from tests.backends import fake_cuda
from tests.backends.trt_helpers import VERSIONS, install, picture, small_file


class FakePyCuda(SimpleNamespace):
    """pycuda.driver over memory of the host; `log` has what became of the context and of memory."""

    def __init__(self) -> None:
        super().__init__(log=[], Device=self._device, Stream=self._make_stream)

    def init(self) -> None:
        self.log.append("init")

    def _device(self, number: int) -> Any:
        context = SimpleNamespace(push=lambda: self.log.append("push"), pop=lambda: self.log.append("pop"))
        return SimpleNamespace(
            name=lambda: "Fake", compute_capability=lambda: (8, 7), retain_primary_context=lambda: context
        )

    def _make_stream(self) -> Any:
        return SimpleNamespace(handle=9, synchronize=lambda: None)

    def mem_alloc(self, size: int) -> Any:
        log = self.log

        class Allocation:
            def __init__(self) -> None:
                self.buffer = ctypes.create_string_buffer(size)

            def __int__(self) -> int:
                return ctypes.addressof(self.buffer)

            def free(self) -> None:
                log.append("free")

        return Allocation()

    def memcpy_htod_async(self, address: int, array: Any, stream: Any) -> None:
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def memcpy_dtoh_async(self, array: Any, address: int, stream: Any) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)


def as_pycuda(monkeypatch: pytest.MonkeyPatch) -> FakePyCuda:
    driver = FakePyCuda()
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=driver))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    return driver


def as_torch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch put what is meant for a GPU into memory of the host."""
    log: list[str] = []

    class Graph:
        def replay(self) -> None:
            log.append("replay")

    @contextlib.contextmanager
    def recorded(graph: Any, stream: Any) -> Iterator[None]:
        yield

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda size, dtype, device: empty(size, dtype=dtype))
    for name, value in {
        "is_available": lambda: True,
        "get_device_capability": lambda number: (8, 7),
        "get_device_name": lambda number: "Fake",
        "Stream": lambda: SimpleNamespace(cuda_stream=5, synchronize=lambda: None),
        "stream": lambda stream: contextlib.nullcontext(),
        "CUDAGraph": Graph,
        "graph": recorded,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return log


@pytest.mark.parametrize("library", ["cuda-python", "pycuda", "torch"])
def test_what_is_uploaded_comes_back(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.3.0")
    if library == "pycuda":
        as_pycuda(monkeypatch)
    if library == "torch":
        as_torch(monkeypatch)
    (provider,) = [one for one in trt_run.PROVIDERS if one.library == library]  # type: ignore[attr-defined]
    memory = provider()
    assert (memory.library, memory.device) == (library, "Fake sm87")
    assert memory.stream == {"cuda-python": 7, "pycuda": 9, "torch": 5}[library]
    address = memory.allocate(1000)
    read_only = picture(1)
    read_only.setflags(write=False)
    for array in (picture(), read_only, np.arange(6, dtype=np.uint8).reshape(2, 3), np.array([1.5], np.float16)):
        memory.upload(address, array)
        back = np.zeros_like(array)
        memory.download(back, address)
        memory.synchronize()
        assert np.array_equal(back, array)
    memory.free(address)
    memory.allocate(8)
    memory.close()


def test_cuda_python_comes_first_then_pycuda_then_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.3.0")
    as_pycuda(monkeypatch)
    as_torch(monkeypatch)
    assert trt_run.open_memory().library == "cuda-python"
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    assert trt_run.open_memory().library == "pycuda"
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert trt_run.open_memory().library == "torch"


def test_the_older_place_of_cuda_python_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cudart = fake_cuda.make_cudart("Old")
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(cudart=cudart))
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert trt_run.open_memory().device == "Old sm87"


def test_a_library_that_finds_no_device_gives_way_to_the_next_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cudart = fake_cuda.make_cudart(fail=("cudaDeviceGetAttribute",))
    for name, module in fake_cuda.modules_of(cudart).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(trt_run.CudaError) as caught:
        trt_run.open_memory()
    assert caught.value.message == (
        "no memory of a CUDA device can be had: cuda-python: cudaDeviceGetAttribute fails: cudaErrorMemoryAllocation; "
        "pycuda is not installed; torch: torch finds no CUDA device, or was built without CUDA"
    )


def test_pycuda_uses_the_primary_context_gives_everything_back_and_records_no_graph(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "10.3.0")
    driver = as_pycuda(monkeypatch)
    memory = trt_run._PyCuda()
    library = trt_api.TensorRT()
    engine = library.load(library.build(small_file(tmp_path / "g.onnx"), trt_api.BuildOptions()).plan)
    session = trt_run.Session(engine, memory)
    assert session.infer({"input": picture()})["output"].shape == (1, 3, 8, 8)
    assert session.graph_remark == "no CUDA graph: pycuda records none"
    with pytest.raises(trt_run.CudaError, match="pycuda records no CUDA graphs"):
        memory.capture(lambda: None)
    memory.close()
    assert driver.log == ["init", "push", "free", "free", "pop"]


@pytest.mark.parametrize("library", ["pycuda", "torch"])
def test_what_a_library_raises_of_its_own_is_an_error_with_its_name(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise MemoryError("out of memory\nand where that was")

    memory: Any
    if library == "pycuda":
        monkeypatch.setattr(as_pycuda(monkeypatch), "mem_alloc", full)
        memory = trt_run._PyCuda()
    else:
        as_torch(monkeypatch)
        monkeypatch.setattr(torch, "empty", full)
        memory = trt_run._Torch()
    with pytest.raises(trt_run.CudaError) as caught:
        memory.allocate(8)
    assert caught.value.message == f"{library} fails: out of memory"


def test_torch_replays_the_graph_that_it_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    log, enqueued = as_torch(monkeypatch), []
    launch = trt_run._Torch().capture(lambda: enqueued.append(1))
    launch()
    launch()
    assert (log, enqueued) == (["replay", "replay"], [1])


@pytest.mark.parametrize("step", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags"])
def test_a_graph_that_cuda_refuses_is_an_error_with_the_step(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in fake_cuda.modules_of(fake_cuda.make_cudart(fail=(step,))).items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(trt_run.CudaError, match=f"{step} fails: cudaErrorMemoryAllocation"):
        trt_run._CudaPython().capture(lambda: None)


# --- TrtRunner ---


def engine_file(folder: Path, **facts: Any) -> Path:
    path, library = folder / "g.engine", trt_api.TensorRT()
    built = library.build(small_file(folder / "g.onnx"), trt_api.BuildOptions())
    path.write_bytes(built.plan)
    if facts:
        beside = trt_api.engine_facts(built, library.load(built.plan), "Fake sm87", "fp32", {"mggc_edge.bn": "eval"})
        path.with_name("g.engine.json").write_text(json.dumps({**beside, **facts}))
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_a_runner_of_an_engine_gives_what_the_file_gives_and_leaves_nothing_behind(
    version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, version)
    path = engine_file(tmp_path, onnx="g.onnx")
    runner = TrtRunner(path)
    assert runner.remark is None
    with runner, OnnxRuntimeRunner(tmp_path / "g.onnx") as reference:
        assert runner.inputs == (TensorSpec("input", "float32", (1, 3, 8, 8)),)
        assert runner.outputs == (TensorSpec("output", "float32", (1, 3, 8, 8)),)
        assert (runner.engine, runner.metadata) == ("tensorrt", {"mggc_edge.bn": "eval"})
        feed = {"input": picture()}
        assert np.array_equal(runner.infer(feed)["output"], reference.infer(feed)["output"])
        assert runner.remark is None
        with pytest.raises(FeedError, match="must be float32 1x3x8x8, not float32 2x3x8x8"):
            runner.infer({"input": picture(batch=2)})
    assert fake.cudart.held == {}


def test_what_fails_on_the_device_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = install(monkeypatch, "10.3.0")
    path = engine_file(tmp_path)
    fake.world.run_error = "an illegal memory access"
    with TrtRunner(path) as runner, pytest.raises(ArtifactError, match=r"failed while running .*: an illegal memory"):
        runner.infer({"input": picture()})
    fake.cudart.cudaStreamSynchronize = lambda stream: (fake_cuda.Error.cudaErrorStreamCaptureInvalidated,)
    with (
        pytest.raises(
            ArtifactError, match=r"g\.engine' failed on the device: cudaStreamSynchronize fails: cudaErrorSt"
        ),
        TrtRunner(path),
    ):
        pass


def test_an_engine_without_facts_runs_and_damaged_facts_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "10.3.0")
    with TrtRunner(engine_file(tmp_path)) as runner:
        assert runner.metadata == {}
    for facts, message in (({"schema": "else"}, "holds no facts"), ({"size_bytes": 1}, "is about another engine")):
        with pytest.raises(ArtifactError, match=message), TrtRunner(engine_file(tmp_path, **facts)):
            pass


@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        ("library", MissingDependencyError, "tensorrt cannot be imported here"),
        ("driver", MissingDependencyError, "finds no device that it can use: there is no CUDA device"),
        ("memory", MissingDependencyError, "no memory of a CUDA device can be had"),
        ("device", ArtifactError, "cannot read .*expecting device Other got Fake sm87"),
        ("file", ArtifactError, "cannot be read: No such file"),
    ],
)
def test_what_keeps_an_engine_from_running_is_one_error_with_a_way_out(
    trouble: str, kind: type[MggcEdgeError], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "10.3.0")
    path = engine_file(tmp_path)
    if trouble == "library":
        monkeypatch.setitem(sys.modules, "tensorrt", None)
    if trouble == "driver":
        fake.world.driver_error = 100
    if trouble == "memory":
        monkeypatch.setattr(trt_run, "PROVIDERS", ())
    if trouble == "device":
        fake.world.device = "Other"
    if trouble == "file":
        path.unlink()
    with pytest.raises(kind, match=message) as caught, TrtRunner(path):
        pass
    assert (caught.value.hint is None) is (trouble == "file")
