"""One small study with real runs of `compress`: what is kept of them is what the runs themselves say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mggc_edge.benchmarks.experiments import neighbors
from mggc_edge.benchmarks.experiments.study.record import read_records
from mggc_edge.errors import ArtifactError
from tests.jobs.job_processes import QUICK, write_networks, write_pictures
from tests.quality.feature_files import classifier

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
STUDY = f"""
title = "A real study"
text = "Whether it works."
base = '''
--model $DATA/batch.pth --discriminator $DATA/pair.pth --data $DATA/pairs --layout paired --budget 0.5
--feature-net $DATA/net.onnx --set features.preprocessing=unit {" ".join(QUICK)}
'''
seeds = [0]
curves = true
probability = 3
[[rows]]
name = "ours"
flags = ""
[[rows]]
name = "slimming"
flags = "--method gan-slimming --quantize 8 --set quantize.pictures=3"
"""
TESTED = 8


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/, real.toml, real.jsonl, real.md and runs/real/, ours-0 and slimming-0 in it."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "data").mkdir()
    data = write_networks(folder / "data")
    classifier(data)
    write_pictures(data / "pairs/train", 9, size=(80, 40))
    write_pictures(data / "pairs/test", TESTED, size=(80, 40), seed=1)
    (folder / "real.toml").write_text(STUDY)
    words = [str(folder / "real.toml"), "--data", str(data), "--runs", str(folder / "runs"), "--keep"]
    line = [sys.executable, "-m", "mggc_edge.benchmarks.experiments.study", *words, "--results", str(folder)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[1/2] ours-0" in done.stderr
    return folder


@pytest.fixture(scope="module")
def kept(done: Path) -> dict[str, Any]:
    return read_records(done / "real.jsonl")[0]


def test_the_means_over_pictures_are_those_of_the_run(done: Path, kept: dict[str, Any]) -> None:
    quality = json.loads((done / "runs/real/ours-0/quality.json").read_text())
    test = kept["test"]
    assert (test["pictures"], test["where"], test["paired"]) == (TESTED, "test", True)
    for name in ("psnr", "ssim"):
        assert np.mean(test["compressed"][f"{name}_to_original"]) == pytest.approx(
            quality[f"{name}_to_original"], rel=1e-5
        )
        for side in ("original", "compressed"):
            expected = quality["to_truth"][side][name]
            assert np.mean(test[side][f"{name}_to_truth"]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert len(test["compressed"]["kid"]) == len(test["original"]["kid"]) == TESTED
    assert all(0 <= share <= 1 for share in test["compressed"]["neighbors"])
    assert all(0 < p < 1 for side in ("original", "compressed") for p in test[side]["probability"])
    assert test["original"]["probability"] != test["compressed"]["probability"]


def test_a_record_says_what_was_done_and_names_no_folder(done: Path, kept: dict[str, Any]) -> None:
    assert str(done) not in (done / "real.jsonl").read_text()
    assert kept["settings"]["request.data"] == "$DATA/pairs"
    assert kept["steps"] == {"encoder": 6, "prune": 8, "finetune": 8}
    assert kept["losses"]["steps"] == 8
    assert 0.49 <= kept["budget_met"] <= 0.5
    assert (kept["discriminator_kept"] is None, len(kept["plan_sha256"])) == (False, 64)
    assert set(kept["timings_s"]) >= {"prune", "finetune", "quality"}
    assert kept["process_s"] > 0
    assert len((done / "real.jsonl").read_bytes()) < 40_000


def test_a_record_of_gan_slimming_in_8_bit_is_of_its_int8_file_and_has_no_game(done: Path) -> None:
    record, run = read_records(done / "real.jsonl")[1], done / "runs/real/slimming-0"
    assert [path.name for path in sorted((run / "export/portable").iterdir())] == [
        "generator.int8.onnx", "original.fp32.onnx",
    ]  # fmt: skip
    quality = json.loads((run / "quality.json").read_text())
    assert np.mean(record["test"]["compressed"]["psnr_to_original"]) == pytest.approx(
        quality["psnr_to_original"], rel=1e-5
    )
    assert (record["losses"], record["discriminator_kept"]) == (None, None)
    assert record["steps"] == {"prune": 8, "finetune": 8}
    assert (record["slimming"]["quantized"], record["slimming"]["distance"]) == (True, {"name": "pixels"})
    assert record["size"]["disk"]["bits"] > 1


def test_the_page_is_written_beside_the_results(done: Path) -> None:
    text = (done / "real.md").read_text()
    assert "All 2 runs are finished." in text
    assert "| times smaller on disk = channels x bits |" in text
    assert f"Measured on {TESTED} pictures (test)" in text


def test_an_unfinished_run_is_not_measured(done: Path, tmp_path: Path) -> None:
    from mggc_edge.benchmarks.experiments.study.measure import measure

    manifest = json.loads((done / "runs/real/ours-0/manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    with pytest.raises(ArtifactError, match="is no finished run of `compress`"):
        measure(tmp_path)


def test_a_sheet_shows_centres_with_their_neighbors_and_says_how_many_agree(done: Path, kept: dict[str, Any]) -> None:
    picture, document = neighbors.look(
        done / "runs/real/ours-0", k=5, centers=3, pictures="test", feature_net=None, preprocessing=None, seed=0
    )
    assert document["agree"] == pytest.approx(np.mean(kept["test"]["compressed"]["neighbors"]), abs=1e-4)
    assert (document["pictures"], document["by_chance"], len(document["centers"])) == (TESTED, 0.7143, 3)
    assert picture.size == (2 * 436 + 22 + 4, 22 + 3 * 72 + 4)
    green = np.all(np.asarray(picture) == (26, 152, 80), axis=2)
    assert green.any()  # with 5 of 7 others at least 3 are on both sides
    assert isinstance(picture, Image.Image)


def test_the_status_is_shown_without_any_data(done: Path) -> None:
    line = [sys.executable, "-m", "mggc_edge.benchmarks.experiments.study", str(done / "real.toml"), "--status"]
    more = ["--runs", str(done / "runs"), "--results", str(done)]
    shown = subprocess.run([*line, *more], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown[0].startswith("ours-0 ")
    assert shown[0].endswith(" min")
    assert shown[2] == "2 of 2 runs are done; time left: none"
