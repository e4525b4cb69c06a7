"""How long a job will take: the sum of its stages, less what is done, told when it begins and when it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mggc_edge.artifacts import (
    BENCH_FILE,
    PLAN_FILE,
    PORTABLE,
    QUALITY_FILE,
    RECORD_FILE,
    SLIM_FOLDER,
    WEIGHTS_FILE,
)
from mggc_edge.compiler.targets import this_target
from mggc_edge.jobs import estimate as room
from mggc_edge.jobs.choose import Work
from mggc_edge.jobs.encoders import check_encoder
from mggc_edge.jobs.estimate import (
    CALIBRATE_PASSES,
    EXPORT_S,
    FINETUNE_PASSES,
    FIT_PASSES,
    PROCESS_S,
    PRUNE_PASSES,
    SLIM_PASSES,
    TARGET_S,
)
from mggc_edge.jobs.networks import Originals
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.training.material import Material
from mggc_edge.training.state import save_state
from tests.jobs.conftest import MakeWork
from tests.training.training_helpers import pictures, trained

X = pictures(10, seed=1)
TEST = pictures(2, seed=2)
MATERIAL = Material("distill", X, None, X, None, TEST, None, TEST, None, None, "held out", "")
GENERATOR = trained(resnet_spec(blocks=1, ngf=4), seed=1)
QUICK = {
    "quick__encoder_steps": 7, "quick__discriminator_steps": 20, "quick__prune_steps": 30, "quick__finetune_steps": 40,
    "quick__bench_pairs": 4, "bench__processes": 2, "bench__warmup_seconds": 0.5,
}  # fmt: skip
FINETUNE = 40 * (FINETUNE_PASSES + 6 * 0.5)
TARGETS = TARGET_S * (this_target() != PORTABLE)
PROOF = (
    EXPORT_S + TARGETS + 2 * 1.5 + 2 * 2 * (PROCESS_S + 0.5) + 4 * 1.5
)  # export, two test pictures, processes, pairs


@pytest.fixture(autouse=True)
def a_second_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is timed takes a second."""
    monkeypatch.setattr(room, "_timed", lambda _run: 1.0)


def left(work: Work, method: str = "mggc", **more: str) -> float:
    request = CompressRequest("model.pth", "0.5", quick=True, method=method, **more)  # type: ignore[arg-type]
    encoder = check_encoder(work.job.settings, request)
    return room.expected_seconds(work, Originals(GENERATOR, None, None, {}), MATERIAL, request, 0.5, encoder)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_job_takes_as_long_as_its_stages(work: MakeWork) -> None:
    choosing = 10 + 20 * FIT_PASSES + 30 * PRUNE_PASSES + 6 * 7  # outputs, discriminator, game, small encoder
    assert left(work(**QUICK)) == pytest.approx(choosing + FINETUNE + PROOF)
    slimming = 10 + 20 * FIT_PASSES + 30 * SLIM_PASSES
    assert left(work(**QUICK), "gan-slimming") == pytest.approx(slimming + FINETUNE + PROOF)
    on_grids = slimming + 4 * CALIBRATE_PASSES
    few = {**QUICK, "quantize__pictures": 4}
    assert left(work(**few), "gan-slimming", quantize="8") == pytest.approx(on_grids + FINETUNE + PROOF)
    few["gan_slimming__quantize"] = False
    assert left(work(**few), "gan-slimming", quantize="8") == pytest.approx(slimming + FINETUNE + PROOF)
    assert left(work(**QUICK), "magnitude") == pytest.approx(10 + 20 * FIT_PASSES + FINETUNE + PROOF)


def test_what_is_done_is_left_out(work: MakeWork) -> None:
    at = work(**QUICK)
    folder = at.job.folder
    touch(folder / PLAN_FILE)
    assert left(at) == pytest.approx(FINETUNE + PROOF)
    save_state(at.job.work / "finetune.state", {"a": torch.zeros(1)}, {"step": 30, "steps": 40, "journal": 0})
    assert left(at) == pytest.approx(FINETUNE / 4 + PROOF)
    (at.job.work / "finetune.state").write_bytes(b"damaged")
    assert left(at) == pytest.approx(FINETUNE + PROOF)
    touch(folder / SLIM_FOLDER / WEIGHTS_FILE)
    assert left(at) == pytest.approx(PROOF)
    touch(folder / RECORD_FILE)
    assert left(at) == pytest.approx(PROOF - EXPORT_S - TARGETS)
    touch(folder / BENCH_FILE)
    assert left(at) == pytest.approx(3.0)
    touch(folder / QUALITY_FILE)
    assert left(at) == 0


def test_latency_is_measured_no_longer_than_is_allowed(work: MakeWork) -> None:
    at = work(**QUICK, bench__max_seconds=5.0)
    touch(at.job.folder / PLAN_FILE)
    touch(at.job.folder / SLIM_FOLDER / WEIGHTS_FILE)
    assert left(at) == pytest.approx(PROOF - 6 + 5)


def test_a_job_that_goes_on_says_how_much_more_it_takes() -> None:
    assert room.sentence(30.0, 2, "fp32", more=True) == (
        "about 30 s more on this machine with 2 threads, training in fp32; it can be stopped and resumed at any time"
    )
