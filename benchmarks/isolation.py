"""A model in a fresh process: started without a shell, asked in lines of JSON, always ended."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from mggc_edge.backends.onnxruntime import provider_name
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import ArtifactError, InputError, MggcEdgeError, MissingDependencyError
from mggc_edge.lazy import install_line

AGENT = Path(__file__).with_name("agent")
MAX_ANSWER_BYTES = 2**20
SECONDS_TO_END = 5.0
EXTRAS = {"openvino": "openvino"}  # runtime -> the optional dependencies that install it, where these are not "ort"
# Error kinds that are no fault of the file, and the way out.
HINTS = {
    "size": "give an image size",
    "fixed": "leave the image size out",
    "provider": "see mggc-edge doctor",
}
_CHUNK = 2**16


class Worker(Protocol):
    """An opened model that can be asked to run."""

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and return its answer."""

    def end(self) -> None:
        """Release the process."""


class WorkerProcess:
    """A fresh process that runs one model; see `mggc_edge.benchmarks.agent.worker` for what it can be asked.

    Args:
        model: what it runs; errors name it.
        command: the program, for tests.
    """

    def __init__(self, model: Workload, command: tuple[str, ...] = (sys.executable, str(AGENT), "worker")) -> None:
        self._model = model
        self._rest = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in `end`; a pipe could fill up
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
            )
        except OSError as error:
            self._errors.close()
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
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self._died() from None
        answer = self._read(time.monotonic() + timeout, timeout)
        if "error" in answer:
            raise self._refused(str(answer["error"]), str(answer.get("message")))
        return answer

    def end(self) -> None:
        """End the process, if need be by force, and close what belongs to it."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_END)
        self._errors.close()

    def _read(self, deadline: float, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            with selectors.DefaultSelector() as selector:  # not select(), which knows only the first 1024 open files
                selector.register(handle, selectors.EVENT_READ)
                readable = selector.select(max(0.0, deadline - time.monotonic()))
            if not readable:
                raise ArtifactError(
                    f"'{self._model.name}' takes too long to measure: no answer in {timeout:.3g} s",
                    hint="give it more time with the setting bench.max_seconds",
                )
            chunk = os.read(handle, _CHUNK)
            if not chunk:
                raise self._died()
            self._rest += chunk
            if len(self._rest) > MAX_ANSWER_BYTES:
                raise self._nonsense()
        line, self._rest = self._rest.split(b"\n", 1)
        try:
            answer: Any = json.loads(line)
        except (ValueError, RecursionError):
            raise self._nonsense() from None
        if not isinstance(answer, dict):
            raise self._nonsense()
        return dict(answer)

    def _nonsense(self) -> ArtifactError:
        return ArtifactError(f"the process that measures '{self._model.name}' gave an answer that makes no sense")

    def _died(self) -> ArtifactError:
        try:
            code = self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return self._nonsense()  # it closed its side, and goes on
        how = f"with exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"by {signal.Signals(-code).name}"
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        last = self._errors.read().decode(errors="replace").strip().splitlines()
        hint = last[-1] if last else None
        if code == -signal.SIGKILL:
            hint = "the memory of this machine may have run out"
        return ArtifactError(f"the process that measures '{self._model.name}' ended {how}", hint=hint)

    def _refused(self, kind: str, message: str) -> MggcEdgeError:
        if kind == "missing":
            return MissingDependencyError(message, hint=install_line(EXTRAS.get(self._model.runtime, "ort")))
        hint = HINTS.get(kind)
        error = InputError if kind in HINTS else ArtifactError
        return error(f"'{self._model.name}' cannot be measured: {message}", hint=hint)


def start_worker(model: Workload) -> Worker:
    """Start a fresh process for a model; nothing is loaded until it is asked to."""
    return WorkerProcess(model)


def open_request(model: Workload, threads: int, seed: int) -> dict[str, Any]:
    """Return the request that opens a model with so many threads; what is fed follows from `seed`."""
    return {
        "do": "open",
        "path": str(model.path.absolute()),
        "runtime": model.runtime,
        "provider": provider_name(model.provider),
        "precision": model.precision,
        "threads": threads,
        "image_size": None if model.image_size is None else list(model.image_size),
        "seed": seed,
    }
