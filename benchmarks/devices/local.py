"""This machine as a device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mggc_edge.benchmarks.agent.surroundings import Surroundings
from mggc_edge.benchmarks.devices.base import DeviceFacts, Worker, facts_of
from mggc_edge.benchmarks.isolation import start_worker
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import DeviceError
from mggc_edge.machine import this_machine


class LocalDevice:
    """This machine.

    Args:
        start: how a process is started, for tests.
        surroundings: what is asked about the machine; None: the machine itself.
    """

    address: str | None = None

    def __init__(
        self, start: Callable[[Workload], Worker] = start_worker, surroundings: Surroundings | None = None
    ) -> None:
        self._start = start
        self._surroundings = Surroundings(this_machine) if surroundings is None else surroundings
        self._facts: DeviceFacts | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def facts(self) -> DeviceFacts:
        """What it is."""
        if self._facts is None:
            self._facts = facts_of(self.tell("machine"))
        return self._facts

    def __enter__(self) -> LocalDevice:
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="mggc-edge-")
        except OSError as error:
            raise DeviceError(
                f"no temporary folder can be made here: {error.strerror}", hint="TMPDIR names one that can be written"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._surroundings.close()
        if self._folder is not None:
            self._folder.cleanup()

    def tell(self, name: str) -> dict[str, Any]:
        """Return what it tells of itself."""
        return self._surroundings.tell(name)

    def prepare(self, models: Sequence[Workload]) -> list[str]:
        """Return the files' own places."""
        return [str(model.path.absolute()) for model in models]

    def start(self, model: Workload) -> Worker:
        """Start a fresh process."""
        return self._start(model)

    def notes(self, name: str) -> str:
        """Return a place in a temporary folder."""
        assert self._folder is not None
        return str(Path(self._folder.name) / name)

    def fetch(self, name: str) -> bytes:
        """Return what lies at that place.

        Raises:
            DeviceError: nothing does.
        """
        try:
            return Path(self.notes(name)).read_bytes()
        except OSError as error:
            raise DeviceError(f"'{self.notes(name)}' cannot be read: {error.strerror}") from error
