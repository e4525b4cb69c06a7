"""Passes are kept where a measurement shows that they pay, and the choice is kept for another time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from mggc_edge.artifacts import PORTABLE
from mggc_edge.benchmarks.disturbance import Noted
from mggc_edge.benchmarks.report import BenchmarkReport, ModelRun
from mggc_edge.benchmarks.samples import ProcessSamples
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.compiler import tune as module
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.facts import read_onnx
from mggc_edge.compiler.passes.contract import apply_passes
from mggc_edge.compiler.targets import TARGETS, choose_passes
from mggc_edge.compiler.to_onnx import to_onnx
from mggc_edge.compiler.tune import LIST, Tuned, TuneSettings, can_tune, passes_for, tune
from mggc_edge.errors import ArtifactError
from mggc_edge.machine import Machine
from mggc_edge.models.unet import unet_spec
from tests.models.model_helpers import network_of

TARGET = "x86-avx512"
SIZE = (32, 32)
Latency = Callable[[str, onnx.ModelProto], float]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """Return a U-Net, whose transposed convolutions are sites."""
    path = tmp_path_factory.mktemp("graph") / "g.onnx"
    network = network_of(unet_spec(halvings=5, ngf=4), size=SIZE, dtype=torch.float32)
    to_onnx(network, path, ExportSettings(image_size=SIZE, passes="none", simplify=False))
    return read_onnx(path)


class Measured:
    """A measurement whose latencies follow from the graphs that it is given."""

    def __init__(self, latency: Latency, warnings: Sequence[str] = ()) -> None:
        self._latency, self._warnings = latency, tuple(warnings)
        self.asked: list[list[str]] = []
        self.runtimes: set[str] = set()

    def __call__(self, models: Sequence[Workload], **how: Any) -> BenchmarkReport:
        self.asked.append([model.name for model in models])
        self.runtimes |= {model.runtime for model in models}
        runs = tuple(self._run(model, number) for number, model in enumerate(models))
        return BenchmarkReport({}, runs, 0.05)

    def _run(self, model: Workload, number: int) -> ModelRun:
        latency = self._latency(model.name, read_onnx(model.path))
        noise = np.random.default_rng(number).normal(1, 0.002, (6, 4))
        noted = tuple(Noted(wall_ns=1, cpu_ns=1, involuntary_switches=0, waited_ns=0) for _ in range(4))
        processes = tuple(
            ProcessSamples(
                load_ns=1, first_ns=1, warmup_runs=2, warmup_ns=1, settled=True,
                pairs=tuple((int(latency * 1e6 * factor),) for factor in noise[process]),
                rss_before_bytes=None, rss_peak_bytes=None, noted=noted,
            )
            for process in range(6)
        )  # fmt: skip
        return ModelRun(model, "0" * 64, 1, "CPU", 1, 1, (), processes, self._warnings)


def operators(model: onnx.ModelProto) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for node in model.graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


def faster_without_transposed(name: str, model: onnx.ModelProto) -> float:
    """A convolution for a transposed one pays 10 % if DepthToSpace was rewritten too, and costs 5 % if it was not."""
    found = operators(model)
    if "ConvTranspose" in found:
        return 10.0
    return 10.5 if "DepthToSpace" in found else 9.0


def test_two_passes_that_pay_only_together_are_both_kept(graph: onnx.ModelProto, tmp_path: Path) -> None:
    measured = Measured(faster_without_transposed)
    tuned = tune(graph, TARGET, measured=measured, cache=tmp_path)
    assert tuned.passes == tuple(TARGETS[TARGET].passes)
    kept = {trial.name: trial for trial in tuned.trials}
    assert set(kept) == {"transposed_convolution", "depth_to_space"}
    assert kept["transposed_convolution"].speedup == pytest.approx(10 / 9, abs=0.004)
    assert kept["depth_to_space"].speedup == pytest.approx(10.5 / 9, abs=0.004)
    for trial in tuned.trials:
        assert trial.kept
        assert trial.reason == "faster with it"
        assert trial.ci99 is not None
        assert 1 < trial.ci99[0] <= (trial.speedup or 0) <= trial.ci99[1]
    assert measured.asked == [[LIST, "transposed_convolution", "depth_to_space"]]


def test_what_is_not_shown_to_pay_is_left_out(graph: onnx.ModelProto, tmp_path: Path) -> None:
    def slower(name: str, model: onnx.ModelProto) -> float:
        return 10.0 if "ConvTranspose" in operators(model) else 11.0

    measured = Measured(slower)
    tuned = tune(graph, TARGET, measured=measured, cache=tmp_path)
    reasons = {trial.name: (trial.kept, trial.reason) for trial in tuned.trials}
    assert reasons == {
        "transposed_convolution": (False, "slower with it"),
        "depth_to_space": (False, "not shown to be faster with it"),
    }
    assert tuned.setting == "fold_batch_norm,dead_bias,merge_pad,thin_layer"
    assert measured.asked[1:] == [[LIST, "chosen"]]  # two went: the rest alone is held against the list
    chosen, _ = apply_passes(graph, choose_passes(tuned.setting, TARGET))
    assert operators(chosen)["ConvTranspose"] == operators(graph)["ConvTranspose"]


def test_the_whole_list_wins_where_what_is_left_of_it_is_slower(graph: onnx.ModelProto, tmp_path: Path) -> None:
    def only_together(name: str, model: onnx.ModelProto) -> float:
        return 12.0 if name == "chosen" else 10.0

    tuned = tune(graph, TARGET, measured=Measured(only_together), cache=tmp_path)
    assert tuned.passes == tuple(TARGETS[TARGET].passes)
    assert {trial.reason for trial in tuned.trials} == {"together with others it pays"}
    assert all(trial.kept for trial in tuned.trials)


def test_where_a_measuring_process_fails_the_list_is_taken_and_not_kept(graph: onnx.ModelProto, tmp_path: Path) -> None:
    def killed(_models: Sequence[Workload], **_: Any) -> BenchmarkReport:
        raise ArtifactError("the process that measures 'x' ended by SIGKILL")

    tuned = tune(graph, TARGET, measured=killed, cache=tmp_path)
    assert tuned.passes == tuple(TARGETS[TARGET].passes)
    assert tuned.remark == (
        "passes were not tuned in onnxruntime: the process that measures 'x' ended by SIGKILL; the list of "
        "'x86-avx512' is taken"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (None, "other processes disturbed the measurement (load)"),
        (ArtifactError("the process that measures 'chosen' ended by SIGKILL"),
         "the process that measures 'chosen' ended by SIGKILL"),
    ],
    ids=["disturbed", "killed"],
)  # fmt: skip
def test_where_what_is_left_cannot_be_held_against_the_list_the_list_is_taken_and_not_kept(
    graph: onnx.ModelProto, tmp_path: Path, failure: ArtifactError | None, why: str
) -> None:
    def slower(name: str, model: onnx.ModelProto) -> float:
        return 10.0 if "ConvTranspose" in operators(model) else 11.0

    first, second = Measured(slower), Measured(slower, warnings=["load"])

    def measured(models: Sequence[Workload], **how: Any) -> BenchmarkReport:
        if not first.asked:
            return first(models, **how)
        if failure is not None:
            raise failure
        return second(models, **how)

    tuned = tune(graph, TARGET, measured=measured, cache=tmp_path)
    assert (tuned.passes, tuned.trials) == (tuple(TARGETS[TARGET].passes), ())
    assert tuned.remark == f"passes were not tuned in onnxruntime: {why}; the list of 'x86-avx512' is taken"
    assert list(tmp_path.iterdir()) == []


def test_a_choice_is_made_for_every_engine_and_version_of_it_by_itself(
    graph: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_engine(name: str, model: onnx.ModelProto) -> float:
        return 10.0 if "ConvTranspose" in operators(model) else 11.0

    found = {}
    for engine, latency in (("onnxruntime", faster_without_transposed), ("openvino", by_engine)):
        measured = Measured(latency)
        found[engine] = tune(graph, TARGET, TuneSettings(engine=engine), measured=measured, cache=tmp_path)
        assert measured.runtimes == {engine}
        assert found[engine].to_json()["engine"] == engine
        again = Measured(latency)
        assert tune(graph, TARGET, TuneSettings(engine=engine), measured=again, cache=tmp_path).cached
        assert again.asked == []
    assert "transposed_convolution" in found["onnxruntime"].passes
    assert "transposed_convolution" not in found["openvino"].passes
    monkeypatch.setattr(module, "ENGINES", {**module.ENGINES, "openvino": lambda: "another"})
    newer = Measured(by_engine)
    assert not tune(graph, TARGET, TuneSettings(engine="openvino"), measured=newer, cache=tmp_path).cached
    assert newer.asked != []


def test_a_choice_is_measured_once(graph: onnx.ModelProto, tmp_path: Path) -> None:
    first = tune(graph, TARGET, measured=Measured(faster_without_transposed), cache=tmp_path)
    never = Measured(faster_without_transposed)
    again = tune(graph, TARGET, measured=never, cache=tmp_path)
    assert never.asked == []
    assert (first.cached, again.cached) == (False, True)
    assert (again.passes, again.trials) == (first.passes, first.trials)
    (place,) = tmp_path.iterdir()
    document = json.loads(place.read_text())
    assert (document["schema"], document["passes"]) == ("mggc-edge/tuning/1", list(first.passes))
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    other.graph.node[0].name = "another"
    more = TuneSettings(threads=3), TuneSettings(pairs=60), TuneSettings(processes=12), TuneSettings(max_seconds=600)
    for changed, how in ((other, TuneSettings()), *((graph, settings) for settings in more)):
        tune(changed, TARGET, how, measured=never, cache=tmp_path)
    assert len(never.asked) == 5
    assert len(list(tmp_path.iterdir())) == 6
    other.CopyFrom(graph)
    entry = other.metadata_props.add()
    entry.key, entry.value = "parent", "another checkpoint"
    assert tune(other, TARGET, measured=never, cache=tmp_path).cached


NO_INTERVAL = {"name": "thin_layer", "kept": True, "speedup": 1.1, "ci99": [], "reason": "faster with it"}


@pytest.mark.parametrize(
    "damage",
    [
        "", "[]", '{"schema": "mggc-edge/tuning/1"}', "{not json", '{"schema": "other"}',
        json.dumps({"schema": "mggc-edge/tuning/1", "passes": [], "trials": [NO_INTERVAL]}),
    ],
)  # fmt: skip
def test_a_damaged_note_is_measured_anew(graph: onnx.ModelProto, tmp_path: Path, damage: str) -> None:
    tune(graph, TARGET, measured=Measured(faster_without_transposed), cache=tmp_path)
    (place,) = tmp_path.iterdir()
    sound = place.read_text()
    place.write_text(damage)
    measured = Measured(faster_without_transposed)
    assert not tune(graph, TARGET, measured=measured, cache=tmp_path).cached
    assert len(measured.asked) == 1
    assert place.read_text() == sound


def test_a_disturbed_measurement_leaves_the_list_and_is_not_kept(graph: onnx.ModelProto, tmp_path: Path) -> None:
    measured = Measured(faster_without_transposed, warnings=["load"])
    tuned = tune(graph, TARGET, measured=measured, cache=tmp_path)
    assert tuned == Tuned(
        tuple(TARGETS[TARGET].passes),
        remark="passes were not tuned in onnxruntime: other processes disturbed the measurement (load); the list of "
        "'x86-avx512' is taken",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_said_and_costs_nothing(graph: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tuned = tune(graph, TARGET, measured=Measured(faster_without_transposed), cache=tmp_path / "file" / "below")
    assert tuned.passes == tuple(TARGETS[TARGET].passes)
    assert (tuned.remark or "").startswith("the tuning cannot be kept for another time: ")


def test_a_graph_without_sites_is_not_measured(tmp_path: Path) -> None:
    helper = onnx.helper
    shape = [1, 3, 4, 4]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")]
    model = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    measured = Measured(faster_without_transposed)
    assert tune(model, TARGET, measured=measured, cache=tmp_path) == Tuned(tuple(TARGETS[TARGET].passes))
    assert measured.asked == []


def test_only_this_machine_s_own_list_is_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "this_target", lambda machine=None: TARGET)
    assert can_tune("auto", TARGET)
    assert not can_tune("thin_layer", TARGET)
    assert not can_tune("none", TARGET)
    assert not can_tune("auto", "arm64")
    assert not can_tune("auto", PORTABLE)


def test_passes_that_are_not_tuned_are_the_list(graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "tune", lambda *_, **__: pytest.fail("it was measured"))
    for target, settings in ((TARGET, None), ("arm64", TuneSettings())):
        passes, tuned = passes_for(graph, "auto", target, settings)
        assert ([one.name for one in passes], tuned) == (list(TARGETS[target].passes), None)


def test_the_user_s_cache_folder_is_below_xdg_cache_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module.cache_folder() == tmp_path / "mggc-edge/tuning"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert module.cache_folder() == tmp_path / "home/.cache/mggc-edge/tuning"


def test_an_export_for_this_machine_measures_and_says_what_it_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "this_target", lambda machine: TARGET)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    measured = Measured(faster_without_transposed)
    real = module.tune
    monkeypatch.setattr(module, "tune", lambda *given, **how: real(*given, **how, measured=measured))
    network = network_of(unet_spec(halvings=5, ngf=4), size=SIZE, dtype=torch.float32)
    settings = ExportSettings(image_size=SIZE, target=TARGET, tune=TuneSettings(), simplify=False)
    assert settings.measures_passes
    exported = to_onnx(network, tmp_path / "g.onnx", settings)
    assert exported.tuned is not None
    assert [trial.name for trial in exported.tuned.trials] == ["transposed_convolution", "depth_to_space"]
    assert exported.artifact.settings["tuning"] == exported.tuned.to_json()
    assert "ConvTranspose" not in operators(read_onnx(tmp_path / "g.onnx"))


def test_a_machine_of_no_known_kind_tunes_nothing() -> None:
    machine = Machine(
        processor="?", architecture="riscv64", instruction_sets=(), cores=1, memory_bytes=None, jetson=None
    )
    assert not can_tune("auto", TARGET, machine)
