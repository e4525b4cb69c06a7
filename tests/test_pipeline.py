"""A run folder appears as a whole: every file proven, hashed, and traced back to the checkpoint."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from mggc_edge.artifacts import read_manifest, sha256_of
from mggc_edge.compiler import torch_graph as exporter
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.errors import CheckFailedError, OutputError, PlanError, SpecError
from mggc_edge.models.convert import per_picture_norm
from mggc_edge.models.cost import macs, parameters
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.weights import load_network, weights_sha256
from mggc_edge.opening import open_runner
from mggc_edge.pipeline import Export, costs, export_folder
from mggc_edge.pruning.budget import kept_macs
from mggc_edge.pruning.plan import PruningPlan, read_plan
from mggc_edge.pruning.random import random_plan
from mggc_edge.tensors import FloatArray

SPEC = resnet_spec(blocks=1, ngf=4)
SIZE = (16, 24)
SETTINGS = ExportSettings(image_size=SIZE, simplify=False)
SOURCE = "ab" * 32
NETWORK = ["original/spec.json", "original/weights.safetensors"]
GENERATOR, ORIGINAL = "export/portable/generator.fp32.onnx", "export/portable/original.fp32.onnx"
FOLDERS: list[Path] = []  # of this session, for what is made once


@pytest.fixture(scope="module", autouse=True)
def folder_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDERS.append(tmp_path_factory.mktemp("pipeline"))


@functools.cache
def network() -> Network:
    generator = torch.Generator().manual_seed(0)
    made = Network(SPEC, layer_table(SPEC, SIZE)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (parameter[0].numel() ** -0.5 if parameter.ndim == 4 else 0.2))
    return made


@functools.cache
def plan() -> PruningPlan:
    return random_plan(network().table, 0.5, seed=1, source_sha256=weights_sha256(network()))


def export(folder: Path, **changes: Any) -> Export:
    arguments: dict[str, Any] = {
        "settings": SETTINGS, "plan": plan(), "source_sha256": SOURCE, "command": "export", "effective": {"seed": 3},
    }  # fmt: skip
    return export_folder(network(), folder, **(arguments | changes))


@functools.cache
def with_plan() -> tuple[Export, tuple[str, ...]]:
    """An export with a plan, made once, and what it told on the way."""
    told: list[str] = []
    return export(Path(FOLDERS[0], "with"), tell=told.append), tuple(told)


@functools.cache
def without_plan() -> tuple[Export, tuple[str, ...]]:
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        reuse_exports(patch)
        return export(Path(FOLDERS[0], "without"), plan=None, tell=told.append), tuple(told)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def feed() -> FloatArray:
    return np.random.default_rng(0).uniform(-1, 1, (1, 3, *SIZE)).astype(np.float32)


def run(path: Path) -> FloatArray:
    with open_runner(path) as runner:
        output: FloatArray = runner.infer({"input": feed()})["output"]
    return output


def torch_output(made: Network) -> FloatArray:
    with torch.inference_mode():
        output: FloatArray = made(torch.from_numpy(feed())).numpy()
    return output


# --- what is there ---


def test_with_a_plan_the_folder_holds_both_files_the_plan_and_the_slim_network() -> None:
    folder = with_plan()[0].folder
    listed = [GENERATOR, ORIGINAL, *NETWORK, "plan.json", "slim/spec.json", "slim/weights.safetensors"]
    assert files(folder) == sorted([*listed, "manifest.json"])
    assert sorted(entry["path"] for entry in read_manifest(folder)["files"]) == listed


def test_without_a_plan_the_folder_holds_the_original_and_its_file() -> None:
    made = without_plan()[0]
    assert files(made.folder) == sorted([GENERATOR, "manifest.json", *NETWORK])
    assert sorted(entry["path"] for entry in read_manifest(made.folder)["files"]) == [GENERATOR, *NETWORK]
    assert made.original is None
    assert made.table == made.original_table == layer_table(SPEC, SIZE)


@pytest.mark.parametrize("made", [with_plan, without_plan])
def test_every_listed_file_has_the_hash_and_the_size_that_the_manifest_says(made: Any) -> None:
    folder = made()[0].folder
    for entry in read_manifest(folder)["files"]:
        assert sha256_of(folder / entry["path"]) == entry["sha256"]
        assert (folder / entry["path"]).stat().st_size == entry["size_bytes"]


@pytest.mark.parametrize("made", [with_plan, without_plan])
def test_the_parents_of_every_file_lead_to_the_checkpoint(made: Any) -> None:
    entries = read_manifest(made()[0].folder)["files"]
    parent = {entry["sha256"]: entry["parent"] for entry in entries}
    for entry in entries:
        sha256, steps = entry["sha256"], 0
        while sha256 != SOURCE:
            sha256, steps = parent[sha256], steps + 1
            assert steps <= len(entries)


def test_the_saved_original_is_the_network_that_came_in(tmp_path: Path) -> None:
    saved = load_network(with_plan()[0].folder / "original", image_size=SIZE)
    assert weights_sha256(saved) == weights_sha256(network())


def test_the_generator_comes_from_the_slim_weights_and_these_from_the_original() -> None:
    made = with_plan()[0]
    entries = {entry["path"]: entry for entry in read_manifest(made.folder)["files"]}
    assert entries[GENERATOR]["parent"] == entries["slim/weights.safetensors"]["sha256"]
    assert entries["original/weights.safetensors"]["parent"] == entries["plan.json"]["parent"] == SOURCE
    original = entries["original/weights.safetensors"]["sha256"]
    assert entries["slim/weights.safetensors"]["parent"] == entries[ORIGINAL]["parent"] == original
    with open_runner(made.folder / GENERATOR) as runner:
        assert runner.metadata["mggc_edge.parent_sha256"] == entries[GENERATOR]["parent"]


def test_the_manifest_records_command_settings_tools_and_source() -> None:
    manifest = read_manifest(with_plan()[0].folder)
    assert (manifest["command"], manifest["settings"], manifest["source_sha256"]) == (
        "export",
        {"seed": 0, "image_size": [16, 24], "dynamic_batch": False, "bn": "eval", "target": "portable", "io": "float"},
        SOURCE,
    )
    assert manifest["tools"]["torch"] == torch.__version__
    assert set(manifest["timings_s"]) == {"slim", "export"}
    assert all(seconds >= 0 for seconds in manifest["timings_s"].values())
    generator = next(entry for entry in manifest["files"] if entry["path"] == GENERATOR)
    assert (generator["precision"], generator["settings"]["image_size"]) == ("fp32", [16, 24])
    assert generator["inputs"] == [{"name": "input", "dtype": "float32", "shape": [1, 3, 16, 24]}]


def test_nothing_in_the_json_files_tells_of_the_stage_or_the_machine() -> None:
    folder = with_plan()[0].folder
    for name in ("manifest.json", "plan.json", "slim/spec.json"):
        text = (folder / name).read_text()
        assert ".partial" not in text
        assert str(FOLDERS[0]) not in text


# --- what it computes and costs ---


def test_the_slim_file_is_the_slim_network_and_the_original_file_the_original() -> None:
    made = with_plan()[0]
    slender = slim(network(), plan().kept)
    assert np.abs(run(made.folder) - torch_output(slender)).max() <= 1e-4
    assert np.abs(run(made.folder / ORIGINAL) - torch_output(network())).max() <= 1e-4
    loaded = load_network(made.folder / "slim", image_size=SIZE)
    assert loaded.spec == slender.spec
    assert np.array_equal(torch_output(loaded), torch_output(slender))


def test_the_plan_in_the_folder_is_the_plan() -> None:
    assert read_plan(with_plan()[0].folder / "plan.json") == plan()


def test_the_result_points_to_files_that_are_there_and_proven() -> None:
    made = with_plan()[0]
    assert made.original is not None
    assert made.generator.artifact.path == made.folder / GENERATOR
    assert made.original.artifact.path == made.folder / ORIGINAL
    for exported in (made.generator, made.original):
        assert exported.parity.passed
        assert sha256_of(exported.artifact.path) == exported.artifact.sha256
    assert made.remarks == ()


def test_the_costs_are_those_of_the_tables() -> None:
    made = with_plan()[0]
    assert made.original_table == layer_table(SPEC, SIZE)
    assert macs(made.table) / macs(made.original_table) == plan().budget_met
    assert costs(made.table, made.generator.artifact.size_bytes) == {
        "parameters": parameters(made.table),
        "macs_true": macs(made.table, "true"),
        "macs_paper": macs(made.table, "paper"),
        "size_bytes": (made.folder / GENERATOR).stat().st_size,
    }


def test_every_stage_is_told() -> None:
    assert with_plan()[1] == (
        "slimming the generator",
        "exporting the generator and proving it equal",
        "exporting the original and proving it equal",
    )
    assert without_plan()[1] == ("exporting the generator and proving it equal",)


def test_the_network_is_not_changed() -> None:
    before = weights_sha256(network())
    with_plan()
    assert (weights_sha256(network()), network().spec) == (before, SPEC)


# --- remarks ---


def test_a_plan_made_from_other_weights_is_applied_with_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reuse_exports(monkeypatch)
    other = replace(plan(), source_sha256="cd" * 32)
    assert export(tmp_path / "run", plan=other).remarks == ("the plan was made from other weights of the same network",)
    assert export(tmp_path / "unknown", plan=replace(plan(), source_sha256=None)).remarks == ()


def test_a_remark_of_both_exports_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reuse_exports(monkeypatch)
    monkeypatch.setattr(exporter, "simplified", lambda model: (model, "onnxsim was left out"))
    made = export(tmp_path / "run", settings=replace(SETTINGS, simplify=True))
    assert made.remarks == ("onnxsim was left out",)


def test_without_a_known_checkpoint_the_lineage_begins_with_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reuse_exports(monkeypatch)
    manifest = read_manifest(export(tmp_path / "run", plan=None, source_sha256=None).folder)
    assert manifest["source_sha256"] is None
    assert [entry["parent"] for entry in manifest["files"]][:2] == [None, None]


# --- nothing half done ---


def reuse_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `to_onnx` take the graphs of `with_plan`, which tell the two networks apart by their widths."""
    folder = with_plan()[0].folder

    def ready(module: Network, *_: object) -> onnx.ModelProto:
        return onnx.load(folder / (ORIGINAL if module.spec.widths == SPEC.widths else GENERATOR))

    monkeypatch.setattr(exporter, "_export", ready)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_an_interruption_leaves_nothing_behind(stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reuse_exports(monkeypatch)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == stage + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "run", tell=tell)
    assert len(told) == stage + 1
    assert list(tmp_path.iterdir()) == []


def test_a_failed_proof_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_plan()[0].folder / ORIGINAL  # the wrong graph for the slim generator
    monkeypatch.setattr(exporter, "_export", lambda *_: onnx.load(path))
    with pytest.raises(CheckFailedError, match=r"^the exported 'generator\.fp32\.onnx' does not equal the network"):
        export(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spec", [resnet_spec(blocks=2, ngf=4), resnet_spec(blocks=1, ngf=8), resnet_spec(blocks=1, ngf=4, norm="batch")]
)
def test_a_plan_of_another_network_is_refused_before_anything_is_written(spec: Any, tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(PlanError, match=r"^the plan was made for another network"):
        export(tmp_path / "run", plan=random_plan(layer_table(spec, SIZE), 0.5), tell=told.append)
    assert (told, list(tmp_path.iterdir())) == ([], [])


def test_a_plan_with_channels_that_are_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="group 'stem' must keep rising channel numbers between 0 and 3"):
        export(tmp_path / "run", plan=replace(plan(), kept={**plan().kept, "stem": (0, 4)}))
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_the_network_cannot_halve_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot run at 18x24"):
        export(tmp_path / "run", settings=replace(SETTINGS, image_size=(18, 24)))
    assert list(tmp_path.iterdir()) == []


def test_a_discriminator_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="only generators are exported"):
        export_folder(
            Network(patchgan_spec(ndf=4)), tmp_path / "run", settings=ExportSettings(), command="x", effective={}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_content_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="has other content, and nothing is overwritten"):
        export(tmp_path)
    assert files(tmp_path) == ["mine.txt"]


def test_slimming_and_batch_norm_per_picture_go_together_when_a_block_is_removed(tmp_path: Path) -> None:
    torch.manual_seed(3)
    spec = resnet_spec(blocks=2, ngf=4, norm="batch")
    original = Network(spec, layer_table(spec, SIZE))
    with torch.no_grad():
        for name, tensor in original.state_dict().items():
            if name.endswith(("running_mean", ".bias")):
                tensor.normal_(0, 0.5)
    original.eval()
    kept = {group.name: tuple(range(group.size)) for group in original.table.groups} | {"block1.inner": ()}
    spent = kept_macs(original.table, kept, "true") / macs(original.table)
    chosen = PruningPlan(original.spec, kept, {}, "by hand", 0, 1.0, spent, "true", SIZE)
    made = export_folder(
        original, tmp_path / "run", settings=replace(SETTINGS, bn="batch"), plan=chosen, command="export", effective={}
    )
    masks = {group.name: torch.ones(group.size) for group in original.table.groups}
    masks["block1.inner"] = torch.zeros(16)
    picture = torch.rand(1, 3, *SIZE) * 2 - 1
    with torch.inference_mode():
        wanted = per_picture_norm(original)(picture, masks).numpy()
    with open_runner(made.folder) as runner:
        (given,) = runner.infer({"input": picture.numpy()}).values()
    assert np.abs(given - wanted).max() <= 1e-5
    with pytest.raises(SpecError, match="residual blocks were removed"):
        per_picture_norm(slim(original, kept))
