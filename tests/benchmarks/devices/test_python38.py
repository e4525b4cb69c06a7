"""The agent under the oldest Python that a board may have, 3.8: JetPack 5's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mggc_edge.benchmarks.devices.base import moment_of, others_of
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.isolation import open_request
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import MissingDependencyError
from mggc_edge.machine import this_machine
from tests.benchmarks.bench_helpers import convolutions, script
from tests.benchmarks.devices.conftest import MakeDevice
from tests.benchmarks.devices.test_ssh_device import SHORT
from tests.boards.fetch import DONE, OLD_WHEELS

ENGINES = Path(__file__).parent.parent.parent.parent / ".cache/boards/python3.8"


@pytest.fixture
def old_python() -> str:
    places = [str(path) for path in (Path.home() / ".pyenv/versions").glob("3.8.*/bin/python")]
    for place in [*places, *filter(None, [shutil.which("python3.8")])]:
        said = subprocess.run([place, "--version"], check=False, capture_output=True, text=True)  # it may be a stand-in
        if said.stdout.startswith("Python 3.8."):
            return place
    pytest.skip("there is no Python 3.8 here")


def test_the_agent_serves_under_python_3_8(near: MakeDevice, old_python: str, tmp_path: Path) -> None:
    python = script(tmp_path / "old", f'exec {old_python} -S "$@"')  # whatever is installed in it
    with near(python=str(python)) as device:
        assert device.facts.python.startswith("3.8.")
        assert device.facts.machine == this_machine()
        assert moment_of(device.tell("moment")).ticks is not None
        assert others_of(device.tell("others")) is not None
        assert device.tell("libraries")["do"] == "libraries"


def test_without_engines_it_says_what_to_install(near: MakeDevice, old_python: str, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('not for this Python')\n")  # there, and of no use
    (tmp_path / "onnxruntime.py").write_text("")
    python = script(tmp_path / "old", f'PYTHONPATH={tmp_path} exec {old_python} "$@"')
    model = Workload("a", convolutions(tmp_path / "a.onnx"))
    with near(python=str(python)) as device:
        (place,) = device.prepare([model])
        worker = device.start(model)
        with pytest.raises(MissingDependencyError, match="numpy cannot be imported here: not for this Python"):
            worker.ask(open_request(model, place, 1, 0), 60)


@pytest.mark.boards
def test_models_are_measured_under_python_3_8(near: MakeDevice, old_python: str, tmp_path: Path) -> None:
    if not (ENGINES / DONE).exists():
        pytest.skip("its engines are not there: make test-arm64")
    python = script(tmp_path / "old", f'PYTHONPATH={ENGINES} exec {old_python} "$@"')
    model = Workload("a", convolutions(tmp_path / "a.onnx"))
    with near(python=str(python)) as device:
        report = measure([model], device=device, **SHORT)  # type: ignore[arg-type]
    versions = report.context["versions"]
    assert versions["python"].startswith("3.8.")
    assert {f"{name}=={versions[name]}" for name in ("numpy", "onnxruntime")} == set(OLD_WHEELS)
    assert report.runs[0].p50_ms > 0
