"""A device over ssh: the agent is sent there once, and everything else goes over its one connection.

The system's ssh makes the connection, so that the user's configuration, agent and known hosts apply. The shell of the
device sees one line, in which nothing but the name of its Python comes from outside. Files lie there under the hash of
what is in them.
"""

from __future__ import annotations

import base64
import itertools
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from mggc_edge.artifacts import sha256_of
from mggc_edge.benchmarks.bundles import packed
from mggc_edge.benchmarks.devices.address import Address, python_command
from mggc_edge.benchmarks.devices.base import DeviceFacts, Worker, facts_of
from mggc_edge.benchmarks.devices.complaints import complaint, refusal
from mggc_edge.benchmarks.devices.connection import Connection, program
from mggc_edge.benchmarks.isolation import died, nonsense, read_answer, too_long
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import DeviceError, MissingDependencyError

REMOTE_DIR, REMOTE_PYTHON = "~/.cache/mggc-edge", "python3"
CHUNK_BYTES = 2**20
MAX_NOTES_BYTES = 2**28  # of what a worker wrote
HASH_SECONDS = 600.0  # to read what is already there
LIBRARIES = {"onnxruntime": "onnxruntime", "ort-mobile": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}

Sending = Callable[[str, int, int], None]


class SshDevice:
    """A device that ssh reaches.

    Args:
        address: where it is.
        folder: where the agent and the models lie there; `~/` at its beginning is the home folder.
        python: the interpreter there, 3.8 or later, with numpy and the engines.
        config: of ssh, instead of the user's own.
        sending: is told (name, bytes sent, bytes in all) while a file is sent, and before.
        ssh: the program.
    """

    def __init__(
        self,
        address: Address,
        *,
        folder: str = REMOTE_DIR,
        python: str = REMOTE_PYTHON,
        config: Path | None = None,
        sending: Sending | None = None,
        ssh: str = "ssh",
    ) -> None:
        self._address, self._python, self._sending = address, python, sending
        run, self._first = program(folder)
        self._command = address.command(python_command(python, run), config, ssh)
        self._numbers = itertools.count()
        self._connection: Connection | None = None
        self._facts: DeviceFacts | None = None
        self._work = ""

    @property
    def address(self) -> str | None:
        """How it is reached."""
        return str(self._address)

    @property
    def facts(self) -> DeviceFacts:
        """What it is."""
        if self._facts is None:
            self._facts = facts_of(self.tell("machine"))
        return self._facts

    @property
    def sent_bytes(self) -> int:
        """How much was sent, of the agent and of models."""
        return self._open.sent_bytes

    def __enter__(self) -> SshDevice:
        connection = Connection(self._command, self._first, partial(complaint, self._address, self._python))
        if "error" in connection.greeting:
            connection.close()
            raise refusal(self._address, self._python, connection.greeting)
        self._connection = connection
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def _open(self) -> Connection:
        assert self._connection is not None, "the device is not entered"
        return self._connection

    def tell(self, name: str) -> dict[str, Any]:
        """Return what it tells of itself."""
        return self._request({"do": name})

    def prepare(self, models: Sequence[Workload]) -> list[str]:
        """Check that the engines are there, send what is not there yet, and return where each model's file lies."""
        self._check_libraries(models)
        with tempfile.TemporaryDirectory(prefix="mggc-edge-") as folder:
            carried = _carried(models, Path(folder))
            names = {path: f"{sha256_of(path)}{path.suffix.lower()}" for path in carried}
            files = {name: path for path, name in names.items()}
            sizes = [[name, path.stat().st_size] for name, path in files.items()]
            there = self._request({"do": "have", "files": sizes}, timeout=HASH_SECONDS)
            for name in _texts(there.get("missing")):
                if name in files:
                    self._send(name, files[name])
        self._work = str(there.get("work"))
        return [f"{there.get('folder')}/{names[path]}" for path in carried]

    def start(self, model: Workload) -> Worker:
        """Start a fresh process."""
        number = next(self._numbers)
        self._request({"do": "start", "worker": number})
        return _RemoteWorker(self._open, number, model, str(self._address))

    def notes(self, name: str) -> str:
        """Return a place in the agent's temporary folder."""
        return f"{self._work}/{name}"

    def fetch(self, name: str) -> bytes:
        """Return what lies at that place.

        Raises:
            DeviceError: there is nothing, or too much.
        """
        found = b""
        while len(found) <= MAX_NOTES_BYTES:
            answer = self._request({"do": "read", "name": name, "offset": len(found)})
            try:
                data = base64.b64decode(answer["data"], validate=True)
            except (KeyError, TypeError, ValueError) as error:
                raise DeviceError(f"{self._address} sent something else than '{name}'") from error
            if not data:
                return found
            found += data
        raise DeviceError(f"{self._address} has more than {MAX_NOTES_BYTES:,} bytes in '{name}'")

    def _send(self, name: str, path: Path) -> None:
        total, sent = path.stat().st_size, 0
        self._tell(path, 0, total)
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
                self._request({"do": "put", "name": name, "bytes": len(chunk)}, chunk)
                sent += len(chunk)
                self._tell(path, sent, total)
        self._request({"do": "keep", "name": name}, timeout=HASH_SECONDS)

    def _tell(self, path: Path, sent: int, total: int) -> None:
        if self._sending is not None:
            self._sending(path.name, sent, total)

    def _check_libraries(self, models: Sequence[Workload]) -> None:
        there = self.tell("libraries")
        needed = ["numpy", *(LIBRARIES[model.runtime] for model in models)]
        missing = [name for name in dict.fromkeys(needed) if there.get(name) is not True]
        if missing:
            names = " and ".join(missing)
            raise MissingDependencyError(
                f"'{self._python}' on {self._address} has no {names}",
                hint=f"install it there: {self._python} -m pip install {' '.join(missing)}; or --remote-python",
            )

    def _request(self, request: dict[str, Any], data: bytes = b"", timeout: float | None = None) -> dict[str, Any]:
        most = {} if timeout is None else {"timeout": timeout}
        answer = self._open.request(request, data, **most)
        if "error" in answer:
            raise refusal(self._address, self._python, answer)
        return answer


class _RemoteWorker:
    """A worker on a device."""

    def __init__(self, connection: Connection, number: int, model: Workload, address: str) -> None:
        self._connection, self._number, self._model, self._address = connection, number, model, address

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and return its answer; see `WorkerProcess.ask`."""
        self._connection.send({"do": "ask", "worker": self._number, "request": request})
        try:
            said = self._connection.of_worker(self._number, timeout)
        except TimeoutError:
            raise too_long(self._model, timeout) from None
        if isinstance(said.get("line"), str):
            return read_answer(self._model, request, said["line"], self._address)
        code = said.get("ended")
        if type(code) is not int:
            raise nonsense(self._model)
        raise died(self._model, code, _texts(said.get("words")))

    def end(self) -> None:
        """End the process there."""
        self._connection.end_worker(self._number)


def _carried(models: Sequence[Workload], folder: Path) -> list[Path]:
    """Return what is sent for each model: its file, or an archive of its bundle, which is made in that folder."""
    made: dict[Path, Path] = {}
    for model in models:
        if model.of_bundle and model.path.parent not in made:
            made[model.path.parent] = packed(model.path.parent, folder / f"{len(made)}.zip")
    return [made[model.path.parent] if model.of_bundle else model.path for model in models]


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
