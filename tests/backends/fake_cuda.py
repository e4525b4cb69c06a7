"""CUDA without a GPU: cuda-python's names over memory of the host. Python 3.8, standard library and numpy."""

from __future__ import annotations

import ctypes
import enum
from types import SimpleNamespace
from typing import Any

Error = enum.IntEnum(
    "Error", {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2, "cudaErrorStreamCaptureInvalidated": 901}
)


class Stream(int):
    """A stream; what is put on it while it records is kept."""

    recording: Any = None


def make_cudart(device: str = "Fake", fail: Any = ()) -> Any:
    """Return the runtime's functions; those named in `fail` give an error. `held` has what was not given back."""
    held: dict[int, Any] = {}
    stream, launched = Stream(7), []
    good = Error.cudaSuccess

    def malloc(size: int) -> Any:
        buffer = ctypes.create_string_buffer(size)
        held[ctypes.addressof(buffer)] = buffer
        return good, ctypes.addressof(buffer)

    def memcpy(target: int, source: int, size: int, kind: Any, stream: int) -> Any:
        ctypes.memmove(target, source, size)
        return (good,)

    def free(address: int) -> Any:
        del held[address]
        return (good,)

    def begin(stream: Any, mode: Any) -> Any:
        stream.recording = []
        return (good,)

    def end(stream: Any) -> Any:
        graph, stream.recording = stream.recording, None
        return good, graph

    def launch(graph: Any, stream: Any) -> Any:
        launched.append(len(graph))
        for work in graph:
            work()
        return (good,)

    functions = {
        "cudaDeviceGetAttribute": lambda attribute, number: (good, {75: 8, 76: 7}[attribute]),
        "cudaGetDeviceProperties": lambda number: (good, SimpleNamespace(name=device.encode() + b"\0\0")),
        "cudaSetDevice": lambda number: (good,),
        "cudaStreamCreate": lambda: (good, stream),
        "cudaStreamDestroy": lambda stream: (good,),
        "cudaMalloc": malloc,
        "cudaFree": free,
        "cudaMemcpyAsync": memcpy,
        "cudaStreamSynchronize": lambda stream: (good,),
        "cudaStreamBeginCapture": begin,
        "cudaStreamEndCapture": end,
        "cudaGraphInstantiateWithFlags": lambda graph, flags: (good, graph),
        "cudaGraphDestroy": lambda graph: (good,),
        "cudaGraphExecDestroy": lambda graph: (good,),
        "cudaGraphLaunch": launch,
    }
    for name in fail:
        functions[name] = lambda *arguments: (Error.cudaErrorMemoryAllocation, None)
    return SimpleNamespace(
        cudaDeviceAttr=SimpleNamespace(cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76),
        cudaMemcpyKind=SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2),
        cudaStreamCaptureMode=SimpleNamespace(cudaStreamCaptureModeThreadLocal=1),
        held=held,
        launched=launched,
        stream=stream,
        **functions,
    )


def modules_of(cudart: Any) -> Any:
    """Return what `sys.modules` gets, so that `from cuda.bindings import runtime` finds these functions."""
    bindings = SimpleNamespace(runtime=cudart)
    return {"cuda": SimpleNamespace(bindings=bindings), "cuda.bindings": bindings, "cuda.bindings.runtime": cudart}
