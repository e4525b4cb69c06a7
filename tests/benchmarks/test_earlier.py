"""Numbers of another day as a baseline: from where they are taken, and what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from mggc_edge import machine
from mggc_edge.artifacts import tool_versions
from mggc_edge.benchmarks import earlier as module
from mggc_edge.benchmarks.agent.surroundings import Surroundings, moment
from mggc_edge.benchmarks.board import board_facts
from mggc_edge.benchmarks.devices import local
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.earlier import check_same_machine, compare_with_earlier, read_earlier
from mggc_edge.benchmarks.environment import context
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.errors import ArtifactError, InputError
from tests.benchmarks.agent.boards import make
from tests.benchmarks.bench_helpers import run_of

MS = 1_000_000
# Per process, per pair, in ms; one of the six pairs is far off.
SLOW = [[[10, 11, 10], [12, 10, 10]], [[9, 9, 9], [30, 30, 30]], [[9, 10, 10], [11, 11, 12]]]


@pytest.fixture(autouse=True)
def known_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may have no number of its own."""
    monkeypatch.setattr("mggc_edge.benchmarks.agent.surroundings.host_id", lambda _: "this one")


def here() -> dict[str, Any]:
    now = moment()
    versions = {name: version for name, version in tool_versions().items() if version is not None}
    return context(LocalDevice().facts, None, now, now, versions)


def written(path: Path, changes: Mapping[str, Any] = {}, **facts: Any) -> Path:
    run = run_of("head.onnx", [[[ms * MS for ms in pair] for pair in one] for one in SLOW], macs=100, **facts)
    report = BenchmarkReport({**here(), **changes}, (run,), 0.05)
    path.write_text(json.dumps(report.to_json()))
    return path


def test_a_document_of_this_machine_is_taken(tmp_path: Path) -> None:
    found = read_earlier(written(tmp_path / "b.json"))
    check_same_machine(found, ["onnxruntime", "ort-mobile"])
    run = found.run_for("head.onnx", "onnxruntime", "fp32")
    assert list(map(list, run.processes)) == [[10 * MS, 10 * MS], [9 * MS, 30 * MS], [10 * MS, 11 * MS]]
    assert (run.size_bytes, run.macs_true, run.threads) == (7, 100, 2)
    assert found.run_for("another", "onnxruntime", "fp32") == run  # the only one


def test_pairs_that_were_left_out_stay_so(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json")
    document = json.loads(path.read_text())
    document["runs"][0]["processes"][1]["left_out"] = [1]
    path.write_text(json.dumps(document))
    assert read_earlier(path).runs[0].processes[1] == (9 * MS,)


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (("host",), "another", "machine"),
        (("kernel",), "1.0", "kernel"),
        (("cpu", "model"), "Another CPU", "processor"),
        (("cpu", "cores"), 1000, "number of cores"),
        (("method",), 1, "way of measuring"),
        (("versions", "onnxruntime"), "0.1", "version of onnxruntime"),
        (("versions", "mggc-edge"), "0.0", "version of mggc-edge"),
        (("versions", "numpy"), None, "version of numpy"),
    ],
)
def test_another_machine_or_version_is_refused_with_the_way_out(
    tmp_path: Path, place: tuple[str, ...], value: Any, what: str
) -> None:
    changed = here()
    inner = changed if len(place) == 1 else changed[place[0]]
    inner[place[-1]] = value
    found = read_earlier(written(tmp_path / "b.json", changed))
    with pytest.raises(InputError, match=f"was measured elsewhere: its {what} is ") as raised:
        check_same_machine(found, ["onnxruntime"])
    assert raised.value.hint == module.WAY_OUT


@pytest.mark.parametrize(("name", "mode"), [("25W", 1), ("MAXN_SUPER", 7)])
def test_another_power_mode_of_a_board_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: int
) -> None:
    board = tmp_path / "board"
    make(board, "orin-nx")
    monkeypatch.setattr(local, "Surroundings", lambda this_machine: Surroundings(this_machine, board))
    monkeypatch.setattr(machine, "this_machine", partial(machine.this_machine, board))
    with LocalDevice() as device:
        facts = board_facts(device)
    assert facts is not None
    check_same_machine(read_earlier(written(tmp_path / "b.json", {"board": facts})), ["onnxruntime"])
    facts["power_mode"] = {"name": name, "id": mode}
    with pytest.raises(InputError, match=r"was measured elsewhere: its (number of the )?power mode is "):
        check_same_machine(read_earlier(written(tmp_path / "b.json", {"board": facts})), ["onnxruntime"])


def test_a_library_is_known_under_whatever_name_it_was_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "onnxruntime-gpu":
            return "1.23.0"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]})
    assert module._version("onnxruntime") == "1.23.0"
    assert module._version("openvino") is None


def test_machines_without_a_number_of_their_own_are_not_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mggc_edge.benchmarks.agent.surroundings.host_id", lambda _: None)
    found = read_earlier(written(tmp_path / "b.json"))
    with pytest.raises(InputError, match=r"^nothing says that .* was measured on this machine: it has no /etc/machine"):
        check_same_machine(found, ["onnxruntime"])


def test_the_ratio_is_that_of_processes_that_were_measured_apart(tmp_path: Path) -> None:
    run = read_earlier(written(tmp_path / "b.json")).runs[0]
    now = run_of("head.onnx", [[[12 * MS] * 3], [[12 * MS] * 3], [[12 * MS] * 3]], macs=50)
    comparison = compare_with_earlier(run, now, "baseline", 0.05, 0.99)
    assert comparison.ratio.value == pytest.approx(10 / 12, rel=0.05)
    assert (comparison.a, comparison.b, comparison.macs_ratio, comparison.pairs) == ("baseline", "head.onnx", 2.0, 3)
    assert comparison.ratio.interval is not None
    with pytest.raises(InputError, match="the baseline was measured with --threads 2") as raised:
        compare_with_earlier(run, replace(now, threads=1), "baseline", 0.05, 0.99)
    assert raised.value.hint == "give --threads 2"
    with pytest.raises(InputError, match=r"was measured on CPUExecutionProvider, and 'head\.onnx' on CUDA"):
        compare_with_earlier(run, replace(now, provider="CUDAExecutionProvider"), "baseline", 0.05, 0.99)


def test_what_disturbed_the_earlier_measurement_forbids_a_verdict_now(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json", warnings=("load",))
    document = json.loads(path.read_text())
    document["runs"][0]["warnings"].append("of another version")
    path.write_text(json.dumps(document))
    run = read_earlier(path).runs[0]
    assert run.warnings == ("load",)
    now = run_of("head.onnx", [[[12 * MS] * 3]] * 3)
    assert compare_with_earlier(run, now, "baseline", 0.05, 0.99).disturbed == ("load",)


@pytest.mark.parametrize(("then", "today"), [(("steal",), ()), ((), ("steal",))])
def test_what_hosts_stole_at_different_times_forbids_a_verdict(
    tmp_path: Path, then: tuple[str, ...], today: tuple[str, ...]
) -> None:
    run = read_earlier(written(tmp_path / "b.json", warnings=then)).runs[0]
    now = run_of("head.onnx", [[[12 * MS] * 3]] * 3, warnings=today)
    assert compare_with_earlier(run, now, "baseline", 0.05, 0.99).disturbed == ("steal_apart",)


def test_which_run_is_meant_must_be_clear(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json")
    document = json.loads(path.read_text())
    document["runs"].append({**document["runs"][0], "model": "other"})
    path.write_text(json.dumps(document))
    found = read_earlier(path)
    assert found.run_for("other", "onnxruntime", "fp32").name == "other"
    with pytest.raises(InputError, match=r"has 2 runs that 'third' .* could be compared with"):
        found.run_for("third", "onnxruntime", "fp32")
    with pytest.raises(InputError, match="has no runs that 'other'"):
        found.run_for("other", "openvino", "fp32")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schema": "mggc-edge/compress/1"}, "is no document of mggc-edge bench: its schema is 'mggc-edge/compress/1'"),
        ({"complete": False}, "is a measurement that was not completed"),
        ({"runs": [{}]}, "is damaged"),
        ({"runs": 5}, "is damaged"),
        ({"context": None}, "is damaged"),
    ],
)
def test_what_is_no_finished_document_is_refused(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    path = written(tmp_path / "b.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactError, match=text):
        read_earlier(path)


@pytest.mark.parametrize("field", ["samples_ns", "processes", "runs_per_pair", "threads"])
def test_samples_that_do_not_fit_are_refused(tmp_path: Path, field: str) -> None:
    path = written(tmp_path / "b.json")
    document = json.loads(path.read_text())
    document["runs"][0][field] = {"samples_ns": [1.0, 2.0], "processes": [], "runs_per_pair": 0}.get(field)
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="is damaged"):
        read_earlier(path)
