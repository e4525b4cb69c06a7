"""Running a TensorRT engine: memory of a CUDA device through cuda-python, pycuda or torch, and what is fed and fetched.

Python 3.8, standard library and numpy, nothing of mggc_edge: a bundle carries a copy of this file beside `trt_api.py`.
"""

from __future__ import annotations

import functools
import time
from typing import Any, Callable, Mapping, Protocol, TypeVar, cast

import numpy as np

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
_Method = TypeVar("_Method", bound=Callable[..., Any])
INSTALL_HINT = "pip install cuda-python (or pycuda, which needs the CUDA toolkit to build, or torch with CUDA)"


class CudaError(RuntimeError):
    """CUDA, or every library that gives access to it, says no: a sentence (`message`) and a way out (`hint`)."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message, self.hint = message, hint
        super().__init__(message)


class Memory(Protocol):
    """Memory of a CUDA device, and one stream on it.

    Attributes:
        library: whose it is.
        device: name and compute capability.
        stream: the stream's cudaStream_t.
        graphs: whether `capture` can record what is put on the stream.
    """

    library: str
    device: str
    stream: int
    graphs: bool

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory on the device."""

    def free(self, address: int) -> None:
        """Give memory back."""

    def upload(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Put a copy to the device on the stream."""

    def download(self, array: np.ndarray[Any, Any], address: int) -> None:
        """Put a copy from the device on the stream."""

    def synchronize(self) -> None:
        """Wait until everything on the stream is done."""

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Record what `enqueue` puts on the stream; return what puts all of it there at once."""

    def close(self) -> None:
        """Give back whatever is still held."""


class _CudaPython:
    """Memory through NVIDIA's cuda-python (the package cuda-bindings)."""

    library, graphs = "cuda-python", True

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime as cudart
        except ImportError:
            from cuda import cudart  # its place before version 12.6
        self._cudart = cudart
        self._graphs: list[Any] = []
        major = self._call("cudaDeviceGetAttribute", cudart.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor, 0)
        minor = self._call("cudaDeviceGetAttribute", cudart.cudaDeviceAttr.cudaDevAttrComputeCapabilityMinor, 0)
        name = bytes(self._call("cudaGetDeviceProperties", 0).name).split(b"\0")[0].decode("utf-8", "replace")
        self.device = f"{name} sm{major}{minor}"
        self._call("cudaSetDevice", 0)
        self._stream = self._call("cudaStreamCreate")
        self.stream = int(self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._cudart, name)(*arguments)
        if int(error):
            raise CudaError(f"{name} fails: {getattr(error, 'name', error)}")
        return values[0] if values else None

    def allocate(self, size_bytes: int) -> int:
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def upload(self, address: int, array: np.ndarray[Any, Any]) -> None:
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._stream)

    def download(self, array: np.ndarray[Any, Any], address: int) -> None:
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            enqueue()
        finally:  # a stream that is left recording takes nothing else
            error, graph = self._cudart.cudaStreamEndCapture(self._stream)
        if int(error):
            raise CudaError(f"cudaStreamEndCapture fails: {getattr(error, 'name', error)}")
        ready = self._call("cudaGraphInstantiateWithFlags", graph, 0)
        self._call("cudaGraphDestroy", graph)
        self._graphs.append(ready)
        return lambda: self._call("cudaGraphLaunch", ready, self._stream)

    def close(self) -> None:
        for graph in self._graphs:
            self._call("cudaGraphExecDestroy", graph)
        self._graphs = []
        self._call("cudaStreamDestroy", self._stream)


def _said(method: _Method) -> _Method:
    """Let a method raise CudaError where its library raises something of its own, such as that memory is short."""

    @functools.wraps(method)
    def told(self: Any, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CudaError(f"{self.library} fails: {reason}") from error

    return cast(_Method, told)


class _PyCuda:
    """Memory through pycuda, in the context that other libraries use too."""

    library, graphs = "pycuda", False

    def __init__(self) -> None:
        import pycuda.driver as driver

        driver.init()
        device = driver.Device(0)
        self._context = device.retain_primary_context()
        self._context.push()
        self._driver = driver
        self._kept: dict[int, Any] = {}
        self.device = f"{device.name()} sm{''.join(map(str, device.compute_capability()))}"
        self._stream = driver.Stream()
        self.stream = int(self._stream.handle)

    @_said
    def allocate(self, size_bytes: int) -> int:
        memory = self._driver.mem_alloc(size_bytes)
        self._kept[int(memory)] = memory
        return int(memory)

    @_said
    def free(self, address: int) -> None:
        self._kept.pop(address).free()

    @_said
    def upload(self, address: int, array: np.ndarray[Any, Any]) -> None:
        self._driver.memcpy_htod_async(address, array, self._stream)

    @_said
    def download(self, array: np.ndarray[Any, Any], address: int) -> None:
        self._driver.memcpy_dtoh_async(array, address, self._stream)

    @_said
    def synchronize(self) -> None:
        self._stream.synchronize()

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002
        raise CudaError("pycuda records no CUDA graphs")

    def close(self) -> None:
        for memory in self._kept.values():
            memory.free()
        self._kept = {}
        self._context.pop()


class _Torch:
    """Memory through torch: buffers are tensors of bytes."""

    library, graphs = "torch", True

    def __init__(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise CudaError("torch finds no CUDA device, or was built without CUDA")
        self._torch = torch
        self._kept: dict[int, Any] = {}
        major, minor = torch.cuda.get_device_capability(0)
        self.device = f"{torch.cuda.get_device_name(0)} sm{major}{minor}"
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.stream = int(self._stream.cuda_stream)

    @_said
    def allocate(self, size_bytes: int) -> int:
        with self._torch.cuda.stream(self._stream):
            tensor = self._torch.empty(size_bytes, dtype=self._torch.uint8, device="cuda")
        self._kept[tensor.data_ptr()] = tensor
        return int(tensor.data_ptr())

    def free(self, address: int) -> None:
        del self._kept[address]

    @_said
    def upload(self, address: int, array: np.ndarray[Any, Any]) -> None:
        with self._torch.cuda.stream(self._stream):
            self._kept[address][: array.nbytes].copy_(self._bytes(array), non_blocking=True)

    @_said
    def download(self, array: np.ndarray[Any, Any], address: int) -> None:
        with self._torch.cuda.stream(self._stream):
            self._bytes(array).copy_(self._kept[address][: array.nbytes], non_blocking=True)

    def _bytes(self, array: np.ndarray[Any, Any]) -> Any:
        writable = array if array.flags.writeable else array.copy()  # torch takes no other
        return self._torch.from_numpy(writable.reshape(-1).view(np.uint8))

    @_said
    def synchronize(self) -> None:
        self._stream.synchronize()

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream):
            enqueue()

        def launch() -> None:
            with self._torch.cuda.stream(self._stream):
                graph.replay()

        return launch

    def close(self) -> None:
        self._kept = {}


PROVIDERS: tuple[Callable[[], Memory], ...] = (_CudaPython, _PyCuda, _Torch)


def open_memory() -> Memory:
    """Return the memory of the first device, through the first library that gives access to it.

    Raises:
        CudaError: none does; the sentence has the reason of each.
    """
    reasons = []
    for provider in PROVIDERS:
        name = provider.library  # type: ignore[attr-defined]
        try:
            return provider()
        except ImportError:
            reasons.append(f"{name} is not installed")
        except Exception as error:  # noqa: BLE001  each library has errors of its own
            reasons.append(f"{name}: {str(error) or type(error).__name__}")
    raise CudaError(f"no memory of a CUDA device can be had: {'; '.join(reasons)}", INSTALL_HINT)


class Session:
    """Runs an engine on a device, with buffers that are kept between inferences.

    Args:
        engine: see `TensorRT.load` in `trt_api.py`.
        memory: see `open_memory`; it belongs to the caller.
        graph: replay a CUDA graph where `memory` can record one: one launch in place of one for each layer.

    Attributes:
        graph_remark: why there is no CUDA graph; None where there is one, or nothing has run yet.
        enqueue_ns: time that it took to hand work to the device, over all inferences.
    """

    def __init__(self, engine: Any, memory: Memory, *, graph: bool = True) -> None:
        self._engine, self._memory = engine, memory
        context = engine.engine.create_execution_context()
        if context is None:
            raise engine.error(f"'{engine.name}' cannot be prepared to run", "free memory on the device")
        self._context = context
        self._buffers: dict[str, tuple[int, int]] = {}  # tensor -> address, bytes
        self._outputs: dict[str, np.ndarray[Any, Any]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._launch: Callable[[], None] | None = None  # until it is known for the shapes at hand
        self.enqueue_ns = 0
        self._wants_graph = graph and memory.graphs
        why_not = f"{memory.library} records none" if graph else "switched off"
        self.graph_remark = None if self._wants_graph else f"no CUDA graph: {why_not}"

    def infer(self, feeds: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run once: one array for each input, by name, of its type; return the outputs by name."""
        arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        if {name: array.shape for name, array in arrays.items()} != self._shapes:
            self._prepare(arrays)
        start = time.perf_counter_ns()
        for name, array in arrays.items():
            self._memory.upload(self._buffers[name][0], array)
        if self._launch is None:
            self._launch = self._recorded()
        self._launch()
        self.enqueue_ns += time.perf_counter_ns() - start  # what comes back may wait for the device
        for name, array in self._outputs.items():
            self._memory.download(array, self._buffers[name][0])
        self._memory.synchronize()
        return {name: array.copy() for name, array in self._outputs.items()}

    def close(self) -> None:
        """Give the buffers back."""
        self._memory.synchronize()
        for address, _ in self._buffers.values():
            self._memory.free(address)
        self._buffers, self._shapes, self._context = {}, {}, None

    def _prepare(self, arrays: Arrays) -> None:
        """Make buffers for the shapes of the inputs."""
        context = self._context
        self._memory.synchronize()
        self._launch, self._shapes = None, {}
        for name, array in arrays.items():
            if not context.set_input_shape(name, array.shape):
                raise self._engine.error(f"'{self._engine.name}' does not take {array.shape} as '{name}'")
        for tensor in self._engine.tensors:
            if tensor.is_input:
                array = arrays[tensor.name]
            else:
                array = np.empty(tuple(context.get_tensor_shape(tensor.name)), tensor.dtype)
                self._outputs[tensor.name] = array
            context.set_tensor_address(tensor.name, self._buffer(tensor.name, max(1, array.nbytes)))
        self._shapes = {name: array.shape for name, array in arrays.items()}

    def _recorded(self) -> Callable[[], None]:
        """Return what runs the engine on its buffers: a recorded graph where there can be one."""
        if not self._wants_graph:
            return self._enqueue
        self._enqueue()  # what TensorRT does at the first run alone must not be recorded
        self._memory.synchronize()
        try:
            return self._memory.capture(self._enqueue)
        except RuntimeError as error:  # a layer that cannot be recorded: it runs without a graph as before
            self._wants_graph, self.graph_remark = False, f"no CUDA graph: {error}"
            return self._enqueue

    def _buffer(self, name: str, size_bytes: int) -> int:
        address, size = self._buffers.get(name, (0, 0))
        if size < size_bytes:
            if size:
                self._memory.free(address)
                del self._buffers[name]
            address = self._memory.allocate(size_bytes)
            self._buffers[name] = (address, size_bytes)
        return address

    def _enqueue(self) -> None:
        context = self._context
        if not context.execute_async_v3(self._memory.stream):
            raise self._engine.error(f"TensorRT failed while running '{self._engine.name}'")
