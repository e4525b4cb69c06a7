"""--device, --remote-dir and --remote-python: on what `bench` measures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mggc_edge.cli.output import SECONDS_BETWEEN_LINES, Output, file_size

if TYPE_CHECKING:
    from mggc_edge.benchmarks.devices.base import Device, DeviceFacts
    from mggc_edge.benchmarks.devices.ssh import Sending
    from mggc_edge.benchmarks.workload import Workload
    from mggc_edge.settings import Settings

LOCAL = ("x86", "arm64", "jetson", "auto")
REMOTE = "ssh://"
_PANEL = "Device"

DeviceFlag = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="x86|arm64|jetson|auto|ssh://user@host[:port]",
        rich_help_panel=_PANEL,
        help="What this machine has to be; or the machine to measure on, which ssh reaches without a password.",
    ),
]
RemoteDir = Annotated[
    str | None,
    typer.Option(
        "--remote-dir",
        metavar="D",
        rich_help_panel=_PANEL,
        help="Where models lie there [dim](default: ~/.cache/mggc-edge)[/].",
        show_default=False,
    ),
]
RemotePython = Annotated[
    str | None,
    typer.Option(
        "--remote-python",
        metavar="P",
        rich_help_panel=_PANEL,
        help="Its Python, 3.8 or later, with numpy and the engines [dim](default: python3)[/].",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class DeviceChoice:
    """What the flags ask for."""

    device: str
    folder: str | None
    python: str | None

    @property
    def is_here(self) -> bool:
        """Whether it is this machine."""
        return not self.device.startswith(REMOTE)

    def check(self) -> None:
        """Check what can be known before anything is read or reached.

        Raises:
            InputError: it is no address, or this machine is another one.
        """
        from mggc_edge.benchmarks.devices.address import parse_address

        if self.device.startswith(REMOTE):
            parse_address(self.device)
            if self.folder is not None and not self.folder.strip():
                raise typer.BadParameter("--remote-dir needs the name of a folder.")
            return
        for flag, value in (("--remote-dir", self.folder), ("--remote-python", self.python)):
            if value is not None:
                raise typer.BadParameter(f"{flag} needs another machine: --device ssh://user@host.")
        check_this_machine(self.device)

    @contextmanager
    def open(self, out: Output, settings: Settings, models: Sequence[Workload]) -> Iterator[Device]:
        """Yield the device that measures these models, reached.

        Raises:
            DeviceError: it cannot be reached.
            MissingDependencyError: what would be sent to it cannot be checked here.
        """
        from mggc_edge.benchmarks.devices.address import parse_address
        from mggc_edge.benchmarks.devices.local import LocalDevice
        from mggc_edge.benchmarks.devices.ssh import REMOTE_DIR, REMOTE_PYTHON, SshDevice
        from mggc_edge.lazy import require

        if not self.device.startswith(REMOTE):
            with LocalDevice() as local:
                _say_int8(out, models, local.facts)
                yield local
            return
        if any(model.path.suffix.lower() == ".onnx" for model in models):
            require("onnx", extra="onnx")  # with which they were checked
        address = parse_address(self.device)
        device = SshDevice(
            address,
            folder=REMOTE_DIR if self.folder is None else self.folder,
            python=REMOTE_PYTHON if self.python is None else self.python,
            config=_ssh_config(settings["bench.ssh_config"]),
            sending=_sending(out, str(address)),
        )
        out.remark(f"connecting to {address}")
        with device:
            _say_int8(out, models, device.facts)
            yield device


def check_this_machine(device: str) -> None:
    """Check that this machine is the one that was asked for."""
    from mggc_edge.errors import InputError
    from mggc_edge.machine import this_machine

    if device not in LOCAL:
        raise typer.BadParameter(f"--device takes {', '.join(LOCAL)} or {REMOTE}user@host, not '{device}'.")
    machine = this_machine()
    if device in ("auto", machine.device) or (device == "arm64" and machine.device == "jetson"):
        return
    if device == "jetson":
        raise InputError(
            f"this machine is no Jetson but {machine.processor} ({machine.device})",
            hint="--device ssh://user@host measures on a Jetson from here",
        )
    raise InputError(f"this machine is {machine.device}, not {device}", hint="leave out --device")


def _say_int8(out: Output, models: Sequence[Workload], device: DeviceFacts) -> None:
    """Say once that 8-bit models are not what the device's processor is fast at, where that is so."""
    from mggc_edge.backends.abilities import no_int8
    from mggc_edge.machine import INT8_SETS

    on_cpu = any((model.precision, model.provider) == ("int8", "cpu") for model in models)
    if on_cpu and not device.machine.has_any(INT8_SETS):
        out.remark(f"note: {no_int8()}, so that int8 gains little here")


def _ssh_config(text: str) -> Path | None:
    from mggc_edge.errors import InputError

    path = Path(text).expanduser()
    if text and not path.is_file():
        raise InputError(f"there is no file '{path}'", hint="bench.ssh_config names a configuration of ssh")
    return path if text else None


def _sending(out: Output, address: str) -> Sending:
    """Return what tells that a file is sent: once at its beginning, and every 10 seconds."""
    last = 0.0

    def told(name: str, sent: int, total: int) -> None:
        nonlocal last
        if not sent:
            out.remark(f"sending '{name}' to {address}, {file_size(total)}")
            last = time.monotonic()
        elif time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            out.remark(f"sending '{name}': {sent / total:.0%}")

    return told
