"""The demo's task, and when it says that quality came back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mggc_edge.demonstration import INK, TONES, Demonstration, Distance, demonstrate, drawing, write_pairs
from mggc_edge.errors import CheckFailedError
from mggc_edge.procedural import procedural_pictures
from mggc_edge.settings import Settings

HINT = "longer training or finetuning helps: --set demo.train_epochs=N, --set demo.finetune_epochs=N"


def demonstration(*, inputs: float = 0.4, original: float, slimmed: float, finetuned: float) -> Demonstration:
    place = Path("demo")
    return Demonstration(
        folder=place,
        checkpoint=place / "original/latest_net_G.pth",
        run=place / "run",
        pictures=2,
        inputs=Distance(12.0, inputs),
        original=Distance(20.0, original),
        slimmed=Distance(11.0, slimmed),
        finetuned=Distance(19.0, finetuned),
        document={},
        sheet=place / "contact-sheet.png",
    )


# --- the task ---


@pytest.mark.parametrize("tone", range(5))
def test_the_middle_of_a_tone_is_drawn_in_its_colour(tone: int) -> None:
    drawn = drawing(Image.new("RGB", (16, 16), (round(51 * tone + 25.5),) * 3))
    assert drawn.size == (16, 16)
    assert np.unique(np.asarray(drawn).reshape(-1, 3), axis=0).tolist() == [TONES[tone].tolist()]


def test_an_edge_is_drawn_in_ink_and_what_is_far_from_it_is_not() -> None:
    scene = Image.new("RGB", (64, 64), (230, 230, 230))
    scene.paste((25, 25, 25), (32, 0, 64, 64))
    row = np.asarray(drawing(scene))[32]
    assert row[31].tolist() == row[32].tolist() == INK.tolist()
    assert (row[16].tolist(), row[48].tolist()) == (TONES[4].tolist(), TONES[0].tolist())


def test_pairs_are_scene_and_drawing_side_by_side_and_no_scene_is_in_both_parts(tmp_path: Path) -> None:
    write_pairs(tmp_path, 3, 2, (32, 32), seed=7)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert files == ["test/00003.png", "test/00004.png", "train/00000.png", "train/00001.png", "train/00002.png"]
    for number, scene in enumerate(procedural_pictures(5, (32, 32), seed=7)):
        with Image.open(tmp_path / ("train" if number < 3 else "test") / f"{number:05d}.png") as pair:
            pixels = np.asarray(pair)
        np.testing.assert_array_equal(pixels[:, :32], np.asarray(scene))
        np.testing.assert_array_equal(pixels[:, 32:], np.asarray(drawing(scene)))


# --- whether quality came back ---


@pytest.mark.parametrize(
    ("original", "slimmed", "finetuned"),
    [(0.1, 0.5, 0.115), (0.1, 0.5, 0.05), (0.2, 0.24, 0.22), (0.1, 0.1, 0.115), (0.1, 0.08, 0.1)],
)
def test_quality_that_came_back_passes(original: float, slimmed: float, finetuned: float) -> None:
    demonstration(original=original, slimmed=slimmed, finetuned=finetuned - 1e-9).check()


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        (
            {"original": 0.21, "slimmed": 0.5, "finetuned": 0.21},
            "the original did not learn the task: its L1 distance to the truth is 0.2100, and the inputs' is 0.4000",
        ),
        (
            {"original": float("nan"), "slimmed": 0.5, "finetuned": 0.1},
            "the original did not learn the task: its L1 distance to the truth is nan, and the inputs' is 0.4000",
        ),
        (
            {"original": 0.1, "slimmed": 0.12, "finetuned": 0.114},
            "finetuning regained 30% of the L1 distance to the truth that slimming lost, and 50% was wanted",
        ),
        (
            {"original": 0.1, "slimmed": 0.5, "finetuned": 0.12},
            "the compressed generator's L1 distance to the truth is 20% above the original's, and 15% was allowed",
        ),
        (
            {"original": 0.1, "slimmed": 0.09, "finetuned": 0.2},
            "the compressed generator's L1 distance to the truth is 100% above the original's, and 15% was allowed",
        ),
    ],
)
def test_quality_that_did_not_come_back_is_a_failed_check(distances: dict[str, float], message: str) -> None:
    with pytest.raises(CheckFailedError) as caught:
        demonstration(**distances).check()
    assert (caught.value.message, caught.value.hint) == (message, HINT)


def test_where_slimming_lost_nothing_there_is_nothing_to_regain() -> None:
    assert demonstration(original=0.1, slimmed=0.1, finetuned=0.1).regained is None
    assert demonstration(original=0.1, slimmed=0.3, finetuned=0.15).regained == pytest.approx(0.75)


@pytest.mark.slow
def test_with_its_defaults_the_demo_shows_that_quality_comes_back(tmp_path: Path) -> None:
    result = demonstrate(tmp_path / "demo", Settings(), seed=0)
    result.check()
    assert 0.98 * 0.15 <= result.document["budget_met"] <= 0.15
    assert result.original.psnr is not None
    assert result.original.psnr > 19
