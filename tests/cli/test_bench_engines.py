"""`mggc-edge bench` with --runtime, --provider and --precision."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import TensorProto

from mggc_edge.artifacts import file_entry, write_manifest
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.cli.bench import _choice
from mggc_edge.cli.bench_models import Choice, workloads
from mggc_edge.cli.bench_pages import markdown
from mggc_edge.errors import InputError
from mggc_edge.machine import BF16_SETS, Machine, this_machine
from tests.benchmarks.bench_helpers import convolutions, run_of, without_rule
from tests.cli.conftest import Command

SHORT = ("--pairs", 1, "--threads", 1, "--set", "bench.warmup_seconds=0.01")
Rows = list[tuple[str, str, str, str]]


def rows(models: list[Workload]) -> Rows:
    return [(model.name, model.runtime, model.provider, model.precision) for model in models]


@pytest.fixture(scope="module")
def run_with_everything(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has .ort files and an int8 file of the generator; what is in them is not looked at here."""
    run = tmp_path_factory.mktemp("everything") / "run"
    shutil.copytree(material / "run", run)
    folder = run / "export/portable"
    manifest = json.loads((run / "manifest.json").read_text())
    for name in ("generator.fp32", "original.fp32"):
        shutil.copyfile(folder / f"{name}.onnx", folder / f"{name}.ort")
        manifest["files"].append(file_entry(folder / f"{name}.ort", run))
    shutil.copyfile(folder / "generator.fp32.onnx", folder / "generator.int8.onnx")
    manifest["files"].append(file_entry(folder / "generator.int8.onnx", run))
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


# --- which models ---


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (Choice(), [("a.onnx", "onnxruntime", "cpu", "fp32")]),
        (Choice(("openvino",)), [("a.onnx", "openvino", "cpu", "fp32")]),
        (
            Choice(("onnxruntime", "openvino"), precisions=("fp32", "bf16")),
            [
                ("a.onnx, onnxruntime fp32", "onnxruntime", "cpu", "fp32"),
                ("a.onnx, openvino fp32", "openvino", "cpu", "fp32"),
                ("a.onnx, openvino bf16", "openvino", "cpu", "bf16"),
            ],
        ),
        (
            Choice(precisions=("fp32", "bf16")),
            [
                ("a.onnx, onnxruntime fp32", "onnxruntime", "cpu", "fp32"),
                ("a.onnx, openvino bf16", "openvino", "cpu", "bf16"),
            ],
        ),
        (
            Choice(("onnxruntime", "openvino"), ("cpu", "cuda")),
            [
                ("a.onnx, onnxruntime cpu", "onnxruntime", "cpu", "fp32"),
                ("a.onnx, onnxruntime cuda", "onnxruntime", "cuda", "fp32"),
                ("a.onnx, openvino cpu", "openvino", "cpu", "fp32"),
            ],
        ),
    ],
)
def test_a_file_is_measured_once_for_every_way_to_run_it(tmp_path: Path, choice: Choice, wanted: Rows) -> None:
    assert rows(workloads([convolutions(tmp_path / "a.onnx")], None, choice)) == wanted


def test_precisions_choose_among_files(tmp_path: Path) -> None:
    paths = [
        convolutions(tmp_path / "a.onnx"),
        convolutions(tmp_path / "b.onnx", dtype=TensorProto.FLOAT16),
    ]
    found = rows(workloads(paths, None, Choice(precisions=("fp16",))))
    assert found == [("b.onnx", "onnxruntime", "cpu", "fp16")]
    (tmp_path / "g.int8.ort").write_bytes(b"0")  # it says its precision in its name alone
    found = rows(workloads([*paths, tmp_path / "g.int8.ort"], None, Choice()))
    assert found[1:] == [("b.onnx", "onnxruntime", "cpu", "fp16"), ("g.int8.ort", "ort-mobile", "cpu", "int8")]


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (Choice(), ["original onnxruntime fp32 original.fp32.onnx", "compressed onnxruntime fp32 generator.fp32.onnx"]),
        (
            Choice(("ort-mobile",)),
            ["original ort-mobile fp32 original.fp32.ort", "compressed ort-mobile fp32 generator.fp32.ort"],
        ),
        (
            Choice(("onnxruntime", "ort-mobile")),
            [
                "original fp32.onnx onnxruntime fp32 original.fp32.onnx",
                "original fp32.ort ort-mobile fp32 original.fp32.ort",
                "compressed fp32.onnx onnxruntime fp32 generator.fp32.onnx",
                "compressed fp32.ort ort-mobile fp32 generator.fp32.ort",
            ],
        ),
        (
            Choice(("openvino",), precisions=("bf16",)),
            ["original openvino bf16 original.fp32.onnx", "compressed openvino bf16 generator.fp32.onnx"],
        ),
    ],
)
def test_of_a_run_the_files_are_taken_that_were_asked_for(
    run_with_everything: Path, choice: Choice, wanted: list[str]
) -> None:
    models = workloads([run_with_everything], None, choice)
    assert [f"{model.name} {model.runtime} {model.precision} {model.path.name}" for model in models] == wanted


def test_where_the_original_has_no_such_precision_its_float32_file_stands_in(
    run_with_everything: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mggc_edge.compiler import facts

    real = facts.onnx_facts
    monkeypatch.setattr(
        facts, "onnx_facts",
        lambda path: replace(real(path), precision="int8") if "int8" in path.name else real(path),
    )  # fmt: skip
    models = workloads([run_with_everything], None, Choice(precisions=("int8",)))
    assert [(model.name, model.precision, model.path.name) for model in models] == [
        ("original", "fp32", "original.fp32.onnx"),
        ("compressed", "int8", "generator.int8.onnx"),
    ]
    models = workloads([run_with_everything], None, Choice(precisions=("fp32", "int8")))
    assert [(model.name, model.precision) for model in models] == [
        ("original", "fp32"), ("compressed fp32.onnx", "fp32"), ("compressed int8.onnx", "int8"),
    ]  # fmt: skip


def test_an_engine_with_graphs_of_its_own_is_measured_with_them(
    run_with_everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mggc_edge.compiler.targets.this_target", lambda: "x86-avx2")
    run = tmp_path / "run"
    shutil.copytree(run_with_everything / "export/portable", run / "export/x86-avx2")
    shutil.copytree(run_with_everything / "export/portable", run / "export/x86-avx2/openvino")
    (run / "export/x86-avx2/openvino/original.fp32.onnx").unlink()  # as of a file that was given
    files = [file_entry(path, run) for path in sorted(run.rglob("*")) if path.is_file()]
    write_manifest(run, command="export", files=files, settings={})
    models = workloads([run], None, Choice(("onnxruntime", "openvino")))
    assert [(model.name, model.runtime, model.path.parent.name, model.path.name) for model in models] == [
        ("original, onnxruntime", "onnxruntime", "x86-avx2", "original.fp32.onnx"),
        ("original, openvino", "openvino", "x86-avx2", "original.fp32.onnx"),
        ("compressed x86-avx2/fp32.onnx", "onnxruntime", "x86-avx2", "generator.fp32.onnx"),
        ("compressed openvino/fp32.onnx", "openvino", "openvino", "generator.fp32.onnx"),
    ]


def test_neither_side_of_a_run_is_left_out_silently(run_with_everything: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mggc_edge import run_folder
    from mggc_edge.compiler import facts

    real, int8 = facts.onnx_facts, run_with_everything / "export/portable/generator.int8.onnx"
    monkeypatch.setattr(
        facts, "onnx_facts",
        lambda path: replace(real(path), precision="int8") if "int8" in path.name else real(path),
    )  # fmt: skip
    monkeypatch.setattr(run_folder, "run_artifact", lambda run: int8.resolve())
    manifest = json.loads((run_with_everything / "manifest.json").read_text())
    manifest["files"] = [entry for entry in manifest["files"] if "generator.fp32" not in entry["path"]]
    monkeypatch.setattr("mggc_edge.artifacts.read_manifest", lambda root: manifest)
    with pytest.raises(InputError) as caught:
        workloads([run_with_everything], None, Choice(precisions=("bf16",)))
    assert (
        caught.value.message == "the run's compressed generator, 'generator.int8.onnx', is int8 and is not run in bf16"
    )


def test_a_name_given_twice_counts_once() -> None:
    assert _choice("openvino,openvino", "cpu,CPUExecutionProvider", "fp32, fp32") == Choice(
        ("openvino",), ("cpu",), ("fp32",)
    )


def test_a_file_of_a_run_that_was_changed_is_refused(
    command: Command, run_with_everything: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_with_everything, tmp_path / "run")
    (tmp_path / "run/export/portable/generator.fp32.ort").write_bytes(b"changed")
    ran = command("bench", tmp_path / "run", "--runtime", "ort-mobile", *SHORT)
    assert (ran.code, ran.out) == (1, "")
    assert "generator.fp32.ort' is not the file that the manifest describes: its hash differs" in ran.err


# --- what is reported ---


def test_every_row_says_how_it_was_run(command: Command, tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx")
    ran = command("bench", path, "--runtime", "onnxruntime,openvino", *SHORT, "--json")
    found = [(run["model"], run["runtime"], run["provider"], run["precision"]) for run in ran.document["runs"]]
    assert found == [
        ("a.onnx, onnxruntime", "onnxruntime", "CPUExecutionProvider", "fp32"),
        ("a.onnx, openvino", "openvino", "CPU", "fp32"),
    ]
    assert ran.document["comparisons"][0]["b"] == "a.onnx, openvino"
    assert {"onnxruntime", "openvino"} <= set(ran.document["context"]["versions"])


@pytest.mark.skipif(not this_machine().has_any(BF16_SETS), reason="needs a processor with bfloat16")
def test_float32_files_are_measured_in_bfloat16(command: Command, tmp_path: Path) -> None:
    ran = command("bench", convolutions(tmp_path / "a.onnx"), "--precision", "bf16", *SHORT, "--json")
    (run,) = ran.document["runs"]
    assert (run["runtime"], run["precision"], run["macs_true"]) == ("openvino", "bf16", 3 * 3 * 3 * 3 * 16 * 16)


def test_rows_that_were_run_in_different_ways_have_a_column_for_that() -> None:
    context = {"device": "x86", "cpu": {"model": "EPYC", "cores": 2}, "versions": {"onnxruntime": "1", "openvino": "2"}}
    models = [
        Workload("a", Path("a.onnx"), provider="cuda"),
        Workload("b", Path("b.ort"), runtime="ort-mobile"),
        Workload("c", Path("c.onnx"), runtime="openvino", precision="bf16"),
    ]
    report = BenchmarkReport(context, tuple(run_of(m.name, [[[5]]], model=m) for m in models), 0.05)
    lines = markdown(report)
    assert lines[0] == "**x86, EPYC, 2 threads on 2 cores, onnxruntime 1, openvino 2, 16x16**"
    assert lines[2] == (
        "| model | run by | p50 | 95% interval | p90 | pictures/s | MACs | memory | load | first | file | samples |"
    )
    assert [line.split(" | ")[1] for line in lines[4:7]] == [
        "onnxruntime cuda fp32", "ort-mobile fp32", "openvino bf16",
    ]  # fmt: skip


def test_8_bits_on_a_processor_without_instructions_for_them_are_remarked(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mggc_edge import machine
    from mggc_edge.benchmarks.devices import local
    from mggc_edge.cli import bench_models

    board = machine.Machine("Atom", "x86_64", ("AVX2",), 1, None, None)
    monkeypatch.setattr(local, "this_machine", lambda _: board)
    real = bench_models._workload
    monkeypatch.setattr(bench_models, "_workload", lambda *words: replace(real(*words), precision="int8"))
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *SHORT)
    assert ran.code == 0
    assert ran.err == (
        "note: this processor has no instructions for 8-bit sums (AVX-512 VNNI, AVX-VNNI, AMX int8, NEON dot product, "
        "i8mm), so that int8 gains little here\n"
    )


# --- what cannot be measured ---


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (
            ("--precision", "int8"),
            "there is nothing to measure in int8: 'a.onnx' is fp32",
            "mggc-edge export --precision int8 makes such a file",
        ),
        (
            ("--runtime", "onnxruntime", "--precision", "bf16"),
            "there is nothing to measure in bf16: 'a.onnx' is fp32",
            "OpenVINO runs fp32 files in bf16: --runtime openvino",
        ),
        (
            ("--runtime", "onnxruntime,openvino", "--precision", "bf16"),
            "the runtime 'onnxruntime' cannot run 'a.onnx' in bf16",
            None,
        ),
        (
            ("--runtime", "ort-mobile"),
            "the runtime 'ort-mobile' opens .ort files, and there is none among 'a.onnx'",
            "mggc-edge export --runtime ort-mobile writes one",
        ),
        (
            ("--runtime", "openvino", "--provider", "cuda"),
            "there is nothing to measure on 'cuda': providers are ONNX Runtime's",
            "add onnxruntime to --runtime, or leave out --provider",
        ),
    ],
)
def test_what_cannot_be_measured_as_it_was_asked_is_one_sentence(
    command: Command, tmp_path: Path, words: tuple[str, ...], message: str, hint: str | None
) -> None:
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *words)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")


def test_an_ort_file_is_not_for_openvino(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.ort").write_bytes(b"0")
    ran = command("bench", tmp_path / "a.ort", "--runtime", "openvino")
    assert (ran.code, ran.err.splitlines()[0]) == (
        1,
        "error: the runtime 'openvino' opens .onnx files, and there is none among 'a.ort'",
    )


@pytest.mark.parametrize("name", ["cuda", "CUDAExecutionProvider"])
def test_a_provider_that_this_build_lacks_is_one_sentence(command: Command, tmp_path: Path, name: str) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build has it")
    ran = command("bench", convolutions(tmp_path / "a.onnx"), "--provider", name, *SHORT)
    there = ", ".join(onnxruntime.get_available_providers())
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        f"error: 'a.onnx' cannot be measured: this build of ONNX Runtime has no CUDAExecutionProvider, but {there}\n"
        "hint: see mggc-edge doctor\n"
    )


def test_an_operation_that_the_engine_lacks_is_named(command: Command, tmp_path: Path) -> None:
    ran = command("bench", without_rule(tmp_path / "a.onnx"), "--runtime", "openvino", *SHORT)
    assert (ran.code, ran.err) == (
        1,
        "error: 'a.onnx' cannot be measured: OpenVINO cannot run it: it has no operation Det-20\n",
    )


def test_bfloat16_on_a_processor_without_it_is_one_sentence(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atom = Machine("Atom", "x86_64", ("AVX2",), 1, None, None)
    monkeypatch.setattr("mggc_edge.benchmarks.devices.local.this_machine", lambda _: atom)
    ran = command("bench", convolutions(tmp_path / "a.onnx"), "--precision", "bf16", *SHORT)
    assert (ran.code, ran.err) == (
        1,
        "error: this processor, Atom, has no instructions for bf16 (AVX-512 BF16, AMX bf16)\nhint: run it in fp32\n",
    )


def test_a_run_without_ort_files_says_so(command: Command, material: Path) -> None:
    ran = command("bench", material / "run", "--runtime", "ort-mobile", *SHORT)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[0].endswith("has no 'export/portable/original.fp32.ort'")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--runtime", "abacus"), "--runtime takes onnxruntime, ort-mobile, openvino, tensorrt, not 'abacus'"),
        (("--provider", "npu"), "--provider takes cpu, cuda, tensorrt, not 'npu'"),
        (("--precision", "fp64"), "--precision takes fp32, bf16, fp16, int8, not 'fp64'"),
    ],
)
def test_names_that_are_not_known_are_usage_errors(
    command: Command, tmp_path: Path, words: tuple[str, str], text: str
) -> None:
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *words)
    assert (ran.code, text in " ".join(ran.err.split())) == (2, True)


def test_a_run_is_renewed_with_one_way_to_run_it(command: Command, material: Path) -> None:
    ran = command("bench", material / "run", "--update", "--runtime", "onnxruntime,openvino", *SHORT)
    assert (ran.code, "--update takes one runtime, one provider and one precision" in ran.err) == (2, True)
