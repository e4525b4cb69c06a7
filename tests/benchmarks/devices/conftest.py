"""What the tests of devices share: a server on the loopback, and a program that stands in for ssh."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks.devices.address import Address
from mggc_edge.benchmarks.devices.ssh import SshDevice
from tests.benchmarks.bench_helpers import script
from tests.benchmarks.devices.ssh_server import SshServer, why_none

MakeDevice = Callable[..., SshDevice]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    reason = why_none()
    if reason is not None:
        pytest.skip(reason)
    with SshServer(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def near(tmp_path: Path) -> MakeDevice:
    """Make a device whose ssh is a script: it gives the command to a shell of this machine, as sshd would."""
    ssh = script(tmp_path / "ssh", 'for last; do :; done\ncd /\nexec sh -c "$last"')

    def make(**changes: Any) -> SshDevice:
        choices: dict[str, Any] = {"folder": str(tmp_path / "store"), "python": sys.executable, "ssh": str(ssh)}
        return SshDevice(Address("board", "me"), **{**choices, **changes})

    return make


@pytest.fixture
def wrapped(tmp_path: Path) -> Callable[[str], str]:
    """Write a program that does something and then is Python."""

    def make(before: str) -> str:
        return str(script(tmp_path / "wrapped-python", f'{before}\nexec {shlex.quote(sys.executable)} "$@"'))

    return make
