"""The benchmark's worker with three more engines, for elsewhere.py: MNN, ncnn, and PyTorch as it is and compiled.

The file's ending chooses: .mnn, .param (ncnn, with a .bin beside it), .eager.json and .compiled.json (a saved network).
They are told the same as the others: so many threads, full precision, no spinning where they have that choice.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mggc_edge.benchmarks.agent import engines, worker

SIZES = "sizes"  # key of the JSON file beside a model of another engine: its input [1, 3, H, W]


class Elsewhere:
    """What these engines share: one input and one output, float32."""

    provider = "cpu"
    device_bytes: int | None = None
    metadata: Mapping[str, str] = {}

    def __init__(self, name: str) -> None:
        self.versions = {name: importlib.metadata.version(name)}
        self.inputs: list[tuple[str, str, list[int | str | None]]] = []

    def _input(self, path: Path) -> list[int]:
        """Note the input, whose sizes stand beside the model."""
        sizes: list[int] = json.loads(path.with_suffix(".sizes.json").read_text())[SIZES]
        self.inputs = [("input", "float32", list(sizes))]
        return sizes

    def note_profile(self) -> None:
        """Do nothing."""

    def end_profile(self) -> str:
        """Return nothing: these are not profiled."""
        return ""


class Mnn(Elsewhere):
    """MNN's CPU backend, through its module interface."""

    def __init__(self) -> None:
        super().__init__("MNN")
        import MNN.expr
        import MNN.nn

        self._expr, self._nn = MNN.expr, MNN.nn

    def open(self, request: Mapping[str, Any]) -> None:
        """Load a converted model."""
        sizes = self._input(Path(request["path"]))
        way = {"precision": "high", "backend": 0, "numThread": request["threads"]}
        self._manager = self._nn.create_runtime_manager((way,))
        self._net = self._nn.load_module_from_file(
            request["path"], ["input"], ["output"], runtime_manager=self._manager
        )
        self._feed = self._expr.placeholder(sizes, self._expr.NCHW)

    def run(self, feeds: Mapping[str, Any]) -> Any:
        """Run once; the output, [1, 3, H, W]."""
        self._feed.write(feeds["input"])
        (output,) = self._net.forward([self._feed])
        return np.array(self._expr.convert(output, self._expr.NCHW).read())


class Ncnn(Elsewhere):
    """ncnn on the processor, in float32."""

    def __init__(self) -> None:
        super().__init__("ncnn")
        import ncnn

        self._library: Any = ncnn

    def open(self, request: Mapping[str, Any]) -> None:
        """Load a converted model."""
        path = Path(request["path"])
        self._input(path)
        net = self._library.Net()
        net.opt.num_threads = request["threads"]
        for option in ("use_fp16_storage", "use_fp16_packed", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, option, False)
        net.load_param(str(path))
        net.load_model(str(path.with_suffix(".bin")))
        self._net = net

    def run(self, feeds: Mapping[str, Any]) -> Any:
        """Run once; the output, [3, H, W]."""
        with self._net.create_extractor() as extractor:
            extractor.input("in0", self._library.Mat(feeds["input"][0]).clone())
            _, output = extractor.extract("out0")
            return np.array(output)


class Torch(Elsewhere):
    """PyTorch, as it is or through torch.compile (inductor, C++)."""

    def __init__(self) -> None:
        super().__init__("torch")

    def open(self, request: Mapping[str, Any]) -> None:
        """Load a saved network; the first run compiles it."""
        import torch

        from mggc_edge.models.weights import load_network

        path = Path(request["path"])
        self._input(path)
        torch.set_num_threads(request["threads"])
        network = load_network(Path(json.loads(path.read_text())["network"])).eval()
        self._run: Callable[[Any], Any] = torch.compile(network) if ".compiled." in path.name else network
        self._torch = torch

    def run(self, feeds: Mapping[str, Any]) -> Any:
        """Run once; the output, [1, 3, H, W]."""
        with self._torch.inference_mode():
            return self._run(self._torch.from_numpy(feeds["input"])).numpy().copy()


def engine_of(path: Path) -> Elsewhere | None:
    """Return the engine of a file by its ending; None for what the worker itself opens."""
    endings: Mapping[str, type[Elsewhere]] = {".mnn": Mnn, ".param": Ncnn, ".json": Torch}
    kind = endings.get(path.suffix)
    return None if kind is None else kind()  # type: ignore[call-arg]


class Chosen:
    """Stands for ONNX Runtime in the worker's table, and opens what else a file's ending names."""

    def __init__(self) -> None:
        self._engine: Any = None

    def open(self, request: Mapping[str, Any]) -> None:
        """Load a model in the engine of its ending."""
        self._engine = engine_of(Path(request["path"])) or OnnxRuntime()
        self._engine.open(request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


OnnxRuntime = engines.OnnxRuntime

if __name__ == "__main__":
    engines.ENGINES["onnxruntime"] = Chosen  # type: ignore[assignment]
    worker.main()
