"""ONNX files that are damaged or hostile: run, or refused in one sentence, in bounded time and memory."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch

from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.to_onnx import to_onnx
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from tests.fuzz import hostile_onnx
from tests.fuzz.fuzz_harness import SLOW_TIMES, Fuzzed, fuzz, read_files

MUTANTS = 1000
UNSOUND = {  # refused whoever reads them
    "outside_initializer": "it keeps its weights in another file",
    "outside_device": "it keeps its weights in another file",
    "outside_constant": "it keeps its weights in another file",
    "outside_subgraph": "it keeps its weights in another file",
    "outside_function": "it keeps its weights in another file",
    "outside_sparse": "it has sparse weights",
    "huge_sparse": "it has sparse weights",
    "claimed_initializer": "too small for the declared shape",
    "claimed_nothing": "should contain one and only one value field",
    "claimed_overflow": "product overflow",
    "negative_sizes": "Negative dimension",
    "functions_by_tens": "it has 1,111,111,111,111 nodes with all its functions written out",
    "functions_in_a_circle": "its function 'f' calls itself",
    "text_that_is_none": "one of its texts (name) is not UTF-8",
    "empty_nodes": "more than 262,144 fields",
    "empty_initializers": "more than 262,144 fields",
}
UNBOUNDED = {  # facts about them are given, but they are not run
    **{
        f"huge_{name}": "would take"
        for name in (
            "constant_of_shape", "expand", "tile", "range", "resize", "pad", "random", "outer_product", "by_doubling",
            "in_subgraph", "in_function",
        )
    },
    "lying_shapes": "'huge' would take 17,179,869,184 bytes, more than 2,147,483,648",
    "strings_by_doubling": "is text",
    "endless_loop": "it has the operator Loop",
    "no_groups": "has an impossible group",
    "foreign_convolution": "ONNX Runtime cannot run",
}  # fmt: skip
BOUNDED = ("deep_subgraphs", "long_chain", "pool_over_everything")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the ONNX files of three small generators, one of them with an open batch size."""
    folder = tmp_path_factory.mktemp("seeds")
    torch.manual_seed(0)
    networks = {
        "resnet": (resnet_spec(blocks=1, ngf=4), ExportSettings(image_size=(16, 16))),
        "unet": (unet_spec(halvings=3, ngf=4), ExportSettings(image_size=(16, 16))),
        "mobile": (
            resnet_spec(blocks=1, ngf=4, norm="batch", separable=True),
            ExportSettings(image_size=(8, 8), bn="batch", dynamic_batch=True),
        ),
    }
    return [
        to_onnx(Network(spec).eval(), folder / f"{name}.onnx", settings).artifact.path
        for name, (spec, settings) in networks.items()
    ]


def run(seeds: list[Path], mutants: int, folder: Path, *, batch: int = 250, seconds: float = 300.0) -> Fuzzed:
    """Read and run mutants of `seeds`."""
    return fuzz("onnx", seeds, mutants, folder, batch=batch, seconds=seconds)


def test_hostile_onnx_files_are_refused_in_little_time_and_memory(seeds: list[Path], tmp_path: Path) -> None:
    files = hostile_onnx.write_all(tmp_path / "files")
    fuzzed = read_files("onnx", list(files.values()), tmp_path, warm_up=seeds)
    fuzzed.check(2 * len(files))
    facts = {name: fuzzed.sentences[f"read_onnx_mutant, {path.name}"] for name, path in files.items()}
    run = {name: fuzzed.sentences[f"run_onnx_mutant, {path.name}"] for name, path in files.items()}
    assert set(files) == {*UNSOUND, *UNBOUNDED, *BOUNDED}
    assert [(name, facts[name]) for name, words in UNSOUND.items() if words not in facts[name]] == []
    assert [(name, facts[name]) for name in (*UNBOUNDED, *BOUNDED) if facts[name] != "read"] == []
    assert [(name, run[name]) for name, words in {**UNSOUND, **UNBOUNDED}.items() if words not in run[name]] == []
    assert [(name, run[name]) for name in BOUNDED if run[name] != "read"] == []


def test_mutants_of_onnx_files_are_run_or_refused_in_one_sentence(seeds: list[Path], tmp_path: Path) -> None:
    run(seeds, MUTANTS, tmp_path).check(MUTANTS)


def test_mutants_of_ort_files_are_run_or_refused_in_one_sentence(seeds: list[Path], tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "seed.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(seeds[0]), options, providers=["CPUExecutionProvider"])
    fuzz("run", [tmp_path / "seed.ort"], 300, tmp_path, batch=150).check(300)


@pytest.mark.slow
def test_many_mutants_of_onnx_files_are_run_or_refused_in_one_sentence(seeds: list[Path], tmp_path: Path) -> None:
    mutants = SLOW_TIMES * MUTANTS
    run(seeds, mutants, tmp_path, batch=1000, seconds=1200).check(mutants)
