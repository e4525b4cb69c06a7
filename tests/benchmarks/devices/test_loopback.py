"""Measuring over a real ssh server on the loopback: `make test-ssh`. Skipped, with the reason, where there is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mggc_edge.benchmarks.devices.address import Address, parse_address
from mggc_edge.benchmarks.devices.pack import agent
from mggc_edge.benchmarks.devices.ssh import SshDevice
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.isolation import open_request
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import DeviceError
from tests.benchmarks.bench_helpers import convolutions
from tests.benchmarks.devices.ssh_server import SshServer
from tests.benchmarks.devices.test_ssh_device import SHORT, gone, running

pytestmark = pytest.mark.ssh


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "a 'store' $(x)"


@pytest.fixture
def reach(server: SshServer, store: Path) -> Callable[..., SshDevice]:
    def make(address: str = server.address, config: Path = server.config, python: str = sys.executable) -> SshDevice:
        return SshDevice(parse_address(address), folder=str(store), python=python, config=config)

    return make


@pytest.fixture
def model(tmp_path: Path) -> Workload:
    return Workload("a", convolutions(tmp_path / 'it\'s "a" model.onnx', 2))


def test_a_model_is_measured_and_sent_once(reach: Callable[..., SshDevice], model: Workload, store: Path) -> None:
    for turn, address in enumerate(("ssh://board", None)):  # an alias of the configuration; user, host and port
        with reach() if address is None else reach(address) as device:
            report = measure([model], device=device, **SHORT)  # type: ignore[arg-type]
            assert device.sent_bytes == (0 if turn else len(agent().data) + model.path.stat().st_size)
            assert report.context["address"] == device.address
        assert report.runs[0].p50_ms > 0
    assert len(list(store.iterdir())) == 2
    assert gone(str(store))


@pytest.mark.parametrize("victim", ["client", "server"])
def test_a_killed_connection_is_one_sentence_and_nothing_goes_on(
    reach: Callable[..., SshDevice], server: SshServer, model: Workload, store: Path, victim: str
) -> None:
    with reach() as device:
        (place,) = device.prepare([model])
        worker = device.start(model)
        worker.ask(open_request(model, place, 1, 0), 60)
        assert device._connection is not None
        pid = device._connection._child.process.pid
        # Or the processes that sshd has for this connection.
        pids = [pid] if victim == "client" else [one for one in children(server.process.pid) if named(one, "sshd")]
        threading.Timer(0.5, kill, (pids,)).start()
        began = time.monotonic()
        with pytest.raises(DeviceError) as caught:  # in the middle of a warm-up that would last for minutes
            worker.ask({"do": "warm", "min_runs": 1, "min_ns": 10**12, "max_ns": 10**12}, 300)
        assert time.monotonic() - began < 30
        worker.end()
    assert caught.value.message == f"the connection to {server.address} was lost"
    assert "give the same command again" in str(caught.value.hint)
    assert gone(str(store))
    with reach() as device:
        assert measure([model], device=device, **SHORT).runs[0].p50_ms > 0  # type: ignore[arg-type]
        assert device.sent_bytes == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 512 kB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("taken", [0, 300_000, 480_000], ids=["for the model", "meanwhile", "for the agent"])
def test_a_disk_that_is_full_is_one_sentence(
    server: SshServer, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    path, folder = convolutions(tmp_path / "large.onnx"), small_disk / "store"
    path.write_bytes(path.read_bytes() + bytes(150_000 if taken else 500_000))
    device = SshDevice(parse_address(server.address), folder=str(folder), python=sys.executable, config=server.config)
    if taken != 300_000:
        (small_disk / "others").write_bytes(bytes(taken))
    else:  # once it is sure that there is room
        tell = device._tell
        monkeypatch.setattr(
            device, "_tell", lambda *words: ((small_disk / "others").write_bytes(bytes(taken)), tell(*words))
        )
    with pytest.raises(DeviceError) as caught, device:
        device.prepare([Workload("large", path)])
    assert caught.value.message.startswith(f"the disk of {server.address} is full: ")
    assert {0: "and 500,", 300_000: "No space left", 480_000: "No space left"}[taken] in caught.value.message
    assert [one.name for one in folder.iterdir()] == ([] if taken == 480_000 else [agent().name])


def test_a_file_that_may_not_grow_is_one_sentence(
    reach: Callable[..., SshDevice], wrapped: Callable[[str], str], server: SshServer, tmp_path: Path, store: Path
) -> None:
    path = convolutions(tmp_path / "large.onnx")
    path.write_bytes(path.read_bytes() + bytes(3_000_000))
    device = reach(python=wrapped("ulimit -f 2000"))
    with pytest.raises(DeviceError, match=f"the disk of {server.address} is full: .* File too large"), device:
        device.prepare([Workload("large", path)])
    assert [path.name for path in store.iterdir()] == [agent().name]


def test_a_wrong_python_is_one_sentence(reach: Callable[..., SshDevice], server: SshServer) -> None:
    with pytest.raises(DeviceError, match=f"there is no 'python3.99' on {server.address}"), reach(python="python3.99"):
        pass


def test_a_host_that_is_not_known_is_not_trusted(reach: Callable[..., SshDevice], server: SshServer) -> None:
    text = server.config.read_text()
    strange = server.write("strange.config", text.replace(f"{server.folder}/known_hosts", f"{server.folder}/none"))
    with pytest.raises(DeviceError) as caught, reach(config=strange):
        pass
    assert caught.value.message == f"{server.address} is not known to ssh"
    by_hand = f"ssh -p {server.port} {server.user}@127.0.0.1"
    assert caught.value.hint == f"connect once by hand, and compare the key: {by_hand}"
    assert not (server.folder / "none").exists()


def test_a_changed_host_key_is_not_trusted(reach: Callable[..., SshDevice], server: SshServer) -> None:
    key = (server.folder / "key.pub").read_text()
    server.write("changed_hosts", f"[127.0.0.1]:{server.port} {key}")
    text = server.config.read_text()
    changed = server.write("changed.config", text.replace("known_hosts", "changed_hosts"))
    with pytest.raises(DeviceError, match="has another host key than it had"), reach(config=changed):
        pass


def test_without_a_key_nobody_is_asked(reach: Callable[..., SshDevice], server: SshServer) -> None:
    text = server.config.read_text()
    keyless = server.write("keyless.config", text.replace(f"{server.folder}/key", f"{server.folder}/host_key"))
    with pytest.raises(DeviceError) as caught, reach(config=keyless):
        pass
    assert caught.value.message.startswith(f"{server.address} does not let you in: no key")
    assert "ssh-copy-id" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("ssh://me@127.0.0.1:1", "cannot be reached: no ssh server answers there"),
        ("ssh://me@board.invalid", "cannot be reached: its name is not known"),
    ],
)
def test_a_host_that_cannot_be_reached_is_one_sentence(
    reach: Callable[..., SshDevice], address: str, text: str
) -> None:
    with pytest.raises(DeviceError) as caught, reach(address):
        pass
    assert caught.value.message == f"{address} {text}"


def test_a_configuration_that_ssh_refuses_is_said_so(reach: Callable[..., SshDevice], server: SshServer) -> None:
    bad = server.write("bad.config", "NoSuchOption yes\n")
    with pytest.raises(DeviceError, match="ssh refuses its own configuration"), reach(config=bad):
        pass


def test_the_command_measures_there_and_says_where(
    server: SshServer, model: Workload, store: Path, tmp_path: Path
) -> None:
    def bench(*words: str) -> subprocess.CompletedProcess[str]:
        line = [
            sys.executable, "-m", "mggc_edge.cli", "bench", str(model.path), "--device", "ssh://board", "--remote-dir",
            str(store), "--remote-python", sys.executable, "--set", f"bench.ssh_config={server.config}", "--set",
            "bench.warmup_seconds=0.01", "--pairs", "1", *words,
        ]  # fmt: skip
        return subprocess.run(line, check=False, capture_output=True, text=True, timeout=120)

    first = bench()
    assert first.returncode == 0, first.stderr
    assert " over ssh://board, " in first.stdout
    assert first.stderr == f"connecting to ssh://board\nsending '{model.path.name}' to ssh://board, 0.5 kB\n"
    again = bench("--remote-python", "python3.99")
    assert (again.returncode, again.stdout) == (1, "")
    assert "error: there is no 'python3.99' on ssh://board\nhint: --remote-python" in again.stderr


def children(pid: int) -> list[int]:
    """The processes below a process, those of others' connections included: each test opens its own."""
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [below for child in found for below in children(child)]


def named(pid: int, name: str) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().startswith(name)


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_helpers_find_processes() -> None:
    program = Path("/proc/self/cmdline").read_text().split("\0")[0]
    assert os.getpid() in running(program)
    assert Address("board").command("x")[0] == "ssh"
