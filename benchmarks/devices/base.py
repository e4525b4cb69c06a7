"""What the harness needs of a device, whether it is this machine or one far away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from mggc_edge.benchmarks.agent.surroundings import Moment
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import DeviceError
from mggc_edge.machine import Machine

MAX_NAMES, MAX_TEXT = 100, 300  # of what a device tells of itself


class Worker(Protocol):
    """An opened model that can be asked to run."""

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and return its answer."""

    def end(self) -> None:
        """Release the process."""


@dataclass(frozen=True)
class DeviceFacts:
    """What a device is, as far as it does not change while it is measured.

    Attributes:
        machine: processor, instruction sets, memory, and whether it is a Jetson; its cores are those that may be used.
        all_cores: all that there are.
        os, kernel: of the operating system, as Python names them.
        python: version of the interpreter that measures.
        host: a word that stands for this machine and no other; None where it has no such number.
    """

    machine: Machine
    all_cores: int
    os: str
    kernel: str
    python: str
    host: str | None = None


class Device(Protocol):
    """A machine that models are measured on; its resources live between `__enter__` and `__exit__`.

    Attributes:
        address: how it is reached, as `--device` has it; None for this machine.
        facts: what it is.
    """

    @property
    def address(self) -> str | None:
        """How it is reached."""

    @property
    def facts(self) -> DeviceFacts:
        """What it is."""

    def __enter__(self) -> Device:
        """Reach it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what goes on there."""

    def tell(self, name: str) -> dict[str, Any]:
        """Return the device's answer to one of the names of `agent.surroundings.Surroundings`."""

    def prepare(self, models: Sequence[Workload]) -> list[str]:
        """Return where the file of each model lies on the device; what is not there yet is sent.

        Raises:
            DeviceError: it cannot be sent.
            MissingDependencyError: an engine is not installed there.
        """

    def start(self, model: Workload) -> Worker:
        """Start a fresh process for a model; nothing is loaded until it is asked to."""

    def notes(self, name: str) -> str:
        """Return the place of a file of that name on the device, for a worker to write into."""

    def fetch(self, name: str) -> bytes:
        """Return what a worker wrote into the file of that name."""


def facts_of(answer: Mapping[str, Any]) -> DeviceFacts:
    """Return what a device told as "machine".

    Raises:
        DeviceError: it makes no sense.
    """
    try:
        told = answer["machine"]
        machine = Machine(
            processor=_text(told["processor"]),
            architecture=_text(told["architecture"]),
            instruction_sets=tuple(_text(name) for name in told["instruction_sets"][:MAX_NAMES]),
            cores=_count(told["cores"]),
            memory_bytes=None if told["memory_bytes"] is None else _count(told["memory_bytes"]),
            jetson=None if told["jetson"] is None else _text(told["jetson"]),
            gpu_nodes=tuple(_text(name) for name in told["gpu_nodes"][:MAX_NAMES]),
            container=None if told["container"] is None else _text(told["container"]),
        )
        cores = _count(answer["all_cores"])
        return DeviceFacts(
            machine,
            all_cores=cores,
            os=_text(answer["os"]),
            kernel=_text(answer["kernel"]),
            python=_text(answer["python"]),
            host=None if answer["host"] is None else _text(answer["host"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError("what the device tells of itself makes no sense") from error


def moment_of(answer: Mapping[str, Any]) -> Moment:
    """Return what a device told as "moment".

    Raises:
        DeviceError: it makes no sense.
    """
    try:
        return Moment(
            load=_number(answer["load"]),
            ticks=None if answer["ticks"] is None else _count(answer["ticks"]),
            stolen_ticks=None if answer["stolen_ticks"] is None else _count(answer["stolen_ticks"]),
            governors=tuple(_text(name) for name in answer["governors"][:MAX_NAMES]),
            frequency_khz=_number(answer["frequency_khz"]),
            throttle_events=None if answer["throttle_events"] is None else _count(answer["throttle_events"]),
            temperature_c=_number(answer["temperature_c"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError("what the device tells of its surroundings makes no sense") from error


def others_of(answer: Mapping[str, Any]) -> int | None:
    """Return what a device told as "others": threads that want to run, None where it does not say.

    Raises:
        DeviceError: it makes no sense.
    """
    try:
        return None if answer["running"] is None else _count(answer["running"])
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError("what the device tells of other processes makes no sense") from error


def clock_of(answer: Mapping[str, Any]) -> int | None:
    """Return what a device told as "others": the clock of its fastest core in kHz, None where it does not say.

    Raises:
        DeviceError: it makes no sense.
    """
    try:
        return None if answer["clock_khz"] is None else _count(answer["clock_khz"])
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError("what the device tells of its clocks makes no sense") from error


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError
    return value


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value < 1e18:
        raise ValueError
    return float(value)
