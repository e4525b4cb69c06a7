"""`mggc-edge demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.conftest import Command

TINY = {
    "demo.image_size": 32, "demo.ngf": 4, "demo.pictures": 12, "demo.test_pictures": 2, "demo.train_epochs": 2,
    "demo.prune_epochs": 1, "demo.finetune_epochs": 2, "demo.budget": 0.4, "quick.encoder_steps": 2,
    "encoder.batch_size": 4, "quick.bench_pairs": 2, "bench.processes": 1, "bench.warmup_seconds": 0.001,
    "finetune.recalibration_batches": 2, "finetune.checks": 1,
}  # fmt: skip
WORDS = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_demo_trains_compresses_and_fails_where_so_little_training_teaches_nothing(
    command: Command, tmp_path: Path
) -> None:
    ran = command("demo", "--out", tmp_path / "demo", "--json", "--output", tmp_path / "demo.json", *WORDS)
    document = ran.document
    assert ran.code == 3
    assert "error: the original did not learn the task" in ran.err
    assert read(tmp_path / "demo.json") == document
    assert document["schema"] == "mggc-edge/demo/1"
    assert document["compress"] == read(tmp_path / "demo/run/manifest.json")["result"]
    assert 0.98 * 0.4 <= document["compress"]["budget_met"] <= 0.4

    truth, quality = document["to_truth"], document["compress"]["quality"]
    assert (truth["pictures"], quality["pictures"], quality["where"]) == (2, 2, "test")
    # In torch and in ONNX Runtime: the same networks, the same pictures.
    assert truth["original"]["psnr"] == pytest.approx(quality["to_truth"]["original"]["psnr"], abs=1e-3)
    assert truth["finetuned"]["psnr"] == pytest.approx(quality["to_truth"]["compressed"]["psnr"], abs=1e-3)
    lost = truth["slimmed"]["l1"] - truth["original"]["l1"]
    regained = (truth["slimmed"]["l1"] - truth["finetuned"]["l1"]) / lost if lost > 0 else None
    assert truth["regained"] == (None if regained is None else pytest.approx(regained))

    settings = read(tmp_path / "demo/run/manifest.json")["settings"]
    assert (settings["request.method"], settings["request.discriminator"]) == (
        "mggc",
        str(tmp_path / "demo/original/latest_net_D.pth"),
    )
    assert (settings["finetune.learning_rate"], settings["distill.style"], settings["mggc.batch_size"]) == (1e-3, 10, 4)
    with Image.open(document["contact_sheet"]) as sheet:
        assert sheet.size[0] > 5 * 32
    assert command("inspect", document["checkpoint"], "--json").document["kind"] == "checkpoint"


def test_without_out_the_demo_makes_its_run_the_latest_and_shows_what_came_back(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mggc_edge.demonstration.MOST_OF_INPUT", 100.0)
    monkeypatch.setattr("mggc_edge.demonstration.LEAST_REGAINED", -100.0)
    monkeypatch.setattr("mggc_edge.demonstration.MOST_ABOVE", 100.0)
    ran = command("demo", *WORDS)
    assert ran.code == 0
    (folder,) = Path("runs").glob("demo-*")
    assert Path("runs/latest").resolve() == (folder / "run").resolve()
    assert (folder / "run/report.html").is_file()
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [" ".join(line.split()) for line in lines]
    start = rows.index("2 test pictures")
    assert [row.rsplit(maxsplit=3)[0] for row in rows[start + 4 : start + 8]] == [
        "input, as it is", "original", "slim, before finetuning", "slim, after finetuning",
    ]  # fmt: skip
    assert [f"Look at {folder}/contact-sheet.png", f"and at {folder}/run/report.html"] == rows[-3:-1]
    assert rows[-1].startswith("It took ")
