"""Every target says what it lists, and why; a graph that its parser does not read is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mggc_edge.artifacts import PORTABLE
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.targets import PASSES, TARGETS, Target, alignment_of, choose_passes
from mggc_edge.errors import ArtifactError, SettingError


def test_these_are_the_targets_with_their_lanes_alignment_and_precisions() -> None:
    facts = {
        name: (target.lanes, target.align and target.align.multiple, tuple(target.precisions))
        for name, target in TARGETS.items()
    }
    assert facts == {
        "portable": (16, None, ("fp32",)),
        "x86-avx2": (8, 8, ("fp32", "int8")),
        "x86-avx512": (16, 16, ("fp32", "int8")),
        "arm64": (4, 8, ("fp32", "fp16", "int8")),
        "tensorrt": (8, 8, ("fp16", "int8", "fp32")),
        "ort-mobile": (4, 8, ("fp32", "int8")),
    }


def test_these_are_the_passes_of_every_target() -> None:
    anywhere = ["fold_batch_norm", "dead_bias", "merge_pad"]
    suited = [*anywhere, "thin_layer", "transposed_convolution", "depth_to_space"]
    assert {name: list(target.passes) for name, target in TARGETS.items()} == {
        "portable": anywhere,
        "x86-avx2": suited,
        "x86-avx512": suited,
        "arm64": [*anywhere, "thin_layer", "depth_to_space"],
        "tensorrt": anywhere,
        "ort-mobile": anywhere,
    }


def test_these_passes_are_in_no_list_and_run_by_name() -> None:
    listed = {name for target in TARGETS.values() for name in target.passes}
    unlisted = [name for name in PASSES if name not in listed]
    assert unlisted == ["transposed_convolution_any", "reflect_pad", "pad_widths"]
    assert [made.name for made in choose_passes(",".join(unlisted), "ort-mobile")] == unlisted


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_everything_in_a_target_has_its_reason(target: Target) -> None:
    reasons = [*target.passes.values(), *target.precisions.values()]
    reasons += [part.why for part in (target.align, target.opsets) if part is not None]
    assert all(len(reason.split()) >= 3 for reason in reasons)


def test_an_alignment_is_a_multiple_of_the_lanes() -> None:
    for target in TARGETS.values():
        assert target.align is None or target.align.multiple % target.lanes == 0


def test_a_target_without_an_alignment_is_refused() -> None:
    assert alignment_of("x86-avx512") == 16
    with pytest.raises(SettingError, match="the target portable has no alignment"):
        alignment_of(PORTABLE)


@pytest.mark.parametrize(("opset", "word", "wanted"), [(12, "low", "13 or newer"), (21, "high", "20 or older")])
def test_an_opset_that_a_target_does_not_read_is_refused(opset: int, word: str, wanted: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        TARGETS["tensorrt"].check_opset(opset)
    assert caught.value.message == (
        f"opset {opset} is too {word} for the target tensorrt: TensorRT 10 reads up to 20 in all its versions (8.5 and "
        "8.6 up to 17), and Q/DQ needs 13"
    )
    assert caught.value.hint == f"export with opset {wanted}"


def test_an_export_is_checked_against_its_target_before_anything_is_made() -> None:
    settings = ExportSettings(opset=20, target="tensorrt")
    with pytest.raises(ArtifactError, match="opset 23 is too high for the target tensorrt"):
        replace(settings, opset=23)
    for name in TARGETS:
        ExportSettings(target=name)
