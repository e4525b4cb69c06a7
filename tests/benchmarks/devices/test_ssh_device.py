"""A device over a script that stands in for ssh: what is sent, what is asked, what goes wrong over there."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mggc_edge.benchmarks.devices.pack import agent
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.isolation import open_request
from mggc_edge.benchmarks.profiling import memory_bandwidth, profile
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import ArtifactError, DeviceError, InputError, MissingDependencyError
from mggc_edge.machine import this_machine
from tests.benchmarks.bench_helpers import convolutions, script
from tests.benchmarks.devices.conftest import MakeDevice

SHORT = {"pairs": 2, "processes": 1, "threads": 1, "warmup_seconds": 0.001}
BOARD = "ssh://me@board"


def running(text: str) -> list[int]:
    """The processes whose command line has a text in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def one_running(text: str, folder: Path) -> int:
    """The process that does that job of the agent in a folder; it may not have begun yet."""
    deadline = time.monotonic() + 20
    while not (found := set(running(text)) & set(running(str(folder)))) and time.monotonic() < deadline:
        time.sleep(0.01)
    (pid,) = found
    return pid


def gone(text: str, seconds: float = 20.0) -> bool:
    """Whether such processes end within a time."""
    deadline = time.monotonic() + seconds
    while running(text) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not running(text)


def stored(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "store").iterdir())


@pytest.fixture
def model(tmp_path: Path) -> Workload:
    return Workload("a", convolutions(tmp_path / "a 'b' \"c\" $(d).onnx"))


def test_models_are_sent_measured_and_not_sent_again(near: MakeDevice, model: Workload, tmp_path: Path) -> None:
    sending: list[tuple[str, int, int]] = []
    size = model.path.stat().st_size
    for turn in range(2):
        with near(sending=lambda *words: sending.append(words)) as device:
            report = measure([model], device=device, **SHORT)  # type: ignore[arg-type]
            assert device.sent_bytes == (len(agent().data) + size if turn == 0 else 0)
    assert sending == [(model.path.name, 0, size), (model.path.name, size, size)]
    assert report.context["address"] == BOARD
    assert report.context["cpu"]["model"] == this_machine().processor
    assert len(report.runs[0].samples_ns) == 2 * report.runs[0].runs_per_pair
    assert len(report.context["others_running"]) == 2
    sha256 = hashlib.sha256(model.path.read_bytes()).hexdigest()
    assert stored(tmp_path) == sorted([agent().name, f"{sha256}.onnx"])
    assert gone(str(tmp_path / "store"))


def test_a_file_that_was_damaged_there_is_sent_again(near: MakeDevice, model: Workload, tmp_path: Path) -> None:
    for _ in range(2):
        with near() as device:
            (place,) = device.prepare([model])
            assert Path(place).read_bytes() == model.path.read_bytes()
        Path(place).write_bytes(b"")
        (tmp_path / "store" / agent().name).write_bytes(b"print('nothing')")


def test_where_the_time_goes_is_seen_there(near: MakeDevice, model: Workload, tmp_path: Path) -> None:
    with near() as device:
        found = profile(model, threads=1, device=device)
        assert [node.op for node in found.nodes if "Conv" in node.op]
        assert memory_bandwidth(model, threads=1, device=device, size_bytes=2**20) > 1e6
        (notes,) = (tmp_path / "store").glob("work-*/profile*")
        assert device.fetch(notes.name) == notes.read_bytes()
        with pytest.raises(DeviceError, match="cannot be used: No such file"):
            device.fetch("nothing")
    assert not list((tmp_path / "store").glob("work-*"))


def test_the_folder_there_may_have_any_name_and_the_login_may_talk(
    near: MakeDevice, model: Workload, tmp_path: Path
) -> None:
    ssh = script(tmp_path / "talking", f'echo Welcome\nprintf "no line end"\nexec {tmp_path}/ssh "$@"')
    folder = tmp_path / "a 'b' \"c\" $(touch x); d"
    with near(folder=str(folder), ssh=str(ssh)) as device:
        device.prepare([model])
    assert len(list(folder.iterdir())) == 2


def test_files_beside_the_login_do_not_stand_in_for_libraries(
    near: MakeDevice, model: Workload, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("json.py", "hashlib.py", "numpy.py", "onnxruntime.py"):
        (home / name).write_text("raise RuntimeError('shadowed')\n")
    ssh = script(tmp_path / "at-home", f'for last; do :; done\ncd "{home}"\nexec sh -c "$last"')
    with near(ssh=str(ssh)) as device:
        assert measure([model], device=device, **SHORT).runs[0].p50_ms > 0  # type: ignore[arg-type]


# --- what goes wrong there ---


def test_a_connection_that_is_lost_ends_what_goes_on_there(near: MakeDevice, model: Workload, tmp_path: Path) -> None:
    with near() as device:
        (place,) = device.prepare([model])
        worker = device.start(model)
        worker.ask(open_request(model, place, 1, 0), 60)
        assert len(running(str(tmp_path / "store"))) == 2
        os.kill(one_running("serve", tmp_path / "store"), signal.SIGTERM)
        with pytest.raises(DeviceError) as caught:
            worker.ask({"do": "warm", "min_runs": 1, "min_ns": 10**12, "max_ns": 10**12}, 60)
        worker.end()
    assert caught.value.message == f"the agent on {BOARD} ended unexpectedly, with exit code 0"
    assert gone(str(tmp_path / "store"))
    with near() as device:  # the same command again
        assert measure([model], device=device, **SHORT).runs[0].p50_ms > 0  # type: ignore[arg-type]
        assert device.sent_bytes == 0


def test_a_busy_process_there_ends_with_the_connection(near: MakeDevice, model: Workload, tmp_path: Path) -> None:
    with near() as device:
        (place,) = device.prepare([model])
        worker = device.start(model)
        worker.ask(open_request(model, place, 1, 0), 60)
        with pytest.raises(ArtifactError, match=r"'a' takes too long to measure: no answer in 0\.1 s"):
            worker.ask({"do": "warm", "min_runs": 1, "min_ns": 10**12, "max_ns": 10**12}, 0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 10
    assert gone(str(tmp_path / "store"), 1)


def test_what_a_model_is_refused_for_there_is_said_as_here(near: MakeDevice, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"hello world")
    with near() as device:
        for name, error, text in (
            ("broken.onnx", ArtifactError, "'m' cannot be measured: ONNX Runtime cannot run it"),
            ("open.onnx", InputError, "'m' cannot be measured: it takes pictures of any size"),
        ):
            if not (tmp_path / name).exists():
                convolutions(tmp_path / name, shape=(1, 3, "h", "w"))
            with pytest.raises(error, match=text):
                measure([Workload("m", tmp_path / name)], device=device, **SHORT)  # type: ignore[arg-type]


def test_a_provider_that_is_not_there_is_to_be_installed_there(near: MakeDevice, model: Workload) -> None:
    with near() as device, pytest.raises(InputError, match="has no TensorrtExecutionProvider") as caught:
        measure([replace(model, provider="tensorrt")], device=device, **SHORT)  # type: ignore[arg-type]
    assert caught.value.hint == f"install a build of ONNX Runtime on {BOARD} that has it, or leave out --provider"


def test_a_process_that_is_killed_there_is_named(near: MakeDevice, model: Workload, tmp_path: Path) -> None:
    with near() as device:
        worker = device.start(model)
        os.kill(one_running("worker", tmp_path / "store"), signal.SIGKILL)
        with pytest.raises(ArtifactError) as caught:
            worker.ask({"do": "close"}, 20)
        assert caught.value.message == "the process that measures 'a' ended by SIGKILL"
        assert caught.value.hint == "the memory of the machine may have run out"
        with pytest.raises(ArtifactError, match="gave an answer that makes no sense"):
            worker.ask({"do": "close"}, 20)


def test_a_model_that_changes_meanwhile_is_not_measured(
    near: MakeDevice, model: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mggc_edge.benchmarks.devices.ssh.sha256_of", lambda _: "0" * 64)
    with near() as device, pytest.raises(DeviceError, match=f"a model changed while it was sent to {BOARD}"):
        device.prepare([model])


@pytest.mark.parametrize("kilobytes", [0, 8, 200], ids=["nothing", "not the agent", "not the model"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half(
    near: MakeDevice, wrapped: Callable[[str], str], tmp_path: Path, kilobytes: int
) -> None:
    # No file may grow beyond a limit: the kernel refuses as it does where a disk is full.
    path = convolutions(tmp_path / "large.onnx")
    path.write_bytes(path.read_bytes() + bytes(300_000))
    device = near(python=wrapped(f"ulimit -f {2 * kilobytes}"))
    with pytest.raises(DeviceError) as caught, device:
        device.prepare([Workload("large", path)])
    assert caught.value.message.startswith(f"the disk of {BOARD} is full: ")
    assert "File too large" in caught.value.message
    assert caught.value.hint == "make room, or take another folder: --remote-dir"
    assert stored(tmp_path) == ([agent().name] if kilobytes == 200 else [])
    with near() as device:
        device.prepare([Workload("large", path)])


@pytest.mark.parametrize(
    ("python", "message", "hint"),
    [
        (
            "python3.99",
            f"there is no 'python3.99' on {BOARD}",
            "--remote-python names the Python there, 3.8 or later",
        ),
        ("/etc/passwd", f"'/etc/passwd' on {BOARD} cannot be run", "--remote-python names the Python there"),
    ],
)
def test_a_python_that_is_not_there_is_named(near: MakeDevice, python: str, message: str, hint: str) -> None:
    with pytest.raises(DeviceError) as caught, near(python=python):
        pass
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 6, 9), (3, 7, 17)])
def test_an_old_python_is_named_with_its_version(near: MakeDevice, tmp_path: Path, version: tuple[int, ...]) -> None:
    text = ".".join(map(str, version))
    real = Path.home() / ".pyenv/versions" / text / "bin/python"
    if real.exists():
        python = str(real)
    else:  # one that says so of itself
        says = f"import sys; sys.version_info = {version}; exec(sys.argv.pop(1))"
        python = str(script(tmp_path / "old", f"shift\nexec {sys.executable} -c '{says}' \"$@\""))
    with pytest.raises(DeviceError) as caught, near(python=python):
        pass
    assert caught.value.message == f"'{python}' on {BOARD} is Python {text}; measuring needs 3.8 or later"
    assert caught.value.hint == "--remote-python names a newer one"


def test_a_python_without_numpy_is_told_what_to_install_before_anything_is_sent(
    near: MakeDevice, model: Workload, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = str(tmp_path / "bare/bin/python")
    with near(python=python) as device:
        with pytest.raises(MissingDependencyError) as caught:
            device.prepare([model])
        assert device.sent_bytes == len(agent().data)
    assert caught.value.message == f"'{python}' on {BOARD} has no numpy and onnxruntime"
    assert f"install it there: {python} -m pip install numpy onnxruntime" in str(caught.value.hint)


@pytest.mark.parametrize("folder", ["file/store", "/proc/store", "~nobody-of-that-name/x"])
def test_a_folder_that_cannot_be_made_is_named(near: MakeDevice, tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    place = str(tmp_path / folder) if folder.startswith("file") else folder
    with pytest.raises(DeviceError) as caught, near(folder=place):
        pass
    assert caught.value.message.startswith(f"the folder '{place}' on {BOARD} cannot be used: ")
    assert caught.value.hint == "--remote-dir names another one"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of somebody else")
def test_a_folder_of_somebody_else_is_not_trusted(near: MakeDevice, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(DeviceError, match="cannot be used: it belongs to another user"):
        near(folder=str(tmp_path / "theirs")).__enter__()


def test_a_python_that_fails_is_quoted(near: MakeDevice, tmp_path: Path) -> None:
    python = script(tmp_path / "failing", "echo one >&2; echo 'lib.so: not found' >&2; exit 3")
    with pytest.raises(DeviceError) as caught, near(python=str(python)):
        pass
    assert caught.value.message == f"'{python}' on {BOARD} ended with exit code 3"
    assert caught.value.hint == "lib.so: not found"


def test_a_machine_without_ssh_is_told_so(near: MakeDevice, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be started: No such file") as caught, near(ssh=str(tmp_path / "no")):
        pass
    assert caught.value.hint == "install the client of OpenSSH"


@pytest.mark.parametrize(
    "answer",
    ["[1]", "nothing", "{}", '{"do": "serve"} {}', "x" * (2**22 + 2**17)],
    ids=["list", "text", "empty", "two", "long"],
)
def test_answers_that_make_no_sense_are_an_error(near: MakeDevice, tmp_path: Path, answer: str) -> None:
    (tmp_path / "answer").write_text(f"mggc-edge-agent:{answer}\n{answer}\n{answer}\n")
    ssh = script(tmp_path / "raving", f"cat {tmp_path}/answer; cat > /dev/null")
    with pytest.raises(DeviceError, match="makes no sense"), near(ssh=str(ssh)) as device:
        device.tell("moment")
