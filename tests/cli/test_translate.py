"""`mggc-edge translate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mggc_edge.cli.translate import result_names
from tests.cli.conftest import Command


def results(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_every_picture_of_a_tree_becomes_a_png_at_its_place_beside_a_contact_sheet(
    command: Command, material: Path, tmp_path: Path
) -> None:
    ran = command("translate", material / "run", "--images", material / "pictures", "--out", tmp_path / "o", "--json")
    assert ran.code == 0
    assert results(tmp_path / "o") == ["a.png", "b.png", "contact-sheet.png", "deeper/c.png"]
    assert {key: ran.document[key] for key in ("images", "unreadable", "image_size")} == {
        "images": 3,
        "unreadable": 0,
        "image_size": [32, 32],
    }
    with Image.open(tmp_path / "o/a.png") as picture:
        assert (picture.size, picture.mode) == ((32, 32), "RGB")


def test_a_checkpoint_and_its_export_give_the_same_pictures(command: Command, material: Path, tmp_path: Path) -> None:
    for name, artifact in (("torch", material / "run/slim"), ("onnx", material / "run")):
        words = ("--images", material / "pictures", "--image-size", 32, "--out", tmp_path / name)
        assert command("translate", artifact, *words).code == 0
    a, b = (np.asarray(Image.open(tmp_path / name / "a.png")).astype(int) for name in ("torch", "onnx"))
    assert np.abs(a - b).max() <= 1


@pytest.mark.parametrize(("direction", "half"), [("AtoB", "left"), ("BtoA", "right")])
def test_of_pairs_side_by_side_the_direction_says_which_half_goes_in(
    command: Command, material: Path, tmp_path: Path, direction: str, half: str
) -> None:
    generator = np.random.default_rng(3)
    pair = generator.integers(0, 256, (32, 64, 3), dtype=np.uint8)
    (tmp_path / "pairs").mkdir()
    (tmp_path / "halves").mkdir()
    Image.fromarray(pair).save(tmp_path / "pairs/x.png")
    Image.fromarray(pair[:, :32] if half == "left" else pair[:, 32:]).save(tmp_path / "halves/x.png")
    flags = ("--layout", "paired", "--direction", direction)
    assert (
        command("translate", material / "run", "--images", tmp_path / "pairs", "--out", tmp_path / "p", *flags).code
        == 0
    )
    assert command("translate", material / "run", "--images", tmp_path / "halves", "--out", tmp_path / "h").code == 0
    assert (tmp_path / "p/x.png").read_bytes() == (tmp_path / "h/x.png").read_bytes()


def test_pictures_twice_as_wide_as_high_get_a_hint_at_paired(command: Command, material: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    Image.new("RGB", (64, 32)).save(tmp_path / "pairs/x.png")
    ran = command("translate", material / "run", "--images", tmp_path / "pairs", "--out", tmp_path / "o")
    assert ran.code == 0
    assert "use --layout paired" in ran.err


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["x.jpg", "y.png", "deep/x.png"], ["x.png", "y.png", "deep/x.png"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg.png", "a.png.png", "a.jpg.png.png"]),
        (["x.png", "x.jpg", "y.jpg"], ["x.png.png", "x.jpg.png", "y.jpg.png"]),
        (["contact-sheet.jpg", "x.jpg"], ["contact-sheet.jpg.png", "x.jpg.png"]),
    ],
)
def test_every_picture_gets_a_result_of_its_own(names: list[str], wanted: list[str]) -> None:
    found = result_names([Path("p", name) for name in names], Path("p"))
    assert [path.as_posix() for path in found.values()] == wanted


def test_an_artifact_refuses_a_batch_norm_mode_that_it_was_not_exported_with(
    command: Command, material: Path, tmp_path: Path
) -> None:
    words = ("--images", material / "pictures", "--out", tmp_path / "o", "--bn")
    ran = command("translate", material / "run", *words, "batch")
    assert ran.code == 1
    assert f"'{material / 'run'}' was exported with batch norm taken as eval; --bn batch is for checkpoints" in ran.err
    assert not (tmp_path / "o").exists()
    assert command("translate", material / "run", *words, "eval").code == 0


def test_no_contact_sheet_on_request(command: Command, material: Path, tmp_path: Path) -> None:
    words = ("--images", material / "pictures", "--out", tmp_path / "o", "--set", "translate.sheet_pictures=0")
    assert command("translate", material / "run", *words).code == 0
    assert results(tmp_path / "o") == ["a.png", "b.png", "deeper/c.png"]


def test_an_artifact_of_fixed_size_refuses_another(command: Command, material: Path, tmp_path: Path) -> None:
    words = ("--images", material / "pictures", "--image-size", 64, "--out", tmp_path / "o")
    ran = command("translate", material / "run", *words)
    assert (ran.code, "takes pictures of 32x32 only" in ran.err) == (1, True)
