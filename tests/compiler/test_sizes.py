"""A file that leaves its picture size open takes only sizes that it can halve."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from mggc_edge.compiler.facts import onnx_facts
from mggc_edge.compiler.rewrite import rewrite_folder
from mggc_edge.compiler.sizes import check_picture_size, output_size
from mggc_edge.errors import ArtifactError
from mggc_edge.opening import open_runner
from mggc_edge.settings import Settings
from tests.compiler.open_size_files import HALVE, halvings, saved
from tests.compiler.passes.pass_helpers import random


def skipping(path: Path) -> Path:
    """As a U-Net does: 4x4 convolutions, and what was halved is joined with what is doubled again."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], **HALVE),
        helper.make_node("Conv", ["a", "w"], ["b"], **HALVE),
        helper.make_node("ConvTranspose", ["b", "w"], ["c"], **HALVE),
        helper.make_node("Concat", ["a", "c"], ["d"], axis=1),
        helper.make_node("ConvTranspose", ["d", "v"], ["y"], **HALVE),
    ]
    return saved(path, nodes, {"w": random(3, 3, 4, 4) / 9, "v": random(6, 3, 4, 4) / 9})


@pytest.mark.parametrize(("count", "multiple", "out"), [(1, 2, "66x72"), (2, 4, "68x72"), (3, 8, "72x72")])
def test_a_size_that_comes_out_as_another_is_refused_with_the_multiple_that_is_needed(
    count: int, multiple: int, out: str, tmp_path: Path
) -> None:
    path = halvings(tmp_path / "g.onnx", count)
    with pytest.raises(ArtifactError) as caught:
        check_picture_size(path, (66, 71))
    assert caught.value.message == (
        f"'{path}' cannot halve pictures of 66x71 as often as it does, and gives pictures of {out}"
    )
    assert caught.value.hint == f"both sides must be multiples of {multiple}"
    for size in ((multiple, 8 * multiple), (72, 64)):
        check_picture_size(path, size)


def test_a_network_whose_parts_then_differ_is_refused_before_it_runs(tmp_path: Path) -> None:
    path = skipping(tmp_path / "g.onnx")
    check_picture_size(path, (64, 68))
    with pytest.raises(ArtifactError) as caught:
        check_picture_size(path, (64, 70))
    assert (
        caught.value.message
        == f"'{path}' cannot halve pictures of 64x70 as often as it does, and cannot join its parts"
    )
    assert caught.value.hint == "both sides must be multiples of 4"


def test_a_file_with_a_size_of_its_own_is_left_alone(tmp_path: Path) -> None:
    check_picture_size(halvings(tmp_path / "g.onnx", 2, (1, 3, 66, 70)), (66, 70))


def test_networks_that_enlarge_or_lose_a_border_take_any_size(tmp_path: Path) -> None:
    twice = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1] * 4)]
    check_picture_size(saved(tmp_path / "twice.onnx", twice, {"w": random(3, 3, 4, 4)}), (66, 71))
    border = [helper.make_node("Conv", ["x", "w"], ["y"])]
    check_picture_size(saved(tmp_path / "border.onnx", border, {"w": random(3, 3, 5, 5)}), (66, 71))


def test_the_size_that_comes_out_is_inferred_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    path = halvings(tmp_path / "g.onnx", 2)
    model = onnx.load_model_from_string(path.read_bytes())
    assert output_size(model, (64, 32)) == (64, 32)
    before = path.read_bytes()
    check_picture_size(path, (64, 32))
    assert path.read_bytes() == before


def test_export_and_whatever_opens_a_file_refuse_such_a_size(tmp_path: Path) -> None:
    path = halvings(tmp_path / "g.onnx", 2)

    def rewritten(folder: str, size: tuple[int, int]) -> Path:
        place = tmp_path / folder
        rewrite_folder(
            path, place, target="portable", settings=Settings(), image_size=size, command="export", effective={}
        )
        return place / "export/portable/generator.fp32.onnx"

    for attempt in (lambda: rewritten("no", (66, 70)), lambda: open_runner(path, image_size=(66, 70))):
        with pytest.raises(ArtifactError, match="cannot halve pictures of 66x70") as caught:
            attempt()
        assert caught.value.hint == "both sides must be multiples of 4"
    assert not (tmp_path / "no").exists()
    assert onnx_facts(rewritten("yes", (64, 32))).inputs[0].shape == (None, 3, 64, 32)
    open_runner(path, image_size=(64, 72))
