"""Distillation compares a slim generator with the original where both have something to show, by GCC's formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.network import Network, Tap
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.training.distill import (
    Distiller,
    DistillSettings,
    Form,
    discriminator_taps,
    generator_taps,
    gram,
    width,
)
from mggc_edge.training.precision import autocast
from tests.models.model_helpers import all_kept, some_kept
from tests.training.training_helpers import assert_equal, copied, pictures, trained

ALL = DistillSettings(content=2.0, style=3.0, pixels=5.0, form="mse")
RESNET = resnet_spec(blocks=3, ngf=4)
JUDGE = patchgan_spec(ndf=4, layers=2, norm="batch")
X = pictures(2, seed=1)


def slimmed(teacher: Network, *removed: int, seed: int = 3) -> Network:
    """The teacher with some channels, and without the blocks that are named."""
    kept = some_kept(teacher.spec, seed, remove_blocks=False) | {f"block{block}.inner": () for block in removed}
    return slim(teacher, kept)


def resnet_pair(blocks: int, *removed: int, norm: str = "instance") -> tuple[Network, Network]:
    spec = resnet_spec(blocks=blocks, ngf=4, norm="batch" if norm == "batch" else "instance")
    teacher = trained(spec, seed=1)
    return teacher, slimmed(teacher, *removed)


def trunk(*blocks: int) -> list[Tap]:
    """The trunk after these blocks; 0: as it begins."""
    return [(f"model.{9 + block}.conv_block.5" if block else "model.7", "output") for block in blocks]


# --- where ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "places"), [(1, (0, 1)), (2, (0, 1, 2)), (3, (0, 1, 2, 3)), (6, (0, 2, 4, 6)), (9, (0, 3, 6, 9))]
)
def test_a_resnet_is_followed_along_its_trunk_after_each_third(blocks: int, places: tuple[int, ...]) -> None:
    teacher, student = resnet_pair(blocks)
    assert generator_taps(teacher.table, student.table) == [(tap, tap) for tap in trunk(*places)]


@pytest.mark.parametrize(("removed", "last"), [((), "conv06_2"), ((3,), "conv06"), ((2, 3), "conv06")])
def test_a_cartoongan_is_followed_along_its_trunk_too(removed: tuple[int, ...], last: str) -> None:
    """A removed block leaves a constant, whose row is the trunk's too."""
    teacher = trained(cartoongan_spec(blocks=3, ngf=2), seed=1)
    student = slimmed(teacher, *removed)
    second = "conv05" if 2 in removed else "conv05_2"
    assert generator_taps(teacher.table, student.table) == [
        (("conv03_2", "output"), ("conv03_2", "output")),
        (("conv04_2", "output"), ("conv04_2", "output")),
        (("conv05_2", "output"), (second, "output")),
        (("conv06_2", "output"), (last, "output")),
    ]


@pytest.mark.parametrize(
    ("removed", "places"),
    [
        ((3,), (0, 2, 6, 9)),
        ((2, 3), (0, 1, 6, 9)),
        ((4, 5, 6), (0, 3, 3, 9)),
        ((1, 2, 3), (0, 0, 6, 9)),
        ((7, 8, 9), (0, 3, 6, 6)),
        (tuple(range(1, 10)), (0, 0, 0, 0)),
    ],
)
def test_where_a_block_was_removed_the_trunk_before_it_is_followed(
    removed: tuple[int, ...], places: tuple[int, ...]
) -> None:
    teacher, student = resnet_pair(9, *removed)
    taps = generator_taps(teacher.table, student.table)
    assert [tap for tap, _ in taps] == trunk(0, 3, 6, 9)
    assert [tap for _, tap in taps] == trunk(*places)


def test_where_a_removed_block_left_a_constant_the_trunk_after_it_is_followed() -> None:
    teacher, student = resnet_pair(3, 1, 3, norm="batch")
    taps = generator_taps(teacher.table, student.table)
    assert [tap for _, tap in taps] == [*trunk(0), ("model.10", "output"), *trunk(2), ("model.12", "output")]


def unet_names(halvings: int) -> tuple[str, str]:
    """Prefixes of the second and the fourth block of a U-Net."""
    second = "model.model.1.model"
    return second, f"{second}.3.model.3.model"


def test_a_unet_is_followed_at_its_second_and_fourth_block_on_both_sides() -> None:
    second, fourth = unet_names(8)
    for halvings in (5, 7, 8):
        table = trained(unet_spec(halvings=halvings, ngf=1), seed=0, size=(256, 256)).table
        assert generator_taps(table, table) == [
            (tap, tap)
            for tap in (
                (f"{second}.1", "norm"),
                (f"{fourth}.1", "norm"),
                (f"{fourth}.5", "input"),
                (f"{second}.5", "input"),
            )
        ]
    shallow = trained(unet_spec(halvings=4, ngf=1), seed=0).table
    assert [tap for tap, _ in generator_taps(shallow, shallow)] == [(f"{second}.1", "norm"), (f"{second}.5", "input")]


def test_a_discriminator_is_looked_at_behind_its_second_and_its_fourth_convolution() -> None:
    table = trained(patchgan_spec(ndf=2), seed=0, size=(32, 32)).table
    assert discriminator_taps(table) == [("model.2", "norm"), ("model.8", "norm")]
    two = trained(JUDGE, seed=0).table
    assert discriminator_taps(two) == [("model.2", "norm"), ("model.5", "norm")]
    one = trained(patchgan_spec(ndf=2, layers=1), seed=0).table
    assert discriminator_taps(one) == [("model.2", "norm")]


# The families, whole and slim, with the size at which they run.
PAIRS = [
    *(
        pytest.param(resnet_spec(blocks=blocks, ngf=2, norm=norm), removed, (16, 16), id=f"{blocks}-{norm}-{removed}")
        for norm in ("instance", "instance_affine", "batch")
        for blocks, removed in ((3, ()), (6, (2,)), (9, (1, 2, 3)), (9, tuple(range(1, 10))))
    ),
    pytest.param(resnet_spec(blocks=3, ngf=2, separable=True, dropout=True), (2,), (16, 16), id="separable"),
    *(
        pytest.param(cartoongan_spec(blocks=3, ngf=2), removed, (16, 16), id=f"cartoongan-{removed}")
        for removed in ((), (2,), (1, 2, 3))
    ),
    *(
        pytest.param(unet_spec(halvings=halvings, ngf=2), (), (2**halvings, 2**halvings), id=f"unet-{halvings}")
        for halvings in (3, 4, 7, 8)
    ),
]


@pytest.mark.parametrize(("spec", "removed", "size"), PAIRS)
def test_every_family_slim_or_not_can_be_distilled(
    spec: NetworkSpec, removed: tuple[int, ...], size: tuple[int, int]
) -> None:
    teacher = trained(spec, seed=1, size=size)
    kept = some_kept(spec, 3, remove_blocks=False) | {f"block{block}.inner": () for block in removed}
    student = slim(teacher, kept)
    distiller = Distiller(teacher, student, None, ALL, conditional=False)
    x = pictures(1, size).batch([0])
    lesson = distiller.teach(x)
    y, features = student.features(x, distiller.student_taps)
    assert [f.shape[1] for f in features] == [width(student.table, tap) for tap in distiller.student_taps]
    assert [f.shape[1:] for f in lesson[1]] == [
        (m.get_parameter("weight").shape[0], *f.shape[2:]) for m, f in zip(distiller.maps, features, strict=True)
    ]
    parts = distiller(lesson, x, y, features)
    assert list(parts) == ["distill_content", "distill_style", "distill_pixels"]
    assert all(math.isfinite(value.item()) for value in parts.values())


# --- how far --------------------------------------------------------------------------------------------------------


def test_the_gram_matrix_is_that_of_the_paper() -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    found = gram(torch.from_numpy(values))
    wanted = np.einsum("nihw,njhw->nij", values, values) / (3 * 4 * 5)
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - wanted).max() <= 1e-6
    assert gram(torch.from_numpy(values).bfloat16()).dtype == torch.float32


def test_gram_matrices_are_of_full_precision_where_convolutions_are_not() -> None:
    features = torch.randn((1, 8, 16, 16), generator=torch.Generator().manual_seed(0))
    with autocast("bf16"):
        found = gram(features)
    assert found.dtype == torch.float32
    assert torch.equal(found, gram(features))


def mean_square(a: Tensor, b: Tensor) -> float:
    return float(((a.detach().double() - b.detach().double()) ** 2).mean())


@pytest.mark.parametrize("form", ["mse", "root"])
@pytest.mark.parametrize("conditional", [False, True])
def test_the_parts_are_sums_over_the_features_of_both_networks(form: Form, conditional: bool) -> None:
    teacher = trained(RESNET, seed=1)
    student = slimmed(teacher)
    judge = trained(patchgan_spec(in_channels=6, ndf=4, layers=2, norm="batch") if conditional else JUDGE, seed=2)
    settings = DistillSettings(content=2.0, style=3.0, pixels=5.0, form=form)
    distiller = Distiller(teacher, student, judge, settings, conditional=conditional)
    x = X.batch([0, 1])
    y, features = student.features(x, distiller.student_taps)
    parts = distiller(distiller.teach(x), x, y, features)
    with torch.no_grad():
        wanted, theirs = teacher.features(x, trunk(0, 1, 2, 3))
        own = [
            torch.einsum("oc,nchw->nohw", m.get_parameter("weight")[:, :, 0, 0], f)
            for m, f in zip(distiller.maps, student.features(x, trunk(0, 1, 2, 3))[1], strict=True)
        ]
        norms: list[Tap] = [("model.2", "norm"), ("model.5", "norm")]
        seen = [judge.features(torch.cat([x, z], 1) if conditional else z, norms)[1] for z in (y, wanted)]
    pairs = [*zip(own, theirs, strict=True), *zip(*seen, strict=True)]
    assert len(pairs) == 6
    outer = math.sqrt if form == "root" else float
    content = 2 * sum(outer(mean_square(a, b)) for a, b in pairs)
    style = 3 * sum(outer(mean_square(gram(a), gram(b))) for a, b in pairs)
    pixels = 5 * (y - wanted).abs().mean().item()
    found = {name: value.item() for name, value in parts.items()}
    assert found == pytest.approx(
        {"distill_content": content, "distill_style": style, "distill_pixels": pixels}, rel=1e-4
    )


@pytest.mark.parametrize("left_out", ["content", "style", "pixels"])
def test_a_weight_of_0_leaves_its_part_out(left_out: str) -> None:
    weights = {"content": 1.0, "style": 1.0, "pixels": 1.0, left_out: 0.0}
    teacher = trained(RESNET, seed=1)
    student = slimmed(teacher)
    settings = DistillSettings(form="mse", **weights)
    distiller = Distiller(teacher, student, None, settings, conditional=False)
    x = X.batch([0])
    parts = distiller(distiller.teach(x), x, *student.features(x, distiller.student_taps))
    assert set(parts) == {f"distill_{name}" for name in weights if name != left_out}


def test_without_content_and_style_the_discriminator_is_not_asked() -> None:
    teacher, judge = trained(RESNET, seed=1), trained(JUDGE, seed=2)
    student = slimmed(teacher)
    judge.register_forward_pre_hook(lambda *_: pytest.fail("the discriminator was asked"))
    settings = DistillSettings(content=0, style=0, pixels=1, form="mse")
    distiller = Distiller(teacher, student, judge, settings, conditional=False)
    x = X.batch([0])
    assert set(distiller(distiller.teach(x), x, *student.features(x, distiller.student_taps))) == {"distill_pixels"}


@pytest.mark.parametrize("form", ["mse", "root"])
def test_equal_networks_are_at_no_distance_and_have_finite_gradients(form: Form) -> None:
    teacher = trained(RESNET, seed=1)
    student = slim(teacher, all_kept(RESNET))
    settings = DistillSettings(content=1, style=1, pixels=1, form=form)
    distiller = Distiller(teacher, student, trained(JUDGE, seed=2), settings, conditional=False)
    with torch.no_grad():
        for convolution in distiller.maps:
            weight = convolution.get_parameter("weight")
            weight.copy_(torch.eye(len(weight))[:, :, None, None])
    x = X.batch([0, 1])
    parts = distiller(distiller.teach(x), x, *student.features(x, distiller.student_taps))
    assert all(value.item() <= (1e-10 if form == "mse" else 1e-5) for value in parts.values())
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in student.parameters())


def test_gradients_reach_the_student_and_the_maps_and_nothing_else() -> None:
    teacher, judge = trained(RESNET, seed=1), trained(JUDGE, seed=2).requires_grad_(False)
    student = slimmed(teacher).train()
    before = copied(teacher.state_dict() | judge.state_dict())
    distiller = Distiller(teacher, student, judge, ALL, conditional=False)
    assert {name for name, _ in distiller.named_parameters()} == {f"maps.{n}.weight" for n in range(4)}
    x = X.batch([0, 1])
    lesson = distiller.teach(x)
    assert not any(t.requires_grad for t in (lesson[0], *lesson[1]))
    parts = distiller(lesson, x, *student.features(x, distiller.student_taps))
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    for trained_part in (student, distiller):
        assert all(
            p.grad is not None and p.grad.abs().max().item() > 0
            for name, p in trained_part.named_parameters()
            if name.endswith("weight")
        )
    assert all(p.grad is None for net in (teacher, judge) for p in net.parameters())
    assert_equal(teacher.state_dict() | judge.state_dict(), before)
