"""`mggc-edge bench`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.cli.bench_device import check_this_machine
from mggc_edge.cli.bench_pages import markdown, pages
from mggc_edge.cli.output import Output
from tests.benchmarks.bench_helpers import convolutions, passing, run_of
from tests.cli.conftest import Command

# One pair in one process, or two in two: what is tested here is what surrounds the measurement.
SHORT = ("--pairs", 1, "--threads", 1, "--set", "bench.warmup_seconds=0.02")
TWO = ("--pairs", 2, "--threads", 1, "--set", "bench.warmup_seconds=0.02", "--set", "bench.processes=2")
MS = 1_000_000
FASTER = "compressed is faster than original"
CONTEXT = {
    "device": "x86",
    "cpu": {"model": "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", "cores": 8},
    "versions": {"onnxruntime": "1.31.1"},
}

EIGHTY = """\
x86, Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz, 2 threads on 8 cores,
onnxruntime 1.31.1, fp32, 16x16

 model             p50        p90      /s     MACs   realisation   memory
 ────────────────────────────────────────────────────────────────────────
 original     8,000 ms   8,080 ms   0.125   49.5 G             -   5.0 kB
 compressed   1,000 ms   1,000 ms    1.00   2.48 G           40%   5.0 kB

faster: compressed is 8.00 times as fast as original (99%: 7.45 to 8.59).
  20.0 times fewer MACs; realisation 40%.
  Smallest difference that 3 pairs in 3 processes would show here: 9.6%.
"""
WIDE = """\
x86, Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz, 2 threads on 8 cores, onnxruntime 1.31.1, fp32, 16x16

 model             p50     95% interval        p90   pictures/s     MACs   realisation   memory
 ──────────────────────────────────────────────────────────────────────────────────────────────
 original     8,000 ms   7,755 to 8,252   8,080 ms        0.125   49.5 G             -   5.0 kB
 compressed   1,000 ms   1,000 to 1,000   1,000 ms         1.00   2.48 G           40%   5.0 kB

faster: compressed is 8.00 times as fast as original (99%: 7.45 to 8.59).
  20.0 times fewer MACs; realisation 40%.
  Smallest difference that 3 pairs in 3 processes would show here: 9.6%.
"""


def report(
    ratios: tuple[float, ...], macs: tuple[int | None, int | None] = (49_550_000_000, 2_480_000_000), **changes: Any
) -> BenchmarkReport:
    """Models `original` and `compressed`, whose latencies in one process each have these ratios."""
    original = run_of("original", [[[int(1000 * MS * r)]] for r in ratios], macs[0], size_bytes=45_500_000)
    compressed = run_of("compressed", [[[1000 * MS]] for _ in ratios], macs[1], size_bytes=2_300_000, **changes)
    return BenchmarkReport(CONTEXT, (original, compressed), 0.05)


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, *what: Any) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    out = Output()
    for block in pages(report(*what) if what else report((8.0, 8.1, 7.9)), width=out.console().width):
        out.result(block)
    return capsys.readouterr().out


def test_a_run_is_measured_original_against_compressed(command: Command, material: Path) -> None:
    ran = command("bench", material / "run", *TWO, "--json")
    document = ran.document
    assert ran.code == 0
    assert list(document) == [
        "schema", "complete", "context", "models", "runs", "comparisons", "warnings", "control", "gate",
    ]  # fmt: skip
    assert [model["name"] for model in document["models"]] == ["original", "compressed"]
    assert [Path(model["path"]).name for model in document["models"]] == ["original.fp32.onnx", "generator.fp32.onnx"]
    manifest = json.loads((material / "run/manifest.json").read_text())
    hashes = {Path(entry["path"]).name: entry["sha256"] for entry in manifest["files"]}
    assert [model["sha256"] for model in document["models"]] == [
        hashes["original.fp32.onnx"],
        hashes["generator.fp32.onnx"],
    ]
    exported = json.loads((material / "export.json").read_text())
    for run, side in zip(document["runs"], ("original", "compressed"), strict=True):
        assert (run["macs_true"], run["macs_paper"]) == (exported[side]["macs_true"], exported[side]["macs_paper"])
        assert (run["runtime"], run["provider"], run["precision"], run["threads"]) == (
            "onnxruntime",
            "CPUExecutionProvider",
            "fp32",
            1,
        )
        assert run["inputs"][0]["shape"] == [1, 3, 32, 32]
        assert len(run["samples_ns"]) == 2 * run["runs_per_pair"]
        assert run["latency_ms"]["p50"] <= run["latency_ms"]["p90"]
        assert min(run["load_ms"], run["first_inference_ms"], run["memory"]["rss_peak_bytes"]) > 0
    (comparison,) = document["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["processes"]) == ("original", "compressed", 2)
    assert comparison["macs_ratio"] == document["runs"][0]["macs_true"] / document["runs"][1]["macs_true"]
    assert document["gate"] == {"threshold": None, "verdict": None, "exit_code": 0}
    assert {key: document["context"][key] for key in ("pairs", "processes", "threads", "seed", "margin")} == {
        "pairs": 2,
        "processes": 2,
        "threads": 1,
        "seed": 0,
        "margin": 0.05,
    }


def test_without_arguments_the_latest_run_is_measured(
    command: Command, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/latest").symlink_to(material / "run")
    ran = command("bench", *SHORT, "--seed", 7)
    assert (ran.code, ran.err) == (0, "")
    assert "original" in ran.out
    assert "inconclusive: " in ran.out  # a single process, or one on a busy machine


def test_several_models_are_compared_with_the_first(command: Command, tmp_path: Path) -> None:
    a, b = convolutions(tmp_path / "a.onnx", 2), convolutions(tmp_path / "b.onnx")
    ran = command("bench", a, b, a, *SHORT, "--format", "json", "--output", tmp_path / "bench.json")
    names = [(comparison["a"], comparison["b"]) for comparison in ran.document["comparisons"]]
    assert names == [("a.onnx", "b.onnx"), ("a.onnx", "a.onnx (2)")]
    assert ran.document["comparisons"][0]["macs_ratio"] == 2.0
    assert json.loads((tmp_path / "bench.json").read_text()) == ran.document


def test_files_of_the_same_name_keep_their_folders(command: Command, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    paths = [convolutions(tmp_path / "old/a.onnx"), convolutions(tmp_path / "a.onnx")]
    document = command("bench", *paths, *SHORT, "--json").document
    assert [run["model"] for run in document["runs"]] == [str(path) for path in paths]


def test_an_ort_file_is_measured_without_macs(command: Command, tmp_path: Path) -> None:
    import onnxruntime

    source = convolutions(tmp_path / "a.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "a.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    ran = command("bench", tmp_path / "a.ort", *SHORT, "--json")
    assert (ran.code, ran.document["runs"][0]["macs_true"], ran.document["comparisons"]) == (0, None, [])


def test_a_file_of_open_size_takes_the_size_given(command: Command, tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx", shape=(1, 3, "h", "w"))
    document = command("bench", path, *SHORT, "--image-size", "8x24", "--json").document
    assert document["runs"][0]["inputs"][0]["shape"] == [1, 3, 8, 24]


def test_markdown_is_what_github_takes(command: Command, tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a_b.onnx")
    ran = command("bench", path, *SHORT, "--format", "markdown")
    lines = ran.out.splitlines()
    assert lines[0].startswith("**")
    columns = "model | p50 | 95% interval | p90 | p95 | pictures/s | MACs | memory | load | first | file | samples"
    assert lines[2] == f"| {columns} |"  # 200 samples carry p95
    assert lines[3] == "| --- " + "| ---: " * 11 + "|"
    assert lines[4].startswith("| a\\_b.onnx | ")
    assert any(line.startswith("> warning: few samples: under 5 processes or 15 pairs") for line in lines)


def test_progress_goes_to_stderr_every_ten_seconds(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mggc_edge.cli import bench

    path = convolutions(tmp_path / "a.onnx")
    monkeypatch.setattr(bench, "SECONDS_BETWEEN_LINES", 0.0)
    ran = command("bench", path, *SHORT)
    assert ran.err == "measuring, process 1 of 1: 1 of 1 pairs, about 0 s left\n"
    assert command("--quiet", "bench", path, *SHORT).err == ""


def test_the_table_at_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(capsys, monkeypatch, 80) == EIGHTY


def test_the_table_at_120_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(capsys, monkeypatch, 120) == WIDE


@pytest.mark.parametrize(
    ("ratios", "line"),
    [
        (
            (0.5, 0.502, 0.498),
            "slower: compressed takes 2.00 times as long as original (speed 0.50, 99%: 0.49 to 0.51).",
        ),
        (
            (1.0, 1.001, 0.999),
            "same: compressed is as fast as original, within 5.0% (speed 1.00, 99%: 0.99 to 1.01).",
        ),
        (
            (1.0, 1.2, 0.9),
            f"inconclusive: these samples cannot tell whether {FASTER} (speed 1.03, 99%: 0.45 to 2.36).",
        ),
        (
            (3.0,),
            f"inconclusive: a single process of each was measured, which cannot tell whether {FASTER}.",
        ),
    ],
)
def test_the_verdict_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ratios: tuple[float, ...], line: str
) -> None:
    assert line in printed(capsys, monkeypatch, 400, ratios).splitlines()


def test_markdown_has_the_verdict_the_realisation_and_whose_warning_it_is() -> None:
    lines = markdown(report((8.0, 8.1, 7.9), warnings=("unsettled",)))
    assert lines[-3] == (
        "**faster**: compressed is 8.00 times as fast as original (99%: 7.45 to 8.59). 20.0 times fewer MACs; "
        "realisation 40%. Smallest difference that 3 pairs in 3 processes would show here: 9.6%."
    )
    assert lines[-1] == (
        "> warning: compressed: the latency had not settled when its warm-up ended (unsettled); raise "
        "bench.warmup\\_seconds, and fix the clock frequency"
    )


def test_disturbed_samples_are_called_so_without_a_ratio() -> None:
    lines = markdown(report((8.0, 8.1, 7.9), warnings=("preempted",)))
    what = "other processes took more than 2 % of the time in too many of the pairs to leave those out"
    assert lines[-3:] == [
        f"**inconclusive**: these samples cannot tell whether {FASTER}: {what}. 20.0 times fewer MACs.",
        "",
        f"> warning: compressed: {what} (preempted); end what else runs, and measure again with mggc-edge bench",
    ]


def test_pairs_that_were_left_out_are_counted() -> None:
    found = report((8.0, 8.1, 7.9, 99.0))
    runs = [
        replace(run, processes=(*run.processes[:3], replace(run.processes[3], left_out=(0,)))) for run in found.runs
    ]
    lines = markdown(BenchmarkReport(CONTEXT, tuple(runs), 0.05))
    assert lines[-1] == (
        "**faster**: compressed is 8.00 times as fast as original (99%: 7.45 to 8.59). 20.0 times fewer MACs; "
        "realisation 40%. Smallest difference that 3 pairs in 3 processes would show here: 9.6%. "
        "Other processes disturbed 1 of 4 pairs, which were left out."
    )


def test_a_realisation_above_one_is_flagged() -> None:
    lines = markdown(report((8.0, 8.1, 7.9), macs=(600, 100)))
    assert "6.00 times fewer MACs; realisation 133%." in lines[-3]
    assert lines[-1] == (
        "> warning: a realisation above 1 is implausible: more speed was gained than multiplications were saved "
        "(implausible); measure again on a quiet machine, and with --threads 1"
    )


def test_a_model_with_more_macs_has_a_ratio_below_one() -> None:
    lines = markdown(report((0.5, 0.5), macs=(10, 20)))
    assert "MACs ratio 0.50. Smallest" in lines[-1]


def test_names_with_markup_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = BenchmarkReport(CONTEXT, (run_of("[red]a|b\x1b[2J", [[[5]]]),), 0.05)
    out = Output(color=False)
    out.result(pages(found, width=200)[1])
    assert "[red]a|b\\x1b[2J" in capsys.readouterr().out
    assert markdown(found)[4].startswith("| \\[red\\]a\\|b\\\\x1b\\[2J | ")


# --- what cannot be measured ---


def test_a_machine_that_is_no_jetson_is_not_measured_as_one(command: Command, material: Path) -> None:
    ran = command("bench", material / "run", "--device", "jetson")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: this machine is no Jetson but ")
    assert ran.err.endswith("hint: --device ssh://user@host measures on a Jetson from here\n")


def test_a_device_is_what_this_machine_is(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mggc_edge import machine
    from mggc_edge.benchmarks.devices import local

    path = convolutions(tmp_path / "a.onnx")
    board = machine.Machine("Cortex-A78AE", "aarch64", (), 1, None, "NVIDIA Jetson Orin Nano")
    monkeypatch.setattr(machine, "this_machine", lambda: board)
    monkeypatch.setattr(local, "this_machine", lambda _: board)
    for device in ("jetson", "arm64", "auto"):
        check_this_machine(device)
    ran = command("bench", path, *SHORT, "--device", "jetson", "--json")
    assert (ran.code, ran.document["context"]["device"], ran.document["context"]["address"]) == (0, "jetson", None)
    ran = command("bench", path, "--device", "x86")
    assert (ran.code, ran.err) == (1, "error: this machine is jetson, not x86\nhint: leave out --device\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--device", "tpu"), "--device takes x86, arm64, jetson, auto or ssh://user@host, not 'tpu'"),
        (("--remote-dir", "d"), "--remote-dir needs another machine: --device ssh://user@host"),
        (("--device", "ssh://board", "--remote-dir", " "), "--remote-dir needs the name of a folder"),
        (("--remote-python", "p"), "--remote-python needs another machine: --device ssh://user@host"),
        (("--pairs", "0"), "Invalid value for '--pairs'"),
        (("--threads", "0"), "Invalid value for '--threads'"),
        (("--image-size", "-3"), "'-3' is no picture size"),
        (("--format", "xml"), "Invalid value for '--format'"),
        (("--set", "bench.processes=0"), "setting bench.processes must be at least 1 and at most 1000, not 0"),
    ],
)
def test_flags_that_make_no_sense_are_usage_errors(
    command: Command, tmp_path: Path, words: tuple[str, str], text: str
) -> None:
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *words)
    assert (ran.code, ran.out) == (2, "")
    assert text in ran.err


def test_no_run_and_no_model_is_an_error(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = command("bench")
    assert (ran.code, ran.err) == (
        1,
        "error: there is no run 'runs/latest'\nhint: name what to measure: mggc-edge bench MODEL.onnx\n",
    )


def test_a_run_without_an_original_is_an_error(command: Command, material: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(material / "run", tmp_path / "run"))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"] = [entry for entry in manifest["files"] if "original.fp32" not in entry["path"]]
    (run / "manifest.json").write_text(json.dumps(manifest))
    ran = command("bench", run)
    alone = f"mggc-edge bench {run}/export/portable/generator.fp32.onnx"
    assert ran.code == 1
    assert ran.err == (
        f"error: the run '{run}' has no original to compare with\nhint: measure the generator alone: {alone}\n"
    )


def test_a_measurement_is_written_into_a_finished_run(command: Command, material: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(material / "run", tmp_path / "run"))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest |= {"complete": True, "result": {"latency": None}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    ran = command("bench", run, *TWO, "--update", "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert json.loads((run / "bench.json").read_text()) == document
    latency = json.loads((run / "manifest.json").read_text())["result"]["latency"]
    assert latency["speedup"] == document["comparisons"][0]["ratio"]
    assert (run / "report.html").is_file()


def test_what_takes_no_measurement_is_told_before_it_is_made(command: Command, material: Path) -> None:
    ran = command("bench", material / "run", "--update")
    assert (ran.code, ran.out) == (1, "")
    assert "is no finished run of `compress`, and takes no new measurement" in ran.err
    ran = command("bench", material / "run/export/portable/generator.fp32.onnx", "--update")
    assert (ran.code, ran.out) == (2, "")
    assert "--update is for a run folder" in " ".join(ran.err.split())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda file: file.unlink(), "is named in the manifest, but it is not there"),
        (lambda file: file.write_bytes(b"other"), "is not the file that the manifest describes: its hash differs"),
    ],
    ids=["gone", "changed"],
)
def test_a_run_whose_original_is_not_as_described_is_an_error(
    command: Command, material: Path, tmp_path: Path, change: Any, text: str
) -> None:
    run = Path(shutil.copytree(material / "run", tmp_path / "run"))
    change(run / "export/portable/original.fp32.onnx")
    ran = command("bench", run)
    assert (ran.code, ran.out) == (1, "")
    assert text in ran.err


def test_what_is_no_file_for_an_engine_is_an_error(command: Command, material: Path, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"this is no ONNX file")
    for words, text in (
        ((tmp_path / "no.onnx",), "is not a valid ONNX file"),
        ((tmp_path / "gone.onnx",), "there is no file"),
        ((material / "generator.pth",), "generator.pth' is a checkpoint; .onnx and .ort files can be measured"),
        ((material / "run/slim",), "slim' is a network; .onnx and .ort files can be measured"),
        ((material / "run", material / "run"), "run' is a run, and is measured alone"),
        ((tmp_path,), "is a folder without manifest.json or spec.json"),
    ):
        ran = command("bench", *words)
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", ran.err.count("error: ") + ran.err.count("hint: "))
        assert text in ran.err


def test_a_size_that_is_open_or_fixed_is_said(command: Command, tmp_path: Path) -> None:
    path = convolutions(tmp_path / "open.onnx", shape=(1, 3, "h", "w"))
    ran = command("bench", path)
    assert (ran.code, ran.err) == (
        1,
        f"error: '{path}' takes pictures of any size\nhint: give one with --image-size\n",
    )
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *SHORT, "--image-size", 32)
    assert (ran.code, ran.err) == (
        1,
        "error: 'a.onnx' cannot be measured: it takes pictures of 16x16 only\nhint: leave the image size out\n",
    )


def test_an_input_that_cannot_be_fed_is_an_error(command: Command, tmp_path: Path) -> None:
    ran = command("bench", passing(tmp_path / "a.onnx", TensorProto.FLOAT, (1, "channels", 8, 8)), *SHORT)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: 'a.onnx' cannot be measured: its input 'x' leaves axis 1 open\n"
