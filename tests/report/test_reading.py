"""A run folder that is damaged, or none: one sentence that names the file."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.errors import ArtifactError
from mggc_edge.report.facts import COLUMNS, Group
from mggc_edge.report.reading import read_run
from mggc_edge.report.samples import MAX_PICTURE_BYTES
from tests.report import run_folder
from tests.report.run_folder import write, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", steps=5, samples=1)


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    edit(document)
    write(path, document)


def test_facts_are_what_the_files_say(run: Path) -> None:
    facts = read_run(run)
    assert (facts.name, facts.command, facts.method) == ("run", "compress", "mggc")
    assert facts.plan.groups[:2] == (Group("down0", 16, 64), Group("down1", 49, 128))
    assert facts.plan.image_size == (256, 256)
    assert facts.original.macs("paper") == 56_800_313_344
    assert facts.latency is not None
    assert facts.latency.ci95 == (11.94, 12.66)
    assert facts.bench is not None
    assert [len(side.samples_ns) for side in facts.bench] == [48, 48]
    assert [stage.name for stage in facts.log.stages] == ["encoder", "prune", "finetune"]
    assert tuple(facts.samples[0].pictures) == COLUMNS
    assert facts.files["export/portable/generator.fp32.onnx"] == 2_310_467


def test_a_folder_without_a_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        read_run(tmp_path)
    assert caught.value.message == f"'{tmp_path}' is no run folder: it has no manifest.json"
    assert caught.value.hint == "name a folder that `compress` wrote"


def test_a_run_without_a_plan_has_nothing_to_report(run: Path) -> None:
    (run / "plan.json").unlink()
    with pytest.raises(ArtifactError) as caught:
        read_run(run)
    assert caught.value.message == f"'{run}' has no plan.json, so nothing was pruned that a report could show"
    assert caught.value.hint == "name a folder that `compress`, or `export --plan`, wrote"


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("manifest.json", lambda d: d.update(schema="other"), "its schema is not 'mggc-edge/manifest/1'"),
        ("manifest.json", lambda d: d.update(command=3), "'command' is no text"),
        ("manifest.json", lambda d: d.update(files=[3]), "'files' is no list of objects"),
        ("manifest.json", lambda d: d.update(files={}), "'files' is no list"),
        ("manifest.json", lambda d: d.update(timings_s={"prune": None}), "'timings_s.prune' is missing"),
        ("manifest.json", lambda d: d.update(settings=[]), "'settings' is no object"),
        ("manifest.json", lambda d: d["result"].update(latency="fast"), "'result.latency' is no object"),
        ("manifest.json", lambda d: d["result"]["latency"].update(ci95=[2, 1]), "'result.latency.ci95' is no interval"),
        ("manifest.json", lambda d: d["result"]["latency"].update(ci95=[1]), "'result.latency.ci95' is no interval"),
        ("manifest.json", lambda d: d["result"]["original"].update(parameters=True), "parameters' is no number"),
        ("manifest.json", lambda d: d["result"]["artifacts"][0].update(accepted=1), "accepted' is neither true nor"),
        ("plan.json", lambda d: d["kept"].pop("trunk"), "'kept' and 'spec' do not have the same channel groups"),
        ("plan.json", lambda d: d["kept"].update(up2=list(range(65))), "it keeps more channels than there are"),
        ("plan.json", lambda d: d.update(image_size=[256]), "'spec', 'kept' or 'image_size' is missing"),
        ("plan.json", lambda d: d.pop("budget"), "'budget' is missing"),
        ("plan.json", lambda d: d.update(budget_met=10**400), "'budget_met' is no finite number"),
        ("plan.json", lambda d: d.update(seed=float("nan")), "'seed' is no finite number"),
        (
            "plan.json",
            lambda d: d.update(spec={"widths": {str(n): 1 for n in range(1001)}}),
            "it has more than 1000 channel groups",
        ),
        ("discriminator-plan.json", lambda d: d.pop("spec"), "'spec', 'kept' or 'image_size' is missing"),
        ("quality.json", lambda d: d.update(to_truth=3), "'to_truth' is no object"),
        ("quality.json", lambda d: d["after_finetuning"].update(psnr="x"), "'after_finetuning.psnr' is no number"),
        ("quality.json", lambda d: d.update(identical="no"), "'identical' is neither true nor false"),
        ("quality.json", lambda d: d.update(distances=[3]), "'distances' is no list of objects"),
        (
            "quality.json",
            lambda d: d.update(segmentation={"real": {"miou": "x"}}),
            "'segmentation.real.miou' is no",
        ),
        (
            "quality.json",
            lambda d: d.update(distances=[{"frechet": {"original_ci95": [2, 1]}}]),
            "'distances.frechet.original_ci95' is no interval",
        ),
        ("bench.json", lambda d: d["runs"][1].update(samples_ns=["1"]), "'runs.samples_ns' is no number"),
        ("bench.json", lambda d: d["runs"][0].update(samples_ns=[-1]), "a sample took less than no time"),
        ("samples/index.json", lambda d: d["rows"][0].update(input="../plan.json"), "'../plan.json' is no name of a"),
        ("samples/index.json", lambda d: d["rows"][0].update(input="a\\b.png"), "'a\\b.png' is no name of a picture"),
        ("samples/index.json", lambda d: d["rows"][0].update(original=None), "a row lacks the original's picture"),
    ],
)
def test_a_damaged_document_is_named_with_what_is_wrong(
    run: Path, name: str, edit: Callable[[dict[str, Any]], object], words: str
) -> None:
    change(run / name, edit)
    with pytest.raises(ArtifactError) as caught:
        read_run(run)
    assert caught.value.message.startswith(f"'{run / name}' is damaged: ")
    assert words in caught.value.message


WITHOUT = "bring it back from a copy, or move '{}' away: the report then leaves that part out"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("quality.json", "quality.json"),
        ("bench.json", "bench.json"),
        ("discriminator-plan.json", "discriminator-plan.json"),
        ("samples/index.json", "samples"),
        ("samples/000-input.png", "samples"),
        ("logs/metrics.jsonl", "logs/metrics.jsonl"),
    ],
)
def test_a_report_can_do_without_a_damaged_part_and_the_hint_says_how(run: Path, name: str, part: str) -> None:
    (run / name).write_text("[]\n")
    with pytest.raises(ArtifactError) as caught:
        read_run(run)
    assert caught.value.hint == WITHOUT.format(run / part)
    (run / part).rename(run / "away")
    assert read_run(run).plan.blocks == 9


def test_a_sample_that_is_gone_has_a_way_out(run: Path) -> None:
    (run / "samples/000-input.png").unlink()
    with pytest.raises(ArtifactError) as caught:
        read_run(run)
    assert caught.value.hint == WITHOUT.format(run / "samples")


@pytest.mark.parametrize("name", ["manifest.json", "plan.json"])
def test_without_a_whole_manifest_and_plan_there_is_nothing_to_report(run: Path, name: str) -> None:
    (run / name).write_text("[]")
    with pytest.raises(ArtifactError) as caught:
        read_run(run)
    assert caught.value.message == f"'{run / name}' is damaged: it holds no JSON object"
    assert caught.value.hint == "bring it back from a copy, or compress anew: without it there is nothing to report"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 5000, "\xff"])
@pytest.mark.parametrize("name", ["manifest.json", "plan.json", "quality.json", "samples/index.json"])
def test_what_is_no_json_cannot_be_read(run: Path, name: str, text: str) -> None:
    (run / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError) as caught:
        read_run(run)
    assert caught.value.message.startswith(f"'{run / name}' cannot be read: ")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: os.truncate(path, 2**28 + 1)])
def test_what_is_no_file_or_too_large_is_not_read(run: Path, make: Callable[[Path], object]) -> None:
    path = run / "quality.json"
    path.write_bytes(b"")
    if make in (Path.mkdir, os.mkfifo):
        path.unlink()
    make(path)
    with pytest.raises(ArtifactError) as caught:
        read_run(run)
    reason = "it is no file" if make in (Path.mkdir, os.mkfifo) else "it is larger than 256 MiB"
    assert caught.value.message == f"'{path}' cannot be read: {reason}"


def test_a_document_of_more_than_64_mebibytes_is_read_as_a_job_reads_it(run: Path) -> None:
    path = run / "bench.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + " " * 2**26, encoding="utf-8")
    bench = read_run(run).bench
    assert bench is not None
    assert len(bench[0].samples_ns) == 48


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", width, height) + bytes(9)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GIF89a" + bytes(100), "is no PNG picture"),
        (b"", "is no PNG picture"),
        (png(100_000, 2), "claims to be 100000 x 2 pixels"),
        (png(0, 2), "claims to be 0 x 2 pixels"),
        (None, "is not there, although index.json names it"),
    ],
)
def test_a_sample_that_is_no_picture_is_refused(run: Path, data: bytes | None, words: str) -> None:
    path = run / "samples" / "000-input.png"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ArtifactError) as caught:
        read_run(run)
    assert caught.value.message == f"'{path}' {words}"


def test_a_sample_of_many_megabytes_is_refused(run: Path) -> None:
    path = run / "samples" / "000-truth.png"
    os.truncate(path, MAX_PICTURE_BYTES + 1)
    with pytest.raises(ArtifactError) as caught:
        read_run(run)
    assert caught.value.message == f"'{path}' is too large for a sample"


def test_at_most_12_samples_are_shown(run: Path) -> None:
    change(run / "samples/index.json", lambda d: d.update(rows=d["rows"] * 20))
    assert len(read_run(run).samples) == 12


def test_a_bench_of_one_side_has_nothing_to_compare(run: Path) -> None:
    write(run / "bench.json", run_folder.bench(runs=run_folder.bench(2)["runs"][:1]))
    assert read_run(run).bench is None


def test_a_very_long_text_is_cut(run: Path) -> None:
    change(run / "manifest.json", lambda d: d.update(command_line="x" * 10_000))
    assert read_run(run).command_line == "x" * 4000 + " ..."
