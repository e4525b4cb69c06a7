"""The process that runs one model: what it answers, and what it refuses."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from mggc_edge.benchmarks.agent import worker
from mggc_edge.benchmarks.disturbance import Noted
from mggc_edge.benchmarks.isolation import AGENT, WorkerProcess
from mggc_edge.benchmarks.workload import Workload
from tests.benchmarks.bench_helpers import convolutions, passing

OPEN = {
    "do": "open", "runtime": "onnxruntime", "provider": "CPUExecutionProvider", "precision": "fp32", "threads": 1,
    "image_size": None, "seed": 0,
}  # fmt: skip
WARM = {"do": "warm", "min_runs": 4, "min_ns": 0, "max_ns": 50_000_000}
CLOSE = {"do": "close"}


def served(*requests: dict[str, Any]) -> list[dict[str, Any]]:
    """What the worker answers, in this process."""
    answers = io.StringIO()
    try:
        worker.serve(io.StringIO("".join(json.dumps(request) + "\n" for request in requests)), answers)
    finally:
        gc.unfreeze()
        gc.enable()
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def opened(path: Path, **changes: Any) -> dict[str, Any]:
    answer: dict[str, Any] = served({**OPEN, "path": str(path), **changes})[0]
    return answer


def test_a_session_of_requests_is_answered_line_by_line(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx")
    first, warm, sampled, closed = served(
        {**OPEN, "path": str(path)}, WARM, {"do": "sample", "runs": 3, "untimed": 1}, CLOSE
    )
    assert set(first) == {
        "cores", "load_ns", "first_ns", "rss_before_bytes", "device_bytes", "provider", "inputs", "versions",
    }  # fmt: skip
    assert (first["provider"], first["inputs"]) == (
        "CPUExecutionProvider",
        [{"name": "x0", "dtype": "float32", "shape": [1, 3, 16, 16]}],
    )
    assert set(first["versions"]) == {"onnxruntime", "numpy"}
    assert first["load_ns"] > 0
    assert first["first_ns"] > 0
    assert set(warm) == {"runs", "ns", "settled", "median_ns"}
    assert warm["runs"] >= 4
    assert len(sampled["samples_ns"]) == 3
    assert all(type(sample) is int and sample > 0 for sample in sampled["samples_ns"])
    assert set(sampled["noted"]) == {
        "wall_ns", "cpu_ns", "involuntary_switches", "waited_ns", "suspended_ns", "enqueue_ns",
    }  # fmt: skip
    assert sampled["noted"]["wall_ns"] >= sum(sampled["samples_ns"])
    assert sampled["noted"]["cpu_ns"] > 0
    assert closed["rss_peak_bytes"] >= first["rss_before_bytes"] > 2**20


@pytest.mark.parametrize("block", [None, 3])
def test_threads_get_their_cores_after_two_runs_of_the_warm_up_and_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int | None
) -> None:
    taken: list[tuple[int, int]] = []
    spread: list[tuple[list[int], dict[int, int]]] = []

    def take(threads: int, number: int) -> list[int]:
        taken.append((threads, number))
        return [5, 7]

    monkeypatch.setattr(worker, "take_cores", take)
    monkeypatch.setattr(worker, "spread", lambda cores, ran: spread.append((cores, ran)))
    model = convolutions(tmp_path / "a.onnx")
    first, warm = served({**OPEN, "path": str(model), "threads": 2, "block": block}, WARM)
    assert first["cores"] == (None if block is None else [5, 7])
    assert taken == ([] if block is None else [(2, 3)])
    assert [cores for cores, _ in spread] == ([] if block is None else [[5, 7], [5, 7]])
    own = [ran[threading.get_native_id()] for _, ran in spread]
    assert own == sorted(own)
    assert all(0 < ns <= warm["ns"] + 50_000_000 for ns in own)


def test_it_runs_without_a_pause_for_as_long_as_it_is_told(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx")
    before = time.perf_counter_ns()
    _, ran = served({**OPEN, "path": str(path)}, {"do": "steady", "ns": 20_000_000})
    assert set(ran) == {"runs", "start_ns", "end_ns"}
    assert ran["runs"] >= 2
    assert before < ran["start_ns"] < ran["end_ns"] < time.perf_counter_ns()
    assert ran["end_ns"] - ran["start_ns"] >= 20_000_000


def test_a_fresh_process_loads_no_torch_no_onnx_and_nothing_of_this_package(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx")
    # Names that could stand in for libraries, beside which it is started.
    for name in ("numpy.py", "json.py", "onnxruntime.py"):
        (tmp_path / name).write_text("raise RuntimeError('shadowed')\n")
    program = (
        f"import runpy, sys; sys.argv = ['agent', 'worker']; runpy.run_path({str(AGENT)!r}, run_name='__main__'); "
        "sys.stderr.write(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps({**OPEN, "path": str(path)}) + "\n" + json.dumps(CLOSE) + "\n",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(done.stderr.split())
    assert {"numpy", "onnxruntime"} <= loaded
    assert loaded & {"torch", "onnx", "mggc_edge", "rich", "typer"} == set()
    alone = subprocess.run(
        [sys.executable, str(AGENT), "worker"],
        input=json.dumps({**OPEN, "path": str(path)}) + "\n", capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(alone.stdout)["provider"] == "CPUExecutionProvider"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_what_goes_in_and_comes_out_is_saved(tmp_path: Path, runtime: str) -> None:
    path, file = convolutions(tmp_path / "a.onnx"), tmp_path / "saved.npz"
    request = {"do": "save", "file": str(file)}
    assert served({**OPEN, "path": str(path), "runtime": runtime}, request, CLOSE)[1] == {}
    with np.load(file) as saved:
        assert set(saved) == {"input x0", "output 0"}
        (wanted,) = onnxruntime.InferenceSession(path).run(None, {"x0": saved["input x0"]})
        assert np.abs(saved["output 0"] - wanted).max() <= 1e-5
    refused = served({**OPEN, "path": str(path)}, {"do": "save", "file": str(path / "x.npz")})[1]
    assert refused == {"error": "file", "message": f"'{path}/x.npz' cannot be written: {os.strerror(errno.ENOTDIR)}"}


def test_the_time_to_copy_an_array_needs_no_model() -> None:
    (found,) = served({"do": "copy", "threads": 2, "bytes": 2**20, "copies": 2})
    assert found["best_ns"] > 1000


def test_it_ends_without_a_word_when_there_are_no_more_requests() -> None:
    done = subprocess.run([sys.executable, str(AGENT), "worker"], input="", capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("dtype", "name", "low", "high"),
    [
        (TensorProto.FLOAT, "float32", -1, 1), (TensorProto.FLOAT16, "float16", -1, 1),
        (TensorProto.DOUBLE, "float64", -1, 1), (TensorProto.UINT8, "uint8", 0, 255),
        (TensorProto.INT64, "int64", 0, 0), (TensorProto.BOOL, "bool", 0, 0),
    ],
)  # fmt: skip
def test_feeds_have_the_type_of_the_input_and_the_range_of_pictures(
    tmp_path: Path, dtype: int, name: str, low: int, high: int
) -> None:
    engine = worker.Worker()
    engine.answer({**OPEN, "path": str(passing(tmp_path / "a.onnx", dtype))})
    gc.unfreeze()
    gc.enable()
    feed = engine._feeds["x"]
    assert (feed.dtype.name, feed.shape) == (name, (1, 3, 16, 16))
    assert (feed.min() >= low, feed.max() <= high) == (True, True)
    assert (feed.std() > 0.5 * (high - low) / 12**0.5) or high == low


@pytest.mark.parametrize(
    ("said", "low", "high"),
    [
        ('{"channels": 3, "color": "BGR", "low": 0.0, "high": 255.0}', 0, 255),
        ('{"low": -0.5, "high": 0.5}', -0.5, 0.5),
        ('{"low": 1, "high": 0}', -1, 1),
        ('{"low": NaN, "high": 1}', -1, 1),
        ('{"low": -1e99, "high": 1e99}', -1, 1),
        ('{"low": [0], "high": 1}', -1, 1),
        ('["low"]', -1, 1),
        ("{", -1, 1),
    ],
)
def test_feeds_have_the_values_that_a_file_says_it_takes(tmp_path: Path, said: str, low: float, high: float) -> None:
    path = passing(tmp_path / "a.onnx", TensorProto.FLOAT)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"mggc_edge.input_format": said})
    onnx.save(model, path)
    engine = worker.Worker()
    engine.answer({**OPEN, "path": str(path)})
    gc.unfreeze()
    gc.enable()
    feed = engine._feeds["x"]
    assert low <= feed.min() < low + 0.05 * (high - low) < high - 0.05 * (high - low) < feed.max() <= high


def test_bytes_have_their_height_and_width_before_the_colours(tmp_path: Path) -> None:
    shape = ("batch", "height", "width", 3)
    path = passing(tmp_path / "a.onnx", TensorProto.UINT8, shape=shape)
    found = opened(path, image_size=[8, 24])["inputs"][0]
    assert (found["dtype"], found["shape"]) == ("uint8", [1, 8, 24, 3])
    assert opened(path, image_size=None)["error"] == "size"
    fixed = passing(tmp_path / "b.onnx", TensorProto.UINT8, shape=(1, 8, 24, 3))
    assert opened(fixed, image_size=[24, 3])["message"] == "it takes pictures of 8x24 only"


def test_open_sizes_become_one_picture_of_the_given_size(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx", shape=("batch", 3, "height", "width"))
    assert opened(path, image_size=[8, 24])["inputs"][0]["shape"] == [1, 3, 8, 24]


@pytest.mark.parametrize(
    ("shape", "image_size", "kind", "message"),
    [
        ((1, 3, "h", "w"), None, "size", "it takes pictures of any size"),
        ((1, 3, 16, 16), [8, 8], "fixed", "it takes pictures of 16x16 only"),
        ((1, "channels", 16, 16), None, "input", "its input 'x' leaves axis 1 open"),
        (("n", "length"), None, "input", "its input 'x' leaves axis 1 open"),
        (
            (1, 3, "h", "w"),
            [99999, 99999],
            "input",
            "its input 'x' has 29,999,400,003 elements; at most 268,435,456 are fed",
        ),
    ],
)
def test_inputs_that_cannot_be_fed_are_refused(
    tmp_path: Path, shape: tuple[int | str, ...], image_size: list[int] | None, kind: str, message: str
) -> None:
    path = passing(tmp_path / "a.onnx", TensorProto.FLOAT, shape)
    assert opened(path, image_size=image_size) == {"error": kind, "message": message}


def test_a_type_that_is_not_known_is_refused(tmp_path: Path) -> None:
    answer = opened(passing(tmp_path / "a.onnx", TensorProto.STRING))
    assert answer == {"error": "input", "message": "its input 'x' has the type tensor(string), which cannot be fed"}


def test_a_file_that_is_no_model_is_refused_and_ends_the_session(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a model")
    answers = served({**OPEN, "path": str(tmp_path / "a.onnx")}, WARM)
    assert len(answers) == 1
    assert answers[0]["error"] == "model"
    assert answers[0]["message"].startswith("ONNX Runtime cannot run it: ")


def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    answer = opened(convolutions(tmp_path / "a.onnx"))
    assert answer["error"] == "missing"
    assert answer["message"].startswith("onnxruntime cannot be imported here: ")


def warmed(monkeypatch: pytest.MonkeyPatch, times: list[int], **limits: int) -> dict[str, Any]:
    engine, left = worker.Worker(), iter(times)
    monkeypatch.setattr(engine, "_run", lambda: next(left))
    return engine.answer({"do": "warm", "min_runs": 4, "min_ns": 0, "max_ns": 10_000, **limits})


def test_the_warm_up_ends_when_two_blocks_take_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks are half of the runs, at most 5: the slow runs have to leave the one before the last.
    answer = warmed(monkeypatch, [100, 90, 80, 80] + [50] * 20)
    assert answer == {"runs": 12, "ns": 750, "settled": True, "median_ns": 50.0}
    assert warmed(monkeypatch, [50] * 10) == {"runs": 4, "ns": 200, "settled": True, "median_ns": 50.0}


def test_the_warm_up_lasts_at_least_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert warmed(monkeypatch, [50] * 30, min_runs=10)["runs"] == 10
    assert warmed(monkeypatch, [50] * 30, min_ns=1000)["runs"] == 20


def test_a_warm_up_that_never_settles_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    rising = [100 * 2**index for index in range(12)]
    answer = warmed(monkeypatch, rising)
    assert (answer["settled"], answer["ns"] >= 10_000, answer["ns"] - rising[answer["runs"] - 1] < 10_000) == (
        False,
        True,
        True,
    )


def test_a_slow_model_is_warmed_up_with_two_runs_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    assert warmed(monkeypatch, [50_000] * 3) == {"runs": 2, "ns": 100_000, "settled": False, "median_ns": 50_000.0}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that ties processes to cores")
def test_a_process_beside_a_busy_one_notes_that_it_was_stopped(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx", 24, (1, 3, 128, 128))
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    busy = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        assert busy.stdout is not None
        busy.stdout.readline()
        with WorkerProcess(Workload("a", path)) as process:
            process.ask({**OPEN, "path": str(path)}, 60)
            median = process.ask(WARM, 60)["median_ns"]
            request = {"do": "sample", "runs": max(3, int(300_000_000 / median)), "untimed": 0}
            noted = Noted.from_answer(process.ask(request, 60)["noted"])
    finally:
        os.sched_setaffinity(0, allowed)
        busy.kill()
        busy.communicate()
    assert noted.disturbed(1)
    assert noted.involuntary_switches is not None
    assert noted.involuntary_switches >= 3
    assert noted.cpu_ns is not None
    assert noted.cpu_ns < 0.9 * noted.wall_ns
    # Without the kernel's waiting times, processor time and switches say the same.
    assert replace(noted, waited_ns=None).disturbed(1)
    assert replace(noted, waited_ns=None).disturbed(2)


@pytest.mark.parametrize(
    ("files", "waited"),
    [
        ({"7": "1000 250 3\n", "8": "5 50 1\n"}, 300),
        ({"7": "1000 250 3\n", "8": "nonsense\n", "9": "\n"}, 250),
        ({"7": "0 0 0\n"}, None),  # a kernel that does not count
        ({}, None),
    ],
)
def test_waiting_is_summed_over_threads_where_the_kernel_counts_it(
    tmp_path: Path, files: dict[str, str], waited: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(text)
    assert worker._waited(tmp_path) == waited
    assert worker._waited(tmp_path / "gone") is None


def test_where_there_are_no_counts_they_are_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "resource", None)
    monkeypatch.setattr(worker, "_waited", lambda: None)
    engine = worker.Worker()
    monkeypatch.setattr(engine, "_run", lambda: 5)
    noted = engine.answer({"do": "sample", "runs": 2, "untimed": 1})["noted"]
    assert (noted["involuntary_switches"], noted["waited_ns"]) == (None, None)
