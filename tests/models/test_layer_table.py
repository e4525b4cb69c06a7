"""A spec states the groups that its network has, and a table holds together: what is joined or added fits."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from mggc_edge.errors import SpecError
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import INPUT, TableBuilder
from mggc_edge.models.network import NORM_EPSILON, Network, norm_scale_shift
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec, NormKind
from mggc_edge.models.unet import unet_spec
from tests.models.model_helpers import masks_of, network_of, picture_for, run, small_networks, some_kept, spec_id

RESNET = resnet_spec(blocks=2, ngf=4)


def with_group(spec: NetworkSpec, group: object, width: int = 4) -> NetworkSpec:
    return replace(spec, widths=(*spec.widths, (group, width)))  # type: ignore[arg-type]


# --- names of channel groups ---


@pytest.mark.parametrize(
    "group", ["", "Stem", "a b", "a_b", "a\n", "\x1b[31m", "é", "x" * 41, 3, None], ids=lambda group: repr(group)[:12]
)
def test_a_name_that_is_none_of_a_channel_group_is_refused(group: object) -> None:
    with pytest.raises(SpecError) as error:
        with_group(RESNET, group)
    assert error.value.message == f"{str(group)!r} is no name of a channel group"
    assert error.value.hint == "a name has up to 40 small letters, digits and dots"


def test_of_a_name_without_end_60_characters_are_shown() -> None:
    with pytest.raises(SpecError) as error:
        with_group(RESNET, "X" * 10**6)
    assert error.value.message == f"'{'X' * 60}' is no name of a channel group"


def test_a_name_may_have_40_characters() -> None:
    assert with_group(RESNET, "a.0" + "z" * 37).widths[-1] == ("a.0" + "z" * 37, 4)


@pytest.mark.parametrize(
    ("spec", "group", "width"),
    [
        (RESNET, "ghost", 4),
        (RESNET, "ghost", 0),
        (RESNET, "block3.inner", 4),
        (RESNET, "block3.inner", 0),
        (RESNET, "block0.inner", 0),
        (RESNET, "output", 3),
        (RESNET, "input", 3),
        (unet_spec(halvings=5, ngf=4), "block1.inner", 0),
        (unet_spec(halvings=5, ngf=4), "down6", 0),
        (patchgan_spec(ndf=4), "layer5", 0),
    ],
)
def test_a_group_that_the_family_does_not_have_at_this_depth_is_refused(
    spec: NetworkSpec, group: str, width: int
) -> None:
    with pytest.raises(SpecError) as error:
        layer_table(with_group(spec, group, width))
    assert error.value.message == f"a {spec.family} of this depth has no channel group '{group}'"


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_inner_group_of_a_removed_block_is_still_one_of_the_network(norm: NormKind) -> None:
    spec = replace(RESNET, norm=norm).with_widths({"block1.inner": 0, "block2.inner": 0})
    groups = {group.name: group for group in layer_table(spec).groups}
    assert groups["block1.inner"].writers == ()
    assert (groups["block1.inner"].minimum, groups["stem"].minimum) == (0, 1)


# --- rows that do not fit together ---


def builder() -> TableBuilder:
    table = TableBuilder(RESNET, (16, 16))
    table.conv("stem", INPUT, "stem", kernel=3, padding=1, bias=True)
    table.conv("half", "stem", "stem", kernel=3, stride=2, padding=1, bias=True)
    table.conv("wide", "stem", "down1", kernel=3, padding=1, bias=True)
    return table


def test_a_row_adds_what_has_its_own_group_and_size() -> None:
    table = builder()
    table.conv("sum", "wide", "stem", kernel=1, bias=True, adds="stem")
    assert table.finish().layers[-1].adds == "stem"


@pytest.mark.parametrize(
    ("adds", "message"),
    [
        ("wide", "layer sum writes stem at 16x16, and cannot add down1 at 16x16"),
        ("half", "layer sum writes stem at 16x16, and cannot add stem at 8x8"),
        (INPUT, "layer sum writes stem at 16x16, and cannot add input at 16x16"),
    ],
)
def test_a_row_cannot_add_what_has_another_group_or_size(adds: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        builder().conv("sum", "wide", "stem", kernel=1, bias=True, adds=adds)
    assert error.value.message == message


@pytest.mark.parametrize(
    ("reads", "message"),
    [
        ("wide", "layer deep is depthwise, but reads down1 and writes stem"),
        (("stem", "stem"), "layer deep is depthwise, but reads stem, stem and writes stem"),
    ],
)
def test_a_depthwise_row_writes_the_group_that_it_reads(reads: str | tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError) as error:
        builder().conv("deep", reads, "stem", op="depthwise_conv", kernel=3, padding=1, bias=True)
    assert error.value.message == message


# --- masks ---


@pytest.mark.parametrize("spec", small_networks(), ids=spec_id)
def test_a_mask_for_every_group_is_taken(spec: NetworkSpec) -> None:
    network = network_of(spec)
    run(network, picture_for(network), masks_of(network.table, some_kept(spec, 0)))


def test_a_mask_for_a_group_that_the_network_does_not_have_is_refused() -> None:
    network = Network(RESNET)
    with pytest.raises(SpecError, match=re.escape("this network has no channel group 'block3.inner' to mask")) as error:
        network(torch.zeros(1, 3, 16, 16), {"stem": torch.ones(4), "block3.inner": torch.ones(16)})
    assert error.value.hint == "its groups: stem, down1, trunk, block1.inner, block2.inner, up1, up2"


# --- batch norm ---


def test_scale_and_shift_of_a_batch_norm_are_what_it_does_in_evaluation_mode() -> None:
    network = network_of(resnet_spec(blocks=1, ngf=4, norm="batch"), dtype=torch.float32)
    scale, shift = norm_scale_shift(network.state_dict(), "model.2")
    assert (scale.dtype, shift.dtype) == (torch.float64, torch.float64)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norm = torch.nn.BatchNorm2d(4, eps=NORM_EPSILON).double().eval()
    norm.load_state_dict(network.get_submodule("model.2").state_dict())
    assert torch.allclose(x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1), norm(x), rtol=0, atol=1e-12)
