"""`mggc-edge compress`: what it promises, and bad input, which ends in one sentence and costs nothing finished."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from mggc_edge.artifacts import sha256_of
from mggc_edge.cli.compress_page import page
from mggc_edge.cli.job import run_job
from mggc_edge.cli.output import Output
from mggc_edge.compiler.targets import this_target
from mggc_edge.errors import InputError, TrainingError
from mggc_edge.jobs.folder import alone_in, resume_job, start_job
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.models.weights import load_network, weights_sha256
from mggc_edge.settings import Settings
from tests.cli.conftest import Command, Ran
from tests.jobs.job_processes import QUICK, write_networks, write_pairs, write_pictures
from tests.quality.label_pictures import label_picture

TARGETS = tuple(dict.fromkeys(("portable", this_target())))  # that are exported for by default
PROGRAM = (sys.executable, "-m", "mggc_edge.cli")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks as in `write_networks`, and one of each kind that is refused somewhere."""
    folder = write_networks(tmp_path_factory.mktemp("given"))
    for name, spec in {
        "unet": unet_spec(halvings=5, ngf=4),
        "grey": resnet_spec(blocks=1, ngf=4, in_channels=1, out_channels=1),
        "four": patchgan_spec(ndf=4, in_channels=4),
    }.items():
        torch.manual_seed(0)
        torch.save(Network(spec).state_dict(), folder / f"{name}.pth")
    return folder


@pytest.fixture(scope="module")
def finished(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/latest, and what the command printed in out.txt and err.txt."""
    folder = tmp_path_factory.mktemp("finished")
    words = ("compress", "--model", str(given / "generator.pth"), "--budget", "0.5", *QUICK)
    done = subprocess.run([*PROGRAM, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "out.txt").write_text(done.stdout)
    (folder / "err.txt").write_text(done.stderr)
    return folder


@pytest.fixture
def compress(command: Command, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `compress` on generator.pth in an empty folder; later flags win over earlier ones."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> Ran:
        return command("--quiet", "compress", "--model", given / "generator.pth", "--budget", "0.5", *QUICK, *words)

    return call


def assert_refused(ran: Ran, code: int, message: str, hint: str | None = None) -> None:
    """One error line with exactly this message, its hint, and nothing on stdout."""
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert ran.err == f"error: {message}\n" + ("" if hint is None else f"hint: {hint}\n")


# --- what a finished run holds ---


def test_the_document_has_every_key_that_is_promised_with_its_type(
    command: Command, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    ran = command("compress", "--resume", "--json")
    assert (ran.code, ran.err) == (
        0,
        f"'{Path('runs') / Path('runs/latest').readlink()}' is finished; nothing is left to do\n",
    )
    document = json.loads(ran.out, parse_constant=pytest.fail)
    assert document["schema"] == "mggc-edge/compress/1"
    assert (document["method"], document["budget"], document["budget_asked"], document["encoder"]) == (
        "mggc",
        0.5,
        "0.5",
        {"name": "self"},
    )
    assert 0.49 <= document["budget_met"] <= 0.5
    run = finished / document["run"]
    for name, file in (("original", "original.fp32.onnx"), ("compressed", "generator.fp32.onnx")):
        assert document[name]["size_bytes"] == (run / "export/portable" / file).stat().st_size
        assert {key: type(document[name][key]) for key in ("parameters", "macs_true", "macs_paper")} == {
            "parameters": int,
            "macs_true": int,
            "macs_paper": int,
        }
    assert [
        {key: artifact[key] for key in ("path", "target", "runtime", "precision", "accepted", "reason")}
        for artifact in document["artifacts"]
    ] == [
        {
            "path": f"export/{target}/{file}",
            "target": target,
            "runtime": "onnxruntime",
            "precision": "fp32",
            "accepted": True,
            "reason": None,
        }
        for target in TARGETS
        for file in ("generator.fp32.onnx", "original.fp32.onnx")
    ]
    assert [a["sha256"] for a in document["artifacts"]] == [sha256_of(run / a["path"]) for a in document["artifacts"]]
    quality, latency = document["quality"], document["latency"]
    assert 0 < quality["psnr_to_original"] < 100
    assert -1 <= quality["ssim_to_original"] <= 1
    assert (quality["kid"], quality["frechet"]) == (None, None)
    assert (latency["runtime"], latency["precision"]) == ("onnxruntime", "fp32")
    assert (latency["target"], latency["original_runtime"]) == (this_target(), "onnxruntime")
    assert latency["path"] == f"export/{this_target()}/generator.fp32.onnx"
    assert min(latency["original_ms"], latency["compressed_ms"], latency["speedup"], latency["realisation"]) > 0
    assert latency["ci95"] is None  # a single process was measured
    assert (latency["ci99"], latency["verdict"]) == (None, "inconclusive")
    assert latency["pairs_left_out"] in (0, 1)  # of two
    assert latency["reason"]
    assert set(latency["disturbed"]) <= {"load", "preempted", "steal"}
    assert "few_samples" in [warning["code"] for warning in latency["warnings"]]
    assert all(set(warning) == {"code", "text", "advice"} for warning in latency["warnings"])
    assert latency["device"] in ("x86", "arm64", "jetson")


@pytest.mark.parametrize("name", ["slim/weights.safetensors", "plan.json", "export/portable/generator.fp32.onnx"])
def test_a_finished_run_whose_files_were_changed_is_no_success(
    command: Command, finished: Path, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "RUN"
    shutil.copytree(finished / "runs" / (finished / "runs/latest").readlink(), run)
    with (run / name).open("ab") as file:
        file.write(b" ")
    ran = command("compress", "--resume", run)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-2:] == [
        f"error: '{run / name}' is not the file that the manifest describes: its hash differs",
        "hint: bring it back from a copy, or start again into another folder",
    ]


def test_a_network_that_was_changed_is_not_exported_from_its_run(
    command: Command, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "RUN"
    shutil.copytree(finished / "runs" / (finished / "runs/latest").readlink(), run)
    weights = run / "slim/weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 0x80  # the sign of the last weight
    weights.write_bytes(data)
    ran = command("--quiet", "export", run, "--out", tmp_path / "out")
    assert ran.code == 1
    assert ran.err == (
        f"error: '{weights}' is not the file that the manifest describes: its hash differs\n"
        f"hint: name the folder itself if you trust it: {run / 'slim'}\n"
    )
    assert command("--quiet", "export", run / "slim", "--out", tmp_path / "out", "--image-size", 32).code == 0


def test_the_folder_is_what_the_command_line_promises_and_its_manifest_describes_it(finished: Path) -> None:
    run = finished / "runs" / (finished / "runs/latest").readlink()
    assert run.name.startswith("generator-0.5-")
    files = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
    assert set(files) == {
        "manifest.json", "job.json", "plan.json", "discriminator-plan.json", "quality.json", "bench.json",
        "report.html", "logs/metrics.jsonl", "original/spec.json", "original/weights.safetensors",
        "original/discriminator/spec.json", "original/discriminator/weights.safetensors", "slim/spec.json",
        "slim/weights.safetensors", "export/exported.json",
        *(f"export/{target}/{name}.fp32.onnx" for target in TARGETS for name in ("original", "generator")),
        "samples/index.json", "samples/000-input.png", "samples/000-original.png", "samples/000-compressed.png",
    }  # fmt: skip
    manifest = json.loads(files.pop("manifest.json").read_text())
    assert {entry["path"]: entry["sha256"] for entry in manifest["files"]} == {
        name: sha256_of(path) for name, path in files.items()
    }
    assert sorted(manifest["timings_s"]) == sorted(
        ("outputs", "discriminator", "prune", "finetune", "export", "quality", "bench")
    )
    settings = manifest["settings"]
    assert (settings["seed"], settings["threads"], settings["image_size"]) == (0, 1, [32, 32])
    assert (settings["quick.prune_steps"], settings["request.budget"]) == (8, "0.5")
    assert manifest["unreadable_pictures"] == 0


def test_the_manifest_says_what_every_file_was_made_from(given: Path, finished: Path) -> None:
    run = finished / "runs/latest"
    manifest = json.loads((run / "manifest.json").read_text())
    source, sha = sha256_of(given / "generator.pth"), {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    original, judge = (sha[f"original/{name}weights.safetensors"] for name in ("", "discriminator/"))
    assert {entry["path"]: entry["parent"] for entry in manifest["files"] if entry["parent"] is not None} == {
        "plan.json": source,
        "discriminator-plan.json": original,  # the discriminator was fitted to the original
        **{f"original/{part}": source for part in ("spec.json", "weights.safetensors")},
        **{f"original/discriminator/{part}": original for part in ("spec.json", "weights.safetensors")},
        **{f"slim/{part}": original for part in ("spec.json", "weights.safetensors")},
        **{f"export/{target}/original.fp32.onnx": original for target in TARGETS},
        **{f"export/{target}/generator.fp32.onnx": sha["slim/weights.safetensors"] for target in TARGETS},
    }
    assert judge != original
    network = weights_sha256(load_network(given / "generator.pth"))
    assert manifest["sources"] == {"generator": {"sha256": source, "network_sha256": network}}
    assert manifest["source_sha256"] == source
    assert manifest["split_sha256"] == json.loads((run / "quality.json").read_text())["split_sha256"]


def test_what_is_said_on_the_way_goes_to_stderr(finished: Path) -> None:
    lines = (finished / "err.txt").read_text().splitlines()
    told = [line for line in lines if not re.match(r"\w+: \d+ of \d+", line)]  # how far it is, on a slow machine
    assert told[0].startswith("note: built-in pictures are used")
    assert told[2].endswith("with 1 thread, training in bf16; it can be stopped and resumed at any time") or told[
        2
    ].endswith("with 1 thread, training in fp32; it can be stopped and resumed at any time")
    assert told[3:] == [
        "running the original on 12 pictures",
        "fitting a discriminator to the original: 6 steps",
        "training the encoder on 12 pictures: 6 steps",
        "pruning to 0.5 of the MACs: 8 steps",
        "finetuning the slim generator: 8 steps",
        *(
            f"exporting the {side} generator{'' if target == 'portable' else f' for {target}'} and proving it equal"
            for target in TARGETS
            for side in ("compressed", "original")
        ),
        "comparing on 1 picture (built-in)",
        "measuring latency: fresh processes, in pairs",
    ]
    out = (finished / "out.txt").read_text()
    assert out.rstrip().splitlines()[-1] == f"Look at runs/{(finished / 'runs/latest').readlink()}/report.html"


def test_the_recorded_command_line_repeats_the_run_and_a_floor_fails_when_all_is_done(
    command: Command, finished: Path, tmp_path: Path
) -> None:
    run = finished / "runs/latest"
    words = shlex.split(json.loads((run / "manifest.json").read_text())["command_line"])
    assert words[:2] == ["mggc-edge", "compress"]
    ran = command("--quiet", *words[1:], "--out", tmp_path / "again", "--json", "--min-psnr", "90")
    document = ran.document
    psnr = document["quality"]["psnr_to_original"]
    assert ran.code == 3
    assert ran.err.splitlines() == [
        f"error: the compressed generator's pictures are at {psnr:.2f} dB to the original's; wanted were 90 dB",
        "hint: everything else is finished and in the run folder; a larger budget or longer finetuning helps",
    ]
    for name in ("plan.json", "slim/weights.safetensors", "export/portable/generator.fp32.onnx", "quality.json"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()
    assert (tmp_path / "again/report.html").is_file()
    assert command("--quiet", "compress", "--resume", tmp_path / "again", "--json").code == 3
    assert command("--quiet", "compress", "--resume", tmp_path / "again", "--min-psnr", "1", "--json").code == 0


def document_of(**changes: Any) -> dict[str, Any]:
    costs = {
        "parameters": 11_378_179,
        "macs_true": 49_550_000_000,
        "macs_paper": 56_800_000_000,
        "size_bytes": 45_500_000,
    }
    document: dict[str, Any] = {
        "artifacts": [], "run": "runs/horse2zebra-0.05-20260101-120000",
        "budget": 0.05,
        "budget_met": 0.04971,
        "original": costs,
        "compressed": {"parameters": 650_000, "macs_true": 2_463_000_000, "macs_paper": 1, "size_bytes": 2_600_000},
        "quality": {
            "psnr_to_original": 24.318, "ssim_to_original": 0.8123, "frechet": None, "where": "test", "pictures": 120,
            "kid": {
                "original": {"value": 0.01234, "ci95": [0.01011, 0.01457]},
                "compressed": {"value": 0.01432, "ci95": [0.01193, 0.01681]},
            },
            "to_truth": {"original": {"psnr": 20.123}, "compressed": {"psnr": 19.987}},
        },
        "latency": {
            "runtime": "onnxruntime", "original_ms": 812.345, "compressed_ms": 98.765, "speedup": 8.225,
            "ci95": [8.01, 8.44], "ci99": [7.93, 8.53], "realisation": 0.409, "verdict": "faster", "reason": None,
            "disturbed": [], "warnings": [], "pairs_left_out": 0,
        },
    }  # fmt: skip
    return {**document, **changes}


TABLE = """\
runs/horse2zebra-0.05-20260101-120000

                         original   compressed                       ratio
 ─────────────────────────────────────────────────────────────────────────
 MACs                     49.55 G      2.463 G                      20.12x
 parameters               11.38 M      650.0 k                      17.50x
 ONNX file                45.5 MB       2.6 MB                      17.50x
 latency, onnxruntime   812.35 ms     98.77 ms   8.22x (99%: 7.93 to 8.53)

kept             0.0497 of the MACs; asked for were 0.05
realisation      0.41 (ratio of latencies / ratio of MACs)
to the original  24.32 dB, SSIM 0.812 (120 pictures, test)
to the truth     original 20.12 dB, compressed 19.99 dB
KID              original 0.01234 (0.01011 to 0.01457),
                 compressed 0.01432 (0.01193 to 0.01681); lower is better
"""


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_at_80_and_120_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    Output().result(page(document_of()))
    assert capsys.readouterr().out == TABLE


def test_the_table_of_numbers_that_do_not_exist(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    latency = {**document_of()["latency"], "ci95": None, "ci99": None, "realisation": None}
    quality = {**document_of()["quality"], "psnr_to_original": None, "kid": None, "to_truth": None, "pictures": 1}
    Output(color=False).result(page(document_of(latency=latency, quality=quality)))
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "",
        "kept             0.0497 of the MACs; asked for were 0.05",
        "to the original  identical (1 picture, test)",
    ]


@pytest.mark.parametrize(
    ("kid", "reason", "words"),
    [
        (
            {"original": None, "compressed": {"value": 0.5, "ci95": [0.25, 0.75]}, "difference": None},
            None,
            "compressed 0.5 (0.25 to 0.75) to the original's pictures; lower is better",
        ),
        (
            {"original": {"value": 2.0, "std": 0.1}, "compressed": {"value": 1.5, "std": 0.1}},
            None,
            "original 2, compressed 1.5; lower is better",
        ),
        (None, "5 pictures are too few for KID: 6 are needed", "5 pictures are too few for KID: 6 are needed"),
    ],
)
def test_the_kid_has_its_interval_or_a_reason(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kid: dict[str, Any] | None,
    reason: str | None,
    words: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    quality = {**document_of()["quality"], "kid": kid, "kid_reason": reason}
    Output(color=False).result(page(document_of(quality=quality)))
    assert capsys.readouterr().out.splitlines()[-1] == f"KID              {words}"


# --- budgets ---

NO_BUDGET = "a fraction of the original's MACs above 0 and up to 1, such as 0.05, or MACs, such as 2.5G"


@pytest.mark.parametrize("text", ["0", "1.5", "abc", "-1", "nan", "5%", "0.0"])
def test_a_budget_that_is_none_is_a_usage_error(compress: Command, tmp_path: Path, text: str) -> None:
    assert_refused(compress("--budget", text, "--out", "o"), 2, f"'{text}' is no budget", NO_BUDGET)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_below_what_can_be_left_is_refused_with_the_smallest_there_is(
    compress: Command, tmp_path: Path
) -> None:
    ran = compress("--budget", "0.001", "--out", "o")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: a budget of 0.001 cannot be met: the smallest network that can be left already ")
    least = ran.err.splitlines()[1].removeprefix("hint: ask for at least ")
    assert 0.001 < float(least) < 0.2
    assert list(tmp_path.iterdir()) == []  # nothing was begun, so the same folder can be named again


def test_a_budget_in_macs_is_refused_in_the_words_it_was_asked_in(compress: Command) -> None:
    ran = compress("--budget", " 1k", "--out", "o")
    assert ran.code == 1
    error, hint = ran.err.splitlines()
    assert error.startswith("error: a budget of 1k MACs (0.000557 of the original's) cannot be met: ")
    assert re.fullmatch(r"hint: ask for at least 0\.\d+, or \d+k", hint)


@pytest.mark.parametrize(
    ("asked", "shown"), [("0.99999", "0.99999"), ("1793k", "1793k (0.9994)"), (None, "1")]
)  # None: a run of an older version
def test_the_page_says_what_budget_was_asked_for(
    asked: str | None, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document = {**document_of(), "budget": 0.99999 if asked != "1793k" else 1793e3 / 1794e3}
    Output(color=False).result(page(document if asked is None else {**document, "budget_asked": asked}))
    assert f"of the MACs; asked for were {shown}\n" in capsys.readouterr().out


def test_an_absolute_budget_above_the_original_is_refused(compress: Command, tmp_path: Path) -> None:
    assert_refused(
        compress("--budget", "2.5G", "--out", "o"), 1, "the budget 2.5G is more than the original's 0.001794 G MACs"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["--prune-epochs", "--finetune-epochs"])
def test_epochs_of_zero_are_a_usage_error(compress: Command, name: str) -> None:
    assert_refused(compress(name, "0"), 2, f"{name[2:].replace('-', '_')} must be a number above 0, not 0")


def test_a_floor_that_is_no_number_is_a_usage_error(compress: Command) -> None:
    assert_refused(compress("--min-psnr", "nan"), 2, "min_psnr must be a number of dB from 0 to 1000, not nan")


@pytest.mark.parametrize(
    ("words", "text"),
    [((), "--model is needed."), (("--model", "x"), "--budget, or a --preset, is needed."), (("--method", "x"), "'x'")],
)
def test_missing_flags_are_usage_errors(command: Command, words: tuple[str, ...], text: str) -> None:
    ran = command("compress", *words)
    assert (ran.code, ran.out) == (2, "")
    assert text in ran.err


# --- networks ---


def test_networks_in_the_wrong_role_are_refused(compress: Command, given: Path, tmp_path: Path) -> None:
    generator, partner = given / "generator.pth", given / "grey.pth"
    judge, four = given / "discriminator.pth", given / "four.pth"
    assert_refused(
        compress("--discriminator", generator, "--out", "o"), 1, f"'{generator}' is a generator, not a discriminator"
    )
    assert_refused(
        compress("--discriminator", four, "--out", "o"),
        1,
        f"the discriminator '{four}' takes 4 channels, and for this generator it must take 3 (the output) or 6 (input "
        "and output)",
        "give the discriminator that was trained with this generator, or none: one is then fitted",
    )
    assert_refused(
        compress("--partner", judge, "--out", "o"), 1, f"the partner '{judge}' is a discriminator, not a generator"
    )
    assert_refused(
        compress("--partner", partner, "--out", "o"),
        1,
        f"the partner '{partner}' turns 1 channels into 1, and the way back from this generator is 3 to 3",
        "give the generator of the other direction",
    )
    ran = compress("--model", judge, "--out", "o")
    message = f"the model '{judge}': this is a discriminator, and only generators are exported and run"
    assert_refused(ran, 1, message, "give a checkpoint of the generator")
    unet = given / "unet.pth"
    assert_refused(
        compress("--partner", unet, "--image-size", "36", "--out", "o"),
        1,
        f"the partner '{unet}': a U-Net that halves the picture 5 times cannot run at 36x36",
        "both sides must be multiples of 32",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_another_network_and_one_above_the_budget_are_refused(
    compress: Command, given: Path, finished: Path, tmp_path: Path
) -> None:
    plan = finished / "runs/latest/plan.json"
    ran = compress("--model", given / "unet.pth", "--plan", plan, "--out", "o")
    assert (ran.code, "the plan was made for another network (resnet" in ran.err) == (1, True)
    ran = compress("--plan", plan, "--budget", "0.3", "--out", "o")
    assert (ran.code, ran.err.splitlines()[1]) == (1, "hint: give the budget that the plan was made for")
    assert_refused(compress("--plan", "none.json", "--out", "o"), 1, "there is no plan 'none.json'")
    assert list(tmp_path.iterdir()) == []


def test_pictures_too_small_for_a_fitted_discriminator_are_refused_before_anything_long(
    compress: Command, tmp_path: Path
) -> None:
    for size in ("16", "20", "64x20"):
        height, _, width = size.partition("x")
        assert_refused(
            compress("--image-size", size, "--out", "o"),
            1,
            "a discriminator is fitted where none is given, to pictures of at least 24x24, and these have "
            f"{height}x{width or height}",
            "give a larger --image-size, or a discriminator for such pictures with --discriminator FILE",
        )
    assert list(tmp_path.iterdir()) == []


def test_small_pictures_can_have_a_discriminator_of_their_own(compress: Command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(Network(patchgan_spec(ndf=4, layers=1)).state_dict(), "small.pth")
    ran = compress("--image-size", "16", "--discriminator", "small.pth", "--method", "magnitude", "--out", "o")
    assert (ran.code, ran.err) == (0, "")


def test_flags_that_a_plan_takes_the_place_of_are_told(
    command: Command, given: Path, finished: Path, tmp_path: Path
) -> None:
    plan = finished / "runs/latest/plan.json"
    words = ("--model", given / "generator.pth", "--plan", plan, "--image-size", "32", "--out", tmp_path / "o")
    stop = ("--set", "finetune.gan_weight=0", "--set", "distill.enabled=false")  # nothing to learn from: an early end
    ran = command("compress", *words, *QUICK, *stop, "--budget", "0.9", "--method", "random")
    keeps = json.loads(plan.read_text())["budget_met"]
    assert [line for line in ran.err.splitlines() if "plan" in line] == [
        "note: the channels are those of the plan (mggc); --method random is not used",
        f"note: the plan keeps {keeps:.4g} of the MACs, less than the budget 0.9 allows",
    ]
    shutil.rmtree(tmp_path / "o")
    ran = command("compress", *words, *QUICK, *stop, "--budget", "0.5")
    assert [line for line in ran.err.splitlines() if "plan" in line] == []


def test_a_feature_network_that_is_not_there_is_found_before_anything_long(compress: Command, tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    (tmp_path / "net").mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "net/f.onnx")
    for text, part in (("none.onnx", "none.onnx"), ("net/f.onnx:z", "'z'")):
        ran = compress("--feature-net", text, "--out", "o")
        assert (ran.code, part in ran.err.splitlines()[0]) == (1, True), ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def write_network(path: Path, nodes: list[onnx.NodeProto], shape: list[int], size: int = 8) -> Path:
    """An ONNX network from a picture x to y; `low` is a constant of its graph."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    low = helper.make_tensor("low", TensorProto.FLOAT, [], [0.99])
    graph = helper.make_graph(nodes, "g", [x], [y], [low])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def write_only_white(path: Path) -> Path:
    """A feature network that is finite for pictures with a white value, such as noise; these generators give none."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], axes=[2, 3]),
        helper.make_node("Sub", ["m", "low"], ["d"]),
        helper.make_node("Log", ["d"], ["y"]),
    ]
    return write_network(path, nodes, [1, 3, 1, 1], 64)


@pytest.mark.parametrize(
    ("nodes", "shape", "size", "said"),
    [
        ([helper.make_node("Log", ["x"], ["y"])], [1, 3, 8, 8], 8, "gives values that are not finite for picture 0"),
        ([helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)], [], 8, "has the shape []"),
        ([helper.make_node("Flatten", ["x"], ["y"])], [1, 3 * 160**2], 160, "gives 76,800 features a picture"),
    ],
)
def test_a_feature_network_that_gives_no_features_is_found_before_anything_long(
    compress: Command, tmp_path: Path, nodes: list[onnx.NodeProto], shape: list[int], size: int, said: str
) -> None:
    (tmp_path / "net").mkdir()
    file = write_network(tmp_path / "net/f.onnx", nodes, shape, size)
    for words in (("--feature-net", file), ("--encoder", f"onnx:{file}")):
        ran = compress(*words, "--out", "o")
        assert (ran.code, ran.out, said in ran.err.splitlines()[0]) == (1, "", True), ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_segmenter_that_gives_no_map_is_found_before_anything_long(compress: Command, tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data")
    file = write_network(data / "log.onnx", [helper.make_node("Log", ["x"], ["y"])], [1, 3, 8, 8])
    ran = compress("--data", data, "--direction", "BtoA", "--segmenter", file, "--out", "o")
    assert (ran.code, ran.err.splitlines()[-1]) == (1, f"error: '{file}' gives values that are not finite")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_job_goes_on_with_another_feature_network_than_the_one_that_failed(
    compress: Command, command: Command, tmp_path: Path
) -> None:
    bad = write_only_white(tmp_path / "bad.onnx")
    good = write_network(tmp_path / "good.onnx", [helper.make_node("Relu", ["x"], ["y"])], [1, 3, 8, 8])
    words = ("--set", "features.preprocessing=unit", "--method", "magnitude")
    assert_refused(
        compress("--feature-net", bad, *words, "--out", "o"),
        1,
        f"'{bad}' gives values that are not finite for picture 0",
        "everything else is kept; go on with another network, or with '' for none: mggc-edge compress --resume o "
        "with --feature-net, --inception or --segmenter",
    )
    shutil.copytree("o", "p")
    ran = command("--quiet", "compress", "--resume", "o", "--feature-net", good, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(Path("o/quality.json").read_text())["features"] == "good"
    assert json.loads(Path("o/manifest.json").read_text())["settings"]["request.feature_net"] == str(good)
    assert command("--quiet", "compress", "--resume", "p", "--feature-net", "", "--json").code == 0
    assert json.loads(Path("p/quality.json").read_text())["features"] is None
    assert "feature-net" not in json.loads(Path("p/manifest.json").read_text())["command_line"]
    assert_refused(  # it has been measured
        command("--quiet", "compress", "--resume", "o", "--feature-net", bad),
        1,
        f"'o' was started with --feature-net {good}, not with --feature-net {bad}",
        "resume with the same flags, or with none but --resume and the folder",
    )


def test_weights_of_another_network_are_no_inception(compress: Command, given: Path, tmp_path: Path) -> None:
    ran = compress("--inception", given / "generator.pth", "--out", "o")
    message = f"error: '{given / 'generator.pth'}' is not the Inception network of the FID: it is missing 'Conv2d_1a_"
    assert (ran.code, ran.out, ran.err[: len(message)]) == (1, "", message)
    assert ran.err.endswith("hint: it is the file pt_inception-2015-12-05-6726825d.pth of pytorch-fid\n")
    assert_refused(compress("--inception", "none.pth", "--out", "o"), 1, "there is no file 'none.pth'")
    assert list(tmp_path.iterdir()) == []


def test_a_segmenter_needs_pairs(compress: Command, tmp_path: Path) -> None:
    ran = compress("--segmenter", "none.onnx", "--out", "o")
    message = "mIoU compares with the labels that a photograph was made from, and these pictures have no pairs"
    hint = "give paired pictures (--layout paired), or leave --segmenter out"
    assert (ran.code, ran.err.splitlines()[-2:]) == (1, [f"error: {message}", f"hint: {hint}"])
    assert list(tmp_path.iterdir()) == []


def write_labelled(root: Path) -> Path:
    """Pairs of a photograph on the left and its label picture on the right, and painter.onnx, which gives its input."""
    for name, count in (("train", 10), ("test", 7)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            labels = label_picture(number + (name == "test") * 50, 40)
            pair = Image.new("RGB", (80, 40))
            pair.paste(labels.convert("L").convert("RGB"), (0, 0))
            pair.paste(labels, (40, 0))
            pair.save(root / name / f"{number}.png")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 32, 32]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), root / "painter.onnx"
    )
    return root


def test_paired_pictures_give_every_measure_with_its_interval(compress: Command, given: Path, tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data")
    roles = {role: given / f"{role}.pth" for role in ("generator", "discriminator", "partner")}
    words = ("--data", data, "--direction", "BtoA", "--method", "magnitude", "--out", "o", "--json")
    networks = ("--discriminator", roles["discriminator"], "--partner", roles["partner"])
    ran = compress(*words, *networks, "--segmenter", data / "painter.onnx", "--feature-net", data / "painter.onnx")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out, parse_constant=pytest.fail)["quality"]
    quality = json.loads((tmp_path / "o/quality.json").read_text(), parse_constant=pytest.fail)
    for name in ("kid", "frechet", "fid", "segmentation", "to_truth", "to_truth_difference"):
        assert document[name] == quality[name]
    low, high = quality["kid"]["compressed"]["ci95"]
    assert low < high
    assert quality["kid"]["difference"]["ci95"] is not None
    low, high = quality["frechet"]["compressed_ci95"]
    assert low < quality["frechet"]["compressed"] < high
    assert (quality["frechet_reason"], quality["fid"]) == (None, None)
    for side in ("original", "compressed", "real"):
        assert 0 <= quality["segmentation"][side]["miou"] <= 1
        low, high = quality["segmentation"][side]["miou_ci95"]
        assert low <= quality["segmentation"][side]["miou"] <= high
    assert len(quality["segmentation"]["palette"]) == 4
    for side in ("original", "compressed"):
        assert quality["to_truth"][side]["psnr_ci95"][0] < quality["to_truth"][side]["psnr"]
        assert quality["to_truth"][side]["ssim_ci95"][0] < quality["to_truth"][side]["ssim"]
    assert "mIoU of the labels found in them" in (tmp_path / "o/report.html").read_text()
    manifest = json.loads((tmp_path / "o/manifest.json").read_text())
    sha = {role: source["sha256"] for role, source in manifest["sources"].items()}
    assert sha == {role: sha256_of(path) for role, path in roles.items()}
    parents = {entry["path"]: entry["parent"] for entry in manifest["files"]}
    assert parents["original/discriminator/weights.safetensors"] == sha["discriminator"]


def test_an_encoder_that_cannot_be_used_is_found_before_anything_long(compress: Command, tmp_path: Path) -> None:
    assert_refused(
        compress("--encoder", "swav", "--out", "o"),
        2,
        "the encoder swav needs weights, which are not part of this package",
        "give a ResNet-50 of SwAV or torchvision with --encoder-weights FILE, or leave out --encoder",
    )
    assert_refused(
        compress("--encoder", "onnx:none.onnx", "--out", "o"),
        1,
        "there is no file 'none.onnx'",
        "a feature network is an ONNX file, FILE or FILE:TENSOR",
    )
    ran = compress("--encoder", "swav", "--encoder-weights", tmp_path / "none.pth", "--out", "o")
    assert_refused(ran, 1, f"there is no file '{tmp_path / 'none.pth'}'")
    assert list(tmp_path.iterdir()) == []


# --- pictures ---


def odd_width(root: Path) -> None:
    write_pictures(root / "train", 4, size=(81, 40))


def nothing(root: Path) -> None:
    (root / "train").mkdir(parents=True)


def too_few(root: Path) -> None:
    write_pictures(root / "train", 2, size=(80, 40))


def six_percent(root: Path) -> None:
    write_pictures(root / "train", 17, size=(80, 40))
    (root / "train/3.png").write_text("no picture")


@pytest.mark.parametrize(
    ("write", "parts"),
    [
        (odd_width, ("81",)),
        (nothing, ("no pictures in 'data/train'", "hint: a picture is a file that ends in .jpg")),
        (too_few, ("2 pictures cannot be divided into training, held-out and test pictures",)),
        (six_percent, ("1 of 17 pictures are unreadable; the first: ", "hint: at most 5% may be")),
    ],
)
def test_pictures_that_cannot_be_used_are_refused(
    compress: Command, tmp_path: Path, write: Callable[[Path], None], parts: tuple[str, ...]
) -> None:
    write(tmp_path / "data")
    ran = compress("--data", "data", "--layout", "paired", "--out", "o")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert all(part in ran.err for part in parts), ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_pairs_of_unequal_names_are_refused(compress: Command, tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 6)
    write_pictures(tmp_path / "b", 5)
    assert_refused(
        compress("--source", "a", "--target", "b", "--layout", "paired", "--out", "o"),
        1,
        "1 of the pictures in 'a' and 'b' have no partner of the same name, such as '5'",
        "a pair has the same name in both folders",
    )


def test_flags_for_pictures_that_contradict_each_other_are_refused(compress: Command) -> None:
    assert_refused(
        compress("--data", "x", "--source", "y"),
        1,
        "--data and --source or --target name the same pictures twice",
        "give one of the two",
    )


def test_flags_and_networks_that_do_not_fit_the_pictures_are_told(
    command: Command, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("compress", "--model", given / "generator.pth", "--discriminator", given / "discriminator.pth", *QUICK)
    bad = write_only_white(tmp_path / "bad.onnx")  # the segmenter comes last before any work, and is refused
    ran = command(*words, "--budget", "0.5", "--layout", "paired", "--segmenter", bad, "--out", "o")
    assert ran.code == 1
    assert "note: --layout is for pictures of your own, and is not used\n" in ran.err
    assert "these pictures are pairs" not in ran.err
    pairs = write_pairs(tmp_path / "pairs")
    ran = command(*words, "--budget", "0.5", "--data", pairs, "--segmenter", "none.onnx", "--out", "o")
    assert ran.code == 1
    assert (
        "note: these pictures are pairs, and the discriminator judges outputs alone; one that was trained\n"
        "      on pairs takes 6 channels, the input and its output\n"
    ) in ran.err
    assert "--layout" not in ran.err


# --- resuming ---


@pytest.mark.parametrize(
    ("setting", "value", "now"),
    [
        ("finetune.learning_rate", "0.0002", "finetune.learning_rate=2e-05"),
        ("finetune.learning_rate", "2e-8", "finetune.learning_rate=1e-08"),
        ("distill.style", "1", "distill.style=VALUE"),
        ("encoder.learning_rate", "0.003", None),
        (None, "", None),
    ],
)
def test_values_that_are_no_numbers_end_in_the_command_that_goes_on_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None, value: str, now: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings({} if setting is None else {setting: value})
    job = start_job(Path("RUN"), "compress", {}, settings, seed=0, threads=1)
    (Path("RUN") / "original").mkdir()

    def fail(_job: object, _hooks: object) -> dict[str, Any]:
        raise TrainingError("no number", "lower it, and start into a new folder", setting)

    with pytest.raises(TrainingError) as caught:
        run_job(Output(quiet=True), job, fail)
    again = f"go on with: mggc-edge compress --resume RUN --set {now}"
    assert caught.value.hint == f"lower it, and {'start into a new folder' if now is None else again}"


def test_what_would_fail_again_is_not_told_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start_job(Path("RUN"), "compress", {}, Settings(), seed=0, threads=1)

    def fail(_job: object, _hooks: object) -> dict[str, Any]:
        raise InputError("no way")

    with pytest.raises(InputError) as caught:
        run_job(Output(quiet=True), resume_job(Path("RUN"), "compress"), fail)
    assert caught.value.hint is None


def unfinished(command: Command, given: Path, folder: Path, *words: object) -> Path:
    """A job that ended in its second stage, because its discriminator overflows."""
    torch.manual_seed(0)
    state = Network(patchgan_spec(ndf=4, norm="instance")).state_dict()
    last = [key for key in state if key.endswith("weight")][-1]
    state[last] = state[last].sign() * 3e38  # finite, and too much for any loss
    torch.save(state, folder / "huge.pth")
    shutil.copy(given / "generator.pth", folder / "model.pth")
    ran = command(
        "--quiet", "compress", "--model", folder / "model.pth", "--budget", "0.5", "--discriminator",
        folder / "huge.pth", "--out", folder / "run", *QUICK, *words,
    )  # fmt: skip
    assert ran.code == 1
    assert ran.err.splitlines()[0].endswith("is no longer a number; the last good state is kept"), ran.err
    assert ran.err.splitlines()[1] == (
        "hint: nothing was learnt yet: lower --set mggc.lambda_1= if it was raised, else the values of the networks "
        f"that were given are too large; go on with: mggc-edge compress --resume {folder / 'run'} --set "
        "mggc.lambda_1=VALUE"
    )
    return folder / "run"


def test_a_loss_that_is_no_number_ends_the_job_and_keeps_what_was_finished(
    command: Command, given: Path, tmp_path: Path
) -> None:
    run = unfinished(command, given, tmp_path)
    assert (run / "original/spec.json").is_file()
    assert list((run / "work/outputs").iterdir()) != []
    assert not (run / "plan.json").exists()
    logged = [json.loads(line)["stage"] for line in (run / "logs/metrics.jsonl").read_text().splitlines()]
    assert logged == ["encoder"] * 6


def test_a_job_goes_on_only_with_the_networks_and_the_flags_it_began_with(
    command: Command, given: Path, tmp_path: Path
) -> None:
    run = unfinished(command, given, tmp_path)
    hint = "resume with the same flags, or with none but --resume and the folder"

    def resume(*words: object) -> Ran:
        return command("--quiet", "compress", "--resume", run, *words)

    for words, started, now in (
        (("--budget", "0.4"), "with --budget 0.5", "--budget 0.4"),
        (("--seed", "3"), "with --seed 0", "--seed 3"),
        (("--threads", "2"), "with --threads 1", "--threads 2"),
        (("--image-size", "64"), "with --image-size 32x32", "--image-size 64x64"),
        (("--plan", "p.json"), "without --plan", "--plan p.json"),
        (("--budget", ".4"), "with --budget 0.5", "--budget .4"),
        (("--set", "mggc.k=2"), "with --set mggc.k=5", "--set mggc.k=2"),
        (("--set", "data.held_out=0.2"), "with --set data.held_out=0.1", "--set data.held_out=0.2"),
    ):
        assert_refused(resume(*words), 1, f"'{run}' was started {started}, not with {now}", hint)
    assert resume("--out", tmp_path / "other").code == 2
    for same in (
        ("--budget", ".5"),
        ("--budget", "5e-1"),
        ("--min-psnr", "9"),
        ("--discriminator", run / "../huge.pth"),
        ("--runtime", "onnxruntime,openvino"),  # nothing was exported yet
        ("--precision", "fp32,int8", "--min-precision-psnr", "20"),
        ("--set", "export.simplify=true", "--set", "compress.targets=none"),
    ):
        assert resume(*same).err.splitlines()[0].endswith("is no longer a number; the last good state is kept")
    torch.manual_seed(5)
    torch.save(Network(resnet_spec(blocks=1, ngf=4)).state_dict(), tmp_path / "model.pth")
    assert_refused(
        resume(), 1, "a network changed since this job was started", "start a new job, or bring back what was there"
    )
    kept = json.loads((run / "job.json").read_text())
    assert (kept["request"]["runtime"], kept["request"]["precision"]) == ("onnxruntime,openvino", "fp32,int8")
    assert kept["settings"]["compress.targets"] == "none"


def test_neighbors_by_an_onnx_network_are_found_again_only_with_the_same_file(
    command: Command, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path := tmp_path / "f.onnx")
    run = unfinished(command, given, tmp_path, "--encoder", f"onnx:{path}", "--set", "features.preprocessing=signed")
    facts = json.loads((run / "job.json").read_text())["facts"]["encoder"]
    assert facts == {
        "name": "onnx", "file": "f.onnx", "tensor": None, "sha256": sha256_of(path), "preprocessing": "signed",
    }  # fmt: skip
    assert [piece.name for piece in (run / "work/embeddings").iterdir()] == ["000000.npy"]
    monkeypatch.chdir(tmp_path)
    same = command("--quiet", "compress", "--resume", run, "--encoder", "onnx:f.onnx")
    assert same.err.splitlines()[0].endswith("is no longer a number; the last good state is kept")
    other = command("--quiet", "compress", "--resume", run, "--encoder", "self")
    assert (
        other.err.splitlines()[0] == f"error: '{run}' was started with --encoder onnx:{path}, not with --encoder self"
    )
    model.producer_name = "another"
    onnx.save(model, path)
    ran = command("--quiet", "compress", "--resume", run)
    assert_refused(
        ran, 1, "the encoder changed since this job was started", "start a new job, or bring back what was there"
    )


def test_a_job_goes_on_only_with_the_pictures_it_began_with(command: Command, given: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", 20)
    (pairs / "train/7.png").write_bytes(b"no picture")  # 5 %
    run = unfinished(command, given, tmp_path, "--data", pairs)
    assert json.loads((run / "job.json").read_text())["facts"]["unreadable"] == 1
    Image.new("RGB", (80, 40)).save(pairs / "test/0.png")
    assert_refused(
        command("--quiet", "compress", "--resume", run),
        1,
        "the pictures changed since this job was started",
        "start a new job, or bring back what was there",
    )


def test_what_was_moved_is_named_where_it_is_now_and_its_hash_decides(
    command: Command, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "a", 12)
    run = unfinished(command, given, tmp_path, "--source", tmp_path / "a")
    resume = f"mggc-edge compress --resume {run}"
    (tmp_path / "deep").mkdir()
    shutil.move(tmp_path / "a", tmp_path / "deep/b")
    shutil.move(tmp_path / "model.pth", tmp_path / "deep/m.pth")
    ran = command("--quiet", "compress", "--resume", run)
    hint = f"hint: bring back what was there, or name where it is now: {resume} --model FILE --source DIR"
    assert (ran.code, ran.err.splitlines()[1]) == (1, hint)
    write_pictures(tmp_path / "other", 12, seed=1)
    ran = command("--quiet", "compress", "--resume", run, "--model", tmp_path / "deep/m.pth", "--source",
                  tmp_path / "other")  # fmt: skip
    assert ran.err.splitlines()[0] == "error: the pictures changed since this job was started"
    monkeypatch.chdir(tmp_path / "deep")
    for words in (("--model", "m.pth", "--source", "b"), ()):  # what was named is kept
        ran = command("--quiet", "compress", "--resume", run, *words)
        assert ran.err.splitlines()[0].endswith("is no longer a number; the last good state is kept"), ran.err
        monkeypatch.chdir(tmp_path)
    hint = "resume with the same flags, or with none but --resume and the folder"
    ran = command("--quiet", "compress", "--resume", run, "--target", "b")
    assert_refused(ran, 1, f"'{run}' was started without --target, not with --target b", hint)
    ran = command("--quiet", "compress", "--resume", run, "--model", given / "partner.pth")
    assert_refused(
        ran, 1, "a network changed since this job was started", "start a new job, or bring back what was there"
    )


def test_a_plan_that_was_changed_is_another_one(
    compress: Command, command: Command, finished: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    shutil.copy(finished / "runs/latest/plan.json", plan)
    bad = write_only_white(tmp_path / "bad.onnx")
    ran = compress("--plan", plan, "--feature-net", bad, "--set", "features.preprocessing=unit", "--out", "o")
    assert ran.code == 1
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "seed": 7}))
    assert_refused(
        command("--quiet", "compress", "--resume", "o", "--feature-net", ""),
        1,
        "the plan changed since this job was started",
        "start a new job, or bring back what was there",
    )


def test_folders_that_hold_no_job_to_go_on_with(
    command: Command, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(
        command("compress", "--resume"),
        1,
        "'runs/latest' holds no job to go on with",
        "name the run folder that was started",
    )
    assert_refused(
        command("compress", "--resume", material / "run"),
        1,
        f"'{material / 'run'}' is a finished run that cannot be resumed: it has no job.json",
    )
    start_job(Path("t"), "train", {}, Settings(), seed=0, threads=1)
    assert_refused(
        command("compress", "--resume", "t"),
        1,
        "'t' is a run of `train`, not of `compress`",
        "name a run of this command",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:100], "cannot be read: "),
        (lambda text: "[]", "is damaged: it holds no JSON object"),
        (lambda text: text.replace('"threads": 1', '"threads": 0'), "is damaged: 0 threads"),
        (lambda text: text.replace('"seed": 0', '"seed": "0"'), "is damaged: its 'seed' is missing or of another kind"),
        (lambda text: text.replace('"mggc.k"', '"mggc.q"'), "was written by another version: there is no setting"),
    ],
)
def test_a_damaged_job_is_refused(command: Command, tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    start_job(tmp_path / "run", "compress", {}, Settings(), seed=0, threads=1)
    path = tmp_path / "run/job.json"
    path.write_text(change(path.read_text()))
    ran = command("compress", "--resume", tmp_path / "run")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: '{path}' {message}")


def test_a_second_process_in_the_same_folder_is_refused(command: Command, given: Path, tmp_path: Path) -> None:
    run = unfinished(command, given, tmp_path)
    with alone_in(run):
        assert_refused(
            command("--quiet", "compress", "--resume", run),
            1,
            f"another process works in '{run}'",
            "wait for it, or stop it",
        )
    assert not resume_job(run, "compress").finished


def test_a_folder_with_other_content_is_refused_and_untouched(compress: Command, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("keep me")
    assert_refused(
        compress("--out", "full"),
        1,
        "'full' has other content, and nothing is overwritten",
        "choose a new or an empty folder",
    )
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_job_that_cannot_begin_leaves_an_empty_folder_empty_and_the_latest_run_alone(
    compress: Command, finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert compress("--budget", "0.001", "--out", "empty").code == 1
    assert list((tmp_path / "empty").iterdir()) == []
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/latest").symlink_to(finished)
    assert compress("--budget", "0.001").code == 1
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["latest"]


# --- full disks ---


def on_a_small_disk(folder: Path, size: str, after: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the program with a disk of `size` at DISK in `folder`, then a shell script `after` in which "$@" is it."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this machine gives no file-system namespace to mount a small disk in")
    (folder / "DISK").mkdir()
    script = f'mount -t tmpfs -o size={size} tmpfs DISK && "$@"; code=$?; {after}; exit $code'
    line = ["unshare", "-rm", "sh", "-c", script, "sh", *PROGRAM, *map(str, words)]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


def test_a_full_disk_ends_the_job_in_a_sentence(given: Path, tmp_path: Path) -> None:
    words = ("--quiet", "compress", "--model", given / "generator.pth", "--budget", "0.5", *QUICK, "--out", "DISK/run")
    done = on_a_small_disk(tmp_path, "150k", "cp -r DISK/run copy", *words)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: 'DISK/run/")
    assert lines[0].endswith("cannot be written: No space left on device")
    assert lines[1] == (
        "hint: free some space, or choose a folder on another disk; go on with: mggc-edge compress --resume DISK/run"
    )
    assert list((tmp_path / "copy").rglob("*.partial")) == []


@pytest.mark.slow
@pytest.mark.parametrize("size", ["60k", "120k", "250k", "400k", "600k"])
def test_a_job_goes_on_when_there_is_space_again(given: Path, finished: Path, tmp_path: Path, size: str) -> None:
    words = ("--quiet", "compress", "--model", given / "generator.pth", "--budget", "0.5", *QUICK, "--out", "DISK/run")
    more = (
        'mount -o remount,size=64m tmpfs DISK; if test -e DISK/run/job.json; then "$@" --resume; '
        'else "$@"; fi && cp -r DISK/run copy'
    )
    done = on_a_small_disk(tmp_path, size, more, *words)
    assert done.returncode == 1
    for name in ("plan.json", "slim/weights.safetensors", "logs/metrics.jsonl", "quality.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (finished / "runs/latest" / name).read_bytes()
