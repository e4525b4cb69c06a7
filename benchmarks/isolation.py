"""A model in a fresh process: started without a shell, asked in lines of JSON, always ended."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mggc_edge.backends.onnxruntime import provider_name
from mggc_edge.backends.tensorrt import read_engine_facts
from mggc_edge.benchmarks.agent.child import Child, LongLineError
from mggc_edge.benchmarks.answers import makes_sense
from mggc_edge.benchmarks.devices.base import Worker
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import ArtifactError, InputError, MggcEdgeError, MissingDependencyError
from mggc_edge.lazy import install_line

AGENT = Path(__file__).with_name("agent")
EXTRAS = {
    "openvino": "openvino",
    "tensorrt": "tensorrt",
}  # runtime -> the optional dependencies that install it, where these are not "ort"
# Error kinds that are no fault of the file, and the way out.
HINTS = {
    "size": "give an image size",
    "fixed": "leave the image size out",
    "provider": "see mggc-edge doctor",
    "engine": "build it on that device: python3 build.py in the folder that export --runtime tensorrt writes",
}


class WorkerProcess:
    """A fresh process that runs one model; see `mggc_edge.benchmarks.agent.worker` for what it can be asked.

    Args:
        model: what it runs; errors name it.
        command: the program, for tests.
    """

    def __init__(self, model: Workload, command: tuple[str, ...] = (sys.executable, str(AGENT), "worker")) -> None:
        self._model = model
        try:
            self._child = Child(command)
        except OSError as error:
            raise InputError(f"no process can be started to measure '{model.name}': {error.strerror}") from error

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and return its answer.

        Args:
            request: a JSON object with the key `do`.
            timeout: seconds to wait for the answer.

        Raises:
            ArtifactError: the model cannot be run, its process died, or it did not answer in time.
            InputError: the file leaves its picture size open and none was given, or takes another one; or the
                provider is not there.
            MissingDependencyError: the engine is not installed here.
        """
        try:
            self._child.send(json.dumps(request).encode() + b"\n")
            return read_answer(self._model, request, self._child.line(timeout))
        except TimeoutError:
            raise too_long(self._model, timeout) from None
        except LongLineError:
            raise nonsense(self._model) from None
        except (OSError, EOFError):
            raise self._died() from None

    def end(self) -> None:
        """End the process, if need be by force, and close what belongs to it."""
        self._child.end()

    def _died(self) -> MggcEdgeError:
        code = self._child.exit_code()
        return nonsense(self._model) if code is None else died(self._model, code, self._child.last_words())


def read_answer(
    model: Workload, request: Mapping[str, Any], line: str | bytes, address: str | None = None
) -> dict[str, Any]:
    """Return the answer of a worker.

    Args:
        model: what it runs.
        request: what it was asked.
        line: what it said.
        address: where it runs; None: on this machine.

    Raises:
        ArtifactError: it makes no sense, or the model cannot be run.
        InputError, MissingDependencyError: see `WorkerProcess.ask`.
    """
    try:
        answer: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise nonsense(model) from None
    if not isinstance(answer, dict):
        raise nonsense(model)
    if "error" in answer:
        raise _refused(model, str(answer["error"]), str(answer.get("message")), address)
    if not makes_sense(request, answer):
        raise nonsense(model)
    return dict(answer)


def too_long(model: Workload, timeout: float) -> ArtifactError:
    """Return the error of a worker that does not answer."""
    return ArtifactError(
        f"'{model.name}' takes too long to measure: no answer in {timeout:.3g} s",
        hint="give it more time with the setting bench.max_seconds",
    )


def nonsense(model: Workload) -> ArtifactError:
    """Return the error of an answer that is none."""
    return ArtifactError(f"the process that measures '{model.name}' gave an answer that makes no sense")


def died(model: Workload, code: int, words: Sequence[str]) -> ArtifactError:
    """Return the error of a worker that ended on its own, with what it wrote to stderr last."""
    how = f"with exit code {code}"
    if code < 0:
        with suppress(ValueError):
            how = f"by {signal.Signals(-code).name}"
    hint = words[-1] if words else None
    if code == -signal.SIGKILL:
        hint = "the memory of the machine may have run out"
    return ArtifactError(f"the process that measures '{model.name}' ended {how}", hint=hint)


def _refused(model: Workload, kind: str, message: str, address: str | None) -> MggcEdgeError:
    if kind == "missing":
        install = install_line(EXTRAS.get(model.runtime, "ort")) if address is None else f"install it on {address}"
        return MissingDependencyError(message, hint=install)
    hint = HINTS.get(kind)
    if kind == "provider" and address is not None:
        hint = f"install a build of ONNX Runtime on {address} that has it, or leave out --provider"
    error = InputError if kind in HINTS else ArtifactError
    return error(f"'{model.name}' cannot be measured: {message}", hint=hint)


def start_worker(model: Workload) -> Worker:
    """Start a fresh process for a model; nothing is loaded until it is asked to."""
    return WorkerProcess(model)


def open_request(model: Workload, place: str, threads: int, seed: int, *, block: int | None = None) -> dict[str, Any]:
    """Return the request that opens a model with so many threads.

    Args:
        model: what is opened.
        place: where its file lies on the device.
        threads: threads inside an operator.
        seed: of what is fed.
        block: of the processes that shall run on the same cores; None: on whatever cores the system chooses.
    """
    on_cores = model.provider == "cpu" and model.runtime != "tensorrt"
    facts = {"facts": read_engine_facts(model.path)} if model.path.suffix == ".engine" else {}
    return {
        **facts,
        "do": "open",
        "path": place,
        "runtime": model.runtime,
        "provider": provider_name(model.provider),
        "precision": model.precision,
        "threads": threads,
        "image_size": None if model.image_size is None else list(model.image_size),
        "seed": seed,
        "block": block if on_cores else None,
    }
