"""`mggc-edge report`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mggc_edge.artifacts import changed_file, read_manifest, sha256_of, write_json
from tests.cli.conftest import Command
from tests.report.run_folder import write_run


def test_report_writes_the_page_and_prints_its_path(command: Command, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=5, samples=1)
    ran = command("report", run)
    assert (ran.code, ran.out, ran.err) == (0, f"{run / 'report.html'}\n", "")
    assert "ResNet-9 generator" in (run / "report.html").read_text(encoding="utf-8")


def test_json_names_the_run_and_the_page(command: Command, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=5, samples=1)
    assert command("report", run, "--json").document == {
        "schema": "mggc-edge/report/1",
        "run": str(run),
        "report": str(run / "report.html"),
    }


def test_without_an_argument_the_latest_run_is_reported(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "runs" / "a", steps=5, samples=1)
    (tmp_path / "runs" / "latest").symlink_to("a")
    monkeypatch.chdir(tmp_path)
    assert command("report").out == "runs/latest/report.html\n"
    page = (tmp_path / "runs/a/report.html").read_text(encoding="utf-8")
    assert '<p class="run">a</p>' in page


def test_where_there_is_no_run_it_says_so(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = command("report")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: there is no run in 'runs'\nhint: name a run folder: mggc-edge report RUN\n"


def test_a_folder_that_is_no_run_is_refused(command: Command, tmp_path: Path) -> None:
    ran = command("report", tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: '{tmp_path}' is no run folder: it has no manifest.json\nhint: ")
    assert not (tmp_path / "report.html").exists()


def test_a_run_that_was_exported_without_a_plan_is_refused(command: Command, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=5, samples=1)
    (run / "plan.json").unlink()
    ran = command("report", run)
    assert ran.code == 1
    assert "has no plan.json, so nothing was pruned that a report could show" in ran.err


def test_an_exported_run_has_a_report(command: Command, material: Path) -> None:
    ran = command("report", material / "run")
    assert ran.code == 0
    page = Path(ran.out.strip()).read_text(encoding="utf-8")
    assert "ResNet-2 generator at" in page
    assert "This run has no bench.json" in page


def test_a_report_that_is_built_again_is_the_same_and_the_manifest_knows_it(command: Command, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=5, samples=1)
    assert command("report", run).code == 0
    first = (run / "report.html").read_bytes()
    manifest = read_manifest(run)
    files = [*manifest["files"], {"path": "report.html", "sha256": "0" * 64, "size_bytes": 1, "parent": None}]
    write_json(run / "manifest.json", {**manifest, "files": files})
    assert command("report", run).code == 0
    assert (run / "report.html").read_bytes() == first
    (entry,) = [entry for entry in read_manifest(run)["files"] if entry["path"] == "report.html"]
    assert entry["sha256"] == sha256_of(run / "report.html")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("export/portable/generator.fp32.onnx", "compress anew"),
        ("logs/metrics.jsonl", "compress anew"),
        ("bench.json", "remove it and measure again: mggc-edge compress --resume RUN"),
    ],
)
def test_a_run_whose_files_were_changed_has_no_report(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(Path("RUN"), steps=5, samples=1)
    (path := run / name).parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    (run / "job.json").touch()
    manifest = read_manifest(run)
    kept = [entry for entry in manifest["files"] if not (run / entry["path"]).is_file()]
    odd = [5, {}, {"path": "../x", "sha256": ""}, {"path": "logs/../../x", "sha256": ""}]
    entry = {"path": name, "sha256": sha256_of(path), "size_bytes": 1, "parent": None}
    write_json(run / "manifest.json", {**manifest, "files": [*kept, *odd, entry]})
    assert changed_file(run, ("logs", "export", "bench.json")) is None
    with path.open("ab") as file:
        file.write(b" ")
    ran = command("report", run)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        f"error: 'RUN/{name}' is not the file that the manifest describes: its hash differs\n"
        f"hint: bring it back from a copy, or {way}\n"
    )
    assert not (run / "report.html").exists()
