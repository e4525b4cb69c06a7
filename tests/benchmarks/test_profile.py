"""Where the time goes: what engines wrote down, the table that follows, and real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks.profile_nodes import (
    CLASS_OF,
    CLASSES,
    NodeTime,
    onnxruntime_nodes,
    openvino_nodes,
    read_nodes,
)
from mggc_edge.benchmarks.profile_table import Peak, Profile
from mggc_edge.benchmarks.profiling import check_profiled, memory_bandwidth, peak_macs, profile
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.errors import ArtifactError, InputError
from tests.benchmarks.bench_helpers import convolutions

RUN = {"cat": "Session", "name": "model_run", "dur": 1}
MACS = 3 * 3 * 3 * 3 * 16 * 16


def event(name: str, op: str, dur: int) -> dict[str, Any]:
    args = {"op_name": op, "activation_size": "10", "parameter_size": "20", "output_size": "30"}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": args}


def node(name: str, op: str, ms: float, size: int = 0, *layers: str) -> NodeTime:
    return NodeTime(name, op, ms, size, (name, *layers))


def test_of_onnxruntime_the_median_of_the_runs_after_the_warm_up_is_taken() -> None:
    events: list[dict[str, Any]] = [{"cat": "Session", "name": "session_initialization", "dur": 9, "args": {}}]
    for dur in (9000, 1000, 5000, 2000):
        events += [event("if", "If", 10 * dur), event("y_nchwc", "Conv", dur), event("r", "ReorderOutput", 7), RUN]
    assert onnxruntime_nodes(events, 3) == (
        NodeTime("y_nchwc", "Conv", 2.0, 60, ("y_nchwc", "y")),
        NodeTime("r", "ReorderOutput", 0.007, 60, ("r", "r")),
    )


def test_of_openvino_the_median_of_the_parts_is_taken() -> None:
    def noted(runs: int, us: int) -> dict[str, Any]:
        return {
            "runs": runs,
            "nodes": [{"name": "MVN_1", "op": "MVN", "us": us, "bytes": 8, "layers": ["MVN_1", "c/WithoutBiases"]}],
        }

    # Sums of 900, 1000, 1600 and 1700 us: parts of 2, 2 and 1 runs take 50, 300 and 100 us a run.
    (found,) = openvino_nodes({"noted": [noted(1, 900), noted(3, 1000 // 3 + 1), noted(5, 320), noted(6, 283)]})
    assert found.ms == pytest.approx(0.098)
    assert (found.kind, found.size_bytes, found.layers) == ("norm", 8, ("MVN_1", "c/WithoutBiases", "c"))


@pytest.mark.parametrize("text", ["", "{}", '{"noted": []}', "[1]", '[{"cat": "Node", "name": "a_kernel_time"}]'])
def test_a_profile_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="the engine's profile cannot be read"):
        read_nodes(text.encode(), 1)


def test_an_engine_that_gives_no_times_is_refused() -> None:
    with pytest.raises(ArtifactError, match="the engine gave no times of its nodes"):
        read_nodes(json.dumps([RUN, event("a", "Conv", 0), RUN]).encode(), 1)
    with pytest.raises(InputError, match="no node of 'm' takes any time"):
        Profile("m", 1, 1.0, (), None, None)


def test_every_operator_is_of_one_class() -> None:
    assert len(CLASS_OF) == sum(map(len, CLASSES.values()))
    assert node("a", "Unheard", 1.0).kind == "other"
    with pytest.raises(InputError, match=r"cannot take -1\.0 ms"):
        node("a", "Conv", -1.0)


def test_shares_sum_to_one_and_a_fused_convolution_counts_where_it_runs() -> None:
    nodes = (
        node("a", "MatMul", 1.0, 10, "c1"),
        node("b", "Conv", 3.0, 20),
        node("up", "ConvTranspose", 2.0),
        node("n", "MVN", 2.0),
    )
    macs = {"c1": ("Conv", 100), "renamed": ("Conv", 600), "up": ("ConvTranspose", 300)}
    found = Profile("m", 5, 9.0, nodes, macs, Peak(1e6, 1e4))
    rows = {row.kind: row for row in found.classes}
    assert next(iter(rows)) == "convolution"
    assert sum(row.time_share for row in rows.values()) == pytest.approx(1.0)
    assert sum(row.macs_share or 0 for row in rows.values()) == pytest.approx(1.0)
    assert {kind: row.macs for kind, row in rows.items()} == {
        "convolution": 600,
        "transposed convolution": 300,
        "norm": 0,
        "other": 100,
    }
    assert rows["convolution"].bound_ms == pytest.approx(0.6 + 2.0)
    assert rows["convolution"].peak_share == pytest.approx(0.2)
    assert rows["norm"].peak_share is None
    assert found.bound_ms == pytest.approx(0.7 + 0.3 + 3.0)
    assert [(kind, round(gap, 6)) for kind, gap in found.between] == [
        ("norm", 2.0),
        ("transposed convolution", 1.7),
        ("convolution", 0.4),
    ]
    assert found.to_json()["macs_executed"] == 1000


def test_without_macs_or_peak_there_is_no_bound() -> None:
    for macs, peak in ((None, Peak(1e6, 1e4)), ({"c": ("Conv", 5)}, None)):
        found = Profile("m", 1, 1.0, (node("c", "Conv", 1.0),), macs, peak)
        assert (found.bound_ms, found.between) == (None, ())
        assert found.classes[0].macs == (5 if macs else None)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_real_model_is_profiled(runtime: str, tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx", count=2)
    model = Workload("a", path, runtime=runtime)
    macs = {"x1": ("Conv", MACS), "x2": ("Conv", MACS)}
    found = profile(model, threads=1, macs=macs, peak=Peak(1e12, 1e12))
    rows = {row.kind: row for row in found.classes}
    assert (rows["convolution"].nodes, rows["convolution"].macs, rows["convolution"].macs_share) == (2, 2 * MACS, 1.0)
    assert rows["convolution"].size_bytes >= 2 * 2 * 3 * 16 * 16 * 4
    assert sum(row.time_share for row in rows.values()) == pytest.approx(1.0)
    assert found.runs == 60
    assert found.bound_ms is not None
    assert found.nodes_ms > 0
    assert peak_macs([(model, 2 * MACS)], threads=1) > 1e6
    assert sorted(tmp_path.iterdir()) == [path]


def test_what_runs_on_another_device_is_not_profiled(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'a' cannot be profiled on 'cuda'"):
        check_profiled([Workload("a", tmp_path / "a.onnx", provider="cuda")])


def test_the_bandwidth_is_that_of_the_threads_together() -> None:
    model = Workload("a", Path("a.onnx"))
    assert memory_bandwidth(model, threads=2, size_bytes=2**20) > 1e6
    with pytest.raises(InputError, match="the number of threads must be between 1 and 1,024, not 0"):
        memory_bandwidth(model, threads=0)
    with pytest.raises(InputError, match="no machine has a peak of 0 MACs"):
        Peak(0, 1)
